"""Servers that are killed, fill the disk, share a database or are rebuilt under: no acknowledged comment is lost."""

from __future__ import annotations

import contextlib
import json
import random
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sites import publish

from book import server
from book.comments.store import FILE, Store
from book.testing import served, serving
from readers import API, OTHER, PAGE, ROOT, Reader, error_of, html_of, write_site

OPEN = {"ticket_from": 0, "limits": False}


@contextlib.contextmanager
def reading(address: str):
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as http:
        yield Reader(http)


def rows(data: Path) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(data / FILE)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return db.execute("SELECT id, key, text FROM comments ORDER BY id").fetchall()


def post_until_it_ends(address: str, number: int, sent: dict, acknowledged: dict) -> Reader:
    """Post one comment after the other until the server is gone; note what was sent and what was acknowledged."""
    with reading(address) as reader, contextlib.suppress(httpx.HTTPError):
        reader.ticket()
        for count in range(10_000):
            fields = reader.fields(f"reader {number}, comment {count}")
            sent[fields["key"]] = (reader, fields)
            answer = reader.send("POST", "/comments", json=fields)
            assert answer.status_code == 201 and fields["text"] in answer.json()["html"]
            acknowledged[fields["key"]] = (answer.json()["id"], fields["text"])
    return reader


def test_kill_under_load(site, tmp_path):
    """kill -9 while four readers write, three times: what was acknowledged is there, and sent again it is there once."""
    data, sent, acknowledged = tmp_path / "data", {}, {}
    for round in range(3):
        with serving(site, data, **OPEN) as found, ThreadPoolExecutor(4) as pool:
            before = len(acknowledged)
            work = [
                pool.submit(post_until_it_ends, found.address, 10 * round + n, sent, acknowledged) for n in range(4)
            ]
            deadline = time.monotonic() + 60
            while len(acknowledged) < before + 40 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(random.Random(round).random() / 10)
            found.process.send_signal(signal.SIGKILL)
            for one in work:
                one.result()
        kept = {key: (id, text) for id, key, text in rows(data)}
        assert len(acknowledged) >= before + 40
        assert acknowledged.items() <= kept.items() and kept.keys() <= sent.keys()
    with served(site, data, **OPEN) as address, httpx.Client(base_url=address, trust_env=False, timeout=30) as http:
        for key, (reader, fields) in sent.items():
            again = Reader(http)
            again.cookie = reader.cookie
            answer = again.send("POST", "/comments", json=fields)
            if key in acknowledged:
                assert (answer.status_code, answer.json()["id"]) == (200, acknowledged[key][0])
            else:
                assert answer.status_code in (200, 201)
        assert http.get(f"{API}/thread?page={PAGE}").json()["count"] == len(sent)
    assert sorted(key for _, key, _ in rows(data)) == sorted(sent), "each once"


def test_a_full_disk(site, tmp_path):
    """The running server may write no more: it says so in words, keeps reading, loses nothing, and goes on afterwards."""
    data = tmp_path / "data"
    with serving(site, data, **OPEN) as found, reading(found.address) as reader:
        assert reader.post("before").status_code == 201
        wal = data / f"{FILE}-wal"
        _, hard = resource.prlimit(found.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(found.process.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size + 30_000, hard))
        refused, accepted = [], ["before"]
        for number in range(60):
            text = f"{number} " + "word " * 500
            answer = reader.post(text)
            if answer.status_code == 201:
                accepted.append(text.strip())
            else:
                words = error_of(answer, 503)
                assert "disk" in words and "try again later" in words and answer.json()["retry_after"]
                refused.append(reader.fields(text))
        assert len(refused) > 20 and len(accepted) > 1
        for answer in (reader.edit(1, "x " * 3000), reader.delete(1)):
            error_of(answer, 503)
        thread = reader.thread().json()
        assert thread["count"] == len(accepted) and "before" in thread["html"], "reading goes on"
        health = reader.client.get("/-/health")
        assert (health.status_code, health.json()["status"]) == (503, "failing")
        resource.prlimit(found.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert reader.client.get("/-/health").status_code == 200
        assert {reader.send("POST", "/comments", json=fields).status_code for fields in refused} == {201}
        assert reader.thread().json()["count"] == len(accepted) + len(refused)
    assert [text for _, _, text in rows(data)][: len(accepted)] == accepted


def test_a_database_that_is_at_its_limit(client, reader):
    """The same by SQLite's own error."""
    store = client.service.store
    reader.post("before")
    pages = store._write.execute("PRAGMA page_count").fetchone()[0]
    store._write.execute(f"PRAGMA max_page_count = {pages}")
    answers = [reader.post("word " * 1500) for _ in range(5)]
    assert "disk is full" in error_of(answers[-1], 503) and reader.thread().status_code == 200
    store._write.execute("PRAGMA max_page_count = 1000000")
    assert reader.post("after").status_code == 201


def test_a_locked_database(client, reader, tmp_path, monkeypatch):
    """Another process holds the lock for too long: wait, then say so; reading goes on."""
    reader.post("before")
    client.service.store._write.execute("PRAGMA busy_timeout = 100")
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = reader.post("during")
        assert "busy" in error_of(answer, 503) and answer.json()["retry_after"] == 2
        assert reader.thread().json()["count"] == 1
        other.execute("ROLLBACK")
    assert reader.post("after").status_code == 201


def test_two_servers_on_one_database(site, tmp_path):
    """Eight readers write to both at once: ids of their own, answers of their own, and each server sees everything at once."""
    data = tmp_path / "data"
    with served(site, data, **OPEN) as one, served(site, data, **OPEN) as two:

        def write(number: int) -> list[int]:
            ids = []
            with reading((one, two)[number % 2]) as here, reading((two, one)[number % 2]) as there:
                here.ticket()
                there.cookie = here.cookie
                for count in range(15):
                    text = f"reader {number} comment {count} {uuid.uuid4()}"
                    posted = here.post(text)
                    assert posted.status_code == 201 and text in posted.json()["html"]
                    assert text in there.thread().json()["html"], "the other server shows it to the next reader"
                    ids.append(posted.json()["id"])
                assert there.edit(ids[0], f"edited by {number}").status_code == 200, "and knows its author"
                assert f"edited by {number}" in here.thread().json()["html"]
            return ids

        with ThreadPoolExecutor(8) as pool:
            ids = [id for found in pool.map(write, range(8)) for id in found]
        assert sorted(ids) == list(range(1, 121)), "none twice, none left out"
        answers = [httpx.get(f"{a}{API}/thread?page={PAGE}", trust_env=False).json() for a in (one, two)]
        assert answers[0] == answers[1] and answers[0]["count"] == 120
    assert len({key for _, key, _ in rows(data)}) == 120


def test_the_same_form_sent_many_times_at_once(client, start):
    """One reader, one key, twenty requests together: one comment."""
    reader = Reader(client)
    fields = reader.fields("once")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(
            f"{API}/comments", json=fields, headers={"cookie": f"reader={reader.cookie}"}
        ), range(20)))  # fmt: skip
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert {answer.json()["id"] for answer in answers} == {1}


def test_backup_while_readers_write(site, tmp_path):
    """Every copy is whole: all that was acknowledged before it began, and no reply without what it replies to."""
    data, stop, acknowledged = tmp_path / "data", threading.Event(), []
    with served(site, data, **OPEN) as address:

        def write(number: int) -> None:
            with reading(address) as reader:
                while not stop.is_set():
                    top = reader.post(f"{number} top").json()["id"]
                    reply = reader.post(f"{number} reply", parent=top).json()["id"]
                    acknowledged.extend((top, reply))

        writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
        for writer in writers:
            writer.start()
        for number in range(5):
            while len(acknowledged) < 20 * (number + 1):
                time.sleep(0.01)
            before, folder = set(acknowledged), tmp_path / f"copy{number}"
            folder.mkdir()
            command = [sys.executable, "-m", "book", "comments", "--data", str(data), "backup", str(folder / FILE)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert before <= {id for id, _, _ in rows(folder)}
            with contextlib.closing(Store(folder)) as copy:
                tops = {comment.id for comment in copy.everything()}
                assert {comment.parent for comment in copy.everything() if comment.parent} <= tops
        stop.set()
        for writer in writers:
            writer.join()


def test_commands_while_the_server_runs(site, tmp_path):
    """As processes: what the command line hides, the server's next answer does not show."""
    data = tmp_path / "data"
    with served(site, data, **OPEN) as address, reading(address) as reader:
        reader.post("out of place")
        assert "out of place" in reader.thread().text
        command = [sys.executable, "-m", "book", "comments", "--data", str(data), "hide", "1"]
        assert subprocess.run(command, cwd=ROOT).returncode == 0
        assert "out of place" not in reader.thread().text


def test_a_rebuild_under_readers(client, site, tmp_path, monkeypatch):
    """While sites are swapped, each page and each thread is of one site or the other; comments outlive their section."""
    monkeypatch.setattr(server, "LOOK_EVERY", 0.02)
    reader = Reader(client)
    for number in range(10):
        reader.post(f"comment {number}", section="the-problem")
    failures, seen, stop = [], set(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            page = client.get(f"/{PAGE}.html").text
            titles = set(re.findall(r">((?:Old|New) problem \d|The problem)<a", page))
            thread = client.get(f"{API}/thread?page={PAGE}")
            html = thread.json()["html"] if thread.status_code == 200 else ""
            abouts = set(re.findall(r'<p class="about">On (?:<a [^>]*>)?([^<]*)', html))
            seen.update(abouts)
            if len(titles) != 1 or not page.endswith("</html>") or len(abouts) != 1 or html.count("<li ") != 10:
                failures.append((thread.status_code, titles, abouts))

    asker = threading.Thread(target=ask)
    asker.start()
    old = site.resolve()
    for number in range(6):
        title = f"{'Old' if number % 2 else 'New'} problem {number}"
        new = write_site(tmp_path / "sites" / f"new{number}")
        (new / f"{PAGE}.html").write_text(html_of(PAGE, {"the-problem": title}))
        publish(site, new)
        shutil.rmtree(old)
        old = new
        deadline = time.monotonic() + 20
        while title not in seen and time.monotonic() < deadline:
            time.sleep(0.01)
        assert title in seen
    stop.set()
    asker.join()
    assert not failures
    (new := write_site(tmp_path / "sites" / "last")).joinpath(f"{PAGE}.html").write_text(
        html_of(PAGE, {"adding": "Adding"})
    )
    publish(site, new)
    deadline = time.monotonic() + 20
    while "since changed" not in (html := reader.thread().json()["html"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert '<p class="about">On The problem (section since changed)</p>' in html and "data-section" not in html
    assert reader.thread().json()["sections"] == {}
    (new := write_site(tmp_path / "sites" / "gone", pages=[OTHER]))
    publish(site, new)
    deadline = time.monotonic() + 20
    while reader.thread().status_code != 404 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert reader.thread().status_code == 404 and len(client.service.store.everything()) == 10


def test_logs_as_json(site, tmp_path):
    """One object for each request, refused ones too; no address of the reader, no query, no token, no text."""
    with serving(site, tmp_path / "data", logs="json", proxies=["127.0.0.0/8"], **OPEN) as found:
        with reading(found.address) as reader:
            reader.post("secret words", author="Secret Name")
            reader.client.headers["x-forwarded-for"] = "198.51.100.77"
            reader.thread()
            reader.client.get("/chapters/one/adding.html?q=secret")
            reader.client.get("/nothing%0d%0a%7Bx%7D", headers={"user-agent": "secret agent"})
            reader.client.get("/", headers={"host": "evil.example"})
            reader.send("POST", "/comments", content=b"secret", headers={"content-type": "text/plain"})
        deadline = time.monotonic() + 20
        while len(found.lines) < 7 and time.monotonic() < deadline:
            time.sleep(0.05)
        objects = [json.loads(line) for line in found.lines]
    assert [(o["event"], o["method"], o["path"], o["status"]) for o in objects] == [
        ("request", "POST", f"{API}/ticket", 200),
        ("request", "POST", f"{API}/comments", 201),
        ("request", "GET", f"{API}/thread", 200),
        ("request", "GET", f"/{PAGE}.html", 200),
        ("request", "GET", "/nothing\r\n{x}", 404),
        ("request", "GET", "/", 421),
        ("request", "POST", f"{API}/comments", 415),
    ]
    assert all(set(o) == {"time", "event", "method", "path", "status", "bytes", "ms"} for o in objects)
    text = "".join(found.lines)
    assert not re.search(r"secret|198\.51|127\.0\.0|evil|reader=|" + re.escape(reader.cookie), text, re.I)


def test_a_failure_of_ours_is_logged_and_said_in_words(client, reader, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("a mistake of ours")

    reader.ticket()
    monkeypatch.setattr(client.service.renderer, "render", broken)
    with pytest.raises(RuntimeError):  # the test's client shows what the server logs
        reader.post()
    answer = httpx_like(client, "POST", f"{API}/preview", {"text": "x"})
    assert "try again later" in error_of(answer, 503) and "mistake" not in answer.text


def httpx_like(client, method, path, content):
    from starlette.testclient import TestClient

    quiet = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False)
    return quiet.request(method, path, json=content, headers={"origin": "http://localhost"})
