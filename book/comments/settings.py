"""What `_config.yml` says about comments, and what a deployment adds when it serves them."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from book.errors import BookError

PROVIDERS = ("embedded", "giscus", "none")
MODERATION = ("auto", "on", "off")
GISCUS = ("repo", "repo_id", "category", "category_id")
WHERE = "_config.yml: html: comments"


@dataclass(frozen=True)
class Giscus:
    """The discussion that giscus shows; https://giscus.app tells a repository's ids."""

    repo: str
    repo_id: str
    category: str
    category_id: str


@dataclass(frozen=True)
class Settings:
    """The book's choice, the same for everyone who builds it."""

    provider: str = "none"
    moderation: str = "auto"
    giscus: Giscus | None = None

    @classmethod
    def read(cls, config: Mapping | None) -> Settings:
        """From the mapping under `html: comments:`; BookError names what is wrong and what is allowed."""
        if config is None or config is False:
            return cls()
        if not isinstance(config, Mapping):
            raise BookError(f"{WHERE}: must be a mapping with `provider:`, not {config!r}")
        problems = [
            f"{WHERE}: unknown key {key!r}; allowed are provider, moderation, giscus"
            for key in config
            if key not in ("provider", "moderation", "giscus")
        ]
        provider, moderation = _word(config.get("provider", "none")), _word(config.get("moderation", "auto"))
        for key, value, allowed in (("provider", provider, PROVIDERS), ("moderation", moderation, MODERATION)):
            if value not in allowed:
                problems.append(f"{WHERE}: {key}: {config[key]!r} is not one of {', '.join(allowed)}")
        giscus = _giscus(config.get("giscus"), problems)
        if problems:
            raise BookError(problems)
        return cls(provider, moderation, giscus)

    @classmethod
    def of_book(cls, root: Path) -> Settings:
        """From the `_config.yml` in `root`."""
        config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8")) or {}
        return cls.read((config.get("html") or {}).get("comments"))

    def csp(self) -> dict[str, list[str]]:
        """The sources that a page's policy must allow besides its own."""
        if self.provider != "giscus" or not self.giscus:
            return {}
        return {name: ["https://giscus.app"] for name in ("script-src", "style-src", "frame-src", "connect-src")}


def _word(value: object) -> object:
    """YAML reads a bare `on`, `off` or `none` its own way: take it as the word that was meant."""
    return {True: "on", False: "off", None: "none"}.get(value, value) if value in (True, False, None) else value


def _giscus(given: object, problems: list[str]) -> Giscus | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        problems.append(f"{WHERE}: giscus: must be a mapping with {', '.join(GISCUS)}, not {given!r}")
        return None
    problems += [
        f"{WHERE}: giscus: unknown key {key!r}; allowed are {', '.join(GISCUS)}" for key in given if key not in GISCUS
    ]
    wrong = [key for key in GISCUS if not isinstance(given.get(key) or "", str)]
    problems += [f"{WHERE}: giscus: {key}: must be text, not {given[key]!r}" for key in wrong]
    if wrong or not all(given.get(key) for key in GISCUS):
        return None
    return Giscus(**{key: given[key] for key in GISCUS})


@dataclass(frozen=True)
class Deployment:
    """Where and how this copy of the book is served; given to `book serve`, not kept in the book."""

    data: Path
    public: tuple[str, ...] = ()  # origins, e.g. https://book.example.org
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = field(default=())
    host: str = "127.0.0.1"

    @classmethod
    def read(
        cls, data: Path, public: Sequence[str] = (), proxies: Sequence[str] = (), host: str = "127.0.0.1"
    ) -> Deployment:
        networks = []
        for given in proxies:
            try:
                networks.append(ipaddress.ip_network(given, strict=False))
            except ValueError:
                raise BookError(f"--trusted-proxy {given}: not an address or network; e.g. 10.0.0.0/8") from None
        return cls(data, tuple(origin(given) for given in public), tuple(networks), host)

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(urlsplit(given).hostname or "" for given in self.public)

    def moderated(self, settings: Settings) -> bool:
        """Whether comments wait for approval: `auto` asks for it as soon as others can reach the book."""
        if settings.moderation != "auto":
            return settings.moderation == "on"
        return bool(self.public) or not is_loopback(self.host)


def origin(given: str) -> str:
    """`https://book.example.org` in the form in which a browser sends it as Origin."""
    try:
        parts = urlsplit(given.strip())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = (parts.hostname or "").rstrip(".")
    if (
        parts.scheme not in ("http", "https")
        or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host)
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise BookError(
            f"--public {given}: give the address at which readers open the book, e.g. https://book.example.org"
        )
    name = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{name}" + (f":{port}" if port and port != usual else "")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def from_environment(name: str) -> list[str]:
    """The values of a variable that may hold several, set apart by spaces or commas."""
    return re.split(r"[\s,]+", value) if (value := os.environ.get(name, "").strip(" ,\t\n")) else []
