"""A small site that takes comments, and a reader who writes them."""

from __future__ import annotations

import uuid
import warnings
from html import escape
from pathlib import Path

import httpx

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

from sites import write_files

from book import server
from book.comments.guards import Limits
from book.comments.service import Service
from book.comments.settings import Deployment, Settings

ROOT = Path(__file__).resolve().parents[2]
API = "/-/comments"
PAGE = "chapters/one/adding"
OTHER = "chapters/one/taking-away"
SECTIONS = {"adding": "Adding", "the-problem": "The problem", "why-a-b": "Why a < b & c"}


def html_of(page: str, sections: dict[str, str] = SECTIONS, provider: str = "embedded", text: str = "text") -> str:
    inner = "".join(
        f'<section id="{escape(id)}">\n<span id="{escape(id)}-old"></span><h2>{escape(title)}'
        f'<a class="headerlink" href="#{escape(id)}">#</a></h2><p>{text}</p></section>'
        for id, title in sections.items()
    )
    return (
        f"<!DOCTYPE html><html><head><title>x</title></head><body><main><article>{inner}</article>"
        f'<section class="comments" id="comments" aria-labelledby="comments-title" data-provider="{provider}" '
        f'data-page="{page}"><h2 id="comments-title">Comments</h2></section></main></body></html>'
    )


def write_site(folder: Path, pages=(PAGE, OTHER), text: str = "text") -> Path:
    files = {"index.html": "<html><body>start</body></html>", "404.html": "<html><head></head><body>404</body></html>"}
    files |= {f"{page}.html": html_of(page, text=text) for page in pages}
    return write_files(folder, files)


def make_service(data: Path, *, moderation: str = "off", limits: Limits | None = None, **deployment) -> Service:
    return Service(
        Settings("embedded", moderation), Deployment.read(data, **deployment), ROOT, limits or Limits({})
    )  # fmt: skip


def make_client(site: Path, service: Service, base: str = "http://localhost", **options) -> TestClient:
    app = server.make_app(site, comments=service, hosts=service.deployment.hosts)
    return TestClient(app, base_url=base, headers={"origin": base}, follow_redirects=False, **options)


class Reader:
    """One browser: it has a cookie of its own. Works with a client of an application or of a server's address."""

    def __init__(self, client: httpx.Client | TestClient, origin: str | None = None):
        self.client, self.cookie, self.held = client, None, None
        self.origin = origin or str(client.base_url).rstrip("/")

    @property
    def headers(self) -> dict[str, str]:
        return {"origin": self.origin} | ({"cookie": f"reader={self.cookie}"} if self.cookie else {})

    def send(self, method: str, path: str, **options):
        options["headers"] = {**self.headers, **options.get("headers", {})}
        self.client.cookies.clear()
        answer = self.client.request(method, API + path, **options)
        if found := answer.cookies.get("reader"):
            self.cookie = found
        self.client.cookies.clear()
        return answer

    def ticket(self) -> str:
        self.held = self.send("POST", "/ticket", json={}).json()["ticket"]
        return self.held

    def fields(self, text: str, **fields) -> dict:
        return {
            "page": PAGE, "text": text, "key": str(uuid.uuid4()), "ticket": self.held or self.ticket(), **fields,
        }  # fmt: skip

    def post(self, text: str = "A comment.", **fields):
        return self.send("POST", "/comments", json=self.fields(text, **fields))

    def edit(self, id: int, text: str = "Changed.", **fields):
        return self.send(
            "PATCH", f"/comments/{id}", json={"text": text, "kind": "comment", "author": "", "section": None, **fields}
        )

    def delete(self, id: int):
        return self.send("DELETE", f"/comments/{id}")

    def thread(self, page: str = PAGE, **options):
        return self.send("GET", "/thread", params={"page": page}, **options)


def error_of(answer, status: int, field: str | None = None) -> str:
    """The words of an error, after checking its shape."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert set(content) == {"error", "field", "retry_after"}
    assert content["field"] == field and isinstance(content["error"], str) and len(content["error"]) > 20
    if content["retry_after"] is not None:
        assert answer.headers["retry-after"] == str(content["retry_after"])
    return content["error"]
