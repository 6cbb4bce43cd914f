"""Two distributions to edit: by slider, by choice, by dragging."""

from __future__ import annotations

import re

import numpy as np
from test_explore import appear, look, settle

from groundup.information import cross_entropy, entropy

PAGE = "chapters/foundations/information.html"


def shares(box) -> tuple[np.ndarray, np.ndarray]:
    tips = dict(t.split(" = ") for t in box.locator("svg title").all_text_contents() if " = " in t)
    return tuple(np.array([float(v) for name, v in tips.items() if name.startswith(f"{which}(")]) for which in "pq")


def sums(box) -> dict[str, float]:
    found = re.findall(r"(entropy|cross-entropy|Huffman)[^:]*: ([\d.∞]+) bits", "\n".join(box.locator("svg text").all_text_contents()))
    return {name: float(bits.replace("∞", "inf")) for name, bits in found}


def agree(box) -> None:
    p, q = shares(box)
    assert np.isclose(p.sum(), 1) and np.isclose(q.sum(), 1)
    found = sums(box)
    assert abs(found["entropy"] - entropy(p)) < 1e-3
    expected = cross_entropy(p, q)
    assert found["cross-entropy"] == expected or abs(found["cross-entropy"] - expected) < 1e-3


def test_what_is_shown_belongs_to_the_shares_that_are_set(open_page):
    page = open_page(PAGE)
    box = appear(page)
    agree(box)
    for which, symbol, share in (("p", 1, 300), ("q", 3, 500), ("q", 0, 0), ("p", 4, 1000)):
        box.get_by_label("Edit", exact=True).select_option(which)
        box.get_by_label("Symbol", exact=True).select_option(str(symbol))
        box.get_by_role("slider", name="Its share").fill(str(share))
        settle(page)
        assert shares(box)["pq".index(which)][symbol] == share / 1000
        agree(box)
    assert sums(box)["entropy"] == 0, "what is certain costs nothing"
    assert page.problems == []


def test_equal_distributions_have_no_surcharge_and_a_zero_has_no_price(open_page):
    page = open_page(PAGE)
    box = appear(page)
    for label in ("What occurs, p", "Coded for, q"):
        box.get_by_label(label, exact=True).select_option("all alike")
    settle(page)
    assert sums(box)["entropy"] == sums(box)["cross-entropy"] == round(np.log2(5), 3)
    box.get_by_label("Edit", exact=True).select_option("q")
    box.get_by_role("slider", name="Its share").press("Home")
    settle(page)
    assert sums(box)["cross-entropy"] == np.inf and "no price" in look(box)[1]
    assert page.problems == []


def test_a_bar_is_dragged(open_page):
    page = open_page(PAGE)
    box = appear(page)
    bar = box.locator("svg rect").filter(has=page.locator("title", has_text="q(INFO)")).bounding_box()
    middle = bar["y"] + bar["height"] / 2
    page.mouse.move(bar["x"] + bar["width"] - 3, middle)
    page.mouse.down()
    page.mouse.move(bar["x"] + bar["width"] / 2, middle + 40, steps=5)  # over another bar: the first one is held
    page.mouse.up()
    settle(page)
    p, q = shares(box)
    assert abs(q[1] - 0.44) < 0.02 and np.isclose(p[1], 0.38)
    assert box.get_by_label("Edit", exact=True).input_value() == "q" and box.get_by_label("Coded for, q", exact=True).input_value() == ""
    agree(box)
    page.mouse.move(bar["x"] + 5, middle)
    settle(page)
    assert abs(shares(box)[1][1] - q[1]) < 1e-9, "it is let go"
    assert page.problems == []
