"""Fan-out and tail latency: what the figure says is true of the book's service."""

from __future__ import annotations

import re

import pytest
from test_explore import appear, look, settle

from groundup.datasets import latency_cdf

PROBABILITY = "chapters/foundations/probability.html"


def says(page, box) -> dict[str, float]:
    settle(page)
    text = look(box)[1]
    found = re.findall(r"median ([\d.]+) ms, p99 ([\d.]+) ms", text)
    names = ["one", "page", "hedged"][: len(found)]
    return {f"{name} {level}": float(v) for name, pair in zip(names, found) for level, v in zip(("p50", "p99"), pair)}


def test_more_backends_make_a_slower_page(open_page):
    page = open_page(PROBABILITY)
    box = appear(page)
    first = says(page, box)
    for level, share in (("p50", 0.5), ("p99", 0.99)):
        assert latency_cdf(first[f"one {level}"]) == pytest.approx(share, abs=0.01)
        assert latency_cdf(first[f"page {level}"]) ** 100 == pytest.approx(share, abs=0.01)
    assert "63 % of pages are slower than a backend’s p99" in look(box)[1]
    box.get_by_role("slider", name="Backends n").press("Home")
    assert says(page, box)["page p99"] == first["one p99"], "a page of one backend is that backend"
    box.get_by_role("slider", name="Backends n").press("End")
    assert says(page, box)["page p50"] > 2 * first["page p50"]
    assert page.problems == []


def test_hedging_helps_until_the_copies_share_a_cause(open_page):
    page = open_page(PROBABILITY)
    box = appear(page)
    plain = says(page, box)
    assert "hedged page p99" not in plain and "hedged" not in box.locator("svg").text_content()
    delay = box.get_by_role("slider", name="Copy after")
    for _ in range(5):
        delay.press("ArrowRight")
    assert delay.get_attribute("aria-valuetext") == "30 ms"
    hedged = says(page, box)
    assert hedged["hedged p99"] < plain["page p99"] / 3 and "hedged" in box.locator("svg").text_content()
    assert f"for {+100 * (1 - latency_cdf(30)):.1f} % more requests" in look(box)[1]
    box.get_by_role("slider", name="Shared cause c").press("End")
    shared = says(page, box)
    assert shared["hedged p99"] > 1.5 * hedged["hedged p99"], "a minimum loses"
    assert shared["page p50"] < hedged["page p50"], "a maximum gains"
    assert page.problems == []
