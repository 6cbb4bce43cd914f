"""Bias and variance: the degree trades one for the other, and so does the penalty."""

from __future__ import annotations

import re

import pytest
from test_explore import appear, look, settle

GENERALIZATION = "chapters/learning/generalization.html"


def parts(page, box) -> tuple[float, float, float, float]:
    """Noise, bias², variance and their sum, as the figure says them."""
    settle(page)
    text = look(box)[1].replace(" × 10⁻", "e-").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789"))
    return tuple(float(v) for v in re.search(r"noise (\S+) \+ bias2 (\S+) \+ variance (\S+) = ([\d.]+)", text).groups())


def test_degree_and_penalty_trade_bias_for_variance(open_page):
    page = open_page(GENERALIZATION)
    box = appear(page)
    noise, bias, variance, error = wild = parts(page, box)
    assert noise == 0.09 and bias < 1e-6 and variance > noise and error == pytest.approx(sum(wild[:3]), rel=0.01)
    assert "Least at this penalty with degree 6" in look(box)[1]
    for _ in range(11):
        box.get_by_role("slider", name="Penalty α").press("ArrowRight")
    tamed = parts(page, box)
    assert tamed[1] > bias and tamed[2] < variance / 3 and tamed[3] < error, "more bias, less variance, less error"
    box.get_by_role("slider", name="Penalty α").press("Home")
    box.get_by_role("slider", name="Degree").press("Home")
    stiff = parts(page, box)
    assert stiff[1] > 0.3 and stiff[2] < 0.01, "a constant: wrong in the same way every time"
    box.get_by_role("slider", name="Noise σ").press("End")
    assert parts(page, box)[1:] == pytest.approx((stiff[1], stiff[2] / 0.09, 1 + stiff[1] + stiff[2] / 0.09), rel=0.01)
    box.get_by_label("Error against").select_option("penalty")
    settle(page)
    assert "penalty α" in box.locator("svg .label").all_text_contents()
    assert page.problems == []


def test_as_many_training_sets_as_asked_for(open_page):
    page = open_page(GENERALIZATION)
    box = appear(page)
    fits = box.locator('svg path[opacity="0.6"]')
    assert fits.count() == 5
    box.get_by_role("slider", name="Training sets shown").press("End")
    settle(page)
    assert fits.count() == 12
