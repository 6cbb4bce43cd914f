"""What a moderator does from the command line, what is imported, and what a database must be."""

from __future__ import annotations

import json
import re
import sqlite3
import xml.etree.ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from test_render import THREAD, XSS, assert_safe

from book import cli, server
from book.comments import commands, views
from book.comments.settings import Deployment, Settings, origin
from book.comments.store import FILE, Store
from book.comments.text import clean
from book.errors import BookError
from readers import OTHER, PAGE, ROOT, Reader, make_service


@pytest.fixture
def book(client, tmp_path, site, monkeypatch, capsys, renderer):
    """`book(…)`: run `python -m book comments …` beside the running service; its exit code, output and errors."""
    monkeypatch.setattr("book.comments.render.Renderer", lambda root: renderer)
    monkeypatch.setattr(commands, "_threads", lambda: server.threads_of(site.resolve()))

    def run(action, *arguments, data=tmp_path / "data"):
        capsys.readouterr()
        code = cli.main(["comments", "--data", str(data), action, *map(str, arguments)])
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


@pytest.fixture
def some(client, book):
    """Five comments of two readers."""
    ada, bob = Reader(client), Reader(client)
    ada.post("First: *wrong* sign.", author="Ada", kind="correction", section="the-problem")
    bob.post("A question?", kind="question")
    ada.post("Yes.", parent=1, author="Ada")
    bob.post("Typo.", kind="correction", page=OTHER)
    ada.post("Idea: $x^2$", kind="idea")
    return ada, bob


def thread(client) -> str:
    return client.get("/-/comments/thread", params={"page": PAGE}).json()["html"]


def test_list_and_show(book, some):
    code, out, _ = book("list")
    assert code == 0 and len(out.splitlines()) == 5 and "Ada: First: *wrong* sign." in out and "(to 1)" in out
    assert len(book("list", "--page", OTHER)[1].splitlines()) == 1
    assert [line.split()[0] for line in book("list", "--kind", "correction")[1].splitlines()] == ["1", "4"]
    assert book("list", "--state", "pending")[1:] == ("", "No comments.\n")
    code, out, err = book("show", 1, 99)
    assert code == 1 and "section:  the-problem (The problem)" in out and "    First: *wrong* sign." in out
    assert err == "error: there is no comment 99, or it was deleted\n"


def test_the_running_server_follows(client, book, some):
    """Each decision, made by another process's connection, is what the next reader sees."""
    assert 'id="comment-1"' in thread(client)
    assert book("hide", 1, 2)[0] == 0
    assert "This comment was removed." in thread(client) and "wrong" not in thread(client)
    assert book("approve", 1)[0] == 0 and "wrong" in thread(client) and "question" not in thread(client)
    assert book("resolve", 1)[0] == 0 and '<span class="resolved">Resolved</span>' in thread(client)
    assert book("resolve", "--undo", 1)[0] == 0 and "Resolved" not in thread(client)
    assert book("delete", 1)[0] == 0 and "wrong" not in thread(client)
    assert book("approve", 1) == (1, "", "error: there is no comment 1, or it was deleted\n"), "deleted is for ever"


def test_deleted_text_is_gone_from_the_disk(client, book, tmp_path):
    reader = Reader(client)
    reader.post("unmistakable words", author="Unmistakable Name")
    assert book("delete", 1)[0] == 0
    client.service.store.checkpoint()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert b"nmistakable" not in kept


def test_orphans(client, book, some, site):
    assert book("list", "--orphans")[1] == ""
    (site / f"{OTHER}.html").unlink()
    assert "Typo." in book("list", "--orphans")[1] and len(book("list")[1].splitlines()) == 5


# --- there and back -----------------------------------------------------------------------------------


def test_export_import_export(book, some, tmp_path, client):
    """The same bytes, the same threads; no owner, no key, nothing of the cookie."""
    book("hide", 2), book("resolve", 4), book("delete", 5)
    some[0].edit(1, "Edited.", kind="correction", author="Ada", section="the-problem")
    first, other = tmp_path / "first.jsonl", tmp_path / "other"
    assert book("export", first)[0] == 0
    assert book("export")[1] == first.read_text()
    code, out, err = book("import", first, data=other)
    assert (code, out, err) == (0, "5 comments imported, 0 were there already\n", "")
    second = tmp_path / "second.jsonl"
    book("export", second, data=other)
    assert second.read_bytes() == first.read_bytes()
    assert set(json.loads(first.read_text().splitlines()[0])) == {
        "id", "page", "section", "section_title", "parent", "kind", "state", "author", "text", "created", "edited", "resolved"
    }  # fmt: skip
    with sqlite3.connect(other / FILE) as db:
        assert db.execute("SELECT count(*) FROM comments WHERE owner IS NOT NULL OR key IS NOT NULL").fetchone()[0] == 0
    old, new = client.service.store.thread(PAGE), Store(other).thread(PAGE)
    assert views.thread_html(new, {}) == views.thread_html(old, {})
    assert book("import", first, data=other)[1] == "0 comments imported, 5 were there already\n", "twice is once"
    assert book("import", first)[1] == "0 comments imported, 5 were there already\n"
    service = make_service(other)
    service.close()


def test_new_comments_after_an_import_have_new_ids(book, some, tmp_path):
    first, other = tmp_path / "first.jsonl", tmp_path / "other"
    book("export", first)
    book("import", first, data=other)
    store = Store(other)
    from dataclasses import replace

    comment, _ = store.post(replace(store.get(2), id=0, owner="o", key="k"))
    assert comment.id == 6
    store.close()


LINE = {
    "id": 1, "page": PAGE, "section": None, "section_title": None, "parent": None, "kind": "comment", "state": "visible",
    "author": "Ada", "text": "Text.", "created": "2026-11-27T10:00:00Z", "edited": None, "resolved": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "1"}, "id must be"), ({"id": True}, "id must be"), ({"id": -1}, "id must be"), ({"id": 2**80}, "id must be"),
        ({"page": "../../etc/passwd"}, "page must be"), ({"page": "/etc/passwd"}, "page"), ({"page": "a/.b"}, "page must be"), ({"page": "a b"}, "page"),
        ({"page": "<script>"}, "page must be"), ({"page": "a\n"}, "page must be"), ({"page": "javascript:x"}, "page must be"), ({"kind": "x"}, "kind must be"),
        ({"kind": ["x"]}, "kind must be"), ({"state": "open"}, "state must be"), ({"state": None}, "state must be"), ({"text": 5}, "text must be"),
        ({"text": ""}, "text must be"), ({"text": "\u200b"}, "text must be"), ({"text": "x" * 8001}, "text must be"), ({"text": "\ud800"}, "text must be"),
        ({"author": "x" * 81}, "author must be"), ({"author": None}, "author must be"), ({"created": 5}, "created must be"), ({"created": "yesterday"}, "created"),
        ({"created": "2026-13-01T00:00:00Z"}, ""), ({"created": "0001-01-01T00:00:00Z"}, "created must be"), ({"created": None}, "created must be"),
        ({"edited": "x"}, "edited must be"), ({"parent": 1.5}, "parent must be"), ({"parent": 7}, "replies to 7"), ({"parent": 1}, "replies to 1"),
        ({"owner": "x"}, "exactly these fields"), ({"html": "<b>"}, "exactly these fields"), ({"state": "deleted"}, "neither text nor author"), ({"section": 5}, "section must be"),
    ],
)  # fmt: skip
def test_lines_that_are_refused(book, tmp_path, change, words):
    """With the line's number, and nothing of the file is imported."""
    file, other = tmp_path / "x.jsonl", tmp_path / "other"
    good = LINE | {"id": 2}
    file.write_text(json.dumps(good) + "\n" + json.dumps(LINE | change) + "\n")
    code, out, err = book("import", file, data=other)
    assert code == 1 and out == "" and words in err and "nothing was imported" in err and "Traceback" not in err
    assert (f"{file}:2: " in err) or "comment 1 replies" in err
    assert Store(other).everything() == []


@pytest.mark.parametrize(
    "line", ["{", "[]", "null", "5", '"x"', "[" * 100_000, '{"id": NaN}', "\x00", "{}", '{"id": 1}']
)
def test_lines_that_are_no_comment(book, tmp_path, line):
    file = tmp_path / "x.jsonl"
    file.write_text(line + "\n")
    code, _, err = book("import", file, data=tmp_path / "other")
    assert code == 1 and f"{file}:1: " in err and "Traceback" not in err


def test_files_that_are_no_text(book, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in book("import", file)[2] and "cannot read" in book("import", tmp_path / "none")[2]


def test_conflicts_are_refused(book, some, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(LINE | {"id": 77}) + "\n" + json.dumps(LINE) + "\n")
    code, _, err = book("import", file)
    assert code == 1 and "comment 1 is there already, with other content" in err and "--data" in err
    assert "77" not in book("list")[1]
    file.write_text((json.dumps(LINE) + "\n") * 2)
    assert "twice" in book("import", file, data=tmp_path / "other")[2]


# --- stored script, in every field, at every exit -----------------------------------------------------


@pytest.mark.parametrize("attack", XSS, ids=lambda attack: attack[:40])
def test_stored_script_in_every_field(client, book, attack, tmp_path, renderer):
    """By the API where it takes the field, by import and straight into the database where it does not."""
    reader, store = Reader(client), client.service.store
    posted = reader.post(attack, author=attack[:80])
    assert posted.status_code in (201, 422)
    for name in ("page", "section", "kind", "key", "ticket", "parent"):
        answer = reader.post("x", **{name: attack})
        assert answer.status_code in (403, 404, 413, 422) and "<" not in answer.text, name
    preview = reader.send("POST", "/preview", json={"text": attack})
    if preview.status_code == 200:
        assert_safe(preview.json()["html"])
    file = tmp_path / "x.jsonl"
    line = LINE | {
        "id": 50,
        "section": attack[:80],
        "section_title": attack[:80],
        "author": attack[:80],
        "text": attack,
    }
    file.write_text(json.dumps(line) + "\n")
    assert book("import", file)[0] == 0
    with store.writing() as db:  # what no door lets in
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute("UPDATE comments SET kind = ? WHERE id = 50", [clean(attack)])
        db.execute("PRAGMA ignore_check_constraints = OFF")
    shown = thread(client)
    assert_safe(shown, THREAD | {"br", "strong", "em", "s", "code", "pre", "blockquote", "ul", "hr"})
    assert 'id="comment-50"' in shown
    whole = client.get(f"/-/comments/on/{PAGE}").text
    inner = whole[whole.index('<ol class="thread">') : whole.index("</section>")]
    assert_safe(
        inner.replace(f'href="/{PAGE}.html#', 'href="#'),
        THREAD | {"br", "strong", "em", "s", "code", "pre", "blockquote", "ul", "hr"},
    )
    assert whole.count("<script") == 0 and whole.count("</section>") == 1 and whole.count("<title>") == 1
    root = ET.fromstring(client.get("/-/comments/feed.xml").content)
    atom = "{http://www.w3.org/2005/Atom}"
    assert {element.tag.removeprefix(atom) for element in root.iter()} <= {
        "feed", "id", "title", "link", "updated", "entry", "author", "name", "published", "category", "content"
    }  # fmt: skip
    for content in root.iter(f"{atom}content"):
        assert_safe(content.text)
    out = book("digest")[1] + book("list")[1] + book("show", 50)[1]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out), (
        "nor does it reach the terminal"
    )


# --- the digest ---------------------------------------------------------------------------------------


def test_digest(book, some):
    code, out, _ = book("digest")
    assert code == 0 and re.fullmatch(
        rf"""- `{PAGE}`
  - `The problem`
    - `Ada`, \d{{4}}-\d\d-\d\d, \[comment 1\]\(/{PAGE}.html#comment-1\)
      ```text
      First: \*wrong\* sign.
      ```
- `{OTHER}`
  - The page
    - `A reader`, \d{{4}}-\d\d-\d\d, \[comment 4\]\(/{OTHER}.html#comment-4\)
      ```text
      Typo.
      ```
""",
        out,
    )
    book("resolve", 4)
    assert OTHER not in book("digest")[1] and book("digest", "--page", OTHER)[1] == ""
    assert "no open corrections" in book("digest", "--page", OTHER)[2]
    assert "(https://b.example/chapters" in book("digest", "--public", "https://b.example")[1]


@pytest.mark.parametrize("given", [
    "```\n- [x] done\n\n# out\n@team fixes #1", "````text\n```\n~~~~", "`" * 50, "\n\n\n- a\n\n\n# h", "</details><img src=x>", "@everyone closes #17 and GH-3", "    code\n> quote",
    "1. a\n\n   b\n\nc", "[x]: http://evil.example\n[x]", "<!-- ", "\t\ttabs", "---\n===\n***", "a\\", "$x$ `a ``b ```c",
])  # fmt: skip
def test_nothing_breaks_out_of_the_digest(client, book, given):
    """Read as Markdown: one list, and the text exactly in one block of code; nothing a mention could come from."""
    name = "`@evil` ``#1`` [a](b)"
    Reader(client).post(given, kind="correction", author=name)
    Reader(client).post("After.", kind="correction")
    kept = client.service.store.get(1).text
    out = book("digest")[1]
    tokens = MarkdownIt("commonmark").enable("table").parse(out)
    assert [token.type for token in tokens if token.level == 0] == ["bullet_list_open", "bullet_list_close"]
    fences = [token for token in tokens if token.type == "fence"]
    assert [fence.content for fence in fences] == [kept + "\n", "After.\n"]
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert {child.type for child in inline} <= {"text", "code_inline", "link_open", "link_close"}
    assert not re.search(r"[@#<]|GH-", "".join(child.content for child in inline if child.type == "text"))
    assert name in [child.content for child in inline if child.type == "code_inline"]


def test_feed_command(book, some, client):
    _, out, _ = book("feed", "--public", "https://b.example", "--page", PAGE)
    assert len(ET.fromstring(out).findall("{http://www.w3.org/2005/Atom}entry")) == 4
    assert f"https://b.example/{PAGE}.html#comment-5" in out
    assert "no page that takes comments" in book("feed", "--page", "x")[2]


# --- the database and the settings --------------------------------------------------------------------


def test_backup(book, some, tmp_path):
    copy = tmp_path / "copy.sqlite"
    assert book("backup", copy) == (0, f"{copy}: 5 comments\n", "")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert "is there already" in book("backup", copy)[2]
    assert "cannot write" in book("backup", tmp_path / "none" / "x")[2]
    restored = tmp_path / "restored"
    restored.mkdir()
    copy.rename(restored / FILE)
    assert book("export", data=restored)[1] == book("export")[1]
    assert not list(tmp_path.glob(".copy*"))


def test_commands_need_a_database(book, tmp_path):
    for action in (["list"], ["export"], ["backup", tmp_path / "x"], ["digest"]):
        code, _, err = book(*action, data=tmp_path / "none")
        assert code == 1 and "--data" in err and not (tmp_path / "none").exists()


def test_a_newer_database_is_refused(tmp_path, site, capsys):
    Store(tmp_path / "d").close()
    with sqlite3.connect(tmp_path / "d" / FILE) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(BookError, match=r"newer version of the book \(format 2, this one knows 1\).*git pull"):
        Store(tmp_path / "d")
    assert server.serve(site, port=0, comments=lambda: make_service(tmp_path / "d")) == 1
    assert "git pull" in capsys.readouterr().err


def test_files_that_are_no_database(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / FILE).write_bytes(b"nonsense " * 1000)
    with pytest.raises(BookError, match="no SQLite database.*backup"):
        Store(tmp_path / "d")
    (tmp_path / "d" / FILE).unlink()
    with sqlite3.connect(tmp_path / "d" / FILE) as db:
        db.execute("CREATE TABLE other (x)")
    with pytest.raises(BookError, match="something else"):
        Store(tmp_path / "d")
    (tmp_path / "file").write_text("")
    with pytest.raises(BookError, match="cannot open"):
        Store(tmp_path / "file" / "d")


def test_the_database_is_private_and_durable(tmp_path):
    store = Store(tmp_path / "d")
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "d").iterdir()} == {0o600}
    pragma = {
        name: store._write.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_comments_are_rendered_again_by_a_new_version(client, reader, renderer, monkeypatch):
    for number in range(3):
        reader.post(f"text {number}")
    with client.service.store.writing() as db:
        db.execute("UPDATE comments SET html = 'old', renderer = 'old' WHERE id < 3")
    client.service._warm()
    assert "old" not in thread(client) and "text 1" in thread(client)
    assert client.service.store.stale(renderer.version) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"provider": "disqus"}, "provider: 'disqus' is not one of embedded, giscus, none"),
        ({"provider": 5}, "provider"), ({"provider": ["embedded"]}, "provider"), ({"moderation": "sometimes"}, "moderation: 'sometimes' is not one of auto, on, off"),
        ({"provdier": "none"}, "unknown key 'provdier'"), ("embedded", "must be a mapping"), (["x"], "must be a mapping"), ({"giscus": "x"}, "giscus: must be a mapping"),
        ({"giscus": {"repo": "a/b", "color": 1}}, "unknown key 'color'"), ({"giscus": {"repo": 5}}, "repo: must be text"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(config, words):
    with pytest.raises(BookError, match=re.escape(words)):
        Settings.read(config)


def test_settings():
    assert Settings.read(None) == Settings.read({}) == Settings("none", "auto", None)
    assert Settings.read({"provider": "embedded", "moderation": True}).moderation == "on", "YAML reads a bare `on` so"
    assert Settings.read({"provider": "giscus"}).giscus is None and Settings.read({"provider": "giscus"}).csp() == {}
    ids = {"repo": "a/b", "repo_id": "R", "category": "C", "category_id": "D"}
    assert Settings.read({"provider": "giscus", "giscus": ids}).csp()["frame-src"] == ["https://giscus.app"]
    assert Settings.read({"provider": "giscus", "giscus": ids | {"repo_id": ""}}).giscus is None
    assert Settings.of_book(ROOT).provider == "embedded"


def test_when_comments_wait(tmp_path):
    def moderated(moderation="auto", **deployment) -> bool:
        return Deployment.read(tmp_path, **deployment).moderated(Settings("embedded", moderation))

    assert not moderated() and not moderated(host="::1") and not moderated(host="localhost")
    assert (
        moderated(host="0.0.0.0")
        and moderated(host="192.168.1.5")
        and moderated(host="::")
        and moderated(public=["http://b.example"])
    )
    assert not moderated("off", host="0.0.0.0") and moderated("on")


def test_public_addresses():
    assert (
        origin("https://Book.Example.org:443/") == "https://book.example.org"
        and origin("http://b:8000") == "http://b:8000"
    )
    for wrong in (
        "book.example.org",
        "ftp://b",
        "https://",
        "https://b/x",
        "https://a@b",
        "https://b?x",
        "https://b:x",
        "https://*",
        "https://b:99999",
        "https://b c",
    ):
        with pytest.raises(BookError, match="e.g. https://book.example.org"):
            origin(wrong)
    with pytest.raises(BookError, match="10.0.0.0/8"):
        Deployment.read(ROOT, proxies=["proxy"])


def test_the_options_of_serve(monkeypatch, tmp_path):
    """As options and as environment variables."""
    given = [
        "serve",
        "--public",
        "https://b.example",
        "--public",
        "http://c:81",
        "--trusted-proxy",
        "10.0.0.0/8",
        "--data",
        str(tmp_path / "d"),
    ]
    made = cli.comments(cli.parser().parse_args(given))
    for name, value in (
        ("BOOK_PUBLIC", "https://b.example, http://c:81"), ("BOOK_TRUSTED_PROXY", "10.0.0.0/8"), ("BOOK_DATA", str(tmp_path / "d")), ("BOOK_LOG", "json"),
        ("BOOK_HOST", "0.0.0.0"), ("PORT", "81"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    arguments = cli.parser().parse_args(["serve"])
    assert (arguments.log, arguments.host, arguments.port) == ("json", "0.0.0.0", 81)
    again = cli.comments(arguments)
    assert made["hosts"] == again["hosts"] == ("b.example", "c")
    for options in (made, again):
        service = options["comments"]()
        assert service.deployment.public == ("https://b.example", "http://c:81") and service.moderated
        assert [str(network) for network in service.deployment.proxies] == ["10.0.0.0/8"]
        assert service.store.path == tmp_path / "d" / FILE
        service.close()


# --- which pages --------------------------------------------------------------------------------------


def test_threads_of_a_site(site):
    from readers import SECTIONS, html_of

    assert server.threads_of(site.resolve()) == {PAGE: SECTIONS, OTHER: SECTIONS}
    name = f"{PAGE}.html"
    assert server.thread_of(name, html_of(PAGE, provider="giscus").encode()) is None
    assert server.thread_of("chapters/x.html", html_of(PAGE).encode()) is None, "a page cannot speak for another"
    assert server.thread_of(name, b"<section>x</section>") is None
    maths = '<span class="math"><span class="katex"><span class="katex-mathml"><math><mi>x</mi><annotation>x</annotation></math></span><span class="katex-html"><span>x</span></span></span></span>'
    page = html_of(PAGE).replace("The problem<", f"The <em>{maths}</em> &amp; <code>b</code><")
    assert server.thread_of(name, page.encode())["the-problem"] == "The x & b"
