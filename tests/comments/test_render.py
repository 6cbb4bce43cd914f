"""A comment's text as HTML: what it may hold, what becomes of attacks, and how long the worst takes."""

from __future__ import annotations

import base64
import html
import re
import time
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from book.comments import formulas, text
from book.comments.formulas import Formulas, Unavailable, is_harmless
from book.comments.render import LANGUAGES, Renderer, TooManyLinks
from readers import ROOT

TAGS = {"p", "br", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "a", "hr", "div", "span"}
THREAD = {"ol", "li", "p", "span", "a", "time", "div"}


class Seen(HTMLParser):
    """Every tag with its attributes, outside of KaTeX's output and in it."""

    def __init__(self, page: str):
        super().__init__()
        self.plain: list[tuple[str, dict]] = []
        self.katex: list[tuple[str, dict]] = []
        self._depth = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        inside = self._depth or ("class", "katex") in attrs or ("class", "katex-display") in attrs
        (self.katex if inside else self.plain).append((tag, dict(attrs)))
        self._depth += bool(inside)

    def handle_startendtag(self, tag, attrs):
        (self.katex if self._depth else self.plain).append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self._depth -= bool(self._depth)


def assert_safe(page: str, tags=TAGS) -> None:
    """Only marks that a comment may have; nothing that runs, loads, covers or links by another scheme."""
    seen = Seen(page)
    for tag, attributes in seen.plain:
        assert tag in tags, (tag, page[:500])
        allowed = {"a": {"href", "rel", "class"}, "ol": {"start", "class"}, "div": {"class"}, "span": {"class"}}
        if tags is not TAGS:
            allowed |= {
                "li": {"class", "id", "data-id", "data-kind", "data-section"},
                "p": {"class"},
                "time": {"datetime"},
            }
        assert set(attributes) <= allowed.get(tag, set()), (tag, attributes)
        if "href" in attributes:
            assert urlsplit(attributes["href"]).scheme in ("http", "https", "mailto", ""), attributes
            assert (
                attributes.get("class") == "when"
                or attributes["href"].startswith("#")
                or (attributes["rel"] == "nofollow ugc noopener")
            )
    for tag, attributes in seen.katex:
        assert tag not in ("a", "img", "script", "iframe", "style", "image", "use", "object"), tag
        assert not [name for name in attributes if name.startswith(("on", "href", "src", "xlink", "id"))], attributes
        assert not re.search(r"fixed|absolute|sticky|url\(|expression|z-index", attributes.get("style", "")), attributes


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("a\nb", "<p>a<br>\nb</p>\n"),
        ("# Title <b>", "<p><strong>Title &lt;b&gt;</strong></p>\n"),
        ("Title\n===", "<p><strong>Title</strong></p>\n"),
        ("![alt *x* <](https://e.x/p.png)", "<p>alt x &lt;</p>\n"),
        ("[a](https://e.x/?a=1&b=2 \"title\")", '<p><a href="https://e.x/?a=1&amp;b=2" rel="nofollow ugc noopener">a</a></p>\n'),
        ("<https://e.x>", '<p><a href="https://e.x" rel="nofollow ugc noopener">https://e.x</a></p>\n'),
        ("[a](/chapters/x.html#y)", '<p><a href="/chapters/x.html#y" rel="nofollow ugc noopener">a</a></p>\n'),
        ("<b>x</b>", "<p>&lt;b&gt;x&lt;/b&gt;</p>\n"),
        ("costs $5 and $10", "<p>costs $5 and $10</p>\n"),
        ("a\n\n3. b", '<p>a</p>\n<ol start="3">\n<li>b</li>\n</ol>\n'),
        ("```\n<x>\n```", '<div class="highlight"><pre><span></span>&lt;x&gt;\n</pre></div>\n'),
        ("```nonsense\nx\n```", '<div class="highlight"><pre><span></span>x\n</pre></div>\n'),
        ("```python\ndef f(x): return x + 1\n```",
         '<div class="highlight"><pre><span></span><span class="k">def</span> <span class="nf">f</span>(x): <span class="k">return</span> x + '
         '<span class="mi">1</span>\n</pre></div>\n'),
    ],
)  # fmt: skip
def test_what_is_shown(renderer, source, shown):
    assert renderer.render(source).html == shown


@pytest.mark.parametrize("source", ["$x^2$", "$$x^2$$", "a $$x^2$$ b", "$$\nx^2\n$$"])
def test_mathematics(renderer, source):
    shown = renderer.render(source).html
    assert (
        'class="katex"' in shown and "<math" in shown and 'application/x-tex">x^2<' in shown and "<code>" not in shown
    )
    assert ("katex-display" in shown) == ("$$" in source)


def test_formulas_are_set_as_on_the_page(renderer, monkeypatch):
    from book.extensions import maths

    for name, value in (("NODEJS_BINARY", maths.node()), ("STARTUP_TIMEOUT", 60.0), ("RENDER_TIMEOUT", 60.0)):
        monkeypatch.setattr(maths.katex, name, value)
    maths._renderer()
    for latex in (
        r"\frac{1}{2}\sqrt{x}",
        r"\mathbf{A}^\top \otimes \hat\beta",
        r"\begin{pmatrix}a&b\\c&d\end{pmatrix}",
        r"p(x \mid y)",
    ):
        assert maths.html(latex, False) in renderer.render(f"${latex}$").html


@pytest.mark.parametrize("latex", [
    r"\begin{aligned} a &= b \\ c &= d \end{aligned}", r"\begin{array}{c|c} a & b \\ \hline c & d \end{array}", r"\boxed{x}", r"\cancel{x}",
    r"\color{red} x", r"\textcolor{#f00}{x}", r"\xrightarrow{abc}", r"\overbrace{a+b}^{n}", r"\mathbb{R}", r"\begin{cases} 1 \\ 2 \end{cases}",
    r"\sum_{i=1}^n \int_0^1 \prod \lim_{x \to 0}", r"\left( \frac{a}{b} \right)", r"\def\a{x} \a", r"\underline{x}\overline{y}\widehat{abc}", r"\fcolorbox{red}{blue}{x}",
    r"\text{if } x < 1 \text{ & more}" .replace("&", r"\&"), r"\operatorname{softmax}", r"\colorbox{aqua}{$x$}".replace("$", ""), r"\tfrac12 \dfrac12 \binom{n}{k}",
])  # fmt: skip
def test_useful_mathematics_is_set(renderer, latex):
    assert "<code>" not in renderer.render(f"${latex}$").html, latex


SCRIPT = "window.marker=1"
XSS = [
    f"<script>{SCRIPT}</script>", f"<img src=x onerror={SCRIPT}>", f"<svg onload={SCRIPT}>", f"<svg><script>{SCRIPT}</script></svg>",
    f"<iframe src='javascript:{SCRIPT}'></iframe>", f"<body onload={SCRIPT}>", f"<a href='javascript:{SCRIPT}'>x</a>", f"[x](javascript:{SCRIPT})",
    f"[x](JaVaScRiPt:{SCRIPT})", f"[x](java\tscript:{SCRIPT})", f"[x](&#106;avascript:{SCRIPT})", f"[x](&#x6A;avascript&colon;{SCRIPT})",
    f"[x](javascript&#58;{SCRIPT})", f"<javascript:{SCRIPT}>", f"[x](data:text/html,<script>{SCRIPT}</script>)",
    "[x](data:text/html;base64," + base64.b64encode(f"<script>{SCRIPT}</script>".encode()).decode() + ")", f"[x](vbscript:{SCRIPT})",
    f"[x](\x01javascript:{SCRIPT})", f"[x](%6Aavascript:{SCRIPT})", f"![x](javascript:{SCRIPT})", f"![\"onerror=\"{SCRIPT}](x)",
    f"[x](http://a.b \"title\" onmouseover=\"{SCRIPT}\")", f"[x](http://a.b\"onmouseover=\"{SCRIPT})", f"[x](<http://a.b\" onmouseover=\"{SCRIPT}>)",
    f"`<img src=x onerror={SCRIPT}>`", f"```html\n<img src=x onerror={SCRIPT}>\n```", f"```\"><script>{SCRIPT}</script>\nx\n```",
    f"```python\"onclick=\"{SCRIPT}\nx\n```", f"    <script>{SCRIPT}</script>", f"&lt;script&gt;{SCRIPT}&lt;/script&gt;", f"&#60;script&#62;{SCRIPT}&#60;/script&#62;",
    f"\\<script>{SCRIPT}</script>", f"<<script>script>{SCRIPT}</script>", f"<scr<script>ipt>{SCRIPT}</script>", f"<!--><script>{SCRIPT}</script>-->",
    f"<![CDATA[<script>{SCRIPT}</script>]]>", f"<?xml?><script>{SCRIPT}</script>", f"</div></li></ol><script>{SCRIPT}</script>", f"\u003cscript\u003e{SCRIPT}\u003c/script\u003e",
    f"\uff1cscript\uff1e{SCRIPT}\uff1c/script\uff1e", f"+ADw-script+AD4-{SCRIPT}+ADw-/script+AD4-", f"<math><mtext><table><mglyph><style><img src=x onerror={SCRIPT}>",
    f"<form><button formaction=javascript:{SCRIPT}>x", f"<details open ontoggle={SCRIPT}>", f"<input autofocus onfocus={SCRIPT}>", f"<template><script>{SCRIPT}</script></template>",
    "<base href='//evil.example/'>", "<meta http-equiv=refresh content='0;url=//evil.example'>", "<link rel=stylesheet href=//evil.example>",
    "<style>*{display:none}</style>", "<object data=//evil.example>", f"# <script>{SCRIPT}</script>", f"> <script>{SCRIPT}</script>", f"- <script>{SCRIPT}</script>",
    f"**<script>{SCRIPT}</script>**", f"|<script>{SCRIPT}</script>|\n|-|\n|<img src=x onerror={SCRIPT}>|", f"[<img src=x onerror={SCRIPT}>](http://a.b)",
    f"$<script>{SCRIPT}</script>$", f"$$<img src=x onerror={SCRIPT}>$$", rf"$\href{{javascript:{SCRIPT}}}{{x}}$", rf"$\url{{javascript:{SCRIPT}}}$",
    rf"$\htmlData{{onclick={SCRIPT}}}{{x}}$", r"$\htmlStyle{position:fixed}{x}$", r"$\htmlId{comments}{x}$", r"$\htmlClass{bar}{x}$",
    r"$\includegraphics{https://evil.example/x.png}$", rf"$\text{{<img src=x onerror={SCRIPT}>}}$", r"$\textcolor{red;position:fixed;inset:0}{x}$",
    rf"$\color{{red\"onclick=\"{SCRIPT}}}x$", rf"$\unknown{{<script>{SCRIPT}</script>}}$", r"$\rule{1000em}{1000em}$", r"$\kern-500em x$",
    r"$\raisebox{500em}{x}$", r"$\rlap{\kern 400em x}$", r"$$\\[-500em] x$$", r"$\hspace{-500em}\rule{500em}{500em}$", r"$\style{x}{y}\def\a{<b>}\a$",
]  # fmt: skip


def encodings(attack: str) -> list[str]:
    """The attack as it is and as filters overlook it: entities, percent signs, doubled, in bold, in a link, in code, in mathematics."""
    return [
        attack, html.escape(attack), "".join(f"&#{ord(c)};" for c in attack), "".join(f"&#x{ord(c):x};" for c in attack),
        "".join(f"%{byte:02x}" for byte in attack.encode()), attack.upper(), attack.replace("<", "<\x00"), attack.replace("script", "scr\u200bipt"),
        attack.replace(" ", "/"), attack.replace(" ", "\n"), f"*{attack}*", f"[{attack}]({attack})", f"> - {attack}", f"`{attack}`", f"${attack}$", f"\\{attack}",
    ]  # fmt: skip


@pytest.mark.parametrize("attack", XSS, ids=lambda attack: attack[:40])
def test_attacks_in_the_text(renderer, attack):
    for source in encodings(attack):
        cleaned = text.clean(source)
        assert_safe(renderer.render(cleaned, most_links=None).html)
        assert_safe(renderer.without_formulas(cleaned))


@given(
    st.lists(st.sampled_from([*XSS, *"<>\"'`$*_[]()!#-\\&;\n ", "](", "$$", "```", "&#", "~~"]), max_size=30).map(
        "".join
    )
)
@settings(max_examples=150)
def test_attacks_in_any_mixture(renderer, source):
    assert_safe(renderer.render(text.clean(source), most_links=None).html)


@given(st.text(max_size=300))
@example("\x00")
@settings(max_examples=150)
def test_any_text(renderer, source):
    assert_safe(renderer.render(text.clean(source), most_links=None).html)


def test_placeholders_cannot_be_guessed(renderer):
    assert renderer.render("0-0- $x$ 0-0-").html.startswith("<p>0-0- <span")


def test_links_are_limited(renderer):
    five = "[a](http://b.c) " * 5
    assert renderer.render(five).html.count("<a ") == 5
    for more in (five + "<http://d.e>", "> " + five + "\n- [x](/y)", five + "\n\n# [x](y)"):
        with pytest.raises(TooManyLinks):
            renderer.render(more)


# --- mathematics that misbehaves ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "latex",
    [
        r"\def\a{\a\a}\a",
        r"\def\a{\a}\a",
        r"\gdef\a#1{\a{#1#1}}\a{x}",
        r"\rule{99999em}{9em}\kern99em\kern-99em",
        r"\frac{" * 500,
        "{" * 3000,
        "x^" * 900,
    ],
)
def test_formulas_that_are_refused_are_shown_as_code(renderer, latex):
    started = time.monotonic()
    shown = renderer.render(f"${latex}$ and $y$").html
    assert f"<code>{html.escape(latex, quote=False)}</code>" in shown and time.monotonic() - started < 10
    assert 'x-tex">y<' in renderer.render("$y$").html, "the next one is set"


def test_a_huge_rule_is_small(renderer):
    shown = renderer.render(r"$\rule{99999em}{99999em}$").html.replace(r"\rule{99999em}{99999em}", "")
    assert 'class="katex"' in shown and max(float(n) for n in re.findall(r"([\d.]+)em", shown)) <= 10


def test_what_a_formula_defines_ends_with_it(renderer):
    renderer.render(r"$\gdef\secret{x}\secret$")
    assert "<code>" in renderer.render(r"$\secret$").html and "<code>" in renderer.render(r"$\gdef\b{x}$ $\b$").html


def test_a_process_that_hangs_is_replaced(monkeypatch):
    own = Formulas(ROOT)
    try:
        own.start()
        first = own._process.pid
        monkeypatch.setattr(formulas, "SECONDS", 0.0)
        assert own.html([("x", False)]) == [None]
        monkeypatch.setattr(formulas, "SECONDS", 30)
        assert own.html([("x", False)])[0].startswith("<span") and own._process.pid != first
        own._process.kill()
        own._process.wait()
        assert own.html([("x", False)])[0].startswith("<span"), "and one that died"
    finally:
        own.close()


def test_without_katex(tmp_path):
    bare = Renderer(tmp_path)
    done = bare.render("**b** $x < 1$")
    assert done.html == '<p><strong>b</strong> <span class="math"><code>x &lt; 1</code></span></p>\n'
    assert done.renderer != bare.version or bare.version.endswith("-"), "rendered again when there is one"
    with pytest.raises(Unavailable, match="npm ci"):
        bare.formulas.html([("x", False)])


@pytest.mark.parametrize(
    "output",
    [
        '<span class="katex"><a href="x">y</a></span>', '<span onclick="x"></span>', '<span style="position:fixed"></span>',
        '<span style="position:absolute"></span>', '<span style="top:-999em"></span>', '<span style="background:url(x)"></span>', "<img>",
        "<script></script>", '<span id="main"></span>', "<span>", "</span>", "<!-- x -->", '<svg xmlns="x"></svg>', '<use href="#x"></use>',
        '<span style="z-index:9"></span>', '<mi href="x"></mi>', '<maction actiontype="x"></maction>', '<span style="height:1em" style="x"></span>',
        '<span style="width:100vw"></span>',
    ],
)  # fmt: skip
def test_the_check_of_what_katex_makes(output):
    assert not is_harmless(output)


# --- the worst case -----------------------------------------------------------------------------------


def filled(part: str, length: int = text.TEXT) -> str:
    return (part * (length // len(part) + 1))[:length]


WORST = {
    "quotes": "> " * 1000 + "x", "quotes grow": "\n".join(">" * n + " a" for n in range(1, 124)), "lists": filled("- "), "lists grow": "\n".join(" " * 2 * n + "- a" for n in range(88)),
    "numbers": filled("1. "), "brackets": "[" * 8000, "closed brackets": "[" * 4000 + "]" * 4000, "links": filled("[a]("), "links in links": filled("[a](b"), "images": filled("!["),
    "definitions": filled("[a]: b\n"), "references": filled("[a][b]"), "stars": "*" * 8000, "emphasis": filled("*a"), "emphasis mixed": filled("a**b*c_d__e"), "emphasis open": "*a " * 1500 + "_b " * 1100,
    "strikes": filled("~~a "), "ticks": filled("`a"), "ticks grow": " ".join("`" * n for n in range(1, 125)), "angles": filled("<a "), "autolinks": filled("<http://"), "entities": filled("&#x"),
    "escapes": "\\" * 8000, "dollars": "$" * 8000, "open formulas": filled("$a "), "open blocks": filled("$$\n"), "rows": filled("a|b\n"), "a wide table": "|".join("a" * 99) + "\n" + "|".join("-" * 99) + "\n" + "a\n" * 3700,
    "headings": filled("# a\n"), "underlines": filled("a\n-\n"), "fences": filled("```\n"), "spaces": " " * 7999 + "a", "breaks": filled("a  \n"), "a title": '[a](b "' + "c" * 7990, "parentheses": "[a](" + "(" * 7990,
    "tall fractions": "$" + r"\frac{1}{" * 400 + "}" * 400 + "$", "a wide matrix": r"$\begin{matrix}" + "a&" * 2500 + r"\end{matrix}$", "a tall matrix": r"$$\begin{matrix}" + r"a\\" * 2000 + r"\end{matrix}$$",
    "many formulas": "$x$ " * 2000, "a long formula": "$" + "x+" * 3900 + "$", "roots": "$" + r"\sqrt x" * 1100 + "$", "delimiters": "$" + r"\left(" * 600 + r"\right)" * 600 + "$", "doubling": r"$\def\a{xx}" + r"\edef\a{\a\a}" * 40 + r"\a$",
}  # fmt: skip


@pytest.mark.parametrize("name", WORST)
def test_the_worst_takes_no_time(renderer, name):
    """CPU seconds of ours, for the machine may be busy; formulas have a clock of their own."""
    renderer.formulas.start()
    started, clock = time.process_time(), time.monotonic()
    shown = renderer.render(WORST[name], most_links=None).html
    assert time.process_time() - started < 1.5 and time.monotonic() - clock < 20
    assert len(shown) < 500_000
    assert_safe(shown)


@pytest.mark.parametrize("language", sorted(set(LANGUAGES.values())))
def test_the_worst_code_takes_no_time(renderer, language):
    parts = ['"', "'", "(", "{", "[", "<", "/", "\\", "a", " ", "1", ".", '"\\', "a ", "a.", "$(", "${", "`", "#", "/*", 'f"{', "\n", "\n ", "a\n", "a<", "*", "&", "'''", "- \n", "def a ", "class a<"]  # fmt: skip
    for part in parts:
        started = time.process_time()
        renderer.render(f"```{language}\n{filled(part, 7900)}\n```")
        renderer.render(f"```{language}\n{filled(part, 2900)}\n```\n" * 2)
        assert time.process_time() - started < 1.5, part
