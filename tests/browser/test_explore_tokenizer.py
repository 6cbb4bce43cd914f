"""The tokenizer stepper, on what a reader types."""

from __future__ import annotations

from test_explore import appear, look, settle

from groundup.tokenization import Tokenizer

PAGE = "chapters/language/tokenization.html"
BOXES = "all => all.map(g => [...g.querySelectorAll('text')].map(e => e.textContent))"


def tokens(box) -> list[tuple[str, int]]:
    return [(label, int(number)) for label, number in box.locator("svg g:has(> rect)").evaluate_all(BOXES)]


def vocabulary(page) -> Tokenizer:
    """The one whose tokens the page fetched."""
    address = page.locator(".explore").evaluate("e => new URL(e.dataset.src, document.baseURI).href")
    data = page.request.get(address).json()
    return Tokenizer({token.encode("latin-1"): i for i, token in enumerate(data["tokens"])})


def test_typed_text_gets_the_ids_of_the_chapters_tokenizer(open_page):
    page = open_page(PAGE)
    box, ours = appear(page), vocabulary(page)
    for text in ("array of strings", "Ångström 你好 🙂", "x  y\u00a0z", "", "नमस्ते"):
        box.get_by_label("Text", exact=True).fill(text)
        settle(page)
        assert [number for _, number in tokens(box)] == ours.encode_ordinary(text)
    assert box.get_by_label("Example", exact=True).input_value() == ""
    assert page.problems == []


def test_stepping_goes_from_bytes_to_tokens_and_says_what_is_joined(open_page):
    page = open_page(PAGE)
    box = appear(page)
    box.get_by_label("Text", exact=True).fill("é the array")
    merge = box.get_by_role("slider", name="Merge", exact=True)
    last = int(merge.get_attribute("max"))
    assert merge.input_value() == str(last), "the whole encoding first"
    merge.focus()
    merge.press("Home")
    settle(page)
    start = tokens(box)
    assert len(start) == len("é the array".encode()) and [label for label, _ in start[:3]] == ["c3", "a9", "␣"]
    counts = [len(start)]
    for _ in range(last):
        merge.press("ArrowRight")
        settle(page)
        counts.append(len(tokens(box)))
        assert "joins" in look(box)[1]
        assert box.locator('svg rect[fill="var(--plot-orange)"]').count() > 0, "what is new stands out"
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0]
    assert ("␣the", vocabulary(page).encode_ordinary(" the")[0]) in tokens(box)


def test_fewer_merges_give_more_tokens(open_page):
    page = open_page(PAGE)
    box = appear(page)
    known, counts = box.get_by_role("slider", name="Merges known"), []
    for key in ("End", "ArrowLeft", "ArrowLeft", "ArrowLeft", "Home"):
        known.press(key)
        settle(page)
        counts.append(len(tokens(box)))
    assert counts == sorted(counts) and counts[-1] == len(box.get_by_label("Text", exact=True).input_value().encode())
    assert known.get_attribute("aria-valuetext") == "0"


def test_the_longest_texts_fit(open_page):
    for width in (1280, 320):
        page = open_page(PAGE, viewport={"width": width, "height": 900})
        box = appear(page)
        for name in box.get_by_label("Example", exact=True).locator("option").all_inner_texts()[1:]:
            box.get_by_label("Example", exact=True).select_option(name)
            box.get_by_role("slider", name="Merges known").press("Home")
            settle(page)
            outside = box.locator("svg").evaluate(
                "s => [...s.querySelectorAll('rect')].filter(r => { const a = r.getBoundingClientRect(), b = s.getBoundingClientRect();"
                " return a.right > b.right + 1 || a.bottom > b.bottom + 1; }).length"
            )
            assert outside == 0, (name, width)
        assert page.problems == []
