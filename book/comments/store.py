"""The comments in SQLite: write-ahead log, every commit synced to the disk before it is acknowledged.

Every write is one transaction that takes the lock first, so that several servers and the commands may share the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from book.errors import BookError

FILE = "comments.sqlite"
VERSION = 1
WINDOW = 15 * 60  # seconds in which a comment is its author's to change
BUSY = 5.0  # seconds to wait for another process's transaction

SCHEMA = """
CREATE TABLE comments (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  page TEXT NOT NULL,
  section TEXT,
  section_title TEXT,
  parent INTEGER REFERENCES comments (id),
  kind TEXT NOT NULL CHECK (kind IN ('comment', 'question', 'correction', 'idea')),
  state TEXT NOT NULL CHECK (state IN ('visible', 'pending', 'hidden', 'deleted')),
  author TEXT NOT NULL,
  text TEXT NOT NULL,
  html TEXT NOT NULL,
  renderer TEXT NOT NULL,
  created INTEGER NOT NULL,
  edited INTEGER,
  resolved INTEGER,
  owner TEXT,
  key TEXT UNIQUE
);
CREATE INDEX comments_by_page ON comments (page, id);
CREATE INDEX comments_by_owner ON comments (owner, page) WHERE owner IS NOT NULL;
CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Comment:
    """A row. Times are seconds since 1970; `owner` is a hash of the reader's cookie, never shown or exported."""

    id: int
    page: str
    section: str | None
    section_title: str | None
    parent: int | None
    kind: str
    state: str
    author: str
    text: str
    html: str
    renderer: str
    created: int
    edited: int | None
    resolved: int | None
    owner: str | None
    key: str | None

    def editable_for(self, now: float) -> int:
        """Seconds in which its author may still change it."""
        return max(0, int(self.created + WINDOW - now)) if self.state in ("visible", "pending") else 0


COLUMNS = tuple(field.name for field in fields(Comment))
SELECT = f"SELECT {', '.join(COLUMNS)} FROM comments"


class Refused(Exception):
    """The store does not do it; `reason` says why: missing, foreign, late, parent, taken, deleted."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def hashed(token: str) -> str:
    """What is kept of a reader's cookie."""
    return hashlib.sha256(b"comments " + token.encode()).hexdigest()


class Store:
    """The comments in `folder`, which is made if it is not there. Safe to use from several threads and processes."""

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self.failing = False  # whether the last write failed
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.path.exists():  # readable to the owner only, from the first byte on
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._write, self._write_lock = self._connect(), threading.Lock()
            self._migrate()
            self._read, self._read_lock = self._connect(), threading.Lock()
            self._read.execute("PRAGMA query_only = ON")
            self.secret = bytes(self._read.execute("SELECT value FROM secrets WHERE name = 'ticket'").fetchone()[0])
        except (OSError, sqlite3.Error) as error:
            raise BookError(_why(self.path, error)) from None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted does not stay in free pages
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _migrate(self) -> None:
        with self.writing() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise BookError(
                    f"{self.path} was written by a newer version of the book (format {version}, this one knows {VERSION}); "
                    "update the book (git pull), or choose another folder with --data"
                )
            if version == 0:
                if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise BookError(f"{self.path} is a database of something else; choose another folder with --data")
                for statement in filter(str.strip, SCHEMA.split(";")):
                    db.execute(statement)
                db.execute("INSERT INTO secrets VALUES ('ticket', ?)", [secrets.token_bytes(32)])
                db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        with self._write_lock, self._read_lock:
            self._read.close()
            self._write.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: everything or nothing, on the disk when the block has ended."""
        with self._write_lock:
            self._write.execute("BEGIN IMMEDIATE")
            try:
                yield self._write
                self._write.execute("COMMIT")
                self.failing = False
            except BaseException as error:
                self.failing = self.failing or isinstance(error, sqlite3.Error)
                if self._write.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._write.execute("ROLLBACK")
                raise

    # -- reading

    def changes(self) -> int:
        """A number that is another one after any change, by whichever process."""
        with self._read_lock:
            return self._read.execute("PRAGMA data_version").fetchone()[0]

    def _all(self, where: str, values: Sequence = (), limit: int | None = None) -> list[Comment]:
        query = f"{SELECT} {where}" + (f" LIMIT {limit}" if limit else "")
        with self._read_lock:
            return [Comment(*row) for row in self._read.execute(query, values)]

    def get(self, id: int) -> Comment | None:
        return next(iter(self._all("WHERE id = ?", [id])), None)

    def thread(self, page: str) -> list[Comment]:
        """Everything of a page, oldest first."""
        return self._all("WHERE page = ? ORDER BY id", [page])

    def latest(self, page: str | None, limit: int) -> list[Comment]:
        """The newest visible comments, newest first."""
        where, values = ("AND page = ?", [page]) if page is not None else ("", [])
        return self._all(f"WHERE state = 'visible' {where} ORDER BY id DESC", values, limit)

    def own(self, owner: str, page: str, now: float) -> list[Comment]:
        """A reader's comments on a page that can be changed still, or wait for approval."""
        where = "WHERE owner = ? AND page = ? AND (state = 'pending' OR state = 'visible' AND created > ?) ORDER BY id"
        return self._all(where, [owner, page, int(now) - WINDOW])

    def everything(self) -> list[Comment]:
        return self._all("ORDER BY id")

    def chosen(self, page: str | None = None, state: str | None = None, kind: str | None = None) -> list[Comment]:
        given = {"page": page, "state": state, "kind": kind}
        named = {name: value for name, value in given.items() if value is not None}
        where = " AND ".join(f"{name} = ?" for name in named)
        return self._all(f"{'WHERE ' + where if where else ''} ORDER BY id", list(named.values()))

    def stale(self, renderer: str) -> list[Comment]:
        """The comments whose HTML another version made."""
        return self._all("WHERE renderer != ? AND state != 'deleted' ORDER BY id", [renderer])

    def count(self, page: str | None = None) -> int:
        """How many are visible, in all or on a page."""
        where, values = ("AND page = ?", [page]) if page is not None else ("", [])
        with self._read_lock:
            return self._read.execute(
                f"SELECT count(*) FROM comments WHERE state = 'visible' {where}", values
            ).fetchone()[0]

    def owned(self, id: int, owner: str) -> Comment:
        """One's own comment. Raises Refused."""
        with self._read_lock:
            return _owned(self._read, id, owner)

    def pretended(self, new: Comment) -> Comment:
        """`new` as if it had been kept, to wait for approval."""
        with self._read_lock:
            last = self._read.execute("SELECT max(id) FROM comments").fetchone()[0] or 0
        return replace(new, id=last + 1, state="pending")

    # -- what readers do

    def post(self, new: Comment) -> tuple[Comment, bool]:
        """Keep a new comment (its id is given here), and say whether it was new.

        A second one with the same key is the first, sent again; with another text, the first as its author has it now.
        """
        with self.writing() as db:
            known = _one(db, "WHERE key = ?", new.key)
            if known:
                if known.state == "deleted":
                    raise Refused("deleted")
                if known.owner != new.owner:
                    raise Refused("taken")
                if _content(known) == _content(new):
                    return known, False
                return _edit(db, known, new, new.created, new.state), False
            if new.parent is not None:
                parent = _one(db, "WHERE id = ?", new.parent)
                if not parent or parent.page != new.page or parent.state != "visible" or parent.parent is not None:
                    raise Refused("parent")
            columns = COLUMNS[1:]
            values = [getattr(new, name) for name in columns]
            row = db.execute(
                f"INSERT INTO comments ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", values
            )
            return replace(new, id=row.lastrowid), True

    def edit(self, id: int, owner: str, new: Comment, now: float, state: str) -> Comment:
        """Give one's own comment the content of `new`. Raises Refused."""
        with self.writing() as db:
            return _edit(db, _owned(db, id, owner), new, now, state)

    def delete_own(self, id: int, owner: str, now: float) -> Comment:
        with self.writing() as db:
            known = _owned(db, id, owner)
            if not known.editable_for(now):
                raise Refused("late")
            _blank(db, id)
            return known

    # -- what moderators do

    def set_state(self, ids: Iterable[int], state: str) -> list[int]:
        """Approve or hide; return those that were not there or were deleted."""
        return self._each(ids, "UPDATE comments SET state = ? WHERE id = ? AND state != 'deleted'", state)

    def resolve(self, ids: Iterable[int], when: int | None) -> list[int]:
        """Mark as dealt with, or (None) as open again."""
        return self._each(ids, "UPDATE comments SET resolved = ? WHERE id = ? AND state != 'deleted'", when)

    def _each(self, ids: Iterable[int], statement: str, value: object) -> list[int]:
        with self.writing() as db:
            return [id for id in ids if not db.execute(statement, [value, id]).rowcount]

    def delete(self, ids: Iterable[int]) -> list[int]:
        """Blank author, text and owner for ever; the empty row keeps the thread in shape."""
        with self.writing() as db:
            missing = [id for id in ids if not _blank(db, id)]
        self.checkpoint()
        return missing

    def render_again(self, id: int, text: str, html: str, renderer: str) -> None:
        """New HTML for a comment, unless its text changed meanwhile."""
        with self.writing() as db:
            db.execute(
                "UPDATE comments SET html = ?, renderer = ? WHERE id = ? AND text = ?", [html, renderer, id, text]
            )

    def add(self, comments: Sequence[Comment]) -> int:
        """Bring in comments with their ids, all or none; those that are there already are left. Raises BookError."""
        added, problems = 0, []
        with self.writing() as db:
            db.execute("PRAGMA defer_foreign_keys = ON")
            for new in comments:
                known = _one(db, "WHERE id = ?", new.id)
                if known and exported(known) != exported(new):
                    problems.append(f"comment {new.id} is there already, with other content")
                elif not known:
                    db.execute(
                        f"INSERT INTO comments ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})",
                        [getattr(new, name) for name in COLUMNS],
                    )
                    added += 1
            if not problems:
                orphans = db.execute(
                    "SELECT a.id, a.parent FROM comments a LEFT JOIN comments b ON a.parent = b.id WHERE a.parent IS NOT NULL "
                    "AND (b.id IS NULL OR b.page != a.page OR b.parent IS NOT NULL)"
                ).fetchall()
                problems += [
                    f"comment {id} replies to {parent}, which is no comment of its page" for id, parent in orphans
                ]
            if problems:
                raise BookError([*problems[:10], "nothing was imported; import into an empty folder (--data) instead"])
        return added

    # -- the file

    def check(self) -> None:
        """An sqlite3.Error if nothing can be kept. Writes only if the last write failed: is there room again?"""
        if self.failing:
            with self.writing() as db:
                db.execute("REPLACE INTO secrets VALUES ('probe', zeroblob(32768))")
            with self.writing() as db:
                db.execute("DELETE FROM secrets WHERE name = 'probe'")
        with self._write_lock:
            self._write.execute("BEGIN IMMEDIATE")
            self._write.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Move the log into the database, so that deleted text is gone from the log too; not while others read."""
        with self._write_lock, contextlib.suppress(sqlite3.Error):
            self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def backup(self, target: Path) -> int:
        """A copy of this moment, whoever writes meanwhile; return how many comments it has."""
        if target.exists():
            raise BookError(f"{target} is there already; name a new file")
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
            with contextlib.closing(sqlite3.connect(part)) as copy:
                with self._read_lock:
                    self._read.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
                found = copy.execute("PRAGMA integrity_check").fetchone()[0]
                count = copy.execute("SELECT count(*) FROM comments").fetchone()[0]
            if found != "ok":
                raise BookError(f"the copy of {self.path} is damaged: {found}")
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.link(part, target)  # refuses to replace a file that came meanwhile
            return count
        except (OSError, sqlite3.Error) as error:
            raise BookError(f"cannot write {target}: {error}") from None
        finally:
            part.unlink(missing_ok=True)


def exported(comment: Comment) -> dict:
    """What export and import carry: all but the owner, the key and what is made from the text."""
    return {name: getattr(comment, name) for name in COLUMNS if name not in ("owner", "key", "html", "renderer")}


def _content(comment: Comment) -> tuple:
    return comment.text, comment.author, comment.kind, comment.section


def _one(db: sqlite3.Connection, where: str, value: object) -> Comment | None:
    row = db.execute(f"{SELECT} {where}", [value]).fetchone() if value is not None else None
    return Comment(*row) if row else None


def _owned(db: sqlite3.Connection, id: int, owner: str) -> Comment:
    known = _one(db, "WHERE id = ?", id)
    if not known or known.owner is None or not secrets.compare_digest(known.owner, owner):
        raise Refused("foreign")
    return known


def _edit(db: sqlite3.Connection, known: Comment, new: Comment, now: float, state: str) -> Comment:
    if not known.editable_for(now):
        raise Refused("late")
    section, title = (None, None) if known.parent is not None else (new.section, new.section_title)
    changed = replace(
        known, text=new.text, html=new.html, renderer=new.renderer, author=new.author, kind=new.kind,
        section=section, section_title=title, edited=int(now), state=state,
    )  # fmt: skip
    if _content(changed) == _content(known):
        return known
    names = ("text", "html", "renderer", "author", "kind", "section", "section_title", "edited", "state")
    assigned = ", ".join(f"{name} = ?" for name in names)
    db.execute(f"UPDATE comments SET {assigned} WHERE id = ?", [*(getattr(changed, name) for name in names), known.id])
    return changed


def _blank(db: sqlite3.Connection, id: int) -> int:
    return db.execute(
        "UPDATE comments SET state = 'deleted', author = '', text = '', html = '', owner = NULL, edited = NULL "
        "WHERE id = ? AND state != 'deleted'",
        [id],
    ).rowcount


def now() -> int:
    return int(time.time())


def _why(path: Path, error: Exception) -> str:
    text = str(error)
    if "not a database" in text or "malformed" in text:
        return (
            f"{path} is no SQLite database, or damaged; put a backup in its place, or choose another folder with --data"
        )
    return f"cannot open {path}: {text}; is the folder writable, and is there room on the disk?"
