"""The built site in real Chromium, served by the book's own server."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from book.testing import CHROMIUM_FLAGS, chromium, served
from built import SITE


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> str:
    """The address at which the built site is served, with no comments yet."""
    if not (SITE / "index.html").exists():
        pytest.fail("the site is not built; run `python -m book site` first")
    with served(SITE, tmp_path_factory.mktemp("comments")) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Browser:
    executable = chromium()
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium in CI")
        pytest.skip("no Chromium: install it, or name it in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, site: str):
    """`open_page(name, **context)`: the loaded page; its `problems` hold console errors and foreign requests."""
    contexts = []

    def opened(name: str, **options) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda m: m.type in ("error", "warning") and page.problems.append(f"console: {m.text}"))
        page.on("pageerror", lambda error: page.problems.append(f"error: {error}"))
        page.on(
            "request", lambda r: r.url.startswith((site, "data:", "blob:")) or page.problems.append(f"foreign: {r.url}")
        )
        page.on("response", lambda r: r.status < 400 or page.problems.append(f"{r.status}: {r.url}"))
        page.goto(f"{site}/{name}", wait_until="networkidle")
        return page

    yield opened
    for context in contexts:
        context.close()
