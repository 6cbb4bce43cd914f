"""The server: what a browser, a cache and an attacker ask for, and a site that is swapped under it."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
import zlib
from pathlib import Path

import brotli
import pytest

with warnings.catch_warnings():  # Starlette would rather have httpx2; httpx comes with JupyterLab
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

from sites import publish, write_files

from book import server
from book.errors import BookError

ROOT = Path(__file__).resolve().parent.parent
INLINE = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "a < b && c";'
CSS = "body { color: #123 }\n" * 40
PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>{title}</title>
<script>{inline}</script><script type="module">
let two = 2;
</script><script src="_static/x.js"></script><script type="application/json">{{"a": 1}}</script></head>
<body><p style="color:red">{text}</p><button onclick="a(&quot;b&quot;)">print</button></body></html>"""


def write_site(folder: Path, text: str = "first") -> Path:
    css = hashlib.sha256(CSS.encode()).hexdigest()
    files = {
        "index.html": PAGE.format(title="Start", inline=INLINE, text=text * 200),
        "404.html": "<!DOCTYPE html><html><head><title>404</title></head><body>No such page, said nicely</body></html>",
        "chapters/a.html": PAGE.format(title="A", inline=INLINE, text=text * 200),
        "chapters/index.html": "<html><head></head><body>the chapters</body></html>",
        "chapters/ä b.html": "<html><head></head><body>umlaut</body></html>",
        "_static/x.js": "console.log(1)\n" * 40,
        "_static/x.css": CSS,
        f"_images/{css}.css": CSS,
        "_downloads/0123456789abcdef0123456789abcdef/a.ipynb": "{}",
        "_images/f.svg": "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        ".buildinfo": "secret",
        ".hidden/x.html": "secret",
    }
    return write_files(folder, files)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    folder = write_site(tmp_path / "sites" / "1")
    (folder / "leak.txt").symlink_to(tmp_path / "secret.txt")
    link = tmp_path / "html"
    link.symlink_to(folder)
    return link


def browse(root: Path, **options) -> TestClient:
    return TestClient(server.make_app(root, **options), base_url="http://localhost", follow_redirects=False)


@pytest.fixture
def client(root: Path) -> TestClient:
    return browse(root)


def test_addresses(client):
    assert "Start" in client.get("/").text
    assert client.get("/index.html").text == client.get("/").text
    assert client.get("/chapters/a").text == client.get("/chapters/a.html").text
    assert "the chapters" in client.get("/chapters/").text
    assert "umlaut" in client.get("/chapters/%C3%A4%20b.html").text
    moved = client.get("/chapters?q=1")
    assert (moved.status_code, moved.headers["location"]) == (308, "/chapters/?q=1")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/_static/x.js", "text/javascript; charset=utf-8"),
        ("/_static/x.css", "text/css; charset=utf-8"),
        ("/_images/f.svg", "image/svg+xml"),
        ("/_downloads/0123456789abcdef0123456789abcdef/a.ipynb", "application/x-ipynb+json"),
    ],
)
def test_types(client, path, kind):
    assert client.get(path).headers["content-type"] == kind


@pytest.mark.parametrize(("encoding", "decode"), [("br", brotli.decompress), ("gzip", gzip.decompress)])
def test_compressed_bytes_are_the_page(client, encoding, decode):
    with client.stream("GET", "/", headers={"accept-encoding": encoding}) as answer:
        raw = b"".join(answer.iter_raw())
    plain = client.get("/", headers={"accept-encoding": "identity"})
    assert answer.headers["content-encoding"] == encoding and "content-encoding" not in plain.headers
    assert decode(raw) == plain.content and len(raw) < len(plain.content) / 3
    assert answer.headers["content-length"] == str(len(raw))
    assert answer.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert answer.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.1, gzip;q=0.9", "gzip"),
        ("*", "br"),
        ("*;q=0", ""),
        ("gzip;q=nonsense", ""),
        ("", ""),
    ],
)
def test_choice_of_encoding(accepted, chosen):
    assert server._encoding(accepted, {"": b"", "br": b"", "gzip": b""}) == chosen


def test_revalidation(client):
    first = client.get("/chapters/a.html")
    tag = first.headers["etag"]
    assert re.fullmatch(r'"[^"]+"', tag), "strong"
    for value in (tag, f'"x", {tag}', f"W/{tag}", "*"):
        again = client.get("/chapters/a.html", headers={"if-none-match": value})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers
    assert client.get("/chapters/a.html", headers={"if-none-match": '"other"'}).status_code == 200


def test_head(client):
    get, head = client.get("/"), client.head("/")
    assert head.content == b"" and dict(head.headers) == dict(get.headers)


def test_other_methods(client):
    answer = client.post("/")
    assert answer.status_code == 405 and "GET" in answer.headers["allow"]


def test_caching(client):
    sha, crc = hashlib.sha256(CSS.encode()).hexdigest(), f"{zlib.crc32(CSS.encode()):08x}"
    for path in (f"/_static/x.css?v={sha[:8]}", f"/_static/x.css?v={crc}", f"/_images/{sha}.css"):
        assert client.get(path).headers["cache-control"] == "public, max-age=31536000, immutable"
    # A mark that is not of this content, a name that only looks like a digest, and every page: ask each time.
    for path in (
        "/_static/x.css",
        "/_static/x.css?v=00000000",
        "/_downloads/0123456789abcdef0123456789abcdef/a.ipynb",
        "/",
    ):
        assert client.get(path).headers["cache-control"] == "no-cache"


def test_missing(client):
    page = client.get("/no/such/page.html")
    assert page.status_code == 404 and "said nicely" in page.text
    assert '<base href="/">' in page.text, "its relative addresses must work at any depth"
    assert client.get("/no/such.css").text == "Not found\n"


def test_missing_without_a_404_page(root):
    (root / "404.html").unlink()
    answer = browse(root).get("/nothing.html")
    assert (answer.status_code, answer.text) == (404, "Not found\n")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/chapters/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/%252e%252e%252fsecret.txt",
        "/..%c0%afsecret.txt",
        "/..%00/secret.txt",
        "//etc/passwd",
        "/./../../../../../etc/passwd",
        "/leak.txt",
        "/.buildinfo",
        "/.hidden/x.html",
        "/chapters//a.html",
        "/%ff%fe",
    ],
)
def test_nothing_outside_the_site(root, path):
    with running(root) as port, socket.create_connection(("127.0.0.1", port), 5) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404") and b"secret" not in answer and b"root:" not in answer


def csp(answer) -> dict[str, list[str]]:
    return {part.split()[0]: part.split()[1:] for part in answer.headers["content-security-policy"].split("; ")}


def digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def test_policy_names_the_inline_scripts(client):
    policy = csp(client.get("/"))
    assert set(policy["script-src"]) == {
        "'self'", digest(INLINE), digest("\nlet two = 2;\n"), "'unsafe-hashes'", digest('a("b")')
    }  # fmt: skip
    assert policy["default-src"] == ["'none'"] and policy["frame-ancestors"] == ["'none'"]
    assert "script-src" not in csp(client.get("/_images/f.svg")), "a picture opened by itself runs nothing"


def test_policy_hashes_what_the_browser_sees():
    """Line ends are normalised before hashing, and `<` in a script is no markup."""
    policy = server.page_csp(b"<script>\r\nif (1<2) { '<b>&amp;' }\r\n</script>")
    assert digest("\nif (1<2) { '<b>&amp;' }\n") in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_policy_can_be_widened(root):
    policy = csp(browse(root, csp={"frame-src": ["https://giscus.app"]}).get("/"))
    assert policy["frame-src"] == ["https://giscus.app"]


def test_every_answer_is_guarded(client):
    for path in ("/", "/_static/x.css", "/missing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST.", 200),
        ("book.example:80", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:8000@evil.example", 421),
        ("", 421),
    ],
)
def test_hosts(root, host, status):
    answer = browse(root, hosts=["book.example"]).get("/", headers={"host": host})
    assert answer.status_code == status


def test_more_routes_come_first(root):
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    client = browse(root, routes=[Route("/api/comments", lambda request: PlainTextResponse("comments"))])
    assert client.get("/api/comments").text == "comments" and "Start" in client.get("/").text


# --- a rebuild ----------------------------------------------------------------------------------------


def test_swap_is_noticed_and_whole(root, tmp_path, monkeypatch):
    """While sites are swapped and old ones deleted, each answer is one of the sites, complete."""
    monkeypatch.setattr(server, "LOOK_EVERY", 0.02)
    texts = [f"site{n}" for n in range(5)]
    with browse(root) as client:
        failures, seen, stop = [], [], threading.Event()

        def ask():
            while not stop.is_set():
                text = client.get("/chapters/a.html").text
                found = set(re.findall(r"first|site\d", text))
                seen.append(next(iter(found), None))
                if len(found) != 1 or not text.endswith("</html>"):
                    failures.append(text)

        asker = threading.Thread(target=ask)
        asker.start()
        old = root.resolve()
        for text in texts:
            new = write_site(tmp_path / "sites" / text, text)
            publish(root, new)
            shutil.rmtree(old)
            old = new
            time.sleep(0.15)
        deadline = time.monotonic() + 5
        while seen[-1] != texts[-1] and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()
        asker.join()
    assert not failures
    assert seen[-1] == texts[-1]
    assert [name for n, name in enumerate(seen) if n == 0 or seen[n - 1] != name] == ["first", *texts]


def test_swap_is_noticed_within_a_second(root, tmp_path):
    with browse(root) as client:
        started = time.monotonic()
        publish(root, write_site(tmp_path / "sites" / "2", "second"))
        while "second" not in client.get("/").text:
            assert time.monotonic() - started < 1
            time.sleep(0.02)


def test_broken_or_missing_site_leaves_the_old_one(root, tmp_path):
    app = server.make_app(root)
    client = TestClient(app, base_url="http://localhost")
    (tmp_path / "empty").mkdir()
    publish(root, tmp_path / "empty")
    assert not app.state.site.refresh() and "first" in client.get("/").text
    root.unlink()
    assert not app.state.site.refresh() and "first" in client.get("/").text


# --- reloading ----------------------------------------------------------------------------------------


def test_reload_changes_nothing_unless_asked(client):
    assert "/-/reload" not in client.get("/").text and client.get("/-/reload.js").status_code == 404


def test_reload_script_and_policy(root):
    client = browse(root, reload=True)
    page = client.get("/")
    assert re.search(r'<script src="/-/reload\.js" data-version="[0-9a-f]{16}" defer></script></body>', page.text)
    assert digest(INLINE) in csp(page)["script-src"] and csp(page)["connect-src"] == ["'self'"]
    assert client.get("/-/reload.js").headers["content-type"].startswith("text/javascript")


def test_version_follows_the_page_and_the_styles(root, tmp_path):
    site = server.Site(root, reload=True)
    before = [site.snapshot.version(path) for path in ("/", "/chapters/", "/chapters/a")]
    new = write_site(tmp_path / "sites" / "2", "first")
    (new / "chapters/a.html").write_text("<html><body>changed</body></html>")
    publish(root, new)
    assert site.refresh()
    after = [site.snapshot.version(path) for path in ("/", "/chapters/", "/chapters/a")]
    assert before[:2] == after[:2] and before[2] != after[2], "only the page that changed reloads"
    styled = write_site(tmp_path / "sites" / "3", "first")
    (styled / "_static/x.css").write_text("p {}")
    publish(root, styled)
    assert site.refresh() and site.snapshot.version("/") != before[0]


def test_events(root, tmp_path):
    with (
        running(root, reload=True) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/-/reload?page=/", timeout=5) as stream,
    ):
        assert stream.headers["content-type"].startswith("text/event-stream")

        def event() -> str:
            line = b""
            while not line.startswith(b"data: "):
                line = stream.readline()
            return line.decode()[6:].strip()

        first = event()
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
        assert f'data-version="{first}"' in page
        publish(root, write_site(tmp_path / "sites" / "2", "second"))
        assert event() != first


# --- the process --------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(root: Path, **options):
    """The server in a thread of its own; yields its port."""
    import uvicorn

    sock = server.listen("127.0.0.1", 0)
    app = server.make_app(root, **options)
    up = threading.Event()
    process = server._Server(uvicorn.Config(app, log_level="error", access_log=False), app.state.site, up.set)
    thread = threading.Thread(target=process.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        assert up.wait(10)
        yield sock.getsockname()[1]
    finally:
        app.state.site.closing = process.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def start(root: Path, port: int) -> subprocess.Popen:
    code = f"import sys; from pathlib import Path; from book import server; sys.exit(server.serve(Path({str(root)!r}), port={port}, reload=True))"
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_port_in_use_and_ctrl_c(root):
    """One process serves, a second is told in one line that the port is taken, Ctrl-C ends the first quietly."""
    first = start(root, 0)
    try:
        ready = first.stdout.readline()
        port = int(re.fullmatch(r"AI from the Ground Up: http://127\.0\.0\.1:(\d+)/  \(Ctrl-C stops\)\n", ready)[1])
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).status == 200
        stream = urllib.request.urlopen(
            f"http://127.0.0.1:{port}/-/reload?page=/", timeout=5
        )  # an open page must not hold it
        second = start(root, port)
        out, err = second.communicate(timeout=20)
        assert second.returncode == 1 and out == ""
        assert (
            err == f"error: port {port} is in use by another program; take another one: `make serve PORT={port + 1}`\n"
        )
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=10)
        assert (first.returncode, out, err) == (0, "", "")
        stream.close()
    finally:
        first.kill()


def test_answers_do_not_wait_for_acknowledgements(root):
    """Without TCP_NODELAY each answer on a kept connection takes 40 ms."""
    import http.client

    with running(root) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        started = time.monotonic()
        for _ in range(100):
            connection.request("GET", "/")
            connection.getresponse().read()
        assert time.monotonic() - started < 2
        connection.close()


def test_no_site_yet(tmp_path, capsys):
    assert server.serve(tmp_path / "html", port=0) == 1
    error = capsys.readouterr().err
    assert "no site at" in error and "make site" in error and "Traceback" not in error


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("no.such.host.invalid", 0)])
def test_impossible_address(host, port):
    with pytest.raises(BookError, match="cannot listen on"):
        server.listen(host, port)
