"""The path through the book: the map, the routes, the reader's progress, and definitions on hover and focus."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect
from test_pages import theme, violations

CHAPTER = "chapters/language/transformer.html"
FORMAT = {"format": "ai-from-the-ground-up/progress", "version": 1}
FILE = FORMAT | {
    "read": {"foundations/linear-algebra": "2026-11-01T10:00:00Z", "gone/chapter": "2026-11-01T10:00:00Z"},
    "passed": {"foundations/linear-algebra": ["brackets", "batch", "no such check"], "gone/too": ["x"]},
    "at": {
        "chapter": "foundations/calculus", "section": "the-problem", "title": "The problem", "when": "2026-11-02T10:00:00Z",
    },
}  # fmt: skip


def kept(page) -> dict | None:
    return json.loads(page.evaluate("localStorage.getItem('progress')") or "null")


def give(page, content, name: str = "progress.json") -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    page.locator(".import input").set_input_files(
        {"name": name, "mimeType": "application/json", "buffer": text.encode("utf-8")}
    )


def node(page, name: str):
    return page.locator(f'.map a[data-chapter="{name}"]')


def marked(page, kind: str) -> set[str]:
    return set(page.locator(f".map a.{kind}").evaluate_all("found => found.map(a => a.dataset.chapter)"))


# The map


def test_every_chapter_is_on_the_map_in_reading_order_and_leads_to_its_page(open_page, site):
    page = open_page("index.html")
    links = page.locator(".map a").evaluate_all("found => found.map(a => a.href.baseVal)")
    listed = page.locator(".book-path li > p:first-child a").evaluate_all(
        "found => found.map(a => a.getAttribute('href'))"
    )
    assert links == listed and len(links) > 20
    node(page, "foundations/calculus").click()
    page.wait_for_url("**/chapters/foundations/calculus.html")
    assert page.problems == []


def test_the_map_by_keyboard_shows_what_a_chapter_needs_and_what_needs_it(open_page):
    page = open_page("index.html")
    node(page, "foundations/probability").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.chapter") == "foundations/information", "in reading order"
    assert marked(page, "needed") == {"foundations/linear-algebra", "foundations/calculus", "foundations/probability"}
    needing = marked(page, "needing")
    assert {"language/tokenization", "retrieval/rag-evaluation"} <= needing and "learning/regression" not in needing
    expect(page.locator(".map-says")).to_contain_text("Needs Probability")
    edges = page.locator(".map .edge.needed").evaluate_all(
        "found => found.map(e => e.dataset.from + ' ' + e.dataset.to)"
    )
    assert sorted(edges) == [
        "foundations/calculus foundations/probability",
        "foundations/linear-algebra foundations/calculus",
        "foundations/probability foundations/information",
    ]
    page.keyboard.press("Escape")
    assert marked(page, "needed") == set()
    page.keyboard.press("Tab")
    assert marked(page, "pointed") == {"foundations/optimization"}
    page.keyboard.press("Enter")
    page.wait_for_url("**/chapters/foundations/optimization.html")
    assert page.problems == []


def test_the_map_by_pointer(open_page):
    page = open_page("index.html", reduced_motion="reduce")
    node(page, "language/attention").hover()
    assert marked(page, "pointed") == {"language/attention"} and "networks/neural-networks" in marked(page, "needed")
    page.locator("h1").hover()
    assert marked(page, "pointed") == set() and "A line leads down" in page.locator(".map-says").inner_text()


# Routes


def test_a_route_is_marked_on_the_map_and_kept(open_page):
    page = open_page("index.html")
    button = page.get_by_role("button", name="Take this route: I want to understand LLMs")
    assert button.get_attribute("aria-pressed") == "false" and marked(page, "off") == set()
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    listed = page.locator(".choose").nth(1).get_attribute("data-chapters").split()
    everything = page.locator(".choose").nth(2).get_attribute("data-chapters").split()
    assert marked(page, "off") == set(everything) - set(listed) and "diffusion/guidance" not in listed
    expect(page.locator(".tally")).to_contain_text(f"0 of {len(listed)} on your route")
    page.reload(wait_until="networkidle")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and marked(page, "off") == set()
    assert page.problems == []


# Progress


def test_a_chapter_is_marked_as_read_at_its_end_and_shown_everywhere(open_page, site):
    page = open_page(CHAPTER)
    button = page.get_by_role("button", name="Mark this chapter as read")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".finish [role=status]")).to_contain_text(re.compile(r"Read. That makes 1 of \d\d chapters"))
    expect(page.locator('#nav a[aria-current="page"]')).to_contain_text("(read)")
    assert list(kept(page)["read"]) == ["language/transformer"]
    page.goto(f"{site}/index.html", wait_until="networkidle")
    expect(page.locator(".tally")).to_contain_text(re.compile(r"^1 of \d\d chapters read"))
    assert marked(page, "read") == {"language/transformer"}
    assert node(page, "language/transformer").get_attribute("aria-label").endswith(", read")
    expect(page.locator(".book-path li.read .mine")).to_have_text("Read")
    page.goto(f"{site}/{CHAPTER}", wait_until="networkidle")
    page.get_by_role("button", name="Not read after all").click()
    assert kept(page)["read"] == {} and page.locator("#nav a.read").count() == 0
    assert page.get_by_role("button", name="Mark this chapter as read").is_visible()
    assert page.problems == []


def test_reading_can_be_resumed_where_it_stopped(open_page, site):
    page = open_page(CHAPTER, reduced_motion="reduce")
    page.evaluate("document.querySelector('#count-before-you-run').scrollIntoView()")
    page.wait_for_timeout(700)
    assert kept(page) is None, "a jump to an anchor is not reading"
    page.mouse.move(600, 500)
    page.mouse.wheel(0, 60)
    for _ in range(50):
        if kept(page):
            break
        page.wait_for_timeout(100)
    at = kept(page)["at"]
    assert (at["chapter"], at["section"], at["title"]) == (
        "language/transformer",
        "count-before-you-run",
        "Count before you run",
    )
    page.goto(f"{site}/index.html", wait_until="networkidle")
    link = page.locator(".go-on a")
    expect(link).to_have_text("Transformer, Count before you run")
    link.click()
    page.wait_for_url("**/transformer.html#count-before-you-run")
    assert page.problems == []


def test_progress_goes_out_as_a_file_is_erased_and_comes_back(open_page):
    page = open_page("index.html")
    page.locator(".kept summary").click()
    give(page, FILE)
    said = page.locator(".said")
    expect(said).to_contain_text("1 chapter and 3 passed checks were new. 2 chapters in it are not in this book")
    before = kept(page)
    assert list(before["read"]) == ["foundations/linear-algebra"] and before["at"] == FILE["at"]
    expect(page.locator(".tally")).to_contain_text("2 of")
    expect(page.locator(".go-on a")).to_have_text("Calculus, The problem")
    assert (
        node(page, "foundations/linear-algebra").get_attribute("aria-label").endswith(", read, 2 of 4 exercises passed")
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="Download progress.json").click()
    assert download.value.suggested_filename == "progress.json"
    text = download.value.path().read_text(encoding="utf-8")
    assert json.loads(text) == before

    page.get_by_role("button", name="Erase", exact=True).click()
    assert page.evaluate("document.activeElement.textContent") == "Keep it" and kept(page) == before
    page.keyboard.press("Escape")
    assert kept(page) == before and page.evaluate("document.activeElement.textContent") == "Erase"
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Erase it").click()
    assert kept(page) is None and marked(page, "read") == set()
    expect(said).to_have_text("Your progress was erased.")

    give(page, text)
    expect(said).to_contain_text("1 chapter and 3 passed checks were new")
    assert kept(page) == before
    give(page, text)
    expect(said).to_contain_text("0 chapters and 0 passed checks were new")
    assert kept(page) == before and page.problems == []


def test_the_labs_own_file_is_read_when_dropped(open_page, tmp_path):
    from groundup.checks import record

    for name in ("brackets", "batch", "shards", "two layers"):
        record(tmp_path / "progress.json", "foundations/linear-algebra", name)
    page = open_page("index.html")
    page.evaluate(
        """text => { const files = new DataTransfer(); files.items.add(new File([text], "progress.json"));
        document.querySelector(".progress").dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true})) }""",
        (tmp_path / "progress.json").read_text(encoding="utf-8"),
    )
    expect(page.locator(".said")).to_contain_text("4 passed checks were new")
    assert node(page, "foundations/linear-algebra").get_attribute("aria-label").endswith(", 4 of 4 exercises passed")
    page.goto(page.url.replace("index.html", "exercises/foundations/linear-algebra.html"), wait_until="networkidle")
    expect(page.locator("#nav li li a").first).to_contain_text("4 of 4 passed")
    assert page.problems == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "not a progress file of this book"),
        ({"format": "another", "version": 1}, "not a progress file of this book"),
        ({"format": FORMAT["format"]}, "does not say its version"),
        (FORMAT | {"version": 2}, "newer edition of the book"),
        (FORMAT | {"read": ["a"]}, "chapters read are not names with dates"),
        (FORMAT | {"read": {"a/b": "yesterday, perhaps"}}, "chapters read are not names with dates"),
        (FORMAT | {"passed": {"a/b": "x"}}, "exercises passed are not lists"),
        (FORMAT | {"passed": {"a/b": [1]}}, "exercises passed are not lists"),
        (FORMAT | {"at": {"chapter": "javascript:alert(1)", "section": "", "title": "", "when": "2026-11-01"}}, "where you stopped"),
        (FORMAT | {"route": 3}, "route is not a name"),
        (" " * 1_100_000, "larger than 1 MB"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_in_words_and_changes_nothing(open_page, content, words):
    page = open_page("index.html")
    page.locator(".kept summary").click()
    give(page, FILE)
    expect(page.locator(".said")).to_contain_text("were new")
    before = kept(page)
    give(page, content, "bad.json")
    expect(page.locator(".said.bad")).to_contain_text(words)
    expect(page.locator(".said.bad")).to_contain_text("Nothing was changed")
    assert kept(page) == before and page.problems == []


def test_markup_in_a_file_stays_text(open_page):
    page = open_page("index.html", bypass_csp=True)
    bad = "<img src=x onerror='window.hit=1'>"
    at = FILE["at"] | {"section": bad, "title": bad}
    give(page, json.dumps(FORMAT | {"at": at, "route": bad, "passed": {"foundations/calculus": [bad]}})[:-1]
         + ', "read": {"__proto__": "2026-11-01", "foundations/calculus/../x": "2026-11-01"}}', bad.replace("/", "") + ".json")  # fmt: skip
    expect(page.locator(".go-on a")).to_contain_text("<img")
    assert page.evaluate("window.hit") is None and page.locator(".progress img").count() == 0
    assert kept(page)["read"] == {} and page.evaluate("({}).when") is None


def test_storage_that_is_broken_or_forbidden_stops_nothing(open_page, site):
    page = open_page("index.html")
    page.evaluate("localStorage.setItem('progress', 'not json')")
    page.reload(wait_until="networkidle")
    expect(page.locator(".tally")).to_contain_text("0 of")
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
    )
    page.goto(f"{site}/{CHAPTER}", wait_until="networkidle")
    page.get_by_role("button", name="Mark this chapter as read").click()
    expect(page.locator(".finish [role=status]")).to_contain_text("This browser keeps nothing")
    page.goto(f"{site}/index.html", wait_until="networkidle")
    expect(page.locator(".tally")).to_contain_text("lets the book keep nothing")
    assert page.problems == []


def test_another_tab_is_seen_and_not_overwritten(open_page, site):
    page = open_page("index.html")
    other = page.context.new_page()
    other.goto(f"{site}/{CHAPTER}", wait_until="networkidle")
    other.get_by_role("button", name="Mark this chapter as read").click()
    expect(page.locator(".tally")).to_contain_text("1 of")
    page.get_by_role("button", name="Take this route: All of it").click()
    assert set(kept(page)["read"]) == {"language/transformer"} and kept(other)["route"] == "all-of-it"


# Definitions


def card(page):
    return page.locator("#definition")


def term(page, name: str):
    return page.locator(f'article a[href$="#term-{name}"]').first


def test_a_term_shows_its_definition_by_keyboard(open_page, site):
    page = open_page(CHAPTER)
    fetched = "performance.getEntriesByType('resource').filter(e => e.name.includes('glossary.html')).length"
    assert page.evaluate(fetched) == 0, "read when it is wanted"
    link = term(page, "weight-tying")
    link.focus()
    page.keyboard.press("Tab")
    expect(card(page)).to_contain_text(re.compile("language models", re.I))  # the citation after it
    page.keyboard.press("Shift+Tab")
    expect(card(page)).to_contain_text("weight tying")
    assert link.get_attribute("aria-describedby") == "definition" and card(page).get_attribute("role") == "tooltip"
    said = card(page).inner_text()
    page.keyboard.press("Escape")
    expect(card(page)).to_be_hidden()
    assert page.evaluate("document.activeElement.hash") == "#term-weight-tying", "the focus stays"
    assert link.get_attribute("aria-describedby") is None
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    expect(card(page)).to_be_visible()
    assert page.evaluate(fetched) == 1
    page.keyboard.press("Enter")
    page.wait_for_url("**/glossary.html#term-weight-tying")
    words = page.locator("dt#term-weight-tying + dd").inner_text()
    assert " ".join(words.split()) in " ".join(said.split()), "the glossary's own words"
    assert page.problems == []


def test_a_definition_can_be_pointed_at_and_put_away(open_page):
    page = open_page(CHAPTER, reduced_motion="reduce")
    link = term(page, "context-length")
    link.hover()
    expect(card(page)).to_be_visible()
    word, box = link.bounding_box(), card(page).bounding_box()
    page.mouse.move(word["x"] + 5, (word["y"] + word["height"] + box["y"]) / 2)
    card(page).hover()
    page.wait_for_timeout(600)
    assert card(page).is_visible(), "it can be reached"
    page.keyboard.press("Escape")
    expect(card(page)).to_be_hidden()
    link.hover()
    expect(card(page)).to_be_visible()
    page.keyboard.press("Escape")
    page.wait_for_timeout(400)
    assert card(page).is_hidden(), "what was put away stays away while the pointer rests"
    page.mouse.move(5, 300)
    link.hover()
    expect(card(page)).to_be_visible()
    page.mouse.move(5, 300)
    expect(card(page)).to_be_hidden()


def test_a_citation_shows_its_source(open_page):
    page = open_page(CHAPTER, reduced_motion="reduce")
    link = page.locator('article a[href*="bibliography.html#"]').first
    link.hover()
    expect(card(page)).to_contain_text("A mathematical framework for transformer circuits")
    assert not link.get_attribute("title"), "or the browser shows it twice"
    assert page.problems == []


def test_by_touch_the_first_tap_shows_and_the_second_follows(open_page):
    page = open_page(CHAPTER, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    link = term(page, "context-length")
    link.scroll_into_view_if_needed()
    link.tap()
    expect(card(page)).to_contain_text("Touch the word again")
    page.wait_for_timeout(500)
    assert card(page).is_visible() and "transformer" in page.url
    page.locator("h1").tap()
    expect(card(page)).to_be_hidden()
    link.tap()
    expect(card(page)).to_be_visible()
    link.tap()
    page.wait_for_url("**/glossary.html#term-context-length")


def test_a_glossary_out_of_reach_leaves_a_link(open_page):
    page = open_page(CHAPTER)
    page.route("**/glossary.html", lambda route: route.abort())
    term(page, "context-length").hover()
    page.wait_for_timeout(600)
    assert card(page).is_hidden()
    page.unroute("**/glossary.html")
    page.mouse.move(5, 300)
    term(page, "context-length").hover()
    expect(card(page)).to_be_visible()


def test_definitions_have_their_mathematics_and_fit_a_phone(open_page):
    page = open_page("chapters/foundations/linear-algebra.html", viewport={"width": 320, "height": 640})
    links = page.locator('article a[href*="#term-"]')
    shown = 0
    for i in range(min(12, links.count())):
        links.nth(i).focus()
        page.keyboard.press("Shift")  # the keyboard is in use
        links.nth(i).hover()
        if not card(page).is_visible():
            page.wait_for_timeout(400)
        if card(page).is_visible():
            shown += 1
            box = card(page).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 320
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert shown > 6


# What surrounds them


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_front_page_with_progress_is_accessible(open_page, colours):
    page = open_page("index.html", bypass_csp=True, reduced_motion="reduce")
    page.locator(".kept summary").click()
    give(page, FILE)
    page.get_by_role("button", name="Take this route: I want to understand LLMs").click()
    for details in page.locator(".route summary").all():
        details.click()
    page.get_by_role("button", name="Erase", exact=True).click()
    theme(page, colours)
    assert violations(page) == []
    node(page, "language/transformer").focus()
    assert violations(page) == [], "while a chapter is pointed at"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_definition_and_a_chapters_end_are_accessible(open_page, colours):
    page = open_page(CHAPTER, bypass_csp=True, reduced_motion="reduce")
    page.get_by_role("button", name="Mark this chapter as read").click()
    theme(page, colours)
    term(page, "context-length").hover()
    expect(card(page)).to_be_visible()
    assert violations(page) == []


def test_on_a_phone_the_list_stands_for_the_map(open_page):
    page = open_page("index.html", viewport={"width": 320, "height": 640})
    page.locator(".kept summary").click()
    give(page, FILE)
    page.get_by_role("button", name="Take this route: All of it").click()
    assert page.locator(".map").is_hidden()
    item = page.locator(".book-path li", has=page.get_by_role("link", name="Calculus")).first
    needs = page.locator(".book-path .needs").all_inner_texts()
    assert item.is_visible() and len(needs) == page.locator(".map a").count() - 1 and "Needs Linear algebra" in needs
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.problems == []


def test_without_javascript_the_map_links_and_the_routes_list(open_page):
    page = open_page("index.html", java_script_enabled=False)
    assert page.locator(".map a").first.is_visible() and page.locator(".progress").is_hidden()
    assert page.locator(".route").count() == 3 and page.locator(".route button").count() == 0
    page.locator(".route summary").first.click()
    assert page.locator(".route ol").first.get_by_role("link", name="Linear algebra").is_visible()
    page.goto(page.url.replace("index.html", CHAPTER))
    assert page.locator(".finish").count() == 0
    term(page, "context-length").click()
    page.wait_for_url("**/glossary.html#term-context-length")


def test_nothing_is_printed_of_what_only_a_screen_can_do(open_page):
    page = open_page(CHAPTER)
    page.emulate_media(media="print")
    assert page.locator(".finish").is_hidden()


def test_the_pages_stay_light(open_page):
    for name in ("index.html", CHAPTER):
        page = open_page(name)
        sizes = page.evaluate(
            "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
            ".filter(e => !/\\.(svg|png)$/.test(e.name)).map(e => e.transferSize)"
        )
        assert sum(sizes) < 300_000, name
