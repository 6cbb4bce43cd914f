"""Figures that can be moved: there, by keyboard, in both themes, on a phone, and without JavaScript."""

from __future__ import annotations

import re

import pytest
from test_pages import theme, violations

from built import SITE, page_names

PLAYGROUND = "chapters/foundations/optimization.html"
PAGES = [name for name in page_names() if 'class="explore"' in (SITE / name).read_text(encoding="utf-8")]
FIGURES = [
    (name, number) for name in PAGES for number in range((SITE / name).read_text(encoding="utf-8").count('class="explore"'))
]
NAMES = [f"{name.rsplit('/', 1)[-1]}-{number}" for name, number in FIGURES]
each_figure = pytest.mark.parametrize(("name", "number"), FIGURES, ids=NAMES)


def appear(page, number: int = 0):
    """The figure, once it can be moved and stands still."""
    box = page.locator(".explore").nth(number)
    box.scroll_into_view_if_needed()
    box.locator(".says:not(:empty)").wait_for()
    page.wait_for_timeout(700)
    return box


def look(box) -> tuple[str, str]:
    """What is drawn, and what is said of it."""
    return box.locator("svg").inner_html(), box.locator(".says").inner_text()


def settle(page) -> None:
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def test_pages_load_the_script_only_for_figures():
    assert PLAYGROUND in PAGES
    for name in page_names():
        loads = "_static/explore.js" in (SITE / name).read_text(encoding="utf-8")
        assert loads == (name in PAGES), name


@each_figure
def test_it_appears_in_the_room_kept_for_it(open_page, name, number):
    """Nothing jumps when it takes the still figure's place, however narrow the page."""
    for width in (1280, 390, 320):
        page = open_page(name, viewport={"width": width, "height": 800})
        box = page.locator(".explore").nth(number)
        before = box.bounding_box()["height"]
        assert box.locator("img").count() and not box.locator(".live").count()
        appear(page, number)
        assert box.bounding_box()["height"] == pytest.approx(before, abs=1), f"at {width} px"
        assert not box.locator("img").first.is_visible()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"scrolls sideways at {width} px"
        inner = box.evaluate("e => [...e.querySelectorAll('.live > *')].map(c => [c.scrollWidth, c.clientWidth])")
        assert all(scroll <= client + 1 for scroll, client in inner), f"something sticks out at {width} px"
        assert page.problems == []


@each_figure
def test_every_control_works_by_keyboard_and_reset_undoes_it(open_page, name, number):
    page = open_page(name, reduced_motion="reduce")
    box = appear(page, number)
    first = look(box)
    changed = 0
    for control in box.locator(".live :is(input, select)").all():
        if not control.is_visible():
            continue
        assert control.evaluate("e => e.labels.length && e.labels[0].textContent.trim()"), "it has a label"
        before = look(box)
        control.focus()
        kind = control.evaluate("e => e.type")
        for key in {"text": ["End", "x"], "checkbox": ["Space"]}.get(kind, ["ArrowUp"] * 3 + ["ArrowDown"] * 6):
            page.keyboard.press(key)
            settle(page)
            if look(box) != before:
                break
        drawn, said = look(box)
        changed += drawn != before[0] and said != before[1]
        assert (drawn, said) != before, control.evaluate("e => e.labels[0].textContent")
    assert changed, "both the drawing and its description follow"
    page.wait_for_timeout(800)
    assert box.locator(".heard").inner_text() == look(box)[1], "a screen reader is told"
    assert box.locator("svg").get_attribute("aria-label") == look(box)[1]
    box.get_by_role("button", name="Reset").press("Enter")
    settle(page)
    assert look(box) == first
    assert page.problems == []


@each_figure
def test_nothing_is_wrong_with_it_for_axe_in_either_theme(open_page, name, number):
    page = open_page(name, bypass_csp=True)
    box = appear(page, number)
    drawn = []
    for colours in ("light", "dark"):
        theme(page, colours)
        drawn.append(box.screenshot())
        assert violations(page) == []
    assert drawn[0] != drawn[1]
    numbers = box.locator("svg text").evaluate_all("all => all.map(e => e.textContent)")
    assert numbers and not [text for text in numbers if re.search("NaN|undefined|Infinity", text)]


@pytest.mark.parametrize("name", PAGES)
def test_without_javascript_and_on_paper_the_still_figure_stands(open_page, name):
    page = open_page(name, java_script_enabled=False)
    for box in page.locator(".explore").all():
        assert [image.is_visible() for image in box.locator("img").all()].count(True) == 1
        assert box.bounding_box()["height"] == pytest.approx(box.locator("img").first.bounding_box()["height"], abs=12)
    page = open_page(name)
    box = appear(page)
    page.emulate_media(media="print")
    assert box.locator("img").first.is_visible() and not box.locator(".live").is_visible()
    assert page.problems == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_stays_light(open_page, name):
    """Everything a reader fetches by reading to the end, as it is sent."""
    page = open_page(name)
    for number in range(page.locator(".explore").count()):
        appear(page, number)
    ours = page.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.includes('explore')).reduce((s, e) => s + e.encodedBodySize, 0)"
    )
    first = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter(e => !/_images/.test(e.name)).reduce((s, e) => s + e.encodedBodySize, 0)"
    )
    assert 0 < ours < 200_000 and first < 300_000, (ours, first)


@pytest.mark.parametrize("broken", ["json", "js"])
def test_when_something_is_missing_the_still_figure_stays(open_page, site, broken):
    page = open_page("index.html")
    page.route(re.compile(rf"_static/explore/.*\.{broken}"), lambda route: route.abort())
    page.goto(f"{site}/{PLAYGROUND}", wait_until="networkidle")
    page.locator(".explore").scroll_into_view_if_needed()
    page.wait_for_timeout(800)
    assert page.locator(".explore img").first.is_visible() and not page.locator(".live").count()
    assert len([p for p in page.problems if "stays still" in p]) == 1, page.problems


# The shared module


def test_numbers_and_ticks(open_page):
    page = open_page(PLAYGROUND)
    source = page.locator('script[src*="explore.js"]').get_attribute("src")
    page.evaluate("async at => { window.shared = await import(new URL(at, document.baseURI).href) }", source)
    shown = page.evaluate("[0, 1, -0.5, 0.00123, 0.000123, 1234.5, 99999, 123456, -2e-9, Infinity, NaN].map(v => shared.show(v))")
    assert shown == ["0", "1", "−0.5", "0.00123", "1.23 × 10⁻⁴", "1235", "99999", "1.23 × 10⁵", "−2 × 10⁻⁹", "∞", "not a number"]
    assert page.evaluate("shared.ticks(0, 10)") == [0, 2, 4, 6, 8, 10]
    assert page.evaluate("shared.ticks(-1.5, 1.5, 3)") == [-1, 0, 1]
    assert page.evaluate("shared.ticks(0.1, 0.35, 5)") == [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]
    assert page.evaluate("shared.ticks(1e-4, 1e2, 3, true)") == pytest.approx([1e-4, 1e-2, 1, 100])


def test_play_runs_pauses_and_stops_at_the_end(open_page):
    page = open_page(PLAYGROUND)
    box = appear(page)
    slider, play = box.get_by_role("slider", name="Step"), box.get_by_role("button", name="Play")
    assert slider.input_value() == "25", "nothing plays by itself"
    play.click()
    page.wait_for_timeout(600)
    box.get_by_role("button", name="Pause").click()
    stopped = int(slider.input_value())
    page.wait_for_timeout(300)
    assert 25 < stopped == int(slider.input_value())
    slider.fill("148")
    play.click()
    box.get_by_role("button", name="Play").wait_for()
    assert slider.input_value() == "150"
    play.click()
    page.wait_for_timeout(200)
    assert int(slider.input_value()) < 20, "from the start again"
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(300)
    out_of_sight = slider.input_value()
    page.wait_for_timeout(300)
    assert slider.input_value() == out_of_sight


def test_who_wants_no_motion_steps_by_hand(open_page):
    page = open_page(PLAYGROUND, reduced_motion="reduce")
    box = appear(page)
    assert not box.get_by_role("button", name="Play").is_visible()
    box.get_by_role("button", name="One step on").press("Enter")
    settle(page)
    assert box.get_by_role("slider", name="Step").get_attribute("aria-valuetext") == "26 of 150"


# The optimizer playground


def test_the_playground_diverges_where_the_chapter_says(open_page):
    page = open_page(PLAYGROUND, reduced_motion="reduce")
    box = appear(page)
    box.get_by_label("Optimizer", exact=True).select_option("gradient descent")
    settle(page)
    assert "diverges" not in look(box)[1]
    assert not box.get_by_label("Momentum μ, β₁").is_visible(), "it has none"
    rate = box.get_by_role("slider", name="Learning rate η")
    for _ in range(5):  # 0.09 → above 2/20
        rate.press("ArrowRight")
    settle(page)
    assert "diverges" in look(box)[1]
    box.get_by_label("Optimizer", exact=True).select_option("Newton")
    box.get_by_role("slider", name="Step").fill("1")
    settle(page)
    assert "at (0, 0)" in look(box)[1], "one step on a quadratic"
    assert page.problems == []


def test_a_press_on_the_surface_moves_the_start_and_a_path_can_be_kept(open_page):
    page = open_page(PLAYGROUND)
    box = appear(page)
    box.get_by_role("button", name="Keep for comparison").click()
    place = box.locator("svg").bounding_box()
    page.mouse.click(place["x"] + place["width"] * 0.2, place["y"] + place["height"] * 0.3)
    settle(page)
    x, y = (float(box.get_by_label(f"Start {axis}").input_value()) for axis in "xy")
    assert -5 < x < 5 and 0 < y < 3 and (x, y) != (10, 1.5)
    assert "kept: momentum" in box.locator("svg").text_content()
    box.get_by_label("Start x").fill("99")
    box.get_by_label("Start x").press("Enter")
    settle(page)
    assert box.get_by_label("Start x").input_value() == "10", "kept within the surface"
    assert page.problems == []
