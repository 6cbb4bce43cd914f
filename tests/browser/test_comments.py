"""Readers' comments, end to end: the built pages, the real service on an empty database, real Chromium."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, expect
from test_pages import theme, violations

from book import server
from book.comments.settings import Giscus, Settings
from book.testing import served, serving
from built import ROOT, SITE, page_names

expect.set_options(timeout=20_000)  # a busy machine is not a failure

#: the page that the tests comment on: the lightest, for they open it a hundred times
PAGE = min(
    (name.removesuffix(".html") for name in page_names() if name.startswith("exercises/")),
    key=lambda page: (SITE / f"{page}.html").stat().st_size,
    default="",
)
MATH = r"Is it not $\mathfrak{Q} = \frac{a}{b}$?" + "\n\n$$ \\sum_{i=1}^n w_i $$\n\n```python\ndef f(x):\n    return x  # same\n```"


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> Path:
    """A few of the built pages, so that a server is there in a moment."""
    folder = tmp_path_factory.mktemp("pages")
    names = ["index.html", f"{PAGE}.html"]
    html = (SITE / f"{PAGE}.html").read_text(encoding="utf-8")
    for name in names + re.findall(r'src="[./]*(_images/[^"]+)"', html):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SITE / name, folder / name)
    shutil.copytree(SITE / "_static", folder / "_static")
    return folder


@pytest.fixture
def site(pages, tmp_path, request) -> str:
    """The address of a server of its own for each test; parametrize it with options of `book.trial.serve`."""
    options = {"ticket_from": 0, "limits": False, **getattr(request, "param", {})}
    with served(pages, tmp_path / "data", **options) as address:
        yield address


@pytest.fixture
def read(open_page):
    """`read(hash, **context)`: a new reader with the chapter and its comments open."""

    def opened(fragment: str = "", page: str = PAGE, **options) -> Page:
        opened = open_page(f"{page}.html{fragment}", **options)
        opened.set_default_timeout(20_000)
        expect(opened.locator(".comments .new")).to_be_attached()
        return opened

    return opened


def form(page: Page):
    return page.locator(".comments .new form")


def begin(page: Page, text: str, **choices: str):
    """Open the form for a new comment, unless it is open, and fill it in."""
    expect(page.locator(".comments .new")).to_be_attached()
    if page.locator(".write").is_visible():
        page.click(".write")
    found = form(page)
    found.locator("textarea").fill(text)
    for label, value in choices.items():
        field = found.get_by_label(label)
        field.fill(value) if label.startswith("Name") else field.select_option(label=value)
    return found


def post(page: Page, text: str, **choices: str):
    """Post a comment and return it as shown."""
    ids = page.locator(".thread .comment").evaluate_all("all => all.map(e => e.id)")
    begin(page, text, **choices).locator(".send").click()
    expect(form(page)).to_have_count(0)
    new = page.locator(".thread .comment").evaluate_all("all => all.map(e => e.id)")
    return page.locator(f"#{next(id for id in new if id not in ids)}")


def said(page: Page):
    """Where the form says what happened."""
    return page.locator(".write-form .said")


def kept(page: Page, tab: str = "") -> dict[str, str]:
    """The drafts in this browser: place → text."""
    found = page.evaluate("Object.entries(localStorage).filter(([k]) => k.startsWith('comment '))")
    return {key.split(" ")[2]: json.loads(value)["text"] for key, value in found}


def in_focus(page: Page) -> str:
    return page.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")


def on_server(page: Page) -> dict:
    """The thread as a reader without cookies gets it."""
    response = page.context.browser.new_context().request.get(
        f"{page.evaluate('location.origin')}/-/comments/thread", params={"page": PAGE}
    )
    return response.json()


# --- reading and writing


def test_post_reload_reply_edit_delete(read):
    page = read()
    expect(page.locator(".empty")).to_have_text("No comments yet.")
    assert not form(page).count(), "quiet until it is wanted"
    first = post(page, "The *second* sentence is wrong.", **{"Kind": "Correction", "Name, if you like": "Ada"})
    expect(first.locator(".author")).to_have_text("Ada")
    expect(first.locator(".kind")).to_have_text("Correction")
    expect(first.locator(".text em")).to_have_text("second")
    expect(first.locator(".left")).to_have_text("yours to change for 15 min")
    expect(page.locator("#comments-title .count")).to_have_text("1")
    expect(page.locator(".comments > .said")).to_have_text("Your comment is posted.")
    assert in_focus(page) == first.get_attribute("id")
    assert kept(page) == {}

    page.reload(wait_until="networkidle")
    expect(first.locator(".text em")).to_have_text("second")
    first.get_by_role("button", name="Reply to Ada").click()
    reply = page.get_by_role("form", name="Reply to Ada")
    assert reply.get_by_label("Name, if you like").input_value() == "Ada", "the name is kept"
    reply.locator("textarea").fill("No, it is right.")
    reply.locator(".send").click()
    answer = first.locator(".replies > .comment")
    expect(answer.locator(".text")).to_have_text("No, it is right.")
    answer.get_by_role("button", name="Reply to Ada").click()
    again = page.get_by_role("form", name="Reply to Ada")
    again.locator("textarea").fill("A reply to a reply stands beside it.")
    again.locator(".send").click()
    expect(first.locator(".replies > .comment")).to_have_count(2)
    expect(page.locator(".replies .replies")).to_have_count(0)

    first.get_by_role("button", name="Edit the comment by Ada").first.click()
    edit = page.get_by_role("form", name="Change your comment")
    assert edit.locator("textarea").input_value() == "The *second* sentence is wrong."
    edit.locator("textarea").fill("The *third* sentence is wrong.")
    edit.get_by_label("Kind").select_option("question")
    edit.locator(".send").click()
    expect(first.locator("> .text em")).to_have_text("third")
    expect(first.locator("> .by .kind")).to_have_text("Question")
    expect(first.locator("> .by .edited")).to_have_text("edited")
    expect(first.locator(".replies > .comment")).to_have_count(2)
    assert first.locator("> .actions").count() == 1

    first.locator("> .actions").get_by_role("button", name="Delete").click()
    assert page.locator(".actions", has_text="Delete this comment for good?").is_visible()
    first.locator("> .actions").get_by_role("button", name="Keep").click()
    expect(first.locator("> .actions").get_by_role("button", name="Delete")).to_be_focused()
    first.locator("> .actions").get_by_role("button", name="Delete").click()
    page.keyboard.press("Enter")
    expect(page.locator(".comment.gone > p")).to_have_text("This comment was removed.")
    expect(page.locator(".comments > .said")).to_have_text("Your comment is deleted.")
    expect(page.locator("#comments-title .count")).to_have_text("2")
    page.reload(wait_until="networkidle")
    expect(page.locator(".thread > .comment.gone > p")).to_have_text("This comment was removed.")
    expect(page.locator(".replies > .comment")).to_have_count(2)
    expect(page.locator("#comments-title .count")).to_have_text("2")
    for _ in range(2):
        page.locator(".replies > .comment").first.get_by_role("button", name="Delete").click()
        page.keyboard.press("Enter")
        expect(page.locator(".comments > .said")).to_have_text("Your comment is deleted.")
    expect(page.locator(".thread .comment")).to_have_count(0)
    expect(page.locator(".empty")).to_be_visible()
    assert page.problems == []


def test_another_reader_reads_and_cannot_change(read):
    page = read()
    mine = post(page, "Mine")
    other = read()
    theirs = other.locator(f"#{mine.get_attribute('id')}")
    expect(theirs.locator(".text")).to_have_text("Mine")
    expect(theirs.get_by_role("button")).to_have_text(["Reply", "Copy link"])
    assert other.problems == [] and page.problems == []


def test_a_section_shows_how_many_and_takes_more(read):
    page = read()
    section = page.locator("article section[id]:has(> h2)").first
    name = section.evaluate("e => e.querySelector('h2').firstChild.textContent.trim()")
    comment = section.locator("> .section-tools button")
    assert comment.evaluate("e => getComputedStyle(e).opacity") == "0"
    section.locator("> h2").hover()
    assert comment.evaluate("e => getComputedStyle(e).opacity") == "1"
    before = section.evaluate("e => e.getBoundingClientRect().height")
    comment.click()
    about = form(page).get_by_label("About")
    assert about.evaluate("e => e.selectedOptions[0].textContent") == name
    expect(form(page).locator("textarea")).to_be_focused()
    first = post(page, "About this section.")
    expect(first.locator(".about")).to_contain_text(name)
    link = section.locator("> .section-tools a")
    expect(link).to_have_text("1 comment")
    first.get_by_role("button", name="Reply").click()
    page.locator(".write-form textarea").fill("A reply is about it too.")
    page.locator(".write-form .send").click()
    expect(link).to_have_text("2 comments")
    assert section.evaluate("e => e.getBoundingClientRect().height") == before, "nothing moves"
    comment.click()
    about.select_option("")  # removed again
    post(page, "About the page.")
    expect(link).to_have_text("2 comments")
    expect(page.locator("article > section > .section-tools a")).to_have_text("3 comments")
    page.reload(wait_until="networkidle")
    expect(link).to_have_text("2 comments")
    thread = on_server(page)
    assert thread["count"] == 3 and thread["sections"] == {section.get_attribute("id"): 2}
    link.click()
    expect(page.locator(".comment.marked")).to_have_count(2)
    assert page.url.endswith(f"#{first.get_attribute('id')}")
    expect(first).to_be_in_viewport()
    assert page.problems == []


def test_preview_shows_what_will_be_posted(read):
    page = read()
    found = begin(page, MATH)
    found.get_by_role("button", name="Preview").click()
    preview = page.get_by_role("region", name="Preview")
    expect(preview).to_be_focused()
    assert preview.locator(".katex").count() == 2 and preview.locator(".highlight .k").count()
    page.wait_for_function("document.fonts.check('16px KaTeX_Whole_Fraktur')")
    font = preview.locator(".mathfrak").evaluate("e => getComputedStyle(e).fontFamily")
    assert font.startswith("KaTeX_Whole_Fraktur"), "every letter is there, not only those of the book"
    book = page.evaluate("[...document.querySelectorAll('article .katex')].map(e => getComputedStyle(e).fontFamily)")
    assert not [family for family in book if "Whole" in family], "the book's own formulas stay as they are"
    shown = preview.inner_html()
    found.locator("textarea").press("End")
    page.keyboard.type("!")
    expect(page.locator(".previewed")).to_contain_text("what you had written")
    page.keyboard.press("Backspace")
    found.locator(".send").click()
    comment = page.locator(".thread .comment")
    expect(form(page)).to_have_count(0)
    assert comment.locator("> .text").inner_html() == shown
    assert comment.locator("math").count() == 2
    assert page.problems == []


def test_formulas_load_a_style_sheet_only_where_there_are_some(read):
    page = read()
    post(page, "No formula.")
    assert not page.evaluate("performance.getEntriesByType('resource').some(e => e.name.includes('katex.min.css'))")
    post(page, "$a$")
    other = read()
    other.wait_for_function("performance.getEntriesByType('resource').some(e => e.name.includes('katex.min.css'))")
    assert other.problems == []


def test_a_permalink_leads_to_its_comment(read):
    page = read()
    for number in range(12):
        comment = post(page, f"Number {number}\n\n" + "One more line.\n\n" * 3)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    middle = page.locator(".thread > .comment").nth(4)
    middle.get_by_role("button", name="Copy link").click()
    expect(page.locator(".comments > .said")).to_have_text("The link to the comment is copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == f"{page.url.split('#')[0]}#{middle.get_attribute('id')}"
    other = read(f"#{middle.get_attribute('id')}")
    there = other.locator(f"#{middle.get_attribute('id')}")
    expect(there).to_have_class(re.compile("marked"))
    expect(there).to_be_in_viewport()
    expect(there).to_be_focused()
    last = other.locator(f"#{comment.get_attribute('id')} .when")
    last.click()
    expect(other.locator(".comment.marked")).to_have_id(comment.get_attribute("id"))
    gone = read("#comment-999")
    expect(gone.locator(".comments > .said")).to_contain_text("is not here")
    assert other.problems == [] and gone.problems == []


@pytest.mark.parametrize("site", [{"moderation": "on"}], indirect=True)
def test_what_awaits_approval_is_seen_by_its_writer_only(read):
    page = read()
    begin(page, "Please approve.")
    assert form(page).get_by_text("Comments appear once they are approved.").is_visible()
    comment = post(page, "Please approve.")
    expect(comment.locator(".waits")).to_have_text("Awaits approval; only you see it")
    expect(page.locator(".comments > .said")).to_contain_text("awaits approval")
    page.reload(wait_until="networkidle")
    expect(comment.locator(".waits")).to_be_visible()
    expect(page.locator("#comments-title .count")).to_have_text("")
    comment.get_by_role("button", name="Edit").click()
    page.locator(".write-form textarea").fill("Please approve this.")
    page.locator(".write-form .send").click()
    expect(comment.locator("> .text")).to_have_text("Please approve this.")
    expect(comment.locator(".waits")).to_be_visible()
    expect(read().locator(".thread .comment")).to_have_count(0)


def test_the_buttons_to_change_it_go_after_fifteen_minutes(read):
    page = read()
    page.clock.install()
    page.reload()
    comment = post(page, "Mine")
    page.clock.fast_forward("10:00")
    expect(comment.locator(".left")).to_have_text(re.compile("[45] min"))
    page.clock.fast_forward("04:30")
    expect(comment.locator(".left")).to_have_text("yours to change for less than a minute")
    page.clock.fast_forward("01:00")
    expect(comment.get_by_role("button")).to_have_text(["Reply", "Copy link"])


# --- nothing typed is lost


def test_drafts_outlive_a_reload_each_in_its_place(read):
    page = read()
    comment = post(page, "Mine")
    begin(page, "A new one", Kind="Idea")
    comment.get_by_role("button", name="Reply").click()
    page.get_by_role("form", name="Reply to").locator("textarea").fill("A reply")
    comment.get_by_role("button", name="Edit").click()
    page.get_by_role("form", name="Change").locator("textarea").fill("Mine, changed")
    for _ in range(2):
        page.reload(wait_until="networkidle")
        expect(form(page).locator("textarea")).to_have_value("A new one")
        expect(form(page).get_by_label("Kind")).to_have_value("idea")
        expect(page.get_by_role("form", name="Reply to").locator("textarea")).to_have_value("A reply")
        expect(page.get_by_role("form", name="Change").locator("textarea")).to_have_value("Mine, changed")
        expect(form(page).locator(".said")).to_have_text("This is what you had written and not sent.")
        assert in_focus(page) == "BODY", "restored without taking the reader there"
    page.get_by_role("form", name="Change").locator(".send").click()
    expect(comment.locator("> .text")).to_have_text("Mine, changed")
    expect(page.get_by_role("form", name="Reply to").locator("textarea")).to_have_value("A reply")
    assert sorted(kept(page)) == ["new", f"reply-{comment.get_attribute('data-id')}"]
    form(page).get_by_role("button", name="Close").click()
    expect(page.locator(".comments > .said")).to_contain_text("kept in this browser")
    expect(page.locator(".write")).to_be_focused()
    page.click(".write")
    expect(form(page).locator("textarea")).to_have_value("A new one")
    form(page).locator("textarea").fill("")
    assert "new" not in kept(page)
    assert page.problems == []


def test_two_windows_keep_their_own_drafts(read, site):
    one = read()
    begin(one, "From the first")
    two = one.context.new_page()
    two.goto(f"{site}/{PAGE}.html")
    expect(two.locator(".write")).to_be_visible()  # the first one's draft is its own
    begin(two, "From the second")
    for page, text in ((one, "From the first"), (two, "From the second"), (one, "From the first")):
        page.reload()
        expect(form(page).locator("textarea")).to_have_value(text)
    form(one).locator(".send").click()
    expect(one.locator(".thread .comment .text")).to_have_text("From the first")
    assert kept(two) == {"new": "From the second"}
    two.close()
    three = one.context.new_page()
    three.goto(f"{site}/{PAGE}.html")
    expect(form(three).locator("textarea")).to_have_value("From the second")  # its window is closed
    form(three).locator(".send").click()
    expect(three.locator(".thread .comment .text")).to_have_text(["From the first", "From the second"])
    assert kept(three) == {}


def test_a_reply_whose_comment_is_gone_is_offered_as_a_new_comment(read, site):
    page = read()
    comment = post(page, "Mine")
    other = read()
    other.locator(".comment").get_by_role("button", name="Reply").click()
    other.locator(".write-form textarea").fill("My reply")
    comment.get_by_role("button", name="Delete").click()
    page.keyboard.press("Enter")
    expect(page.locator(".empty")).to_be_visible()
    other.locator(".write-form .send").click()
    expect(said(other)).to_contain_text("no longer there")
    expect(other.locator(".write-form textarea")).to_have_value("My reply")
    other.reload()
    expect(form(other).locator("textarea")).to_have_value("My reply")
    expect(said(other)).to_contain_text("a reply to a comment that is no longer here")
    form(other).locator(".send").click()
    expect(other.locator(".thread > .comment .text")).to_have_text("My reply")
    assert kept(other) == {}


# --- what is refused, slow or gone is said, and the form stays


@pytest.mark.parametrize(
    ("status", "error", "field", "wait", "words", "focus"),
    [
        (422, "There are more than 5 links in it.", "text", None, "more than 5 links", "write-new-text"),
        (422, "The page has no such section now.", "section", None, "no such section", "About"),
        (413, "The name is too long.", "author", None, "The name is too long", "Name"),
        (429, "That is a lot at once.", None, 40, "Try again in 40 seconds", "send"),
        (429, "That is a lot at once. Wait 7 seconds.", None, 7, "Wait 7 seconds. What", "send"),
        (403, "This came from another site.", None, None, "another site", "send"),
        (410, "The 15 minutes are over.", None, None, "15 minutes are over", "write-new-text"),
        (503, "The disk is full.", None, 60, "The disk is full", "send"),
        (502, None, None, None, "answered with an error (502). Send it again", "send"),
    ],
)  # fmt: skip
def test_a_refusal_is_said_and_the_form_stays(read, status, error, field, wait, words, focus):
    page = read()
    body = json.dumps({"error": error, "field": field, "retry_after": wait}) if error else "<h1>Bad gateway</h1>"
    page.route("**/-/comments/comments", lambda route: route.fulfill(status=status, body=body))
    found = begin(page, "A long text", Kind="Question")
    found.locator(".send").click()
    expect(said(page)).to_contain_text(words)
    expect(said(page)).to_contain_text("What you wrote is kept.")
    assert said(page).get_attribute("role") == "status", "a live region"
    expect(found.locator("textarea")).to_have_value("A long text")
    expect(found.get_by_label("Kind")).to_have_value("question")
    assert kept(page) == {"new": "A long text"}
    if focus in ("About", "Name"):
        expect(found.get_by_label(focus)).to_be_focused()
        expect(found.get_by_label(focus)).to_have_attribute("aria-invalid", "true")
    else:
        assert in_focus(page) == focus
    page.unroute("**/-/comments/comments")
    found.locator(".send").click()
    expect(page.locator(".thread .comment .text")).to_have_text("A long text")
    assert kept(page) == {}


def test_the_service_s_own_refusals_are_shown(read):
    page = read()
    found = begin(page, " ")
    found.locator(".send").click()
    expect(said(page)).to_have_text("Write something first.")
    expect(found.locator("textarea")).to_be_focused()
    begin(page, "x" * 8001)
    expect(said(page)).to_have_text("1 character too many; 8,000 are allowed.")
    begin(page, " ".join(f"[{n}](https://example.org/{n})" for n in range(6)))
    found.locator(".send").click()
    expect(said(page)).to_contain_text("more than 5 links")
    expect(found.locator("textarea")).to_be_focused()
    begin(page, "x")
    expect(said(page)).to_have_text("")
    page.evaluate("document.querySelector('.name input').maxLength = 500")
    found.get_by_label("Name").fill("n" * 200)
    found.locator(".send").click()
    expect(said(page)).to_contain_text("80 are the most")
    expect(found.get_by_label("Name")).to_be_focused()
    found.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Preview")).to_have_text("x")


@pytest.mark.parametrize("site", [{"limits": True}], indirect=True)
def test_too_much_at_once_says_how_long_to_wait(read):
    page = read()
    for number in range(10):
        post(page, f"{number}")
    found = begin(page, "One too many")
    found.locator(".send").click()
    expect(said(page)).to_have_text(re.compile(r"Wait \d+ seconds"))
    expect(found.locator("textarea")).to_have_value("One too many")


@pytest.mark.parametrize("site", [{"ticket_from": 2}], indirect=True)
def test_a_quick_reader_waits_without_knowing(read):
    page = read()
    page.click(".write")
    form(page).locator("textarea").fill("Quick")
    form(page).locator(".send").click()
    expect(page.locator(".thread .comment .text")).to_have_text("Quick")


def test_a_refused_ticket_is_replaced_without_a_word(read):
    page = read()
    page.route("**/-/comments/ticket", lambda route: route.fulfill(json={"ticket": "1.00.tampered"}), times=1)
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[1]))
    post(page, "Hello")
    assert asked.count("ticket") == 2 and asked.count("comments") == 2
    expect(page.locator(".thread .comment .text")).to_have_text("Hello")


def test_a_slow_server_is_waited_for_then_given_up_and_asked_again(read):
    page = read()
    page.clock.install()
    page.reload()
    held = []
    page.route("**/-/comments/comments", lambda route: held.append(route))
    found = begin(page, "Slowly")
    found.locator(".send").click()
    expect(said(page)).to_have_text("Sending…")
    found.locator(".send").click(force=True)  # nothing is sent twice
    expect(found.locator("textarea")).not_to_be_editable()
    page.clock.fast_forward(3100)
    expect(said(page)).to_have_text("Still sending…")
    page.clock.fast_forward(17000)
    expect(said(page)).to_contain_text("not answered for 20 seconds")
    expect(found.locator(".send")).to_have_text("Send again")
    expect(found.locator(".send")).to_be_focused()
    assert len(held) == 1
    page.unroute("**/-/comments/comments")
    with contextlib.suppress(Exception):
        held[0].continue_()  # it was only slow: or it arrives after all
    found.locator(".send").click()
    expect(page.locator(".thread .comment .text")).to_have_text("Slowly")
    assert on_server(page)["count"] == 1


def test_an_answer_that_is_lost_makes_no_duplicate(read):
    page = read()

    def lose(route):
        route.fetch()  # the service has kept it
        route.abort("connectionreset")

    page.route("**/-/comments/comments", lose, times=1)
    found = begin(page, "Once")
    found.locator(".send").click()
    expect(said(page)).to_contain_text("cannot be reached")
    assert on_server(page)["count"] == 1
    page.reload()  # and after a reload it is still the same one
    expect(page.locator(".thread .comment .text")).to_have_text("Once")
    expect(form(page).locator("textarea")).to_have_value("Once")
    begin(page, "Once, and more").locator(".send").click()
    expect(page.locator(".thread .comment .text")).to_have_text("Once, and more")
    assert on_server(page)["count"] == 1 and kept(page) == {}


def test_gone_and_back(pages, tmp_path, open_page, browser):
    options = {"ticket_from": 0, "limits": False}
    with serving(pages, tmp_path / "kept", **options) as running:
        page = browser.new_context().new_page()
        page.set_default_timeout(20_000)
        page.goto(f"{running.address}/{PAGE}.html")
        expect(page.locator(".write")).to_be_visible()
        found = begin(page, "Written while it was gone")
        running.process.kill()
        running.process.wait()
        found.locator(".send").click()
        expect(said(page)).to_contain_text("The server cannot be reached. Send it again in a moment. What you wrote is kept.")
        page.context.set_offline(True)
        found.locator(".send").click()
        expect(said(page)).to_contain_text("You are offline.")
        page.context.set_offline(False)
        expect(found.locator("textarea")).to_have_value("Written while it was gone")
    with served(pages, tmp_path / "kept", port=int(running.address.rsplit(":", 1)[1]), **options):
        found.locator(".send").click()
        expect(page.locator(".thread .comment .text")).to_have_text("Written while it was gone")
        assert kept(page) == {}
    page.context.close()


def test_what_cannot_be_deleted_now_stays(read):
    page = read()
    comment = post(page, "Mine")
    page.route("**/-/comments/comments/*", lambda route: route.abort(), times=1)
    comment.get_by_role("button", name="Delete").click()
    page.keyboard.press("Enter")
    expect(comment.locator(".actions")).to_contain_text("cannot be reached. The comment is still there.")
    page.keyboard.press("Enter")
    expect(page.locator(".empty")).to_be_visible()


def test_a_thread_that_cannot_be_fetched_is_fetched_again(open_page, site, browser):
    page = browser.new_context().new_page()
    page.route("**/-/comments/thread*", lambda route: route.fulfill(status=503, json={"error": "The comments are busy."}), times=1)
    page.goto(f"{site}/{PAGE}.html")
    expect(page.locator(".comments .said").first).to_contain_text("could not be fetched. The comments are busy.")
    assert not page.locator(".write").count()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".write")).to_be_visible()
    expect(page.locator(".empty")).to_be_visible()
    page.context.close()


def test_a_copy_of_the_pages_alone_says_where_comments_are(pages, browser):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    copy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=pages))
    threading.Thread(target=copy.serve_forever, daemon=True).start()
    page = browser.new_context().new_page()
    page.goto(f"http://127.0.0.1:{copy.server_port}/{PAGE}.html")
    expect(page.locator(".comments .said")).to_have_text("Comments are kept by the book’s own server: make serve.")
    assert not page.locator(".write, .section-tools").count()
    page.context.close()
    copy.shutdown()


def test_without_storage_everything_else_works(read):
    page = read()
    page.add_init_script("for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError') }})")
    page.reload(wait_until="networkidle")
    comment = post(page, "Hello")
    expect(comment.locator(".text")).to_have_text("Hello")
    begin(page, "Unsent")
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    form(page).locator("textarea").press("End")
    with contextlib.suppress(Exception):
        page.close(run_before_unload=True)
        page.wait_for_timeout(1000)
    assert asked == ["beforeunload"], "what cannot be kept is not thrown away unasked"
    assert page.problems == []


# --- for everyone


def test_without_javascript_comments_can_be_read(read, open_page, site):
    post(read(), MATH + "\n\nHello")
    page = open_page(f"{PAGE}.html", java_script_enabled=False)
    expect(page.locator("#comments noscript a")).to_be_visible()
    assert "Writing one needs JavaScript." in page.locator("#comments noscript").inner_text()
    page.click("#comments noscript a")
    expect(page.locator(".thread .comment .text")).to_contain_text("Hello")
    assert page.locator(".mathfrak").evaluate("e => getComputedStyle(e).fontFamily").startswith("KaTeX_Whole")
    page.get_by_role("link", name="Back to the page").click()
    assert page.url == f"{site}/{PAGE}.html"
    assert page.problems == []


def test_by_keyboard_alone(read):
    page = read()
    section = page.locator("article section[id]:has(> h2)").nth(1)
    button = section.locator("> .section-tools button")
    for _ in range(80):
        page.keyboard.press("Tab")
        if button.evaluate("e => e === document.activeElement"):
            break
    else:
        pytest.fail("Tab never reaches the button that comments on a section")
    assert button.evaluate("e => getComputedStyle(e).opacity") == "1"
    page.keyboard.press("Enter")
    page.keyboard.type("By **keyboard**")
    page.keyboard.press("Control+Enter")
    comment = page.locator(".thread .comment")
    expect(comment.locator(".text strong")).to_have_text("keyboard")
    expect(comment).to_be_focused()
    seen = []
    for _ in range(6):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.textContent"))
    assert seen[2:] == ["Reply", "Edit", "Delete", "Copy link"], seen
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # asks
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # keeps
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.type("!")
    page.keyboard.press("Meta+Enter")
    expect(comment.locator("> .text")).to_have_text("By keyboard!")
    assert page.problems == []


def wide(page: Page) -> list[str]:
    return page.evaluate(
        "document.documentElement.scrollWidth > innerWidth ? [...document.querySelectorAll('body *')].filter("
        "e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120)) : []"
    )


@pytest.mark.parametrize("width", [1280, 320])
def test_accessible_in_both_themes_at_every_width(read, width):
    page = read(bypass_csp=True, viewport={"width": width, "height": 800})
    long = "`" + "long" * 60 + "`\n\n" + "\n\n$$ " + " + ".join(f"x_{{{n}}}" for n in range(60)) + " $$\n\n| a | b |\n|---|---|\n| 1 | " + "c" * 90 + " |"
    section = page.locator("article section[id]:has(> h2)").first
    section.locator("> .section-tools button").evaluate("e => e.click()")
    comment = post(page, MATH, Kind="Idea")
    post(page, long, Kind="Question")
    comment.get_by_role("button", name="Reply").click()
    page.locator(".write-form textarea").fill("I agree")
    page.locator(".write-form .send").click()
    expect(comment.locator(".replies .comment")).to_have_count(1)
    comment.locator(".replies").get_by_role("button", name="Reply").click()
    comment.locator("> .actions").get_by_role("button", name="Edit").click()
    page.locator(".thread > .comment").nth(1).get_by_role("button", name="Delete").click()
    begin(page, long).get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Preview")).to_be_visible()
    page.get_by_role("form", name="Reply").locator("textarea").fill(" ")
    page.get_by_role("form", name="Reply").locator(".send").click()  # refused
    page.evaluate(f"location.hash = '{comment.get_attribute('id')}'")
    expect(comment).to_have_class(re.compile("marked"))
    for colours in ("light", "dark"):
        theme(page, colours)
        assert violations(page) == [], f"in the {colours} theme"
    assert wide(page) == [], "scrolls sideways"
    assert page.problems == []


def test_printing_leaves_the_form_out(read):
    page = read()
    post(page, "Printed")
    begin(page, "Unsent")
    page.emulate_media(media="print")
    assert page.locator(".comment .text").is_visible()
    for selector in (".write-form", ".actions", ".section-tools", ".comments .said"):
        assert not page.locator(selector).first.is_visible(), selector


# --- attacks, with the content policy switched off

OUTSIDE = """() => {
  const hits = new Set(), texts = [...document.querySelectorAll('.comment .text')];
  const step = 16;
  for (let top = 0; top < document.documentElement.scrollHeight; top += innerHeight / 2) {
    scrollTo({top, behavior: 'instant'});
    const boxes = texts.map(e => e.getBoundingClientRect());
    for (let x = 4; x < innerWidth; x += step) for (let y = 4; y < innerHeight; y += step) {
      const text = document.elementFromPoint(x, y)?.closest('.comment .text');
      if (!text) continue;
      const box = boxes[texts.indexOf(text)];
      if (x < box.left - 1 || x > box.right + 1 || y < box.top - 1 || y > box.bottom + 1) hits.add(text.parentElement.id);
    }
  }
  return [...hits];
}"""
OVERLAYS = [
    r"$$\rlap{\kern{-200em}\smash{\raisebox{-100em}{\rule{400em}{400em}}}}$$",
    r"$\kern{-20em}\smash{\raisebox{10em}{\rule{24em}{24em}}}$",
    r"$$\smash{\raisebox{24em}{\colorbox{red}{\Huge Click here}}}$$",
    r"$$\rule[-20em]{24em}{24em}$$",
    r"$\htmlStyle{position: fixed; top: 0; left: 0; width: 100vw; height: 100vh}{x}$",
    r"$\href{https://evil.example}{\rule{20em}{20em}}$",
    r"$\def\a{\rule{20em}{20em}\llap{\a}}\a$",
    r"$\begin{matrix} \\[-400em] x \end{matrix}$",
    r"$$\llap{\hspace{-24em}\hspace{-24em}\hspace{-24em}\smash{\Huge\colorbox{red}{overlay}}}$$",
]


def test_mathematics_cannot_cover_the_page(read):
    page = read(bypass_csp=True)
    for attack in OVERLAYS:
        post(page, attack)
    page.reload(wait_until="networkidle")
    expect(page.locator(".thread .comment")).to_have_count(len(OVERLAYS))
    assert page.evaluate(OUTSIDE) == []
    assert not page.locator(".comment .text a").count()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_not_even_styles_that_the_service_would_never_send_cover_the_page(read, site):
    page = read(bypass_csp=True)
    styles = [
        f"position: {position}; {rest}; background: red; z-index: 2147483647"
        for position in ("fixed", "absolute", "relative", "sticky")
        for rest in ("inset: 0", "top: -500px; left: -500px; width: 3000px; height: 3000px", "margin: -900px; padding: 900px")
    ]
    items = [
        f'<li class="comment" id="comment-{n}" data-id="{n}" data-kind="comment"><p class="by"><span class="author">M</span></p>'
        f'<div class="text"><p>Text</p><span style="{style}">x</span></div></li>'
        for n, style in enumerate(styles, 1)
    ]
    thread = {"page": PAGE, "count": len(items), "sections": {}, "html": f'<ol class="thread">{"".join(items)}</ol>', "own": [], "moderated": False}
    page.route("**/-/comments/thread*", lambda route: route.fulfill(json=thread))
    page.reload(wait_until="networkidle")
    expect(page.locator(".thread .comment")).to_have_count(len(items))
    assert page.evaluate(OUTSIDE) == []
    page.add_style_tag(content=".comment .text { contain: none !important; overflow: visible !important }")
    assert page.evaluate(OUTSIDE) != [], "the test would see one"


SCRIPTS = [
    "<script>marker()</script>",
    "<img src=x onerror=marker()>",
    "<svg onload=marker()><animate onbegin=marker() attributeName=x dur=1s>",
    "[x](javascript:marker())",
    "[x](JaVaScRiPt:marker())",
    "[x](&#106;avascript:marker())",
    "[x](data:text/html,<script>marker()</script>)",
    "![x](x\" onerror=\"marker())",
    "<iframe srcdoc='<script>parent.marker()</script>'></iframe>",
    '"><img src=x onerror=marker()>',
    "</textarea></template><img src=x onerror=marker()>",
    "```\"><img src=x onerror=marker()>\nx\n```",
    r"$\href{javascript:marker()}{x}$",
    r"$\html{<img src=x onerror=marker()>}$ $\includegraphics[alt=<img src=x onerror=marker()>]{x}$",
    r"$\text{<img src=x onerror=marker()>}$",
    "<a href=\"x\" style=\"animation: x\" onanimationstart=marker()>x</a>",
    "<details open ontoggle=marker()>x</details>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--><img src=x onerror=marker()>\">",
]


def test_no_comment_runs_a_script(read, site):
    page = read(bypass_csp=True)
    page.add_init_script("window.ran = []; window.marker = () => { window.ran.push(new Error().stack) }")
    page.reload(wait_until="networkidle")
    for number, attack in enumerate(SCRIPTS):
        found = begin(page, f"{attack}\n\nnumber {number}", **{"Name": attack[:80]})
        found.get_by_role("button", name="Preview").click()
        expect(page.get_by_role("region", name="Preview")).to_contain_text(f"number {number}")
        comment = post(page, f"{attack}\n\nnumber {number}", **{"Name": attack[:80]})
        comment.get_by_role("button", name="Reply").click()  # the name stands in the form's label
        page.locator(".write-form").get_by_role("button", name="Close").click()
    page.reload(wait_until="networkidle")
    expect(page.locator(".thread .comment")).to_have_count(len(SCRIPTS))
    for link in page.locator(".comment .text a").all():
        assert re.match(r"https?://|mailto:", link.get_attribute("href")), link.get_attribute("href")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") == []
    page.goto(f"{site}/-/comments/on/{PAGE}")
    page.wait_for_timeout(300)
    assert page.evaluate("window.ran") == []
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=marker()>')")
    page.wait_for_function("window.ran.length === 1")  # the marker would have seen one


# --- giscus

CLIENT = """
const frame = document.createElement("iframe");
frame.className = "giscus-frame";
frame.src = "https://giscus.app/widget?" + new URLSearchParams({...document.currentScript.dataset});
document.currentScript.after(frame);
"""
WIDGET = "<p id=heard></p><script>addEventListener('message', e => { document.getElementById('heard').textContent = JSON.stringify(e.data) })</script>"


@contextlib.contextmanager
def with_policy(folder: Path, csp):
    app = server.make_app(folder, csp=csp)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", port=0))
    sock = server.listen("127.0.0.1", 0)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture
def with_giscus(pages, tmp_path) -> Path:
    folder = tmp_path / "giscus"
    shutil.copytree(pages, folder)
    shutil.copy(ROOT / "book/static/giscus.js", folder / "_static")
    file = folder / f"{PAGE}.html"
    html = file.read_text(encoding="utf-8")
    html = html.replace('data-provider="embedded"', 'data-provider="giscus" data-repo="o/r" data-repo-id="R_1" data-category="C" data-category-id="D_1"')
    file.write_text(re.sub(r"_static/comments\.js[^\"]*", "_static/giscus.js", html), encoding="utf-8")
    return folder


def test_giscus_comes_when_the_reader_does_and_follows_the_theme(with_giscus, browser):
    settings = Settings("giscus", "auto", Giscus("o/r", "R_1", "C", "D_1"))
    with with_policy(with_giscus, settings.csp()) as address:
        page = browser.new_context(color_scheme="light").new_page()
        problems, foreign = [], []
        page.on("console", lambda m: m.type == "error" and problems.append(m.text))
        page.on("request", lambda r: r.url.startswith(address) or foreign.append(r.url))
        page.route("https://giscus.app/client.js", lambda route: route.fulfill(body=CLIENT, content_type="text/javascript", headers={"access-control-allow-origin": "*"}))
        page.route("https://giscus.app/widget?*", lambda route: route.fulfill(body=WIDGET, content_type="text/html"))
        page.goto(f"{address}/{PAGE}.html", wait_until="networkidle")
        assert foreign == [], "nothing before the reader comes near"
        page.locator("#comments").scroll_into_view_if_needed()
        frame = page.frame_locator("iframe.giscus-frame")
        expect(frame.locator("#heard")).to_be_attached()
        asked = page.locator("iframe.giscus-frame").get_attribute("src")
        for part in ("repo=o%2Fr", "repoId=R_1", "categoryId=D_1", "mapping=specific", "term=" + PAGE.replace("/", "%2F"), "theme=light", "strict=1"):
            assert part in asked, part
        page.click("button.theme")
        expect(frame.locator("#heard")).to_have_text('{"giscus":{"setConfig":{"theme":"dark"}}}')
        assert problems == []
        page.context.close()


def test_giscus_is_not_allowed_unless_it_was_chosen(with_giscus, browser):
    assert Settings("embedded").csp() == {} == Settings("giscus").csp()
    with with_policy(with_giscus, {}) as address:
        page = browser.new_context().new_page()
        foreign = []
        page.route("https://giscus.app/**", lambda route: (foreign.append(route.request.url), route.abort()))
        page.goto(f"{address}/{PAGE}.html")
        page.locator("#comments").scroll_into_view_if_needed()
        expect(page.locator("#comments .note")).to_contain_text("cannot be reached")
        assert foreign == []
        page.context.close()
