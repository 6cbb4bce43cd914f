"""No input answers 5xx, whatever is sent, and a browser without any content policy runs nothing that was stored."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import sync_playwright
from test_render import XSS, encodings

from book.comments import guards, service
from book.testing import CHROMIUM_FLAGS, chromium, served
from readers import API, OTHER, PAGE, Reader, make_client, make_service, write_site

ODD = st.sampled_from([
    "", "\x00", "\ud800", "\u202e", "💥" * 20, "x" * 9000, "../" * 30, "%00", "<script>", "' OR 1=1 --", "{{7*7}}", "$" * 50, "[" * 200, "9" * 30, PAGE, OTHER,
    "adding", "correction", "00000000-0000-0000-0000-000000000000", "1.00.x", "null", "NaN",
])  # fmt: skip
WORDS = st.one_of(ODD, st.text(max_size=50), st.text(st.characters(), max_size=20))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["page", "text", "kind", "author", "section", "parent", "key", "ticket", "website", "id", "owner"]
)
BODIES = st.one_of(
    st.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(NAMES, VALUES, max_size=9).map(lambda value: json.dumps(value).encode()),
)
PATHS = st.one_of(
    st.sampled_from(["/comments", "/comments/1", "/preview", "/ticket", "/thread", "/feed.xml", f"/on/{PAGE}", f"/feed/{PAGE}.xml", "/", ""]),
    st.text(max_size=30).map("/comments/".__add__), st.text(max_size=30).map("/on/".__add__), st.text(max_size=30).map("/feed/".__add__), st.text(max_size=30).map("/".__add__),
)  # fmt: skip
LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
HEADERS = st.dictionaries(
    st.sampled_from(["origin", "cookie", "content-type", "if-none-match", "accept-encoding", "x-forwarded-for", "sec-fetch-site", "host", "accept", "range"]),
    LATIN.map(lambda value: value.encode("latin-1")), max_size=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def open_client(tmp_path_factory, renderer):
    """One service for all examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guards, "TICKET_FROM", 0)
        patch.setattr(service, "Renderer", lambda root: renderer)
        folder = tmp_path_factory.mktemp("fuzz")
        with make_client(write_site(folder / "html"), make_service(folder / "data")) as client:
            yield client


def assert_refused_or_done(answer) -> None:
    assert answer.status_code < 500, answer.text
    if (
        answer.status_code >= 400
        and answer.status_code != 421
        and answer.content
        and answer.headers["content-type"] == "application/json"
    ):
        assert set(answer.json()) == {"error", "field", "retry_after"}


@given(st.sampled_from(["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "BREW"]), PATHS, BODIES, HEADERS)
@settings(max_examples=250)
def test_any_request(open_client, method, path, body, headers):
    reader = Reader(open_client)
    reader.cookie = "A" * 43
    given = {"content-type": b"application/json", **headers}
    url = quote(API + path, safe="/%")
    assert_refused_or_done(reader.client.request(method, url, content=body, headers={**reader.headers, **given}))


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.text(max_size=200))
@settings(max_examples=120)
def test_any_form(open_client, fields, text):
    """A good form with some fields replaced; what is stored can be read at every exit."""
    reader = Reader(open_client)
    content = {**reader.fields(text), **fields}
    body = json.dumps(content).encode()
    answer = reader.send("POST", "/comments", content=body, headers={"content-type": "application/json"})
    assert_refused_or_done(answer)
    edit = {
        "text": text,
        "kind": "idea",
        "author": "",
        "section": None,
        **{k: v for k, v in fields.items() if k in ("text", "author", "kind", "section")},
    }
    id = answer.json().get("id", 1)
    body = json.dumps(edit).encode()
    assert_refused_or_done(
        reader.send("PATCH", f"/comments/{id}", content=body, headers={"content-type": "application/json"})
    )
    for path in (f"/thread?page={PAGE}", f"/on/{PAGE}", "/feed.xml"):
        assert open_client.get(API + path).status_code == 200
    assert_refused_or_done(reader.delete(id))


@given(st.text(max_size=300), LATIN)
@settings(max_examples=150)
def test_any_query_and_tag(open_client, page, tag):
    answer = open_client.get(
        f"{API}/thread",
        params={"page": page.encode("utf-8", "replace")},
        headers={"if-none-match": tag.encode("latin-1")},
    )
    assert answer.status_code in (200, 304, 404)
    assert open_client.get(
        f"{API}/thread?page={PAGE}", headers={"if-none-match": tag.encode("latin-1")}
    ).status_code in (200, 304)


# --- in a real browser, with the content policy switched off ------------------------------------------


def test_stored_script_does_not_run(site, tmp_path):
    """Every attack as name and as text, opened without a policy: nothing runs, nothing is fetched, nothing covers the page."""
    if chromium() is None:
        pytest.skip("no Chromium: install it, or name it in CHROMIUM")
    with served(site, tmp_path / "data", ticket_from=0, limits=False) as address:
        import httpx

        with httpx.Client(base_url=address, trust_env=False, timeout=30) as http:
            reader, stored = Reader(http), 0
            for attack in XSS:
                for source in encodings(attack)[:6]:
                    stored += reader.post(source, author=source[:80]).status_code == 201
            assert stored > 200
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
            page = browser.new_context(bypass_csp=True).new_page()
            foreign, dialogs = [], []
            page.on("request", lambda r: r.url.startswith((address, "data:")) or foreign.append(r.url))
            page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
            page.goto(f"{address}{API}/on/{PAGE}")
            assert page.locator("li.comment").count() == stored
            page.evaluate(
                "document.querySelectorAll('.text *').forEach(e => { e.dispatchEvent(new Event('mouseover')); })"
            )
            assert page.evaluate("window.marker") is None
            page.goto(f"{address}/{PAGE}.html")
            page.evaluate(
                "fetch('/-/comments/thread?page=" + PAGE + "').then(r => r.json())"
                ".then(t => document.getElementById('comments').insertAdjacentHTML('beforeend', t.html))"
            )
            page.wait_for_selector("li.comment")
            page.wait_for_timeout(300)
            assert page.evaluate("window.marker") is None and not dialogs
            assert page.locator("li.comment").count() == stored
            outside = "e => getComputedStyle(e).position === 'fixed' || getComputedStyle(e).position === 'absolute'"
            assert page.evaluate(f"[...document.querySelectorAll('.text *')].filter({outside}).length") == 0
            assert not [url for url in foreign if not url.endswith("/favicon.ico")]
            browser.close()
