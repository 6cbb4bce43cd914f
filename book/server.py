"""One process that serves the book: pages from memory, swapped as a whole when a rebuild publishes.

`_build/html` is a symbolic link to the last good site. The server reads that folder once, compresses it, and looks
every address up in a dictionary, so that no request touches the file system. A watcher notices when the link
moves, reads the new site aside and puts it in place in one assignment: a request sees one site or the other, never a mixture.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import gzip
import hashlib
import mimetypes
import os
import re
import socket
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html import unescape
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

import brotli
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from book import log
from book.errors import BookError

if TYPE_CHECKING:
    from book.comments.service import Service

TITLE = "AI from the Ground Up"
LOCAL = ("localhost", "127.0.0.1", "::1")
LOOK_EVERY = 0.3  # seconds between two looks at the link
BEAT_EVERY = 15.0  # seconds between signs of life to an open page

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".inv": "application/octet-stream",
    ".ipynb": "application/x-ipynb+json",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".py": "text/x-python; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xml": "application/xml",
}
COMPRESSED_ALREADY = {
    ".woff",
    ".woff2",
    ".png",
    ".jpg",
    ".jpeg",
    ".gif",
    ".webp",
    ".avif",
    ".gz",
    ".br",
    ".zip",
    ".pdf",
    ".inv",
}

SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "strict-origin-when-cross-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
# Everything that is not a page: nothing may run or load, even if a picture is opened as a document.
CSP_ASSET = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'"
DATA = ("application/json", "application/ld+json")  # scripts that do not run
CSP_PAGE: dict[str, list[str]] = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],  # and the hashes of the page's own inline scripts
    "style-src": ["'self'", "'unsafe-inline'"],  # KaTeX places its boxes with style attributes
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'", "data:"],
    "connect-src": ["'self'"],
    "manifest-src": ["'self'"],
    "media-src": ["'self'"],
    "form-action": ["'self'"],
    "base-uri": ["'self'"],
    "frame-ancestors": ["'none'"],
}


# --- one site, in memory ------------------------------------------------------------------------------


@dataclass(slots=True)
class Asset:
    """One file, ready to be sent in every encoding."""

    bodies: dict[str, bytes]  # encoding -> bytes; "" is the file itself
    headers: dict[str, str]
    digest: str
    checksums: tuple[str, ...] = field(default=(), repr=False)

    def is_version(self, name: str, query: str) -> bool:
        """True if the address carries a checksum of this very content: it can be kept for ever.

        Believed only after comparing, so that an old page's `?v=` cannot freeze a new file.
        """
        marks = [value.lower() for values in parse_qs(query).values() for value in values]
        marks += re.findall(r"(?<![0-9a-f])[0-9a-f]{8,128}(?![0-9a-f])", name)
        return any(len(mark) >= 8 and checksum.startswith(mark) for mark in marks for checksum in self.checksums)


class Snapshot:
    """All files of one site; read once, never changed."""

    def __init__(self, folder: Path, signature: tuple, csp: Mapping[str, Sequence[str]] = {}, reload: bool = False):
        self.signature = signature
        files = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        if "index.html" not in files:
            raise FileNotFoundError(f"{folder} has no index.html")
        self.styles = ""
        if reload:  # what every page depends on
            loose = [path.read_bytes() for name, path in sorted(files.items()) if name.endswith((".css", ".js"))]
            self.styles = hashlib.sha256(b"\0".join(loose)).hexdigest()

        self.threads: dict[str, dict[str, str]] = {}  # pages that take comments: their sections' titles by id

        def prepare(item: tuple[str, Path]) -> tuple[str, Asset]:
            name, path = item
            body = path.read_bytes()
            if (sections := thread_of(name, body)) is not None:
                self.threads[name.removesuffix(".html")] = sections
            if name == "404.html":
                body = _with_base(body)
            if reload and name.endswith(".html"):
                body = _with_reload(body, self._version(body))
            return name, make_asset(name, body, csp)

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # the compressors release the lock
            self.assets: dict[str, Asset] = dict(pool.map(prepare, files.items()))

    def find(self, path: str) -> tuple[str, Asset] | None:
        """The file behind an address: `/`, `/a/`, `/a.html` and, as on GitHub Pages, `/a`."""
        name = path[1:] if path.startswith("/") else path
        tries = (f"{name}index.html",) if name == "" or name.endswith("/") else (name, f"{name}.html")
        return next(((key, self.assets[key]) for key in tries if key in self.assets), None)

    def folder(self, path: str) -> str | None:
        """`name/` if the address is a folder with a page that lacks its slash."""
        name = path[1:]
        return f"{name}/" if name and f"{name}/index.html" in self.assets else None

    def _version(self, body: bytes) -> str:
        return hashlib.sha256(self.styles.encode() + body).hexdigest()[:16]

    def version(self, path: str) -> str:
        """What a page shows depends on this: when it changes, the page is out of date."""
        found = self.find(path)
        asset = found[1] if found else self.assets.get("404.html")
        mark = asset and re.search(rb'data-version="([0-9a-f]{16})"', asset.bodies[""])
        return mark[1].decode() if mark else "none"


def make_asset(name: str, body: bytes, csp: Mapping[str, Sequence[str]] = {}) -> Asset:
    suffix = PurePosixPath(name).suffix.lower()
    guessed = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    bodies = {"": body}
    if suffix not in COMPRESSED_ALREADY and len(body) > 400:
        # Quality 6: 50 MB/s and 1 % larger than quality 9, which manages 5 MB/s.
        text = brotli.MODE_GENERIC if suffix in (".woff", ".ttf") else brotli.MODE_TEXT
        bodies["br"] = brotli.compress(body, quality=6, mode=text)
        bodies["gzip"] = gzip.compress(body, 6, mtime=0)
        bodies = {key: value for key, value in bodies.items() if not key or len(value) < len(body)}
    headers = dict(SAFE)
    headers["content-type"] = guessed
    headers["content-security-policy"] = page_csp(body, csp) if suffix == ".html" else CSP_ASSET
    if len(bodies) > 1:
        headers["vary"] = "Accept-Encoding"
    digest = hashlib.sha256(body).hexdigest()
    unix = body.replace(b"\r", b"")  # Sphinx's ?v= is the CRC of the file with unix line ends
    checksums = () if suffix == ".html" else (
        digest,
        hashlib.sha1(body, usedforsecurity=False).hexdigest(),
        hashlib.md5(body, usedforsecurity=False).hexdigest(),
        f"{zlib.crc32(unix):08x}",
    )  # fmt: skip
    return Asset(bodies, headers, digest[:32], checksums)


_THREAD = re.compile(rb'<section class="comments"[^>]* data-provider="embedded" data-page="([^"]*)"')
_SECTION = re.compile(
    r"""<section\b[^>]*?\sid="([^"]+)"[^>]*>\s*(?:<span id="[^"]*"></span>\s*)*<h([1-6])\b[^>]*>(.*?)</h\2>""", re.S
)


def thread_of(name: str, body: bytes) -> dict[str, str] | None:
    """The sections of a page that takes comments at this service, in order: their titles by id. None if it does not."""
    found = _THREAD.search(body)
    if not found or name != unescape(found[1].decode("utf-8", "replace")) + ".html":
        return None
    text = body.decode("utf-8", "replace")
    article = text[max(text.find("<article"), 0) : text.rfind("</article>")]
    return {unescape(id): _title(heading) for id, _, heading in _SECTION.findall(article)}


class _Title(HTMLParser):
    """The text of a heading, without its link; a formula counts once, by its MathML."""

    VOID = ("img", "br", "wbr", "mspace", "path", "line")

    def __init__(self, heading: str):
        super().__init__()
        self.parts: list[str] = []
        self._skipped = 0
        self.feed(heading)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        left_out = tag == "annotation" or (dict(attrs).get("class") or "") in ("headerlink", "katex-html")
        if tag not in self.VOID and (self._skipped or left_out):
            self._skipped += 1

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and self._skipped:
            self._skipped -= 1

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.parts.append(data)


def _title(heading: str) -> str:
    return " ".join("".join(_Title(heading).parts).split())


def threads_of(folder: Path) -> dict[str, dict[str, str]]:
    """The pages of a built site that take comments."""
    names = {path.relative_to(folder).as_posix(): path for path in _files(folder) if path.suffix == ".html"}
    found = {name.removesuffix(".html"): thread_of(name, path.read_bytes()) for name, path in names.items()}
    return {page: sections for page, sections in found.items() if sections is not None}


def _files(folder: Path) -> Iterable[Path]:
    """The regular files of a site; no hidden ones, and nothing that a link brings in from elsewhere."""
    inside = folder.resolve()
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if (
                not name.startswith(".")
                and path.is_file()
                and (not path.is_symlink() or path.resolve().is_relative_to(inside))
            ):
                yield path


class _Scripts(HTMLParser):
    """Collects the inline scripts and event attributes of a page, as a browser hashes them."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=False)
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handlers += [value or "" for name, value in attrs if name.startswith("on")]
        named = dict(attrs)
        if tag == "script" and "src" not in named and named.get("type") not in DATA:
            self._open = []

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self._open.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._open is not None:
            self.scripts.append("".join(self._open))
            self._open = None


def page_csp(body: bytes, extra: Mapping[str, Sequence[str]] = {}) -> str:
    """The Content-Security-Policy of one page: its own files, and its inline scripts by their hashes."""
    text = body.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    found = _Scripts(text)
    policy = {name: list(values) for name, values in CSP_PAGE.items()}
    policy["script-src"] += sorted({_csp_hash(script) for script in found.scripts})
    if found.handlers:
        policy["script-src"] += ["'unsafe-hashes'", *sorted({_csp_hash(handler) for handler in found.handlers})]
    for name, values in extra.items():
        policy[name] = [value for value in policy.get(name, []) if value != "'none'"] + list(values)
    return "; ".join(f"{name} {' '.join(values)}" for name, values in policy.items())


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _with_base(body: bytes) -> bytes:
    """The 404 page answers at any depth: its relative addresses count from the top."""
    if re.search(rb"<base\b", body):
        return body
    return re.sub(rb"<head\b[^>]*>", lambda found: found[0] + b'<base href="/">', body, count=1)


def _with_reload(body: bytes, version: str) -> bytes:
    tag = f'<script src="/-/reload.js" data-version="{version}" defer></script>'.encode()
    at = body.rfind(b"</body>")
    return body + tag if at < 0 else body[:at] + tag + body[at:]


RELOAD_JS = """\
// Reloads this page when it was rebuilt, and stays where the reader was. Only while writing.
(() => {
  const script = document.currentScript, key = "book-reload " + location.pathname;
  try {
    const at = JSON.parse(sessionStorage.getItem(key));
    sessionStorage.removeItem(key);
    if (at) {
      const back = () => scrollTo({left: at[0], top: at[1], behavior: "instant"});
      back();
      addEventListener("load", back);
    }
  } catch {}
  const source = new EventSource("/-/reload?page=" + encodeURIComponent(location.pathname));
  source.onmessage = event => {
    if (event.data === script.dataset.version) return;
    source.close();
    try { sessionStorage.setItem(key, JSON.stringify([scrollX, scrollY])); } catch {}
    location.reload();
  };
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", event => { if (event.persisted) location.reload(); });
})();
"""


# --- the site that is served now ----------------------------------------------------------------------


class Site:
    """Holds the snapshot that is served, and replaces it when the folder behind `root` changes."""

    def __init__(self, root: Path, csp: Mapping[str, Sequence[str]] = {}, reload: bool = False):
        self.root, self.csp, self.reload = Path(os.path.abspath(root)), csp, reload
        self.closing = False
        self.snapshot = self._read()

    def signature(self) -> tuple | None:
        """Which folder `root` is now; None while there is none."""
        try:
            real = os.path.realpath(self.root)
            stat = os.stat(real)
            return real, stat.st_ino, stat.st_mtime_ns
        except OSError:
            return None

    def _read(self) -> Snapshot:
        for _ in range(5):  # the folder may be replaced and removed while it is read: then take the next
            signature = self.signature()
            if signature is None:
                raise FileNotFoundError(f"no site at {self.root}")
            try:
                snapshot = Snapshot(Path(signature[0]), signature, self.csp, self.reload)
            except FileNotFoundError:
                if self.signature() == signature:
                    raise
                continue
            if self.signature() == signature:
                return snapshot
        raise FileNotFoundError(f"{self.root} changes all the time")

    def refresh(self) -> bool:
        """Serve the new site if there is one; a broken or missing one leaves the old in place."""
        if self.signature() in (None, self.snapshot.signature):
            return False
        try:
            self.snapshot = self._read()
        except OSError:
            return False
        return True

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            with contextlib.suppress(Exception):  # the old site stays
                await asyncio.to_thread(self.refresh)

    # -- answers

    async def page(self, request: Request) -> Response:
        snapshot, path = self.snapshot, request.scope["path"]
        found = snapshot.find(path)
        if found is None and (folder := snapshot.folder(path)):
            query = request.scope["query_string"].decode("latin-1")
            return RedirectResponse("/" + quote(folder) + (f"?{query}" if query else ""), 308, dict(SAFE))
        if found is None:
            return self._missing(request, snapshot)
        return _answer(request, *found)

    def _missing(self, request: Request, snapshot: Snapshot) -> Response:
        asset = snapshot.assets.get("404.html")
        if asset is None or PurePosixPath(request.scope["path"]).suffix not in ("", ".html"):
            return PlainTextResponse("Not found\n", 404, {**SAFE, "cache-control": "no-cache"})
        return _answer(request, "404.html", asset, status=404)

    async def reload_script(self, request: Request) -> Response:
        headers = {**SAFE, "cache-control": "no-cache"}
        return Response(RELOAD_JS, headers=headers, media_type="text/javascript")

    async def reload_events(self, request: Request) -> Response:
        """Server-sent events: the version of the page, whenever it changes."""
        page = request.query_params.get("page", "/")

        async def events():
            seen, quiet = None, 0.0
            while not self.closing:
                if self.snapshot is not seen:
                    seen, quiet = self.snapshot, 0.0
                    yield f"retry: 500\ndata: {seen.version(page)}\n\n"
                elif quiet >= BEAT_EVERY:
                    quiet = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(0.1)
                quiet += 0.1

        return StreamingResponse(
            events(), headers={**SAFE, "cache-control": "no-store"}, media_type="text/event-stream"
        )


def _answer(request: Request, name: str, asset: Asset, status: int = 200) -> Response:
    encoding = _encoding(request.headers.get("accept-encoding", ""), asset.bodies)
    headers = dict(asset.headers)
    etag = headers["etag"] = f'"{asset.digest}{"-" + encoding if encoding else ""}"'
    if encoding:
        headers["content-encoding"] = encoding
    query = request.scope["query_string"].decode("latin-1")
    keep = status == 200 and asset.checksums and asset.is_version(PurePosixPath(name).name, query)
    headers["cache-control"] = "public, max-age=31536000, immutable" if keep else "no-cache"
    if status == 200 and _matches(request.headers.get("if-none-match"), etag):
        for header in ("content-type", "content-encoding"):
            headers.pop(header, None)
        return Response(status_code=304, headers=headers)
    body = asset.bodies[encoding]
    headers["content-length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, status, headers)


def _encoding(accepted: str, bodies: Mapping[str, bytes]) -> str:
    """The best encoding that the client takes: its highest quality, then brotli before gzip."""
    quality: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.strip().partition(";")
        try:
            quality[name.strip()] = float(parameter.strip()[2:]) if parameter.strip().startswith("q=") else 1.0
        except ValueError:
            quality[name.strip()] = 0.0
    choices = [(quality.get(name, quality.get("*", 0.0)), name) for name in ("br", "gzip") if name in bodies]
    return next((name for q, name in sorted(choices, key=lambda choice: -choice[0]) if q > 0), "")


def _matches(header: str | None, etag: str) -> bool:
    return header is not None and any(tag.strip() in (etag, f"W/{etag}", "*") for tag in header.split(","))


class KnownHosts:
    """Refuses requests for a host that is not ours: a foreign name pointed at this machine reads nothing."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()):
        self.app = app
        self.hosts = {_host(host) for host in (*LOCAL, *hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(given) != 1 or _host(given[0]) not in self.hosts:
                answer = PlainTextResponse("This server does not answer for that host name.\n", 421, dict(SAFE))
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _host(value: str) -> str:
    """`name` from `name:8000`, `::1` from `[::1]:8000`."""
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d*)?|([^:\[\]]*)(?::\d*)?", value.strip())
    name = (found[1] or found[2]) if found else value
    return name.lower().rstrip(".")


def make_app(
    root: Path,
    *,
    routes: Sequence[BaseRoute] = (),
    hosts: Iterable[str] = (),
    csp: Mapping[str, Sequence[str]] = {},
    reload: bool = False,
    comments: Service | None = None,
) -> Starlette:
    """The application: `routes` first, then the comments, then the pages.

    `csp` adds sources to every page's policy, e.g. `{"frame-src": ["https://giscus.app"]}`.
    """
    site = Site(root, csp, reload)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette):
        watcher = asyncio.create_task(site.watch())
        if comments:
            comments.start()
        yield
        site.closing = True
        watcher.cancel()
        if comments:
            await asyncio.to_thread(comments.close)

    async def health(request: Request) -> Response:
        found, well = {"pages": sum(name.endswith(".html") for name in site.snapshot.assets)}, True
        if comments:
            well, found["comments"] = await comments.health()
        found = {"status": "ok" if well else "failing", **found}
        return JSONResponse(found, 200 if well else 503, {**SAFE, "cache-control": "no-store"})

    routes = [*routes, Route("/-/health", health)]
    if comments:
        from book.comments.api import make_api  # FastAPI takes half a second to import

        comments.attach(site)
        routes.append(Mount("/-/comments", make_api(comments)))

    own = [Route("/-/reload.js", site.reload_script), Route("/-/reload", site.reload_events)] if reload else []
    app = Starlette(
        routes=[*routes, *own, Route("/{path:path}", site.page, methods=["GET", "HEAD"])], lifespan=lifespan
    )
    app.add_middleware(KnownHosts, hosts=tuple(hosts))
    app.state.site, app.state.comments = site, comments
    return app


# --- the process --------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """uvicorn that says when it is ready and lets open pages go when it is told to stop."""

    def __init__(self, config: uvicorn.Config, site: Site, ready: Callable[[], None]):
        super().__init__(config)
        self.site, self.ready = site, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self.ready()

    def handle_exit(self, sig: int, frame) -> None:
        self.site.closing = True
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; BookError in one line if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, for asyncio sets TCP_NODELAY on no other: without it each answer waits 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except (OSError, OverflowError) as error:
        sock.close()
        code = getattr(error, "errno", None)
        if code == errno.EADDRINUSE:
            remedy = f"`make serve PORT={port + 1 if port < 65535 else 8000}`"
            raise BookError(f"port {port} is in use by another program; take another one: {remedy}") from None
        if code == errno.EACCES:
            raise BookError(f"port {port} is reserved; take one above 1023: `make serve PORT=8000`") from None
        raise BookError(f"cannot listen on {host} port {port}: {error}; try `make serve PORT=8000`") from None
    return sock


def serve(
    root_of_site: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    reload: bool = False,
    *,
    routes: Sequence[BaseRoute] = (),
    hosts: Iterable[str] = (),
    csp: Mapping[str, Sequence[str]] = {},
    comments: Callable[[], Service] | None = None,
    logs: str = "text",
) -> int:
    """Serve the site until Ctrl-C; return the exit code. `port` 0 takes any free one.

    `comments` makes the service that keeps them; `logs` is `text` (errors only) or `json` (every request too).
    """
    log.set_up(logs)
    try:
        sock = listen(host, port)
        try:
            service = comments() if comments else None
            app = make_app(root_of_site, routes=routes, hosts=(*hosts, host), csp=csp, reload=reload, comments=service)
        except FileNotFoundError as error:
            raise BookError(f"{error}; build it with `make site`") from None
    except BookError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"http://{name}:{sock.getsockname()[1]}/"
    config = uvicorn.Config(
        log.Requests(app) if logs == "json" else app,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody may claim another address
        timeout_graceful_shutdown=3,
        ws="none",
    )

    def ready() -> None:
        if logs == "json":
            log.say("ready", address=address)
        else:
            print(f"{TITLE}: {address}  (Ctrl-C stops)", flush=True)

    server = _Server(config, app.state.site, ready)
    try:
        server.run(sockets=[sock])
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # after the terminal's ^C
    finally:
        sock.close()
    return 0 if server.started else 1
