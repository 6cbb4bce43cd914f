"""What readers are shown: the thread of a page, the same as a page of its own without JavaScript, and Atom feeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from book.comments.store import Comment

NOBODY = "A reader"
LABELS = {"question": "Question", "correction": "Correction", "idea": "Idea"}
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
PREFIX = "/-/comments"
TITLE = "AI from the Ground Up"


@dataclass(frozen=True)
class Thread:
    """The visible comments of one page, as markup and in numbers."""

    page: str
    count: int
    sections: dict[str, int]
    html: str


def make_thread(page: str, comments: Sequence[Comment], sections: Mapping[str, str]) -> Thread:
    """`comments` is everything of the page; `sections` are its sections now, by id."""
    shown = [comment for comment in comments if comment.state == "visible"]
    tops = {comment.id: comment for comment in comments if comment.parent is None}
    about = Counter(
        top.section
        for comment in shown
        if (top := tops.get(comment.parent or comment.id, comment)).section in sections and top.section is not None
    )
    return Thread(page, len(shown), dict(about), thread_html(comments, sections))


def thread_html(comments: Sequence[Comment], sections: Mapping[str, str]) -> str:
    replies: dict[int, list[str]] = {}
    for comment in comments:
        if comment.parent is not None and comment.state == "visible":
            replies.setdefault(comment.parent, []).append(comment_html(comment, sections))
    items = []
    for comment in comments:
        if comment.parent is None:
            below = replies.get(comment.id, [])
            if comment.state == "visible":
                items.append(comment_html(comment, sections, below))
            elif below:
                gone = "This comment awaits approval." if comment.state == "pending" else "This comment was removed."
                items.append(f'<li class="comment gone"><p>{gone}</p>\n{_replies(below)}</li>')
    return '<ol class="thread">\n' + "\n".join(items) + "\n</ol>" if items else ""


def comment_html(comment: Comment, sections: Mapping[str, str], replies: Iterable[str] = ()) -> str:
    """One comment as a list item, with its replies in it."""
    when = utc(comment.created)
    section = comment.section if comment.section in sections else None
    about = f' data-section="{escape(section)}"' if section else ""
    parts = [
        f'<li class="comment" id="comment-{comment.id}" data-id="{comment.id}" data-kind="{escape(comment.kind)}"{about}>',
        f'<p class="by"><span class="author">{escape(comment.author or NOBODY)}</span>',
    ]
    if label := LABELS.get(comment.kind):
        parts.append(f' <span class="kind">{label}</span>')
    parts.append(
        f' <a class="when" href="#comment-{comment.id}"><time datetime="{when:%Y-%m-%dT%H:%M:%SZ}">{spoken(when)}</time></a>'
    )
    if comment.edited is not None:
        parts.append(' <span class="edited">edited</span>')
    if comment.resolved is not None:
        parts.append(' <span class="resolved">Resolved</span>')
    parts.append("</p>\n")
    if section:
        title = escape(sections[section])
        parts.append(f'<p class="about">On <a href="#{escape(quote(section))}">{title}</a></p>\n')
    elif comment.section:
        parts.append(
            f'<p class="about">On {escape(comment.section_title or comment.section)} (section since changed)</p>\n'
        )
    parts.append(f'<div class="text">{comment.html}</div>\n')
    parts.append(_replies(replies))
    parts.append("</li>")
    return "".join(parts)


def _replies(items: Iterable[str]) -> str:
    inner = "\n".join(items)
    return f'<ol class="replies">\n{inner}\n</ol>\n' if inner else ""


def utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def spoken(when: datetime) -> str:
    return f"{when.day} {MONTHS[when.month - 1]} {when.year}, {when:%H:%M} UTC"


def title_of(page: str, sections: Mapping[str, str]) -> str:
    """A page's title is that of its outermost section."""
    return next(iter(sections.values()), page)


def whole_page(thread: Thread, title: str, katex: str | None) -> str:
    """The thread for readers without JavaScript."""
    here = f"/{quote(thread.page)}.html"
    # in the thread, a section's link leads into the page
    html = thread.html.replace('<p class="about">On <a href="#', f'<p class="about">On <a href="{here}#')
    style = f'<link rel="stylesheet" href="{escape(katex)}">\n' if katex and 'class="katex"' in html else ""
    many = "1 comment" if thread.count == 1 else f"{thread.count} comments"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Comments: {escape(title)} — {TITLE}</title>
<link rel="stylesheet" href="/_static/site.css">
<link rel="icon" href="/_static/favicon.svg" type="image/svg+xml">
{style}<link rel="alternate" type="application/atom+xml" title="Comments" href="/-/comments/feed/{quote(thread.page)}.xml">
</head>
<body class="comments-alone">
<main id="main">
<article>
<h1>Comments: {escape(title)}</h1>
<p><a href="{here}">Back to the page</a>. {many}.</p>
<section class="comments" aria-label="Comments">
{html or "<p>There are no comments on this page yet.</p>"}
</section>
</article>
</main>
</body>
</html>
"""


def atom(
    comments: Sequence[Comment], titles: Mapping[str, str], base: str, page: str | None, render: Callable[[str], str]
) -> str:
    """An Atom feed of `comments`, newest first; `render` makes HTML that needs no style sheet."""
    where = f"{base}/-/comments/" + (f"feed/{quote(page)}.xml" if page else "feed.xml")
    name = f"Comments: {titles.get(page, page)}" if page else f"Comments on {TITLE}"
    latest = max((comment.edited or comment.created for comment in comments), default=0)
    home = f"{base}/{quote(page)}.html" if page else f"{base}/"
    entries = []
    for comment in comments:
        link = f"{base}/{quote(comment.page)}.html#comment-{comment.id}"
        label = LABELS.get(comment.kind, "Comment")
        title = f"{label} by {comment.author or NOBODY} on {titles.get(comment.page, comment.page)}"
        entries.append(f"""<entry>
<id>{escape(link)}</id>
<title>{escape(title)}</title>
<link rel="alternate" type="text/html" href="{escape(link)}"/>
<author><name>{escape(comment.author or NOBODY)}</name></author>
<published>{utc(comment.created):%Y-%m-%dT%H:%M:%SZ}</published>
<updated>{utc(comment.edited or comment.created):%Y-%m-%dT%H:%M:%SZ}</updated>
<category term="{escape(comment.kind)}"/>
<content type="html">{escape(render(comment.text))}</content>
</entry>
""")
    return f"""<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
<id>{escape(where)}</id>
<title>{escape(name)}</title>
<link rel="self" type="application/atom+xml" href="{escape(where)}"/>
<link rel="alternate" type="text/html" href="{escape(home)}"/>
<updated>{utc(latest):%Y-%m-%dT%H:%M:%SZ}</updated>
{"".join(entries)}</feed>
"""
