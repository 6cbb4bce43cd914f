"""Figures in both themes: each SVG is published light and dark, and the style sheet shows one.

The hidden one is `loading="lazy"`, so it is not fetched. Colours are swapped by name
(`groundup.plotting.DARK`); sizes are known beforehand, so that nothing moves while a page loads.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from groundup import plotting

logger = logging.getLogger(__name__)

#: the page's own paper, where a figure says white
LIGHT = {plotting.PAPER: "#fcfbf8"}
PIXELS = {"pt": 4 / 3, "px": 1, "": 1, "in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4}


def recolour(svg: str, colours: dict[str, str]) -> str:
    """`svg` with every colour that is a key of `colours` replaced by its value."""
    return re.sub(r"#[0-9a-fA-F]{6}\b", lambda found: colours.get(found[0].lower(), found[0]), svg)


def minify(svg: str) -> str:
    """`svg` without metadata, comments and white space, its coordinates to two decimals."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(\s(?:d|points|x|y|x1|y1|x2|y2|cx|cy|r|width|height|dx|dy)=")([^"]*)"', _round, svg)
    svg = re.sub(r"(translate\()([^)]*)(?=\))", _round, svg)
    svg = re.sub(r' d="([^"]*)" transform="scale\(0\.015625\)"', _glyph, svg)
    return re.sub(r">\s+<", "><", svg).strip() + "\n"


def _glyph(found: re.Match) -> str:
    """A letter's outline, which makes up half of a figure, in steps of 1/400 em and relative to the point before."""
    out, here, start = [], (0, 0), (0, 0)
    for command, numbers in re.findall(r"([MLQCz])([^MLQCz]*)", found[1]):
        values = [round(float(number) / 16) for number in numbers.split()]
        points = list(zip(values[::2], values[1::2]))
        if command == "z":
            out.append("z")
            here = start
            continue
        moved = [f"{x - here[0]} {y - here[1]}" for x, y in points]
        out.append(command.lower() + " ".join(moved).replace(" -", "-"))
        here = points[-1]
        if command == "M":
            start = here
    return f' d="{"".join(out)}" transform="scale(.25)"'


def _round(found: re.Match) -> str:
    numbers = re.sub(r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), found[2])
    return found[1] + " ".join(numbers.split()) + ('"' if found[0].endswith('"') else "")


def dimensions(file: Path) -> tuple[int, int] | None:
    """Width and height of an SVG or PNG in CSS pixels; None when the file does not say."""
    if file.suffix == ".svg":
        tag = re.search(r"<svg\b[^>]*>", file.read_text(encoding="utf-8"), re.S)
        sizes = [re.search(rf'\s{side}="([\d.]+)(\w*)"', tag[0]) for side in ("width", "height")] if tag else [None]
        if all(sizes) and all(size[2] in PIXELS for size in sizes):
            return tuple(round(float(size[1]) * PIXELS[size[2]]) for size in sizes)
        if tag and (box := re.search(r'viewBox="[\d.-]+[ ,]+[\d.-]+[ ,]+([\d.]+)[ ,]+([\d.]+)"', tag[0])):
            return round(float(box[1])), round(float(box[2]))
    elif file.suffix == ".png":
        head = file.read_bytes()[:24]
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return struct.unpack(">II", head[16:24])
    return None


@cache
def themed(file: Path) -> tuple[str, str]:
    """The SVG in `file`, light and dark."""
    svg = minify(file.read_text(encoding="utf-8"))
    return recolour(svg, LIGHT), recolour(svg, plotting.DARK)


def visit_image(self, node: nodes.image) -> None:
    """Write an image with its size; an SVG whose colours differ by theme, twice."""
    uri = node["uri"]
    file = Path(self.builder.srcdir, uri)
    if uri not in self.builder.images or not file.is_file():
        return _visit_original(self, node)
    if not node.get("alt"):
        logger.warning(
            "this figure has no text for those who cannot see it; add `mystnb: image: alt:` to the cell's options",
            location=node,
        )
    name = self.builder.images[uri]
    folder = f"{self.builder.imgpath}/" if self.builder.imgpath else ""
    size = dimensions(file)
    given = {key: node[key] for key in ("width", "height") if key in node}
    attributes = {"alt": node.get("alt", ""), "loading": "lazy", "decoding": "async"}
    if size:
        attributes |= {"width": size[0], "height": size[1]}
    if given:
        attributes["style"] = ";".join(f"{key}:{value}{'px' * value.isdigit()}" for key, value in given.items())

    def tag(file_name: str, *classes: str) -> str:
        classes = [*node.get("classes", []), *classes]
        pairs = {"src": folder + file_name, **attributes} | ({"class": " ".join(classes)} if classes else {})
        return "<img " + " ".join(f'{key}="{escape(str(value))}"' for key, value in pairs.items()) + "/>"

    if file.suffix == ".svg" and len(set(themed(file))) == 2:
        html = tag(name, "in-light") + tag(dark(name), "in-dark")
    else:
        html = tag(name, *(["raster"] if file.suffix != ".svg" else []))
    self.body.append(html + ("\n" if isinstance(node.parent, nodes.figure) else ""))
    raise nodes.SkipNode


def dark(name: str) -> str:
    return f"{name.removesuffix('.svg')}.dark.svg"


def _visit_original(self, node: nodes.image) -> None:
    type(self).visit_image(self, node)
    raise nodes.SkipNode


def _publish(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    folder = app.outdir / app.builder.imagedir
    for uri, name in app.builder.images.items():
        if name.endswith(".svg"):
            light, darker = themed(Path(app.srcdir, uri))
            (folder / name).write_text(light, encoding="utf-8")
            if darker != light:
                (folder / dark(name)).write_text(darker, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.add_node(nodes.image, override=True, html=(visit_image, None))
    app.connect("build-finished", _publish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
