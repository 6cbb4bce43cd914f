"""The attention explorer: what is drawn for a token is the row that the chapter computed."""

from __future__ import annotations

from test_explore import appear, look, settle

PAGE = "chapters/language/attention.html"


def fetched(page) -> dict:
    address = page.locator(".explore").evaluate("e => new URL(e.dataset.src, document.baseURI).href")
    return page.request.get(address).json()


def bars(box) -> list[float]:
    return [float(tip.split(": ")[1]) for tip in box.locator("svg title").all_text_contents()]


def test_each_choice_shows_its_row(open_page):
    page = open_page(PAGE)
    box, data = appear(page), fetched(page)
    looking = box.get_by_role("slider", name="Token that looks")
    for model, text, layer, at in ((0, 0, 2, 8), (0, 3, 1, 1), (3, 2, 2, 10), (4, 5, 1, 0)):
        box.get_by_label("Model", exact=True).select_option(str(model))
        box.get_by_label("Text", exact=True).select_option(str(text))
        box.get_by_role("slider", name="Layer").fill(str(layer - 1))
        looking.fill(str(at))
        settle(page)
        shown = data["models"][model]["texts"][text]
        assert bars(box) == shown["maps"][layer - 1][0][at]
        assert f"“{shown['tokens'][at]}” at {at} looks at" in look(box)[1]
        assert f"expects “{shown['next'][at][0]}”" in look(box)[1]
        assert looking.get_attribute("aria-valuetext") == f"{at} of 15"
    assert page.problems == []


def test_hovering_a_token_or_a_row_of_the_table_makes_it_look(open_page):
    page = open_page(PAGE)
    box, data = appear(page), fetched(page)
    names = data["models"][0]["texts"][0]["tokens"]
    for token in (3, 11):
        place = box.locator("svg").evaluate(
            "(s, n) => { const r = [...s.querySelectorAll('rect')].filter(e => e.querySelector('title'))[n].getBoundingClientRect();"
            " return [r.x + r.width / 2, r.bottom - 2]; }",
            token,
        )
        page.mouse.move(*place)
        settle(page)
        assert f"“{names[token]}” at {token} looks at" in look(box)[1]
    table = box.locator("svg image").bounding_box()
    page.mouse.move(table["x"] + 3, table["y"] + table["height"] * 5.5 / 16)
    settle(page)
    assert f"“{names[5]}” at 5 looks at" in look(box)[1]
    assert page.problems == []


def test_any_head_of_the_real_model(open_page):
    page = open_page("chapters/language/real-model.html")
    box, data = appear(page), fetched(page)
    (text,) = data["models"][0]["texts"]
    opens = data["opens"]
    assert bars(box) == text["maps"][opens["layer"] - 1][opens["head"] - 1][opens["at"]]
    assert not box.get_by_label("Model", exact=True).is_visible(), "there is one"
    for layer, head, at in ((1, 1, 4), (30, 9, 18), (17, 1, 10)):
        box.get_by_role("slider", name="Layer").fill(str(layer - 1))
        box.get_by_role("slider", name="Head").fill(str(head - 1))
        box.get_by_role("slider", name="Token that looks").fill(str(at))
        settle(page)
        assert bars(box) == text["maps"][layer - 1][head - 1][at]
        assert f"Layer {layer}, head {head}: “{text['tokens'][at]}” at {at}" in look(box)[1]
    assert page.problems == []
