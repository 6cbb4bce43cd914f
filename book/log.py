"""What the server says about itself: lines for a person, or one JSON object per request for a machine."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send


def say(event: str, **fields: object) -> None:
    """One JSON object, on a line of its own."""
    when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    print(json.dumps({"time": when, "event": event, **fields}), flush=True)


class Requests:
    """Says what was asked and answered. Never who asked, and not the query, which may hold what a reader looks for."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, size = time.perf_counter(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            took = round((time.perf_counter() - started) * 1000, 2)
            path = scope["path"][:300]
            say("request", method=scope["method"], path=path, status=status, bytes=size, ms=took)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        say(
            "log",
            level=record.levelname.lower(),
            logger=record.name,
            message=text,
            **({"trace": trace} if trace else {}),
        )


def set_up(form: str) -> None:
    """Where warnings and errors go: to standard error as text, or with the requests as JSON."""
    handler = _Lines() if form == "json" else logging.StreamHandler(sys.stderr)
    if form != "json":
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("book", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if name == "book" else logging.ERROR)
