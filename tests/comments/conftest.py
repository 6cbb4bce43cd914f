"""The comments' service over a small site: in this process, or as a server of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from book.comments import guards, service
from book.comments.render import Renderer
from readers import ROOT, Reader, make_client, make_service, write_site


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    """One for all tests, for KaTeX takes a while to start."""
    renderer = Renderer(ROOT)
    end, renderer.close = renderer.close, lambda: None
    yield renderer
    end()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What is served: a link, as the press makes it."""
    folder = write_site(tmp_path / "sites" / "1")
    link = tmp_path / "html"
    link.symlink_to(folder)
    return link


@pytest.fixture
def at_once(monkeypatch):
    """A form may be sent as soon as it is open."""
    monkeypatch.setattr(guards, "TICKET_FROM", 0)


@pytest.fixture
def start(site, tmp_path, at_once, renderer, monkeypatch):
    """`start(...)`: a client of a service with the given options; its `service` is at hand."""
    monkeypatch.setattr(service, "Renderer", lambda root: renderer)
    opened = []

    def start(base: str = "http://localhost", **options):
        client = make_client(site, make_service(tmp_path / "data", **options), base)
        client.__enter__()
        client.service = client.app.state.comments
        opened.append(client)
        return client

    yield start
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start):
    return start()


@pytest.fixture
def reader(client) -> Reader:
    return Reader(client)
