"""Every page of the site: clean, complete, accessible in both themes, and readable at 320 px."""

from __future__ import annotations

import pytest

from built import ROOT, SITE, page_names

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"


def theme(page, name: str) -> None:
    """Show the page in a theme, its colour transitions finished."""
    page.evaluate(
        f"document.documentElement.dataset.theme = '{name}'; document.documentElement.dataset.mode = '{name}'"
    )
    page.add_style_tag(content="* { transition: none !important; animation: none !important }")


def violations(page) -> list[str]:
    """Serious and critical axe findings, each with the element it is about."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then(r => r.violations)")
    return [
        f"{v['id']}: {node['html'][:120]} ({node['failureSummary'].splitlines()[-1].strip()[:160]})"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


@pytest.mark.parametrize("name", page_names())
def test_page(open_page, name):
    page = open_page(name, bypass_csp=True)  # so that axe can be put in; test_behaviour reads a page without
    html = (SITE / name).read_text(encoding="utf-8")
    assert page.locator("h1").count() == 1
    for colours in ("light", "dark"):
        theme(page, colours)
        assert violations(page) == [], f"in the {colours} theme"
    if 'class="math' in html:
        first = page.locator(".math .katex-html").first
        assert first.evaluate("e => getComputedStyle(e).fontFamily").startswith("KaTeX"), "mathematics is not rendered"
    broken = page.evaluate(
        "Promise.all([...document.images].filter(i => i.checkVisibility()).map(async i => {"
        " i.loading = 'eager'; await i.decode().catch(() => 0); return i.naturalWidth ? null : i.src }))"
    )
    assert [src for src in broken if src] == []
    page.set_viewport_size({"width": 320, "height": 640})
    wide = page.evaluate(
        "document.documentElement.scrollWidth > innerWidth ? [...document.querySelectorAll('body *')].filter("
        "e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 5).map(e => e.outerHTML.slice(0, 100)) : []"
    )
    assert wide == [], "scrolls sideways at 320 px"
    assert page.problems == []


@pytest.mark.parametrize("name", page_names())
def test_without_javascript(open_page, name):
    """The text is there to read, and nothing is missing but what needs a script."""
    page = open_page(name, java_script_enabled=False)
    assert page.locator("h1").is_visible()
    visible = [image for image in page.locator("article img").all() if image.is_visible()]
    sources = [image.get_attribute("src") for image in visible]
    assert len(sources) == len(set(sources))
    assert page.problems == []
