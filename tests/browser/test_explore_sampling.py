"""Sampling from the model's logits, in the page: what stays is what the chapter's Sampler keeps."""

from __future__ import annotations

import re

import pytest
import torch
from test_explore import appear, look, settle

from groundup.decoding import Sampler

PAGE = "chapters/language/decoding.html"


def fetched(page) -> dict:
    address = page.locator(".explore").evaluate("e => new URL(e.dataset.src, document.baseURI).href")
    return page.request.get(address).json()


def said(box) -> tuple[int, str]:
    """How many tokens stay, and which is drawn."""
    count, token = re.search(r", ([\d,]+) of [\d,]+ tokens stay.* falls (.+), ", look(box)[1]).groups()
    return int(count.replace(",", "")), token


def test_what_stays_is_what_the_sampler_keeps(open_page):
    page = open_page(PAGE)
    box, data = appear(page), fetched(page)
    for place, temperature, top_p, min_p in ((0, 1, 0.9, 0), (1, 0.5, 0.6, 0), (2, 1.5, 1, 0.05), (4, 2, 0.95, 0.1)):
        box.get_by_label("The text so far", exact=True).select_option(str(place))
        box.get_by_role("slider", name="Temperature τ").fill(str(round(temperature / 0.05)))
        box.get_by_role("slider", name="Top-p").fill(str(round((top_p - 0.01) / 0.01)))
        box.get_by_role("slider", name="Min-p").fill(str(round(min_p / 0.01)))
        settle(page)
        logits = torch.tensor(data["places"][place]["logits"], dtype=torch.float64)
        kept = Sampler(temperature, top_p=top_p, min_p=min_p or None).filter(logits)
        assert said(box)[0] == int(kept.isfinite().sum())
    assert page.problems == []


def test_greedy_and_top_k_of_one_leave_one(open_page):
    page = open_page(PAGE)
    box, data = appear(page), fetched(page)
    logits = data["places"][0]["logits"]
    best = data["tokens"][logits.index(max(logits))]
    for name in ("Temperature τ", "Top-k"):
        slider = box.get_by_role("slider", name=name)
        slider.press("Home")
        settle(page)
        assert said(box) == (1, best)
        box.get_by_role("button", name="Reset").click()
        settle(page)
    assert said(box)[0] > 1


@pytest.mark.parametrize("u", [0, 0.25, 0.999])
def test_the_uniform_number_finds_the_token_that_the_sampler_draws(open_page, monkeypatch, u):
    page = open_page(PAGE)
    box, data = appear(page), fetched(page)
    box.get_by_role("slider", name="Uniform number u").fill(str(round(u * 1000)))
    settle(page)
    monkeypatch.setattr(torch, "rand", lambda size, **how: torch.full(size, u, dtype=torch.float64))
    drawn = int(Sampler(top_p=0.9)(torch.tensor(data["places"][0]["logits"], dtype=torch.float64)))
    assert said(box)[1] == data["tokens"][drawn]
    box.get_by_role("button", name="Draw u").click()
    settle(page)
    assert page.problems == []
