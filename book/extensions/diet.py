"""What a page loads: one style sheet, one script, the fonts it uses. Nothing of the theme's 3 MB.

While pages are written the theme's scripts and styles are left out. At the end the style sheets are joined,
stripped of Sphinx Design rules that no page uses, and stamped with a hash of their content; KaTeX's fonts
keep only the glyphs that occur; and whatever no page refers to is deleted from `_static`.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import os
import re
from html import unescape
from io import BytesIO
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from book.extensions import maths
from book.plain import plain_code

STATIC = Path(__file__).parents[1] / "static"
STYLES = STATIC / "styles"
logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every table at INFO
SEARCH = ("documentation_options.js", "doctools.js", "sphinx_highlight.js", "searchtools.js", "language_data.js")


def _only_ours(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Keep the scripts and styles that lie in book/static; of the theme's, only tabs, where there are tabs."""

    def keep(asset) -> bool:
        name = str(getattr(asset, "filename", asset) or "").split("?")[0].removeprefix("_static/")
        tabs = name.endswith("design-tabs.js") and "sd-tab-set" in context.get("body", "")
        return bool(name) and (tabs or (STATIC / name).is_file())

    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context.get(kind, ()) if keep(asset)]


def used_classes(pages: list[str]) -> set[str]:
    return {name for page in pages for found in re.findall(r'\sclass="([^"]*)"', page) for name in found.split()}


def without_unused(css: str, used: set[str], prefix: str) -> str:
    """`css` (minified) without the rules whose selectors all name a class `prefix…` that is not in `used`."""

    def selector_used(selector: str) -> bool:
        names = re.findall(r"\.([\w-]+)", re.sub(r":not\([^)]*\)", "", selector))
        return all(name in used for name in names if name.startswith(prefix))

    def rule(found: re.Match) -> str:
        kept = [selector for selector in found[1].split(",") if selector_used(selector)]
        return f"{','.join(kept)}{{{found[2]}}}" if kept else ""

    css = re.sub(r"([^{}@]+)\{([^{}]*)\}", rule, css)
    return re.sub(r"@media[^{}]*\{\}", "", css)


def minify(css: str) -> str:
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.S)
    css = re.sub(r"\s+", " ", css)
    return re.sub(r" ?([{};,>]) ?", r"\1", css).replace(";}", "}").strip()


def formula_text(page: str) -> str:
    """Every character that KaTeX's fonts draw on `page`."""
    texts = []
    for start in re.finditer(r'<span class="katex-html"', page):
        depth = 0
        for token in re.compile(r"<(/?)span\b[^>]*>|<[^>]+>|([^<]+)").finditer(page, start.start()):
            if token[2]:
                texts.append(token[2])
            elif token[1] is not None:
                depth += -1 if token[1] else 1
                if depth == 0:
                    break
    return unescape("".join(texts))


def thin(font: bytes, characters: set[str]) -> bytes:
    """The WOFF2 `font` with only the glyphs of `characters`."""
    options = subset.Options(flavor="woff2", layout_features=["*"], notdef_outline=True, hinting=False)
    options.recalc_timestamp = False
    loaded = TTFont(BytesIO(font), recalcTimestamp=False)
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=sorted(map(ord, characters)))
    chosen.subset(loaded)
    out = BytesIO()
    subset.save_font(loaded, out, options)
    return out.getvalue()


def katex_style(app: Sphinx, pages: list[str]) -> str:
    """KaTeX's style sheet with WOFF2 fonts only, thinned to what the pages show; writes the fonts."""
    dist = maths.assets(app.srcdir)
    css = (dist / "katex.min.css").read_text(encoding="utf-8")
    css = re.sub(r",url\([^)]*\.(?:woff|ttf)\) format\(\"(?:woff|truetype)\"\)", "", css)
    characters = {character for page in pages for character in formula_text(page)}
    folder = app.outdir / "_static/fonts"
    folder.mkdir(parents=True, exist_ok=True)

    def font(found: re.Match) -> str:
        small = thin((dist / "fonts" / found[1]).read_bytes(), characters)
        (folder / found[1]).write_bytes(small)
        return f"url(fonts/{found[1]}?v={_hash(small)})"

    return re.sub(r"url\(fonts/([\w-]+\.woff2)\)", font, css)


def mended(page: str) -> str:
    """`page` with the role that docutils gives a citation replaced: ARIA dropped it, and a list needs items."""
    return page.replace(' role="doc-biblioentry"', ' role="listitem"')


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def _write(file: Path, content: str) -> None:
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        file.write_text(content, encoding="utf-8")


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.name != "html":
        return
    static = app.outdir / "_static"
    files = sorted(file for file in app.outdir.rglob("*.html") if static not in file.parents)
    pages = {file: file.read_text(encoding="utf-8") for file in files}
    used = used_classes(list(pages.values()))
    css = without_unused(katex_style(app, list(pages.values())), used, "") if "katex" in used else ""
    design = (
        importlib.resources.files("sphinx_design").joinpath("static/sphinx-design.min.css").read_text(encoding="utf-8")
    )
    css += without_unused(design, used, "sd-")
    css += "".join(minify(file.read_text(encoding="utf-8")) for file in sorted(STYLES.glob("*.css")))
    css = re.sub(r"url\((fonts/serif[\w.-]+)\)", _stamp_font, css)
    _write(static / "site.css", css)
    stamps = {
        name: _hash((static / name).read_bytes())
        for name in {found for page in pages.values() for found in _own_assets(page)}
        if (static / name).is_file()
    }
    for file, page in pages.items():
        _write(file, _stamp(mended(plain_code(page)), stamps))
    _sweep(app, static)


def _stamp_font(found: re.Match) -> str:
    file = STATIC / found[1]
    if not file.is_file():
        raise ExtensionError(f"the style sheet names {found[1]}, but there is no {file}")
    return f"url({found[1]}?v={_hash(file.read_bytes())})"


def _own_assets(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="[./]*_static/([\w./-]+\.(?:css|js|woff2))(?:\?v=\w*)?"', page)


def _stamp(page: str, stamps: dict[str, str]) -> str:
    """`page` with `?v=hash` on every style sheet, script and font of the site."""

    def stamp(found: re.Match) -> str:
        name = found[2]
        return f'{found[1]}{name}?v={stamps[name]}"' if name in stamps else found[0]

    return re.sub(r'((?:src|href)="[./]*_static/)([\w./-]+\.(?:css|js|woff2))(?:\?v=\w*)?"', stamp, page)


def _sweep(app: Sphinx, static: Path) -> None:
    """Delete from `_static` what neither a page nor the style sheet names."""
    named = set(SEARCH) | {"site.css"}
    for file in app.outdir.rglob("*.html"):
        named |= set(re.findall(r'_static/([^"?#\s]+)', file.read_text(encoding="utf-8")))
    for sheet in [name for name in sorted(named) if name.endswith(".css") and (static / name).is_file()]:
        css = (static / sheet).read_text(encoding="utf-8")
        named |= {os.path.normpath(Path(sheet).parent / url) for url in re.findall(r"url\(([^)?\"]+)", css)}
    for file in static.rglob("*"):
        licence = file.name.startswith("LICENSE")
        if file.is_file() and not licence and file.relative_to(static).as_posix() not in named:
            file.unlink()
    for folder in sorted((path for path in static.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", _only_ours, priority=950)
    app.connect("build-finished", _finish, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
