"""`python -m book comments …`: what a moderator does where the comments are kept; the server may run meanwhile."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from book.errors import BookError

ROOT = Path(__file__).resolve().parents[2]
EPILOG = """A backup is a whole database with the hashes of the readers' cookies: keep it private. To restore one, stop the
server and put the file in the place of comments.sqlite (remove comments.sqlite-wal and -shm). An export holds the
comments with their ids, threads, states and times, and no owner: nobody can edit what was imported."""


def data_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("BOOK_DATA") or ROOT / "comments"),
        metavar="FOLDER",
        help="where the comments are kept; default: comments/ beside the book",
    )


def options(command: argparse.ArgumentParser) -> None:
    data_option(command)
    command.epilog = EPILOG
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, *, page: bool = False, ids: bool = False) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text)
        if page:
            action.add_argument("--page", metavar="PAGE", help="only of this page, e.g. chapters/language/attention")
        if ids:
            action.add_argument("ids", type=int, nargs="+", metavar="ID")
        return action

    found = add("list", "List comments, one a line.", page=True)
    found.add_argument("--state", choices=("visible", "pending", "hidden", "deleted"))
    found.add_argument("--kind", choices=("comment", "question", "correction", "idea"))
    found.add_argument("--orphans", action="store_true", help="only those of pages that are no longer in the book")
    add("show", "Show comments whole.", ids=True)
    add("approve", "Show a comment that waits or was hidden to everyone.", ids=True)
    add("hide", "Take a comment off its page; `approve` brings it back.", ids=True)
    add("delete", "Erase a comment's text, author and owner for ever.", ids=True)
    resolve = add(
        "resolve", "Mark a comment as dealt with: the thread says so, and the digest leaves it out.", ids=True
    )
    resolve.add_argument("--undo", action="store_true", help="mark it as open again")
    add("export", "Write all comments as JSON lines.").add_argument("file", nargs="?", default="-", metavar="FILE")
    add("import", "Bring in exported comments, all or none.").add_argument("file", metavar="FILE")
    add("backup", "Copy the database, also while the server runs.").add_argument("file", type=Path, metavar="FILE")
    digest = add(
        "digest", "The open corrections as a Markdown list, by page and section, to paste into an issue.", page=True
    )
    feed = add("feed", "Write the Atom feed of all comments, or of a page.", page=True)
    for action in (digest, feed):
        action.add_argument("--public", metavar="URL", help="the book's address; default: that of $BOOK_PUBLIC, if set")
        action.add_argument("--out", default="-", metavar="FILE", help="default: standard output")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; BookError says what stands in the way."""
    from book.comments.store import FILE, Store

    if arguments.action != "import" and not (arguments.data / FILE).exists():
        raise BookError(f"there are no comments in {arguments.data}; name the server's folder with --data")
    with contextlib.closing(Store(arguments.data)) as store:
        return ACTIONS[arguments.action](store, arguments) or 0


# --- looking ------------------------------------------------------------------------------------------


def _list(store, arguments) -> None:
    from book.comments.text import clean_line

    found = store.chosen(arguments.page, arguments.state, arguments.kind)
    if arguments.orphans:
        pages = _threads()
        found = [comment for comment in found if comment.page not in pages]
    for comment in found:
        words = clean_line(comment.text)
        kind = comment.kind + (" (resolved)" if comment.resolved is not None else "")
        reply = f" (to {comment.parent})" if comment.parent is not None else ""
        print(
            f"{comment.id:>5}{reply}  {_when(comment.created)}  {comment.state}  {kind}  {comment.page}"
            f"{'#' + comment.section if comment.section else ''}  {comment.author or 'A reader'}: "
            f"{words[:60]}{'…' if len(words) > 60 else ''}"
        )
    if not found:
        print("No comments.", file=sys.stderr)


def _show(store, arguments) -> int:
    missing = []
    for id in arguments.ids:
        comment = store.get(id)
        if comment is None:
            missing.append(id)
            continue
        facts = {
            "comment": str(comment.id) + (f", a reply to {comment.parent}" if comment.parent is not None else ""),
            "page": comment.page,
            "section": comment.section and f"{comment.section} ({comment.section_title})",
            "kind": comment.kind,
            "state": comment.state,
            "author": comment.author or "A reader",
            "created": _when(comment.created),
            "edited": comment.edited is not None and _when(comment.edited),
            "resolved": comment.resolved is not None and _when(comment.resolved),
        }
        for name, value in facts.items():
            if value:
                print(f"{name + ':':<10}{value}")
        print("\n" + "\n".join(f"    {line}".rstrip() for line in comment.text.split("\n")) + "\n")
    return _report(missing)


def _when(seconds: int) -> str:
    from book.comments.views import utc

    return f"{utc(seconds):%Y-%m-%d %H:%M}"


def _threads() -> dict[str, dict[str, str]]:
    from book import server

    try:
        return server.threads_of((ROOT / "_build" / "html").resolve(strict=True))
    except FileNotFoundError:
        raise BookError(
            f"there is no site at {ROOT / '_build' / 'html'} to compare with; build it with `make site`"
        ) from None


def _report(missing: list[int]) -> int:
    for id in missing:
        print(f"error: there is no comment {id}, or it was deleted", file=sys.stderr)
    return 1 if missing else 0


# --- deciding -----------------------------------------------------------------------------------------


def _approve(store, arguments) -> int:
    return _report(store.set_state(arguments.ids, "visible"))


def _hide(store, arguments) -> int:
    return _report(store.set_state(arguments.ids, "hidden"))


def _delete(store, arguments) -> int:
    return _report(store.delete(arguments.ids))


def _resolve(store, arguments) -> int:
    from book.comments.store import now

    return _report(store.resolve(arguments.ids, None if arguments.undo else now()))


# --- moving -------------------------------------------------------------------------------------------


def export_lines(comments: Iterable) -> Iterator[str]:
    """A JSON object per comment, in the order of ids."""
    from book.comments.store import exported

    for comment in comments:
        fields = exported(comment)
        for name in ("created", "edited", "resolved"):
            fields[name] = fields[name] if fields[name] is None else _stamp(fields[name])
        yield json.dumps(fields, ensure_ascii=False)


def _stamp(seconds: int) -> str:
    from book.comments.views import utc

    return f"{utc(seconds):%Y-%m-%dT%H:%M:%SZ}"


def import_lines(lines: Iterable[str], render: Callable, where: str = "line") -> list:
    """The comments of exported lines, checked and rendered anew. Raises BookError for what is not in order."""
    found, problems, ids = [], [], set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            comment = _imported(json.loads(line), render)
            if comment.id in ids:
                raise ValueError(f"id {comment.id} is there twice")
            ids.add(comment.id)
            found.append(comment)
        except (ValueError, RecursionError) as error:
            problems.append(f"{where}:{number}: {error or 'not JSON'}")
    if problems:
        raise BookError([*problems[:10], "nothing was imported"])
    return found


def _imported(given: object, render: Callable):
    """A comment from its exported form; ValueError says what is wrong. No owner, and HTML of our own making."""
    from datetime import UTC, datetime

    from book.comments import store, text

    allowed = [name for name in store.COLUMNS if name not in ("owner", "key", "html", "renderer")]
    if not isinstance(given, dict) or set(given) != set(allowed):
        raise ValueError(f"must be an object with exactly these fields: {', '.join(allowed)}")

    def wrong(name: str, what: str) -> ValueError:
        return ValueError(f"{name} must be {what}, not {str(given[name])[:60]!r}")

    def string(name: str, most: int) -> str:
        value = given[name]
        if not isinstance(value, str) or len(value) > most or not value.isascii() and _broken(value):
            raise wrong(name, f"text of at most {most} characters")
        return value

    def number(name: str) -> int:
        value = given[name]
        if type(value) is not int or not 0 < value < 2**53:
            raise wrong(name, "a positive number")
        return value

    def time(name: str) -> int:
        value = given[name]
        if not isinstance(value, str) or not re.fullmatch(
            r"(?:19[7-9]|[2-9]\d\d)\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", value, re.ASCII
        ):
            raise wrong(name, "a time like 2026-11-27T10:00:00Z")
        return int(datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())

    page = string("page", 200)
    if not text.PAGE.fullmatch(page):
        raise wrong("page", "a page's address like chapters/language/attention")
    for name, words in (("kind", text.KINDS), ("state", text.STATES)):
        if given[name] not in words:
            raise wrong(name, f"one of {', '.join(words)}")
    section = None if given["section"] is None else text.clean_line(string("section", 200))
    if section is not None and not section:
        raise wrong("section", "a section's id, or null")
    body = text.clean(string("text", text.TEXT))
    gone = given["state"] == "deleted"
    if gone and (body or given["author"]):
        raise ValueError("a deleted comment has neither text nor author")
    if not gone and text.is_blank(body):
        raise wrong("text", "not empty")
    done = None if gone else render(body, most_links=None)
    return store.Comment(
        id=number("id"),
        page=page,
        section=section,
        section_title=None if given["section_title"] is None else text.clean_line(string("section_title", 500)),
        parent=None if given["parent"] is None else number("parent"),
        kind=given["kind"],
        state=given["state"],
        author=text.clean_line(string("author", text.AUTHOR)),
        text=body,
        html=done.html if done else "",
        renderer=done.renderer if done else "",
        created=time("created"),
        edited=None if given["edited"] is None else time("edited"),
        resolved=None if given["resolved"] is None else time("resolved"),
        owner=None,
        key=None,
    )


def _broken(value: str) -> bool:
    """True if it holds half of a surrogate pair, which is no character."""
    return bool(re.search("[\ud800-\udfff]", value))


def _export(store, arguments) -> None:
    _write(arguments.file, "".join(f"{line}\n" for line in export_lines(store.everything())))


def _import(store, arguments) -> None:
    from book.comments.render import Renderer

    with contextlib.closing(Renderer(ROOT)) as renderer:
        try:
            raw = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
            # only line feeds end a line: JSON may hold the others as they are
            lines = raw.decode("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BookError(f"cannot read {arguments.file}: {error}") from None
        comments = import_lines(lines, renderer.render, arguments.file)
    added = store.add(comments)
    print(f"{added} comments imported, {len(comments) - added} were there already")


def _backup(store, arguments) -> None:
    count = store.backup(arguments.file)
    print(f"{arguments.file}: {count} comments")


def _write(file: str, content: str) -> None:
    if file == "-":
        sys.stdout.buffer.write(content.encode())
        sys.stdout.flush()
        return
    try:
        Path(file).write_text(content, encoding="utf-8", newline="\n")
    except OSError as error:
        raise BookError(f"cannot write {file}: {error}") from None


# --- reading elsewhere --------------------------------------------------------------------------------


def _base(arguments) -> str:
    from book.comments.settings import from_environment, origin

    given = arguments.public or next(iter(from_environment("BOOK_PUBLIC")), None)
    return origin(given) if given else ""


def _digest(store, arguments) -> None:
    from book.comments.digest import digest

    found = digest(store.chosen(arguments.page, "visible", "correction"), _base(arguments))
    if not found:
        print("There are no open corrections.", file=sys.stderr)
    _write(arguments.out, found)


def _feed(store, arguments) -> None:
    from book.comments import views
    from book.comments.render import Renderer
    from book.comments.service import FEED

    titles = {page: views.title_of(page, sections) for page, sections in _threads().items()}
    if arguments.page and arguments.page not in titles:
        raise BookError(f"{arguments.page} is no page that takes comments")
    found = [comment for comment in store.latest(arguments.page, 4 * FEED) if comment.page in titles][:FEED]
    base = _base(arguments) or "http://127.0.0.1:8000"
    with contextlib.closing(Renderer(ROOT)) as renderer:
        _write(arguments.out, views.atom(found, titles, base, arguments.page, renderer.without_formulas))


ACTIONS = {
    "list": _list, "show": _show, "approve": _approve, "hide": _hide, "delete": _delete, "resolve": _resolve,
    "export": _export, "import": _import, "backup": _backup, "digest": _digest, "feed": _feed,
}  # fmt: skip
