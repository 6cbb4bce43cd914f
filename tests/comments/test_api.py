"""What the page asks of the service: read, post, reply, edit, delete, preview, feeds, and every refusal in words."""

from __future__ import annotations

import json
import uuid
import xml.etree.ElementTree as ET

import pytest

from book.comments import store as stored
from readers import API, OTHER, PAGE, Reader, error_of

ATOM = "{http://www.w3.org/2005/Atom}"


def test_an_empty_thread(client, reader):
    answer = reader.thread()
    assert answer.json() == {"page": PAGE, "count": 0, "sections": {}, "moderated": False, "html": "", "own": []}
    assert answer.headers["cache-control"] == "private, no-cache" and "Cookie" in answer.headers["vary"]
    assert "access-control-allow-origin" not in answer.headers


def test_post_and_read(client, reader):
    answer = reader.post("**Hello** `x`", author=" Ada  Lovelace ", section="why-a-b", kind="correction")
    posted = answer.json()
    assert answer.status_code == 201 and set(posted) == {"id", "state", "editable_for", "html", "count"}
    assert (posted["id"], posted["state"], posted["count"]) == (1, "visible", 1) and 895 <= posted[
        "editable_for"
    ] <= 900
    thread = Reader(client).thread().json()
    assert thread["count"] == 1 and thread["sections"] == {"why-a-b": 1} and thread["own"] == []
    assert posted["html"] in thread["html"]
    for part in (
        '<ol class="thread">', '<li class="comment" id="comment-1" data-id="1" data-kind="correction" data-section="why-a-b">',
        '<span class="author">Ada Lovelace</span> <span class="kind">Correction</span> <a class="when" href="#comment-1"><time datetime="',
        '<p class="about">On <a href="#why-a-b">Why a &lt; b &amp; c</a></p>',
        '<div class="text"><p><strong>Hello</strong> <code>x</code></p>',
    ):  # fmt: skip
        assert part in thread["html"], part


def test_a_reader_without_a_name_and_a_kind(reader):
    html = reader.post("Text.").json()["html"]
    assert '<span class="author">A reader</span> <a class="when"' in html
    assert "kind" not in html.replace("data-kind", "") and "about" not in html and "data-section" not in html


def test_own_comments_and_nobody_elses(client, reader):
    reader.post("mine", author="Ada", kind="idea", section="adding")
    own = reader.thread().json()["own"]
    assert [(c["id"], c["parent"], c["state"], c["kind"], c["section"], c["author"], c["text"]) for c in own] == [
        (1, None, "visible", "idea", "adding", "Ada", "mine")
    ]
    other = Reader(client)
    other.ticket()
    assert other.thread().json()["own"] == [] and reader.thread(OTHER).json()["own"] == []


def test_replies_are_one_level(client, reader):
    top = reader.post("top", section="the-problem").json()["id"]
    reply = reader.post("reply", parent=top, section="adding").json()
    assert "data-section" not in reply["html"], "a reply is about what its comment is about"
    assert reader.thread().json()["sections"] == {"the-problem": 2}
    html = reader.thread().json()["html"]
    assert html.index('<ol class="replies">') < html.index('id="comment-2"')
    for parent, page in ((reply["id"], PAGE), (top, OTHER), (99, PAGE)):
        error_of(reader.post("no", parent=parent, page=page), 409, "parent")


def test_edit(client, reader):
    id = reader.post("first", section="adding").json()["id"]
    changed = reader.edit(id, "second $x$", kind="question", author="Bob", section="the-problem").json()
    assert changed["id"] == id and changed["state"] == "visible"
    html = Reader(client).thread().json()["html"]
    assert "first" not in html and "second" in html and "Bob" in html and "Question" in html
    assert '<span class="edited">edited</span>' in html and 'data-section="the-problem"' in html
    same = reader.post("same").json()["id"]
    assert "edited</span>" not in reader.edit(same, "same").json()["html"], "nothing was changed"


def test_the_window(client, reader, monkeypatch):
    id = reader.post("first").json()["id"]
    later = stored.now() + stored.WINDOW + 1
    monkeypatch.setattr(stored, "now", lambda: later)
    assert "15 minutes" in error_of(reader.edit(id), 410) and "15 minutes" in error_of(reader.delete(id), 410)
    thread = reader.thread().json()
    assert thread["own"] == [] and "first" in thread["html"]


def test_delete_erases(client, reader):
    first, second = (reader.post(text, author="Ada").json()["id"] for text in ("secret words", "other"))
    reply = Reader(client).post("answer", parent=second).json()["id"]
    assert reader.delete(first).json() == {"count": 2} and reader.delete(second).json() == {"count": 1}
    html = client.get(f"{API}/thread?page={PAGE}").json()["html"]
    assert f'id="comment-{first}"' not in html, "without replies nothing is left"
    assert '<li class="comment gone"><p>This comment was removed.</p>' in html and f'id="comment-{reply}"' in html
    row = client.service.store.get(first)
    assert (row.author, row.text, row.html, row.owner, row.state) == ("", "", "", None, "deleted")
    assert error_of(reader.delete(first), 403) == error_of(reader.edit(99), 403), "the same words, there or not"


def test_a_retry_is_not_a_second_comment(client, reader):
    fields = reader.fields("Text.")
    first = reader.send("POST", "/comments", json=fields)
    again = reader.send("POST", "/comments", json=fields)
    assert (first.status_code, again.status_code) == (201, 200) and first.json()["id"] == again.json()["id"]
    longer = reader.send("POST", "/comments", json={**fields, "text": "Text and more."})
    assert (longer.status_code, longer.json()["id"]) == (200, 1) and "and more" in longer.json()["html"]
    assert reader.thread().json()["count"] == 1
    stranger = Reader(client)
    stranger.ticket()
    error_of(stranger.send("POST", "/comments", json={**fields, "ticket": stranger.held}), 409, "key")
    reader.delete(1)
    error_of(reader.send("POST", "/comments", json=fields), 410, "key")


def test_moderation(start):
    client = start(moderation="on")
    reader, other, store = Reader(client), Reader(client), client.service.store
    posted = reader.post("waits").json()
    assert posted["state"] == "pending" and posted["count"] == 0 and 'id="comment-1"' in posted["html"]
    thread = reader.thread().json()
    assert thread["moderated"] and thread["html"] == "" and thread["own"][0]["html"] == posted["html"]
    assert other.thread().json()["own"] == [] and "waits" not in other.thread().text
    assert "waits" not in client.get(f"{API}/feed.xml").text + client.get(f"{API}/on/{PAGE}").text
    error_of(other.post("reply", parent=1), 409, "parent")
    store.set_state([1], "visible")
    assert "waits" in other.thread().text and other.thread().json()["count"] == 1
    assert reader.edit(1, "now something else").json()["state"] == "pending", "an approved text cannot be exchanged"
    assert "something" not in other.thread().text and other.thread().json()["count"] == 0
    store.set_state([1], "hidden")
    assert reader.thread().json()["own"] == [] and reader.edit(1).status_code == 410


def test_resolved_and_hidden_show_at_once(client, reader):
    reader.post("a correction", kind="correction")
    client.service.store.resolve([1], 5)
    assert '<span class="resolved">Resolved</span>' in reader.thread().text.replace('\\"', '"')
    client.service.store.set_state([1], "hidden")
    assert reader.thread().json()["html"] == ""


def test_a_thread_is_rendered_once(client, reader, monkeypatch):
    """100 readers: one reading of the rows, no rendering; and a change is seen by the next reader."""
    for number in range(5):
        reader.post(f"text {number} $x^{number}$")
    renderings, readings = [], []
    render, thread = client.service.renderer.render, client.service.store.thread
    monkeypatch.setattr(client.service.renderer, "render", lambda *a, **k: renderings.append(a) or render(*a, **k))
    monkeypatch.setattr(client.service.store, "thread", lambda page: readings.append(page) or thread(page))
    texts = {client.get(f"{API}/thread?page={PAGE}").text for _ in range(100)}
    assert len(texts) == 1 and len(readings) == 1 and not renderings
    reader.edit(3, "changed")
    assert "changed" in client.get(f"{API}/thread?page={PAGE}").text and len(renderings) == 1


def test_revalidation(client, reader):
    reader.post("text " * 200)
    for encoding in ("identity", "gzip", "br"):
        first = client.get(f"{API}/thread?page={PAGE}", headers={"accept-encoding": encoding})
        assert first.headers.get("content-encoding", "identity") == encoding and "text" in first.text
        tag = first.headers["etag"]
        again = client.get(f"{API}/thread?page={PAGE}", headers={"accept-encoding": encoding, "if-none-match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert reader.thread(headers={"if-none-match": tag}).status_code == 200, "a reader with comments has another answer"
    reader.post("more")
    assert client.get(f"{API}/thread?page={PAGE}", headers={"if-none-match": tag}).status_code == 200


def test_head(client):
    for path in (f"/thread?page={PAGE}", f"/on/{PAGE}", "/feed.xml", f"/feed/{PAGE}.xml"):
        get, head = client.get(API + path), client.head(API + path)
        assert head.status_code == 200 and head.content == b"" and dict(head.headers) == dict(get.headers)


def test_preview(reader):
    answer = reader.send("POST", "/preview", json={"text": "$x$ and *this*"})
    assert "katex" in answer.json()["html"] and "<em>this</em>" in answer.json()["html"]
    assert reader.thread().json()["count"] == 0


def test_without_javascript(client, reader):
    reader.post("Hello $x$", author="Ada", section="the-problem", kind="question")
    answer = client.get(f"{API}/on/{PAGE}")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert f'<a href="/{PAGE}.html">' in answer.text and "1 comment." in answer.text
    assert (
        f'On <a href="/{PAGE}.html#the-problem">The problem</a>' in answer.text
        and "<h1>Comments: Adding</h1>" in answer.text
    )
    assert "There are no comments" in client.get(f"{API}/on/{OTHER}").text
    script = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))["script-src"]
    assert script == "'self'"


def test_feeds(client, reader):
    reader.post("One & <two> $x^2$", author='A "b" & <c>', kind="correction")
    reader.post("elsewhere", page=OTHER)
    root = ET.fromstring(client.get(f"{API}/feed.xml").content)
    entries = root.findall(f"{ATOM}entry")
    assert [entry.find(f"{ATOM}id").text for entry in entries] == [
        f"http://localhost/{OTHER}.html#comment-2", f"http://localhost/{PAGE}.html#comment-1"
    ]  # fmt: skip
    assert entries[1].find(f"{ATOM}author/{ATOM}name").text == 'A "b" & <c>'
    assert entries[1].find(f"{ATOM}title").text == 'Correction by A "b" & <c> on Adding'
    assert entries[1].find(f"{ATOM}content").text == (
        '<p>One &amp; &lt;two&gt; <span class="math"><code>x^2</code></span></p>\n'
    )
    of_page = ET.fromstring(client.get(f"{API}/feed/{PAGE}.xml").content)
    assert len(of_page.findall(f"{ATOM}entry")) == 1 and of_page.find(f"{ATOM}title").text == "Comments: Adding"
    empty = ET.fromstring(client.get(f"{API}/feed/{OTHER}.xml").content)
    assert empty.find(f"{ATOM}updated") is not None


def test_the_feed_names_the_public_address(start):
    client = start("https://book.example.org", public=["https://book.example.org"])
    assert "https://book.example.org/-/comments/feed.xml" in client.get(f"{API}/feed.xml").text


def test_only_pages_of_the_book_have_threads(client, reader):
    for page in ("index", "nothing", PAGE + ".html", f"/{PAGE}", "", "chapters/one/../one/adding", PAGE + "\x00", "é"):
        error_of(reader.thread(page), 404, "page")
        error_of(reader.post(page=page), 404, "page")
    for path in ("/on/index", "/on/", "/feed/index.xml"):
        error_of(client.get(API + path), 404, "page")
    error_of(client.get(f"{API}/feed/{PAGE}"), 404)
    assert "section" in error_of(reader.post(section="gone"), 422, "section")


INVALID = [
    ({"text": ""}, 422, "text"),
    ({"text": " \n\t\u200b\u202e "}, 422, "text"),
    ({"text": None}, 422, "text"),
    ({"text": 5}, 422, "text"),
    ({"text": ["x"]}, 422, "text"),
    ({"text": {"a": "x"}}, 422, "text"),
    ({"text": "x" * 8001}, 413, "text"),
    ({"text": "[a](http://b.c) " * 6}, 422, "text"),
    ({"author": "x" * 81}, 413, "author"),
    ({"author": 1}, 422, "author"),
    ({"author": None}, 422, "author"),
    ({"kind": "rant"}, 422, "kind"),
    ({"kind": "Comment"}, 422, "kind"),
    ({"kind": None}, 422, "kind"),
    ({"section": 1}, 422, "section"),
    ({"section": ""}, 422, "section"),
    ({"section": "<script>"}, 422, "section"),
    ({"parent": "1"}, 422, "parent"),
    ({"parent": 1.0}, 422, "parent"),
    ({"parent": True}, 422, "parent"),
    ({"parent": 0}, 422, "parent"),
    ({"parent": 2**70}, 422, "parent"),
    ({"key": "1"}, 422, "key"),
    ({"key": "../../etc/passwd"}, 422, "key"),
    ({"key": str(uuid.UUID(int=1)) + "\n"}, 422, "key"),
    ({"ticket": 5}, 422, "ticket"),
    ({"ticket": "x" * 300}, 422, "ticket"),
    ({"website": None}, 422, "website"),
    ({"page": None}, 422, "page"),
    ({"page": ["x"]}, 422, "page"),
    ({"owner": "me"}, 422, None),
    ({"id": 1}, 422, None),
    ({"state": "visible"}, 422, None),
]


@pytest.mark.parametrize(
    ("fields", "status", "field"), INVALID, ids=lambda v: str(v)[:30] if isinstance(v, dict) else None
)
def test_invalid_fields(reader, fields, status, field):
    error_of(reader.post(**{"text": "Text.", **fields}), status, field)
    assert reader.thread().json()["count"] == 0


def test_missing_fields(reader):
    whole = reader.fields("Text.")
    for name in ("page", "text", "key", "ticket"):
        error_of(reader.send("POST", "/comments", json={k: v for k, v in whole.items() if k != name}), 422, name)
    id = reader.post().json()["id"]
    for name in ("text", "kind", "author", "section"):
        content = {"text": "x", "kind": "idea", "author": "", "section": None}
        del content[name]
        error_of(reader.send("PATCH", f"/comments/{id}", json=content), 422, name)


def test_the_longest_text_and_name_are_taken(reader):
    answer = reader.post("𝛼" * 8000, author="ж" * 80)
    assert answer.status_code == 201 and answer.json()["html"].count("𝛼") == 8000


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null x", b"\xff\xfe", b"\x00", b'{"text": "a\x00b"}', b'{"text": "\xff"}', b"NaN", b"[" * 60000, b'{"a":' * 12000,
        b'{"text": ' + b"[" * 30000 + b"]" * 30000 + b"}", b'{"text": 1' + b"0" * 60000 + b"}", "{\u201dtext\u201d: 1}".encode(),
        b'{"text": "x"} {"text": "y"}',
    ],
    ids=lambda body: repr(body[:16]),
)  # fmt: skip
def test_malformed_json(reader, body):
    for method, path in (("POST", "/comments"), ("POST", "/preview"), ("POST", "/ticket"), ("PATCH", "/comments/1")):
        answer = reader.send(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and set(answer.json()) == {"error", "field", "retry_after"}


@pytest.mark.parametrize("content", [None, True, 5, 1.5, "text", [], [[]], [{"text": "x"}]])
def test_json_that_is_no_object(reader, content):
    for method, path in (("POST", "/comments"), ("POST", "/preview"), ("POST", "/ticket"), ("PATCH", "/comments/1")):
        body = json.dumps(content)
        error_of(reader.send(method, path, content=body, headers={"content-type": "application/json"}), 422)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
@pytest.mark.parametrize("field", ["text", "author", "section", "page", "key", "ticket", "website", "kind"])
def test_half_characters(reader, text, field):
    content = json.dumps(reader.fields("Text.") | {field: text})
    answer = reader.send("POST", "/comments", content=content, headers={"content-type": "application/json"})
    error_of(answer, 422, field)


def test_what_cannot_be_seen_is_taken_out(reader):
    text = "a\x00b\x07c\u202ed\u2066e\u200bf\ufeffg\U000e0041h\x7fi\x9bj\uffffk\u2028l\r\nm\rn"
    reader.post(text, author="A\u202eda\x00\n\tL" + "\u0301" * 20)
    own = reader.thread().json()["own"][0]
    assert own["text"] == "abcdefghijk\nl\nm\nn" and own["author"] == "Ada L" + "\u0301" * 4


def test_text_is_kept_as_written(reader):
    text = "    indented = code\n\nfamily 👨‍👩‍👧 می‌خواهم \u0e01\u0e33\n\ttab"
    reader.post(text)
    assert reader.thread().json()["own"][0]["text"] == text


def test_wrong_addresses_and_methods(client, reader):
    for method, path, status in (
        ("GET", "/nothing", 404), ("POST", "/nothing", 404), ("GET", "/", 404), ("GET", "/docs", 404), ("GET", "/openapi.json", 404),
        ("GET", "/redoc", 404), ("GET", "/comments", 405), ("PUT", "/comments/1", 405), ("DELETE", "/thread", 405),
        ("POST", "/thread", 405), ("GET", "/ticket", 405), ("OPTIONS", "/comments", 405), ("POST", "/comments/1", 405),
    ):  # fmt: skip
        error_of(reader.send(method, path, **({"json": {}} if method in ("POST", "PUT") else {})), status)


def test_health(client, reader, monkeypatch):
    reader.post()
    answer = client.get("/-/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "pages": 4, "comments": 1})


def test_every_answer_is_guarded(client, reader):
    id = reader.post().json()["id"]
    for answer in (
        reader.thread(), reader.post(), reader.edit(id), client.get(f"{API}/on/{PAGE}"), client.get(f"{API}/feed.xml"),
        client.get(f"{API}/nothing"), client.post(f"{API}/comments"), reader.send("POST", "/ticket", json={}),
    ):  # fmt: skip
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "max-age" not in headers["cache-control"] and "public" not in headers["cache-control"]
