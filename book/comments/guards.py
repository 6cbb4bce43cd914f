"""Who may write: the same site only, not too much, not too fast, with a form that was opened by the same reader."""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import math
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "reader"
COOKIE_SECONDS = 30 * 86400
BODY = 64 * 1024  # bytes
BODY_SECONDS = 30  # for a body to arrive
TICKET_FROM, TICKET_TO = 2, 86400  # seconds of age at which a form's ticket is good


class Problem(Exception):
    """An answer with an error: what happened and what to do, in words for the reader."""

    def __init__(self, status: int, error: str, field: str | None = None, retry_after: int | None = None):
        super().__init__(error)
        self.status, self.error, self.field, self.retry_after = status, error, field, retry_after


# --- where a request comes from -----------------------------------------------------------------------


def check_origin(request: Request, public: Collection[str]) -> str:
    """The origin of a request that writes; a Problem unless it is the site itself.

    A browser sends Origin with every request that writes, and no page can forge it.
    """
    given = request.headers.getlist("origin")
    itself = f"http://{request.headers.get('host', '').lower()}"
    # a name that KnownHosts let through and that is not public is this machine's own, spoken to directly
    own = (
        set(public) if urlsplit(itself).hostname in {urlsplit(name).hostname for name in public} else {*public, itself}
    )
    site = request.headers.get("sec-fetch-site", "same-origin")
    if len(given) != 1 or given[0].lower() not in own or site != "same-origin":
        raise Problem(403, "This came from another site. Open the book's own page and write there.")
    return given[0].lower()


def check_json(request: Request) -> None:
    """A form of another site can send plain text or form data, never this type."""
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = re.fullmatch(r"\s*(?:charset\s*=\s*\"?utf-8\"?)?\s*", rest, re.I)
    if kind.strip().lower() != "application/json" or not charset or len(request.headers.getlist("content-type")) != 1:
        raise Problem(415, "The service takes JSON only (Content-Type: application/json).")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network_of(request: Request, proxies: Sequence[Network]) -> str:
    """The /24 or /64 of the reader. X-Forwarded-For counts only from a trusted proxy, and then its last other address."""
    address = _address(request.client.host if request.client else "")
    if address and any(address in proxy for proxy in proxies):
        hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        for hop in reversed(hops):
            found = _address(hop.strip())
            if found is None:  # not an address: nothing before it can be believed
                break
            address = found
            if not any(found in proxy for proxy in proxies):
                break
    if address is None:
        return "unknown"
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 64), strict=False))


def _address(given: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    found = re.fullmatch(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+", given)  # some proxies add the port
    try:
        address = ipaddress.ip_address(found[1] or found[2] if found else given)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


# --- how much -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """A bucket of `burst` tokens that gains one in `seconds`."""

    burst: float
    seconds: float


LIMITS = {
    "ticket": Rate(30, 4),
    "post": Rate(10, 30),
    "edit": Rate(20, 10),
    "preview": Rate(30, 1),
    "failure": Rate(20, 15),  # tokens of others, tampered tickets
}
NETWORKS = 20_000  # buckets kept; the longest unused are forgotten first


class Limits:
    """Token buckets by network and kind of request; kept in memory only, and never written anywhere."""

    def __init__(self, rates: dict[str, Rate] | None = None, clock: Callable[[], float] = time.monotonic):
        self.rates = LIMITS if rates is None else rates
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def take(self, kind: str, network: str) -> None:
        """Take a token; a Problem that says how long to wait if there is none."""
        rate = self.rates.get(kind)
        if not rate:
            return
        level, now = self._level(kind, network, rate)
        self._keep(kind, network, max(level - 1, 0) if level >= 1 else level, now)
        if level < 1:
            self._refuse(rate, level)

    def check(self, kind: str, network: str) -> None:
        """The same without taking one."""
        if rate := self.rates.get(kind):
            level, _ = self._level(kind, network, rate)
            if level < 1:
                self._refuse(rate, level)

    def spend(self, kind: str, network: str) -> None:
        """Take a token if there is one."""
        if rate := self.rates.get(kind):
            level, now = self._level(kind, network, rate)
            self._keep(kind, network, max(level - 1, 0), now)

    def _level(self, kind: str, network: str, rate: Rate) -> tuple[float, float]:
        now = self._clock()
        level, since = self._buckets.get((kind, network), (rate.burst, now))
        return min(rate.burst, level + (now - since) / rate.seconds), now

    def _keep(self, kind: str, network: str, level: float, now: float) -> None:
        self._buckets[kind, network] = level, now
        self._buckets.move_to_end((kind, network))
        while len(self._buckets) > NETWORKS:
            self._buckets.popitem(last=False)

    def _refuse(self, rate: Rate, level: float) -> None:
        wait = max(1, int((1 - level) * rate.seconds + 0.999))
        seconds = "a second" if wait == 1 else f"{wait} seconds"
        raise Problem(429, f"That is a lot at once. Wait {seconds} and send it again.", retry_after=wait)


# --- the reader, and the form -------------------------------------------------------------------------


def new_reader() -> str:
    return secrets.token_urlsafe(32)


def reader_of(request: Request) -> str | None:
    """The reader's token, if the cookie holds one of ours by its form."""
    token = request.cookies.get(COOKIE, "")
    return token if re.fullmatch(r"[A-Za-z0-9_-]{43}", token, re.ASCII) else None


class Tickets:
    """Proofs that the same reader opened a form a while ago: a time, signed together with the reader."""

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time):
        self._secret, self._clock = secret, clock

    def _sign(self, when: str, owner: str) -> str:
        mac = hmac.digest(self._secret, f"{when} {owner}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac).decode().rstrip("=")

    def make(self, owner: str) -> str:
        when = f"{math.floor(self._clock() * 100) / 100:.2f}"  # never later than now
        return f"{when}.{self._sign(when, owner)}"

    def check(self, ticket: str, owner: str) -> None:
        """A Problem unless the ticket was made for this reader, 2 seconds to 24 hours ago."""
        when, _, signature = ticket.rpartition(".")
        stale = Problem(403, "The form was open for too long, or belongs to another reader. Send it again.", "ticket")
        if not re.fullmatch(r"\d{1,12}\.\d\d", when, re.ASCII):
            raise stale
        try:
            good = hmac.compare_digest(signature.encode("ascii"), self._sign(when, owner).encode())
        except UnicodeEncodeError:
            good = False
        age = self._clock() - float(when)
        if not good or age > TICKET_TO:
            raise stale
        if age < TICKET_FROM:
            raise Problem(422, "That was too quick for a person. Send it again in two seconds.", "ticket", TICKET_FROM)


# --- the body -----------------------------------------------------------------------------------------


class Door:
    """Lets a request that writes in only from the site itself, as JSON, and reads no more of it than allowed."""

    def __init__(self, app: ASGIApp, public: Collection[str], refuse: Callable[[Problem], ASGIApp]):
        self.app, self.public, self.refuse = app, public, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            check_origin(request, self.public)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                check_json(request)
            body = await _body(request, receive)
        except Problem as problem:
            await self.refuse(problem)(scope, receive, send)
            return
        if body is None:
            return  # the reader went away
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, again, send)


async def _body(request: Request, receive: Receive) -> bytes | None:
    """The whole body; None if it breaks off, a Problem if it is too large or too slow."""
    too_large = Problem(413, f"This is more than the service takes ({BODY // 1024} KB). Shorten it.", "text")
    for given in request.headers.getlist("content-length"):
        if not given.isdecimal() or len(given) > 12 or int(given) > BODY:
            raise too_large
    parts, size, more = [], 0, True
    deadline = time.monotonic() + BODY_SECONDS
    while more:
        try:
            message = await asyncio.wait_for(receive(), max(0.01, deadline - time.monotonic()))
        except TimeoutError:
            raise Problem(408, "What you sent did not arrive in time. Send it again.") from None
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY:
            raise too_large
        more = message.get("more_body", False)
    return b"".join(parts)
