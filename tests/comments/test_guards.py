"""Attacks on who may write, how often and how much: tried on a real server where bytes on the wire matter."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import time
import uuid

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from book.comments import guards
from book.comments.guards import Limits, Problem, Rate, Tickets, network_of
from book.testing import served
from readers import API, PAGE, Reader, error_of

JSON = "application/json"


@pytest.fixture
def address(site, tmp_path):
    with served(site, tmp_path / "data", ticket_from=0, limits=False) as address:
        yield address


def raw(address: str, request: bytes, wait: float = 10) -> bytes:
    """What the server answers to these very bytes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), wait) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


# --- cross-site ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": ""},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://localhost:81"},
        {"origin": "https://localhost"},
        {"origin": "http://localhost/"},
        {"origin": "http://localhost@evil.example"},
        {"origin": "http://evil.example#http://localhost"},
        {"origin": "file://"},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
        {"origin": "http://localhost", "sec-fetch-site": "same-site"},
        {"origin": "http://localhost", "sec-fetch-site": "none"},
        {"referer": "http://localhost/"},
    ],
    ids=str,
)
def test_other_sites_cannot_write(client, reader, headers):
    """With the reader's cookie and a valid form, whatever the browser or a program says about where it comes from."""
    id = reader.post("mine").json()["id"]
    content = reader.fields("theirs")
    client.headers.pop("origin")
    cookie = {"cookie": f"reader={reader.cookie}", **headers}
    edited = {"text": "theirs", "kind": "comment", "author": "", "section": None}
    for method, path, body in (
        ("POST", "/comments", content), ("PATCH", f"/comments/{id}", edited), ("DELETE", f"/comments/{id}", None),
        ("POST", "/preview", {"text": "x"}), ("POST", "/ticket", {}),
    ):  # fmt: skip
        answer = client.request(method, API + path, json=body, headers=cookie)
        assert "another site" in error_of(answer, 403) and "set-cookie" not in answer.headers
    thread = client.get(f"{API}/thread?page={PAGE}").json()
    assert thread["count"] == 1 and "mine" in thread["html"] and "theirs" not in thread["html"]


@pytest.mark.parametrize(
    "kind",
    [
        None, "", "text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "text/json", "application/json5", "application/jsonp", "application/csp-report", "application/json; charset=utf-7",
        "application/json; charset=utf-16", "application/json, text/plain", "application/ld+json", "APPLICATION/XML",
    ],
)  # fmt: skip
def test_forms_of_other_sites_are_no_json(client, reader, kind):
    """Even with the right Origin: what an HTML form or a plain request can send is refused before it is read."""
    body = json.dumps(reader.fields("theirs"))
    headers = {} if kind is None else {"content-type": kind}
    answer = reader.send("POST", "/comments", content=body, headers=headers)
    assert "JSON" in error_of(answer, 415)
    assert reader.thread().json()["count"] == 0


def test_forms_as_browsers_send_them(client, reader):
    fields = reader.fields("theirs")
    strings = {name: str(value) for name, value in fields.items()}
    body = json.dumps(fields)
    answers = [
        reader.send("POST", "/comments", data=strings),
        reader.send("POST", "/comments", files={"file": ("x.json", body, JSON)}),
        # the trick of enctype=text/plain: JSON around an equals sign
        reader.send("POST", "/comments", content=body[:-1] + ', "a": "="}', headers={"content-type": "text/plain"}),
    ]
    for answer in answers:
        error_of(answer, 415)
    assert reader.thread().json()["count"] == 0


@pytest.mark.parametrize(
    "kind",
    [JSON, "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", 'application/json; charset="utf-8"'],
)
def test_json_is_taken(reader, kind):
    answer = reader.send("POST", "/preview", content='{"text": "x"}', headers={"content-type": kind})
    assert answer.status_code == 200


def test_reading_needs_no_origin_and_shares_nothing(client):
    """Another site may cause a read, and cannot see its answer."""
    client.headers.pop("origin")
    answer = client.get(f"{API}/thread?page={PAGE}", headers={"origin": "https://evil.example"})
    assert answer.status_code == 200 and not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    preflight = client.options(
        f"{API}/comments", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 403 and not [n for n in preflight.headers if n.startswith("access-control")]


def test_the_public_origin(start):
    """Behind a proxy that speaks TLS: only the public address, only https, and the cookie for https only."""
    client = start("https://book.example.org", public=["https://book.example.org/"])
    reader = Reader(client)
    answer = reader.send("POST", "/ticket", json={})
    assert "; Secure" in answer.headers["set-cookie"] and reader.post().status_code == 201
    for origin in ("http://book.example.org", "https://book.example.org:8443", "https://www.book.example.org"):
        error_of(reader.send("POST", "/ticket", json={}, headers={"origin": origin}), 403)
    # the same machine, spoken to directly
    local = {"host": "localhost:8000", "origin": "http://localhost:8000"}
    answer = client.post(f"{API}/ticket", json={}, headers=local)
    assert answer.status_code == 200 and "Secure" not in answer.headers["set-cookie"]
    error_of(client.post(f"{API}/ticket", json={}, headers={**local, "origin": "http://evil.example"}), 403)


def test_the_cookie(reader):
    header = reader.send("POST", "/ticket", json={}).headers["set-cookie"]
    assert re.fullmatch(
        r"reader=[\w-]{43}; HttpOnly; Max-Age=2592000; Path=/-/comments; SameSite=strict", header
    )  # fmt: skip
    assert "set-cookie" not in reader.send("POST", "/ticket", json={}).headers


# --- foreign names and forged addresses ---------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "", "localhost@evil.example", "169.254.169.254", "127.1"]
)
def test_foreign_hosts(client, host):
    """A name that was pointed here (DNS rebinding) makes page and service one origin: refused before anything else."""
    for method, path in (
        ("GET", f"/thread?page={PAGE}"),
        ("POST", "/ticket"),
        ("GET", "/feed.xml"),
        ("GET", f"/on/{PAGE}"),
    ):
        answer = client.request(method, API + path, headers={"host": host, "origin": f"http://{host}"})
        assert answer.status_code == 421 and "set-cookie" not in answer.headers


def test_two_hosts_and_a_forwarded_one(address):
    port = address.rpartition(":")[2]
    body = b"{}"
    for extra in (b"Host: evil.example\r\n", b""):
        request = (
            f"POST {API}/ticket HTTP/1.1\r\nHost: localhost:{port}\r\n".encode()
            + extra
            + b"X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example;proto=https\r\nX-Forwarded-Proto: https\r\n"
            b"Origin: https://evil.example\r\nContent-Type: application/json\r\nConnection: close\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        assert re.match(rb"HTTP/1.1 (400|403|421) ", raw(address, request))


def request_from(peer: str, *forwarded: str, **headers: str) -> Request:
    given = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    given += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "client": (peer, 1) if peer else None, "headers": given})


PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "network"),
    [
        ("203.0.113.9", [], [], "203.0.113.0/24"),
        ("203.0.113.9", ["198.51.100.1"], [], "203.0.113.0/24"),  # nobody is believed
        ("203.0.113.9", ["198.51.100.1"], PROXIES, "203.0.113.0/24"),  # not a proxy of ours
        ("10.1.1.1", ["198.51.100.1"], PROXIES, "198.51.100.0/24"),
        ("10.1.1.1", ["1.2.3.4, 198.51.100.1"], PROXIES, "198.51.100.0/24"),  # what a reader put in front
        ("10.1.1.1", ["1.2.3.4", "198.51.100.1"], PROXIES, "198.51.100.0/24"),  # in a header of its own
        ("10.1.1.1", ["1.2.3.4, 198.51.100.1, 10.2.2.2"], PROXIES, "198.51.100.0/24"),  # two proxies
        ("10.1.1.1", ["10.9.9.9, 198.51.100.1"], PROXIES, "198.51.100.0/24"),  # pretends to be a proxy
        ("10.1.1.1", ["198.51.100.1, nonsense"], PROXIES, "10.1.1.0/24"),
        ("10.1.1.1", ["nonsense, 198.51.100.1"], PROXIES, "198.51.100.0/24"),
        ("10.1.1.1", [""], PROXIES, "10.1.1.0/24"),
        ("10.1.1.1", ["198.51.100.1:4711"], PROXIES, "198.51.100.0/24"),
        ("fd00::1", ["[2001:db8:1:2:3:4:5:6]:4711"], PROXIES, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", [], [], "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", [], [], "203.0.113.0/24"),
        ("::ffff:10.1.1.1", ["198.51.100.1"], PROXIES, "198.51.100.0/24"),
        ("", ["198.51.100.1"], PROXIES, "unknown"),
        ("testclient", [], PROXIES, "unknown"),
    ],
)
def test_whose_bucket(peer, forwarded, proxies, network):
    assert network_of(request_from(peer, *forwarded, forwarded="for=9.9.9.9", x_real_ip="9.9.9.9"), proxies) == network


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=4))
def test_no_forwarded_header_breaks_it(forwarded):
    assert network_of(request_from("10.1.1.1", *forwarded), PROXIES)


def posts(address: str, count: int, headers=lambda number: {}) -> list[int]:
    with httpx.Client(base_url=address, trust_env=False) as http:
        reader = Reader(http)
        reader.ticket()
        return [
            reader.send("POST", "/comments", json=reader.fields(f"{n}"), headers=headers(n)).status_code
            for n in range(count)
        ]


def test_forged_addresses_give_no_second_bucket(site, tmp_path):
    """On the wire, without a trusted proxy: every header that claims an address, and still one bucket."""
    forged = {}
    with served(site, tmp_path / "data", ticket_from=0) as address:

        def claim(number: int) -> dict[str, str]:
            claimed = f"198.51.{number}.1"
            return {name: claimed for name in ("x-forwarded-for", "x-real-ip", "client-ip", "true-client-ip", "cf-connecting-ip")} | {
                "forwarded": f"for={claimed}", **forged,
            }  # fmt: skip

        assert posts(address, 13, claim) == [201] * 10 + [429] * 3


def test_a_trusted_proxy_names_its_readers(site, tmp_path):
    """With one: readers have buckets of their own, and what they put in front of it changes nothing."""
    with served(site, tmp_path / "data", ticket_from=0, proxies=["127.0.0.0/8"]) as address:
        assert posts(address, 13, lambda n: {"x-forwarded-for": f"198.51.{n}.1"}) == [201] * 13
        assert (
            posts(address, 13, lambda n: {"x-forwarded-for": f"198.51.{n}.1, 203.0.113.{n}"}) == [201] * 10 + [429] * 3
        )


# --- tokens -------------------------------------------------------------------------------------------


def test_tokens_of_others_and_tampered_ones(client, reader):
    id = reader.post("mine").json()["id"]
    other = Reader(client)
    other.ticket()
    token = reader.cookie
    row = client.service.store.get(id)
    for cookie in (
        None, "", other.cookie, token[:-1], token + "A", token.swapcase(), token[::-1], "A" * 43, row.owner, row.owner[:43], "x" * 5000,
        token[:-1] + ("A" if token[-1] != "A" else "B"), f'"{token}"x', f"{token}%00", "' OR 1=1 --", "null",
    ):  # fmt: skip
        other.cookie = cookie
        words = {
            error_of(answer, answer.status_code, answer.json()["field"])
            for answer in (other.edit(id), other.delete(id))
        }
        assert other.edit(id).status_code == 403 and len(words) == 1, cookie
        assert other.thread().json()["own"] == []
    assert reader.edit(id).status_code == 200, "and the owner still can"


def test_the_database_holds_no_token(client, reader, tmp_path):
    reader.post("mine")
    client.service.store.checkpoint()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert b"mine" in kept and reader.cookie.encode() not in kept


def test_not_found_and_not_yours_are_the_same(client, reader):
    id = Reader(client).post().json()["id"]
    reader.ticket()
    bodies = {(a.status_code, a.text) for n in (id, 999, 10**14, 0) for a in (reader.edit(n), reader.delete(n))}
    assert len(bodies) == 1
    for odd in ("abc", "-1", "1.5", "1e3", "0x1", "١", "1%00", "%2e%2e", "1;2", " 1", "1" * 400):
        assert reader.delete(odd).status_code in (403, 404), odd


def test_tickets():
    clock = [1000.0]
    tickets = Tickets(b"secret", lambda: clock[0])
    ticket = tickets.make("ada")

    def refused(given: str, owner: str = "ada") -> Problem:
        with pytest.raises(Problem) as caught:
            tickets.check(given, owner)
        assert caught.value.field == "ticket"
        return caught.value

    quick = refused(ticket)
    assert (quick.status, quick.retry_after) == (422, 2)
    clock[0] += 2
    tickets.check(ticket, "ada")
    when, _, signature = ticket.rpartition(".")
    later = f"{float(when) + 5:.2f}.{signature}"
    flipped = ticket[:-2] + ("AA" if ticket[-2:] != "AA" else "BB")
    for wrong in (
        "",
        ".",
        "x",
        when,
        f"{when}.",
        later,
        flipped,
        ticket + "=",
        ticket + "\n",
        f"0{ticket}",
        f"-{ticket}",
        f"nan.{signature}",
        "é." + signature,
        f"{when}.é",
        f"{'9' * 400}.{signature}",
    ):
        assert refused(wrong).status == 403, wrong
    assert refused(ticket, "bob").status == 403
    with pytest.raises(Problem):
        Tickets(b"other", lambda: clock[0]).check(ticket, "ada")
    clock[0] += 86400 - 2.5
    tickets.check(ticket, "ada")
    clock[0] += 1
    assert refused(ticket).status == 403


def test_a_form_needs_its_ticket(client, reader, monkeypatch):
    other = Reader(client)
    for ticket in ("", "1.x", other.ticket()):
        error_of(reader.post(ticket=ticket), 403, "ticket")
    monkeypatch.setattr(guards, "TICKET_FROM", 2)
    fresh = reader.ticket()
    answer = reader.post(ticket=fresh)
    assert "too quick" in error_of(answer, 422, "ticket") and answer.json()["retry_after"] == 2
    assert client.get(f"{API}/thread?page={PAGE}").json()["count"] == 0


def test_the_honeypot(client, reader):
    answer = reader.post("Buy now.", website="https://spam.example")
    content = answer.json()
    assert (
        answer.status_code == 201
        and content["state"] == "pending"
        and "Buy now." in content["html"]
        and content["id"] == 1
    )
    assert client.service.store.everything() == [] and reader.thread().json()["own"] == []


# --- how often ----------------------------------------------------------------------------------------


def test_a_bucket_empties_and_fills():
    clock = [0.0]
    limits = Limits({"post": Rate(3, 10)}, lambda: clock[0])
    for _ in range(3):
        limits.take("post", "a")
    with pytest.raises(Problem) as caught:
        limits.take("post", "a")
    assert (caught.value.status, caught.value.retry_after) == (429, 10)
    limits.take("post", "b")
    clock[0] += 9
    with pytest.raises(Problem) as caught:
        limits.take("post", "a")
    assert caught.value.retry_after == 1, "asking too early costs nothing"
    clock[0] += 1.001
    limits.take("post", "a")
    clock[0] += 10_000
    for _ in range(3):
        limits.take("post", "a")
    with pytest.raises(Problem):
        limits.take("post", "a")


def test_buckets_are_bounded(monkeypatch):
    monkeypatch.setattr(guards, "NETWORKS", 50)
    limits = Limits({"post": Rate(1, 1000)})
    for number in range(500):
        limits.take("post", str(number))
    assert len(limits._buckets) == 50


@pytest.mark.parametrize("kind", ["ticket", "post", "edit", "preview"])
def test_each_kind_has_its_limit(start, kind):
    client = start(limits=Limits())
    reader = Reader(client)
    id = reader.post().json()["id"]
    act = {
        "ticket": lambda: reader.send("POST", "/ticket", json={}),
        "post": lambda: reader.post(),
        "edit": lambda: reader.edit(id, uuid.uuid4().hex),
        "preview": lambda: reader.send("POST", "/preview", json={"text": "x"}),
    }[kind]
    codes = [act().status_code for _ in range(40)]
    burst = guards.LIMITS[kind].burst
    first = codes.index(429)
    assert burst - 1 <= first <= burst + 2 and set(codes[:first]) <= {200, 201}
    answer = act()
    assert "Wait" in error_of(answer, 429) and 1 <= answer.json()["retry_after"] <= guards.LIMITS[kind].seconds
    assert client.get(f"{API}/thread?page={PAGE}").status_code == 200, "reading goes on"
    # another reader of the same network shares the bucket
    other = Reader(client)
    other.cookie, other.held = None, "x"
    if kind == "preview":
        error_of(other.send("POST", "/preview", json={"text": "x"}), 429)


@pytest.mark.parametrize("attack", ["edit", "delete", "ticket", "cookie"])
def test_guessing_is_stopped(start, attack):
    """20 wrong tokens or tickets, then nothing more is even looked at, right or wrong."""
    client = start(limits=Limits())
    owner, reader = Reader(client), Reader(client)
    id = owner.post("mine").json()["id"]
    reader.ticket()
    act = {
        "edit": lambda: reader.edit(id),
        "delete": lambda: reader.delete(id),
        "ticket": lambda: reader.post(ticket=f"1.{uuid.uuid4().hex}"),
        "cookie": lambda: reader.delete(id),
    }[attack]
    codes = []
    for _ in range(60):
        if attack == "cookie":
            reader.cookie = guards.new_reader()
        codes.append(act().status_code)
    assert set(codes[:15]) == {403} and set(codes[-20:]) == {429} and codes.count(403) <= 22
    error_of(owner.edit(id), 429)


# --- how much -----------------------------------------------------------------------------------------


def post_bytes(address: str, *headers: str, body: bytes = b"") -> bytes:
    port = address.rpartition(":")[2]
    lines = [
        f"POST {API}/preview HTTP/1.1", f"Host: localhost:{port}", f"Origin: http://localhost:{port}",
        f"Content-Type: {JSON}", "Connection: close", *headers,
    ]  # fmt: skip
    return raw(address, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def test_oversized_bodies(address):
    """Announced, not announced, and lied about: refused without being read to the end, or parsed."""
    huge = b'{"text": "' + b"x" * 200_000 + b'"}'
    answer = post_bytes(address, f"Content-Length: {len(huge)}", body=huge[:1000])
    assert answer.startswith(b"HTTP/1.1 413") and b'"field": "text"' in answer
    assert post_bytes(address, "Content-Length: 99999999999999999999", body=b"{}").startswith(
        (b"HTTP/1.1 413", b"HTTP/1.1 400")
    )
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (huge[i : i + 9000] for i in range(0, len(huge), 9000))
    )
    answer = post_bytes(address, "Transfer-Encoding: chunked", body=chunks[:90_000])  # and never ends
    assert answer.startswith(b"HTTP/1.1 413")
    fits = json.dumps({"text": "x" * 8000}).encode()
    answer = post_bytes(address, "Transfer-Encoding: chunked", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(fits), fits))
    assert answer.startswith(b"HTTP/1.1 200")
    for length in ("-1", "+2", "0x2", "2, 2", "two"):
        assert re.match(rb"HTTP/1.1 4\d\d", post_bytes(address, f"Content-Length: {length}", body=b"{}")), length
    assert httpx.get(f"{address}/-/health", trust_env=False).status_code == 200


def test_a_compressed_bomb_is_not_unpacked(address):
    import gzip

    packed = gzip.compress(b'{"text": "' + b"x" * 50_000_000 + b'"}')
    assert len(packed) < 64 * 1024
    answer = post_bytes(address, "Content-Encoding: gzip", f"Content-Length: {len(packed)}", body=packed)
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_body_that_does_not_come(monkeypatch):
    """A reader who sends a byte and waits holds a connection, for a while, and no more."""
    import asyncio

    monkeypatch.setattr(guards, "BODY_SECONDS", 0.2)

    async def receive():
        await asyncio.sleep(0.15)
        return {"type": "http.request", "body": b"x", "more_body": True}

    started = time.monotonic()
    with pytest.raises(Problem) as caught:
        asyncio.run(guards._body(Request({"type": "http", "headers": []}), receive))
    assert caught.value.status == 408 and time.monotonic() - started < 2


# --- addresses ----------------------------------------------------------------------------------------


TRAVERSALS = [
    "../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cetc%5cpasswd", "%252e%252e%252fetc%252fpasswd", "..%c0%af..%c0%afetc/passwd", "..%u2216etc", "....//....//etc/passwd",
    "/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "chapters/one/adding%00.xml", "chapters/one/adding/../../../../etc/passwd",
    "chapters/one/./adding", "chapters//one/adding", "..;/..;/etc/passwd", "%ff%fe", "%e2%80%a5/etc/passwd", "data/comments.sqlite",
    "comments.sqlite", "..%00/comments.sqlite", "~root/.ssh/id_rsa",
]  # fmt: skip


def test_path_traversal(address):
    """In every encoding, at every address that takes a page: never a file, never a 5xx."""
    port = address.rpartition(":")[2]
    for path in TRAVERSALS:
        for target in (f"/on/{path}", f"/feed/{path}", f"/feed/{path}.xml", f"/thread?page={path}", f"/{path}"):
            request = f"GET {API}{target} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
            answer = raw(address, request.encode())
            assert re.match(rb"HTTP/1.1 4\d\d", answer), target
            assert b"root:" not in answer and b"SQLite" not in answer, target
