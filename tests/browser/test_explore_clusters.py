"""k-means and mixtures by hand: a stuck centre is carried over the gap, by mouse and by keyboard."""

from __future__ import annotations

import re

import pytest
from test_explore import appear, look, settle

CLUSTERING = "chapters/learning/clustering.html"


def inertia(page, box) -> tuple[float, float]:
    """J now, and the best known."""
    settle(page)
    return tuple(float(v) for v in re.search(r"J = ([\d.]+) \(best of ten restarts: ([\d.]+)", look(box)[1]).groups())


def to_the_end(page, box) -> None:
    box.get_by_role("slider", name="Step").press("End")
    settle(page)
    assert "It has stopped." in look(box)[1]


def centres(box) -> list[tuple[float, float]]:
    """Where the numbered centres stand on the page."""
    marks = box.locator("svg text[font-weight]").all()
    assert [mark.text_content() for mark in marks] == ["1", "2", "3", "4"]
    boxes = [mark.bounding_box() for mark in marks]
    return [(b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes]


def test_a_centre_is_dragged_over_the_gap(open_page):
    page = open_page(CLUSTERING)
    box = appear(page)
    to_the_end(page, box)
    stuck, best = inertia(page, box)
    assert stuck > 3 * best
    places = centres(box)
    between = max(range(4), key=lambda j: places[j][0])  # serves both groups on the right
    pair = sorted(set(range(4)) - {between}, key=lambda j: -places[j][1])[:2]  # in the lower left group
    page.mouse.move(*places[pair[0]])
    page.mouse.down()
    for share in (0.3, 0.6, 1.0):  # past the others: the same centre stays in hand
        page.mouse.move(
            *(a + share * (b - a) for a, b in zip(places[pair[0]], (places[between][0], places[pair[0]][1])))
        )
        settle(page)
    page.mouse.up()
    settle(page)
    assert f"centre {pair[0] + 1} at" in look(box)[1] and box.get_by_role("slider", name="Step").input_value() == "0"
    to_the_end(page, box)
    freed, best = inertia(page, box)
    assert freed == pytest.approx(best, rel=1e-2)
    assert page.problems == []


def test_and_by_keyboard(open_page):
    page = open_page(CLUSTERING, reduced_motion="reduce")
    box = appear(page)
    to_the_end(page, box)
    stuck, best = inertia(page, box)
    chosen, across = box.get_by_role("slider", name="Move centre"), box.get_by_role("slider", name="to feature 1")
    chosen.press("Home")
    settle(page)
    assert chosen.get_attribute("aria-valuetext") == "1"
    for _ in range(40):
        across.press("ArrowRight")
    settle(page)
    assert box.get_by_role("slider", name="Step").input_value() == "0", "from here it starts again"
    to_the_end(page, box)
    assert inertia(page, box)[0] == pytest.approx(best, rel=1e-2)
    assert page.problems == []


def test_the_mixture_sees_what_k_means_cannot(open_page):
    page = open_page(CLUSTERING)
    box = appear(page)
    box.get_by_label("Data").select_option("unequal sizes")
    sizes = {}
    for _ in range(2):
        box.get_by_role("button", name="Another start").press("Enter")  # the third is the chapter's
    for method in ("k-means", "Gaussian mixture"):
        box.get_by_label("Algorithm").select_option(method)
        to_the_end(page, box)
        sizes[method] = max(map(int, re.search(r"rows per centre: ([\d, ]+)", look(box)[1])[1].split(", ")))
    assert sizes["k-means"] < 300 < 390 < sizes["Gaussian mixture"] < 410
    assert "nats per row" in look(box)[1]
    box.get_by_role("slider", name="Centres k").press("End")
    settle(page)
    assert "best of" not in look(box)[1] and len(look(box)[1].split("rows per centre: ")[1].split(", ")) == 6
    assert page.problems == []
