"""The comments beside the pages: an application under /-/comments/, and what it keeps ready between requests."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import brotli

from book.comments import store as stored
from book.comments import views
from book.comments.guards import Limits, Tickets
from book.comments.render import Renderer
from book.comments.settings import Deployment, Settings
from book.comments.store import Comment, Store

if TYPE_CHECKING:
    from book.server import Site

T = TypeVar("T")
FEED = 50  # entries
KEPT = 500  # prepared answers
log = logging.getLogger("book.comments")


@dataclass(frozen=True)
class Prepared:
    """An answer in every encoding, made once."""

    bodies: dict[str, bytes]
    etag: str
    head: bytes = b""  # a thread's answer up to what belongs to one reader
    thread: views.Thread | None = None


class Service:
    """One store, one renderer, and the answers prepared from them; all work with the disk happens in threads."""

    def __init__(self, settings: Settings, deployment: Deployment, root: Path, limits: Limits | None = None):
        self.settings, self.deployment = settings, deployment
        self.moderated = deployment.moderated(settings)
        self.store = Store(deployment.data)
        self.tickets = Tickets(self.store.secret)
        self.limits = limits or Limits()
        self.renderer = Renderer(root)
        self.threads: Callable[[], Mapping[str, Mapping[str, str]]] = dict
        self.statics: Callable[[str], bool] = lambda path: False
        self._readers = ThreadPoolExecutor(1, "comments-read")  # a connection each, so a thread each
        self._writers = ThreadPoolExecutor(1, "comments-write")
        self._renderers = ThreadPoolExecutor(1, "comments-render")
        self._cache: dict[tuple, Prepared] = {}
        self._cache_of: tuple | None = None
        self._closing = threading.Event()
        self._warming = threading.Thread(target=self._warm, name="comments-warm", daemon=True)

    # -- its life

    def attach(self, site: Site) -> None:
        """Take from the site that is served which pages have threads."""
        self.threads = lambda: site.snapshot.threads
        self.statics = lambda name: name in site.snapshot.assets

    async def health(self) -> tuple[bool, int | None]:
        """Whether comments can be read and written, and how many are visible."""
        try:
            await asyncio.wait_for(self.writing(self.store.check), 8)
            return True, await self.reading(self.store.count)
        except (sqlite3.Error, TimeoutError):
            return False, None

    def start(self) -> None:
        """Begin what the first request must not wait for."""
        self._warming.start()

    def _warm(self) -> None:
        """Start KaTeX, and render again what another version rendered."""
        with contextlib.suppress(Exception):
            self.renderer.render("$x$ `y`\n```python\nx = 1\n```")
        try:
            for comment in self.store.stale(self.renderer.version):
                if self._closing.is_set():
                    return
                found = self.renderer.render(comment.text, most_links=None)
                if found.renderer == self.renderer.version:
                    self.store.render_again(comment.id, comment.text, found.html, found.renderer)
        except sqlite3.Error as error:
            log.warning("comments are shown as rendered before: %s", error)

    def close(self) -> None:
        self._closing.set()
        if self._warming.is_alive():
            self._warming.join()
        for pool in (self._renderers, self._writers, self._readers):
            pool.shutdown(wait=True, cancel_futures=True)
        self.renderer.close()
        self.store.close()

    async def reading(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def writing(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writers, work)

    async def rendering(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._renderers, work)

    # -- answers, made once and kept until something changes

    def _prepared(self, key: tuple, make: Callable[[], Prepared]) -> Prepared:
        """Runs in the reading thread. The number is read before the comments: what comes between makes it stale."""
        threads = self.threads()
        now = (self.store.changes(), id(threads))
        if now != self._cache_of or len(self._cache) > KEPT:
            self._cache, self._cache_of, self._held = {}, now, threads
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    async def thread(self, page: str) -> Prepared:
        return await self.reading(lambda: self._prepared(("thread", page), lambda: self._make_thread(page)))

    def _make_thread(self, page: str) -> Prepared:
        thread = views.make_thread(page, self.store.thread(page), self.threads().get(page, {}))
        fields = {
            "page": page, "count": thread.count, "sections": thread.sections, "moderated": self.moderated,
            "html": thread.html,
        }  # fmt: skip
        head = json.dumps(fields, ensure_ascii=False).encode()[:-1]
        return prepare(head + b', "own": []}', head=head, thread=thread)

    async def whole_page(self, page: str) -> Prepared:
        def make() -> Prepared:
            sections = self.threads().get(page, {})
            thread = views.make_thread(page, self.store.thread(page), sections)
            katex = next((f"/{name}" for name in ("_static/katex/katex.min.css",) if self.statics(name)), None)
            return prepare(views.whole_page(thread, views.title_of(page, sections), katex).encode())

        return await self.reading(lambda: self._prepared(("page", page), make))

    async def feed(self, page: str | None, base: str) -> Prepared:
        def make() -> Prepared:
            titles = {name: views.title_of(name, sections) for name, sections in self.threads().items()}
            latest = [c for c in self.store.latest(page, 4 * FEED) if c.page in titles][:FEED]
            return prepare(views.atom(latest, titles, base, page, self.renderer.without_formulas).encode())

        return await self.reading(lambda: self._prepared(("feed", page, base), make))

    async def own(self, owner: str, page: str) -> list[dict]:
        """A reader's comments that can be changed still or wait for approval."""
        now = stored.now()
        sections = self.threads().get(page, {})
        found = await self.reading(lambda: self.store.own(owner, page, now))
        return [self.own_view(comment, now, sections) for comment in found]

    @staticmethod
    def with_own(thread: Prepared, own: bytes) -> Prepared:
        """A thread's answer with what belongs to one reader."""
        body = thread.head + b', "own": ' + own + b"}"
        bodies = {"": body, "gzip": gzip.compress(body, 1, mtime=0)}
        return Prepared(bodies, hashlib.sha256(body).hexdigest()[:32])

    def own_view(self, comment: Comment, now: int, sections: Mapping[str, str]) -> dict:
        view = {
            "id": comment.id,
            "parent": comment.parent,
            "state": comment.state,
            "kind": comment.kind,
            "section": comment.section,
            "author": comment.author,
            "text": comment.text,
            "editable_for": comment.editable_for(now),
        }
        if comment.state == "pending":
            view["html"] = views.comment_html(comment, sections)
        return view


def prepare(body: bytes, **more) -> Prepared:
    bodies = {"": body}
    if len(body) > 400:
        bodies |= {
            "br": brotli.compress(body, quality=5, mode=brotli.MODE_TEXT),
            "gzip": gzip.compress(body, 6, mtime=0),
        }
    return Prepared(bodies, hashlib.sha256(body).hexdigest()[:32], **more)
