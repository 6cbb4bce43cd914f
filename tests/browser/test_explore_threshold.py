"""The decision threshold: the formula finds the bottom only where probabilities are right."""

from __future__ import annotations

import re

from test_explore import appear, look, settle

CLASSIFICATION = "chapters/learning/classification.html"


def cost(page, box) -> float:
    settle(page)
    return float(re.search(r"costs ([\d.]+) hours a week", look(box)[1])[1])


def test_the_formula_needs_calibrated_probabilities(open_page):
    page = open_page(CLASSIFICATION)
    box = appear(page)
    formula, cheapest = (box.get_by_role("button", name=name) for name in ("Take the formula’s", "Take the cheapest"))
    default = cost(page, box)
    formula.press("Enter")
    calculated = cost(page, box)
    assert "Paging at 4.8 %" in look(box)[1] and calculated < 0.8 * default
    cheapest.press("Enter")
    assert 0.95 * calculated < cost(page, box) <= calculated
    box.get_by_label("Probabilities").select_option("balanced")
    best = {}
    for button in (formula, cheapest):
        button.press("Enter")
        best[button] = cost(page, box)
    assert best[formula] > 5 * best[cheapest], "the formula on balanced probabilities"
    box.get_by_role("slider", name="A miss costs").press("Home")
    formula.press("Enter")
    settle(page)
    assert "Paging at 50 %" in look(box)[1] and "the formula says 50 %" in look(box)[1]
    assert page.problems == []


def test_cells_add_up_and_a_press_sets_the_threshold(open_page):
    page = open_page(CLASSIFICATION)
    box = appear(page)

    def cells() -> list[int]:
        settle(page)
        texts = box.locator("svg text").evaluate_all("all => all.map(e => e.textContent)")
        return [int(texts[texts.index(name) + 1].replace(",", "")) for name in NAMES]

    first = cells()
    place = box.locator("svg").bounding_box()
    page.mouse.click(place["x"] + place["width"] * 0.15, place["y"] + place["height"] * 0.3)
    lower = cells()
    assert lower[0] > first[0] and lower[2] > first[2], "a lower threshold pages more, rightly and for nothing"
    for now in (first, lower):
        assert now[0] + now[1] == first[0] + first[1] and now[2] + now[3] == first[2] + first[3]
    slider = box.get_by_role("slider", name="Page at")
    slider.press("Home")
    assert cells()[0] > 0.99 * sum(first[:2])
    slider.press("End")
    assert cells()[2] < 10 and "hours a week" in look(box)[1]
    box.get_by_label("Curve").select_option("pr")
    settle(page)
    assert "precision" in box.locator("svg .label").all_text_contents()
    assert page.problems == []


NAMES = ["incident, paged", "incident, missed", "quiet, paged", "quiet, not paged"]
