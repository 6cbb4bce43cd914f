"""What the reader can do: search, switch theme, unfold, download, move by keyboard."""

from __future__ import annotations

import json

CHAPTER = "chapters/foundations/linear-algebra.html"


def test_search_finds_a_word(open_page):
    page = open_page("search.html?q=eigenvalue")
    page.wait_for_selector("ul.search li a")
    targets = page.locator("ul.search li a").evaluate_all("links => links.map(a => a.getAttribute('href'))")
    assert any("linear-algebra.html" in target for target in targets)
    page.locator("ul.search li a").first.click()
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").is_visible()
    assert page.problems == []


def test_theme_switches_and_persists(open_page):
    page = open_page(CHAPTER, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name="Dark theme")
    button.click()
    dark = page.evaluate(ground)
    assert dark != light and button.get_attribute("aria-pressed") == "true"
    page.reload(wait_until="networkidle")
    assert page.evaluate(ground) == dark
    page.goto(page.url.replace(CHAPTER, "index.html"))
    assert page.evaluate(ground) == dark, "on every page"
    button.click()
    assert page.evaluate(ground) == light
    assert page.problems == []


def test_figures_follow_the_theme_and_only_one_is_fetched(open_page):
    for scheme in ("light", "dark"):
        page = open_page(CHAPTER, color_scheme=scheme)
        figure = page.locator("article figure img:visible").first
        figure.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        shown = page.locator("article figure img").evaluate_all(
            "all => all.filter(i => i.checkVisibility()).map(i => i.currentSrc)"
        )
        fetched = page.evaluate(
            "performance.getEntriesByType('resource').map(e => e.name).filter(n => n.endsWith('.svg'))"
        )
        hidden = page.locator("article figure img").evaluate_all(
            "all => all.filter(i => !i.checkVisibility()).map(i => i.src)"
        )
        assert shown and not set(hidden) & set(fetched)


def test_folded_answers_open_by_keyboard(open_page):
    page = open_page(CHAPTER)
    summary = page.locator("article details summary").last
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.evaluate("e => e.parentElement.open")


def test_the_first_tab_stop_skips_to_the_content(open_page):
    page = open_page(CHAPTER)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip().lower().startswith("skip to")


def test_downloads_are_notebooks_with_outputs(open_page, site):
    page = open_page(CHAPTER)
    links = page.locator("a.download").evaluate_all("links => links.map(a => a.href)")
    assert len(links) == 3
    for link in links:
        notebook = json.loads(page.request.get(link).text())
        assert any(cell.get("outputs") for cell in notebook["cells"])


def test_the_policy_forbids_what_is_not_ours(open_page, site):
    page = open_page(CHAPTER)
    policy = page.request.get(f"{site}/{CHAPTER}").headers["content-security-policy"]
    scripts = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
    assert "'unsafe-inline'" not in scripts and "http" not in scripts
    assert page.problems == []


def test_printing_shows_the_article_alone(open_page):
    page = open_page(CHAPTER)
    page.emulate_media(media="print")
    assert page.locator("h1").is_visible()
    assert not page.locator(".bd-sidebar-primary").first.is_visible()
