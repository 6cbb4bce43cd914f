"""A server for tests and measurements, in a process of its own: `book.testing.served` starts it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from book import server


def serve(
    html: str,
    data: str | None,
    port: int = 0,
    moderation: str = "off",
    limits: bool = True,
    ticket_from: float | None = None,
    public: Sequence[str] = (),
    proxies: Sequence[str] = (),
    logs: str = "text",
) -> int:
    """Serve until told to stop; without `limits` a reader may write as fast as the disk does."""
    if data is None:
        return server.serve(Path(html), port=port, logs=logs)
    from book.comments import guards
    from book.comments.service import Service
    from book.comments.settings import Deployment, Settings

    if ticket_from is not None:
        guards.TICKET_FROM = ticket_from
    deployment = Deployment.read(Path(data), public, proxies)
    settings = Settings("embedded", moderation)
    root = Path(__file__).resolve().parent.parent

    def service() -> Service:
        return Service(settings, deployment, root, None if limits else guards.Limits({}))

    return server.serve(Path(html), port=port, logs=logs, hosts=deployment.hosts, comments=service)
