"""What the server costs on this machine's loopback, beside `python -m http.server` on the same files.

`python -m benchmarks.serving` prints JSON. One asyncio client in a process of its own asks both servers in the
same run, so its own cost is in every figure: compare, do not quote.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from book import testing
from book.notebooks import Book
from book.site import published

CLIENTS = 16
SECONDS = 3.0
Asks = Callable[[int], bytes]  # number of the request -> the bytes to send

TEXT = """A remark of ordinary length, with `code`, *emphasis* and a formula: $\\\\sum_i p_i \\\\log p_i$.

```python
def entropy(p):
    return -(p * np.log2(p)).sum()
```
"""


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[str]:
    """The address at which `python -m http.server` serves `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def request(
    address: str, path: str, method: str = "GET", body: bytes = b"", keep: bool = False, **headers: str
) -> bytes:
    """The bytes of one HTTP request."""
    host = address.removeprefix("http://")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Connection: {'keep-alive' if keep else 'close'}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, head and body of one answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
    body = await (reader.read() if length is None else reader.readexactly(int(length.split(b":")[1])))
    return int(head.split(b" ", 2)[1]), head, body


async def load(address: str, asks: Asks, keep: bool, expect: int = 200, seconds: float = SECONDS) -> dict[str, float]:
    """Ask from CLIENTS connections for `seconds`; requests per second, and the median and 99th percentile in ms."""
    host, port = address.removeprefix("http://").split(":")
    times: list[float] = []
    number = iter(range(10**9))
    end = math.inf

    async def client() -> None:
        writer = None
        while time.perf_counter() < end:
            started = time.perf_counter()
            if writer is None:
                reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(asks(next(number)))
            status, _, body = await _answer(reader)
            if status != expect:
                raise RuntimeError(f"{address} answered {status}: {body[:200]!r}")
            times.append(time.perf_counter() - started)
            if not keep:
                writer.close()
                writer = None
        if writer:
            writer.close()

    reader, writer = await asyncio.open_connection(host, int(port))  # a server that is still starting is not measured
    writer.write(asks(next(number)))
    await _answer(reader)
    writer.close()
    started = time.perf_counter()
    end = started + seconds
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    took = time.perf_counter() - started
    times.sort()
    return {
        "per second": round(len(times) / took, 1),
        "median ms": round(1000 * times[len(times) // 2], 2),
        "p99 ms": round(1000 * times[math.ceil(0.99 * len(times)) - 1], 2),
    }


def pages(site: Path, ours: str, theirs: str) -> dict[str, dict[str, float]]:
    """The front page and a chapter from both servers, a connection for each request and, from ours, kept open too."""
    chapter = max((site / "chapters").rglob("*.html"), key=lambda file: file.stat().st_size)
    found = {}
    for name in ("index.html", chapter.relative_to(site).as_posix()):
        size = f"{name}, {(site / name).stat().st_size / 1000:.0f} KB"
        for label, address, keep, more in (
            ("http.server", theirs, False, {}),
            ("ours", ours, False, {}),
            ("ours, compressed", ours, False, {"Accept_Encoding": "br"}),
            ("ours, compressed, connection kept", ours, True, {"Accept_Encoding": "br"}),
        ):
            asked = request(address, f"/{name}", keep=keep, **more)
            found[f"{label}: {size}"] = asyncio.run(load(address, lambda _, asked=asked: asked, keep))
    return found


class Writer:
    """A reader who posts: has a cookie and a ticket, as the page's script has."""

    def __init__(self, address: str):
        self.address = address
        self.same = {"Origin": address, "Content_Type": "application/json"}
        status, head, body = asyncio.run(self._once("ticket", b"{}"))
        if status != 200:
            raise RuntimeError(f"no ticket: {status} {body[:200]!r}")
        cookie = next(line for line in head.decode().split("\r\n") if line.lower().startswith("set-cookie:"))
        self.same["Cookie"] = cookie.split(":", 1)[1].split(";")[0].strip()
        self.ticket = json.loads(body)["ticket"]
        time.sleep(2.1)  # faster than anyone types, and refused

    async def _once(self, name: str, body: bytes) -> tuple[int, bytes, bytes]:
        host, port = self.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request(self.address, f"/-/comments/{name}", "POST", body, **self.same))
        answer = await _answer(reader)
        writer.close()
        return answer

    def post(self, page: str) -> bytes:
        """The bytes of a request that posts one comment on `page`."""
        comment = {
            "page": page, "section": None, "parent": None, "kind": "comment", "author": "Ada", "text": TEXT,
            "key": str(uuid.uuid4()), "ticket": self.ticket, "website": "",
        }  # fmt: skip
        body = json.dumps(comment).encode()
        return request(self.address, "/-/comments/comments", "POST", body, keep=True, **self.same)

    def fill(self, page: str, number: int) -> None:
        """Post `number` comments on `page`."""

        async def all_of_them() -> None:
            host, port = self.address.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for _ in range(number):
                writer.write(self.post(page))
                status, _, body = await _answer(reader)
                if status != 201:
                    raise RuntimeError(f"{page} answered {status}: {body[:200]!r}")
            writer.close()

        asyncio.run(all_of_them())


def comments(address: str, threads: list[str]) -> dict[str, dict[str, float]]:
    """Reading 20 and 100 comments, and posting, on three pages of the book."""
    writer = Writer(address)
    found = {}
    for page, number in zip(threads, (20, 100)):
        writer.fill(page, number)
        asked = request(address, f"/-/comments/thread?page={page}", keep=True, Accept_Encoding="br")
        found[f"{number} comments read"] = asyncio.run(load(address, lambda _, asked=asked: asked, keep=True))
    found["comments posted"] = asyncio.run(load(address, lambda _: writer.post(threads[2]), keep=True, expect=201))
    return found


def serving(site: Path) -> dict[str, dict[str, float]]:
    """Every figure of this file, from one run."""
    threads = [
        file.relative_to(site).with_suffix("").as_posix() for file in sorted((site / "chapters").rglob("*.html"))
    ]
    with tempfile.TemporaryDirectory() as data, plain(site) as theirs:
        with testing.served(site, data=Path(data), limits=False) as ours:
            return {**pages(site, ours, theirs), **comments(ours, threads[:3])}


if __name__ == "__main__":
    print(json.dumps(serving(published(Book(Path(__file__).resolve().parent.parent))), indent=1))
