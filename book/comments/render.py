"""A comment's Markdown as safe HTML: written by us from its tokens, then passed through nh3's list of what may stay."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from pygments.util import ClassNotFound

from book.comments.formulas import Formulas, Unavailable
from book.plain import plain_code

FORMAT = "1"  # of the HTML; another number has every comment rendered again at the next start
LINKS = 5
DEEPEST = 20  # lists and quotes in one another

#: The languages that are coloured. Not C, C++ and Java: their lexers take seconds for a page of empty lines.
LANGUAGES = {
    "python": "python", "py": "python", "python3": "python", "ipython": "python", "ipython3": "python",
    "pycon": "pycon", "bash": "bash", "sh": "bash", "shell": "bash", "json": "json", "yaml": "yaml", "toml": "toml",
    "sql": "sql", "go": "go", "rust": "rust", "javascript": "javascript", "js": "javascript",
    "typescript": "typescript", "ts": "typescript", "diff": "diff",
}  # fmt: skip
COLOURED = 3000  # characters of code in a comment: the time of some lexers grows with the square

_TAGS = {"p", "br", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr", "div", "span"}
_CLASSES = {"div": {"highlight", "math", "formula"}, "span": {"math", *filter(None, STANDARD_TYPES.values())}}
_CLEANER = nh3.Cleaner(
    tags=_TAGS,
    attributes={"*": set(), "a": {"href"}, "ol": {"start"}},
    allowed_classes=_CLASSES,
    url_schemes={"http", "https", "mailto"},
    link_rel="nofollow ugc noopener",
    clean_content_tags={"script", "style"},
)
_FORMATTER = HtmlFormatter(nowrap=True)


class TooManyLinks(Exception):
    """The text holds more links than a comment may."""


@dataclass(frozen=True)
class Rendered:
    html: str
    renderer: str  # which versions made it; another string means: render again


@dataclass
class _Place:
    """What one text has so far, while it is rendered: its formulas, and where they go; how much code was coloured."""

    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    formulas: list[tuple[str, bool]] = field(default_factory=list)
    coloured: int = 0

    def put(self, latex: str, display: bool) -> str:
        self.formulas.append((latex.strip(), display))
        return self.mark(len(self.formulas) - 1)

    def mark(self, number: int) -> str:
        return f"{self.nonce}-{number}-"


class _HTML(RendererHTML):
    """The tokens that a comment shows in its own way."""

    def heading_open(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return "<p><strong>"  # a reader's heading must not enter the page's outline

    def heading_close(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return "</strong></p>\n"

    def image(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return escapeHtml(self.renderInlineAsText(tokens[idx].children or [], options, env))

    def fence(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        words = tokens[idx].info.strip().lower().split()
        code, place = tokens[idx].content, env["place"]
        language = LANGUAGES.get(words[0].strip("{}.")) if words else None
        place.coloured += len(code) if language else 0
        return _code(code, language if place.coloured <= COLOURED else None)

    def code_block(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return _code(tokens[idx].content, None)

    def math_inline(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return f'<span class="math">{env["place"].put(tokens[idx].content, False)}</span>'

    def math_block(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return f'<div class="math"><div class="formula">{env["place"].put(tokens[idx].content, True)}</div></div>\n'

    def math_inline_double(self, tokens: Sequence[Token], idx: int, options, env) -> str:
        return f'<span class="math">{env["place"].put(tokens[idx].content, True)}</span>'


def _code(code: str, language: str | None) -> str:
    body = escapeHtml(code)
    if language:
        try:
            body = plain_code(highlight(code, get_lexer_by_name(language, stripnl=False), _FORMATTER))
        except ClassNotFound:
            pass
    return f'<div class="highlight"><pre><span></span>{body}</pre></div>\n'


def _markdown() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": DEEPEST}
    markdown = MarkdownIt("commonmark", options, renderer_cls=_HTML).enable("strikethrough")
    # Links defined elsewhere, and tables (not enabled), take seconds when there are a thousand lines of them.
    markdown.disable("reference")
    dollarmath_plugin(markdown, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    for name in ("math_inline", "math_block", "math_inline_double"):  # the plugin puts its own in
        markdown.renderer.rules[name] = getattr(markdown.renderer, name)
    return markdown


class Renderer:
    """Markdown with code and mathematics; safe to use from several threads."""

    def __init__(self, root: Path):
        self.formulas = Formulas(root)
        self._markdown = _markdown()
        parts = [FORMAT, *(version(name) for name in ("markdown-it-py", "mdit-py-plugins", "nh3", "pygments"))]
        self.version = " ".join([*parts, self.formulas.version or "-"])

    def render(self, text: str, most_links: int | None = LINKS) -> Rendered:
        """`text` as HTML. Raises TooManyLinks."""
        html, place = self._safe(text, most_links)
        renderer = self.version
        try:
            formulas = self.formulas.html(place.formulas)
        except Unavailable:
            formulas, renderer = [None] * len(place.formulas), f"{self.version} without formulas"
        return Rendered(_fill(html, place, formulas), renderer)

    def without_formulas(self, text: str) -> str:
        """For where there is no style sheet: formulas stay as their source."""
        html, place = self._safe(text, None)
        return _fill(html, place, [None] * len(place.formulas))

    def _safe(self, text: str, most_links: int | None) -> tuple[str, _Place]:
        place = _Place()
        env = {"place": place}
        tokens = self._markdown.parse(text, env)
        links = sum(child.type == "link_open" for token in tokens for child in token.children or ())
        if most_links is not None and links > most_links:
            raise TooManyLinks
        html = self._markdown.renderer.render(tokens, self._markdown.options, env)
        return _CLEANER.clean(html), place

    def close(self) -> None:
        self.formulas.close()


def _fill(html: str, place: _Place, formulas: Sequence[str | None]) -> str:
    for number, ((latex, _), formula) in enumerate(zip(place.formulas, formulas)):
        html = html.replace(place.mark(number), formula or f"<code>{escapeHtml(latex)}</code>", 1)
    return html
