"""The interface of the comments, below /-/comments/: JSON in and out, every error in words and with a place."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from book import server
from book.comments import guards, text, views
from book.comments import store as stored
from book.comments.guards import Problem
from book.comments.render import LINKS, Rendered, TooManyLinks
from book.comments.service import Prepared, Service
from book.comments.store import Comment, Refused

log = logging.getLogger("book.comments")
CSP = "default-src 'none'; frame-ancestors 'none'"
Endpoint = Callable[[Request], Awaitable[Response]]
FOREIGN = "This comment is not yours to change, or no longer is: the cookie that proves it is missing or another one."
REFUSED = {
    "foreign": Problem(403, FOREIGN),
    "late": Problem(410, "The 15 minutes in which a comment can be changed are over. Add a new comment instead."),
    "parent": Problem(409, "The comment you reply to is no longer there. Reload the page; your text stays.", "parent"),
    "taken": Problem(409, "This form was sent by another reader already. Send it again with a new key.", "key"),
    "deleted": Problem(410, "This comment was deleted meanwhile. Write it as a new one.", "key"),
}
FIELDS = {
    "page": "Say which page it is for, by its address.",
    "section": "The section must be one of the page's, or none.",
    "parent": "The comment replied to must be named by its number.",
    "kind": f"The kind must be one of {', '.join(text.KINDS)}.",
    "author": "The name must be text.",
    "text": "The text is missing, or holds characters that are none. Write it again.",
    "key": "The form's key must be a UUID.",
    "ticket": "The form's ticket is missing. Reload the page; your text stays.",
    "website": "This field must be text.",
}


def _whole(value: str) -> str:
    """JSON may hold half of a surrogate pair, which is no character and fits no database."""
    value.encode()  # UnicodeEncodeError is a ValueError
    return value


Text = Annotated[str, AfterValidator(_whole)]
Kind = Literal["comment", "question", "correction", "idea"]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Nothing(_Model):
    pass


class Draft(_Model):
    text: Text


class Content(_Model):
    text: Text
    kind: Kind
    author: Text
    section: Text | None


class New(Content):
    page: Text
    kind: Kind = "comment"
    author: Text = ""
    section: Text | None = None
    parent: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    key: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z")]
    ticket: Annotated[str, Field(max_length=200)]
    website: Text = ""


def answer(content: dict, status: int = 200) -> Response:
    headers = {**server.SAFE, "content-security-policy": CSP, "cache-control": "no-store"}
    body = json.dumps(content, ensure_ascii=False).encode()
    return Response(body, status, headers, "application/json")


def refusal(problem: Problem) -> Response:
    response = answer(
        {"error": problem.error, "field": problem.field, "retry_after": problem.retry_after}, problem.status
    )
    if problem.retry_after:
        response.headers["retry-after"] = str(problem.retry_after)
    return response


def prepared(request: Request, found: Prepared, kind: str, csp: str, vary: str = "Accept-Encoding") -> Response:
    """An answer that was made before, in the encoding that suits, or 304."""
    encoding = server._encoding(request.headers.get("accept-encoding", ""), found.bodies)
    etag = f'"{found.etag}{"-" + encoding if encoding else ""}"'
    headers = {
        **server.SAFE, "content-security-policy": csp, "cache-control": "private, no-cache", "etag": etag, "vary": vary,
    }  # fmt: skip
    if server._matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    headers["content-type"] = kind
    if encoding:
        headers["content-encoding"] = encoding
    body = found.bodies[encoding]
    headers["content-length"] = str(len(body))
    return Response(b"" if request.method == "HEAD" else body, 200, headers)


def make_api(service: Service) -> FastAPI:
    """The application to mount at /-/comments."""
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    public = frozenset(service.deployment.public)

    def read(path: str) -> Callable[[Endpoint], Endpoint]:
        """Without FastAPI's handling of parameters, which takes longer than the answer."""

        def add(endpoint: Endpoint) -> Endpoint:
            api.router.routes.append(Route(path, endpoint))
            return endpoint

        return add

    def sections_of(page: str) -> dict[str, str]:
        sections = service.threads().get(page)
        if sections is None:
            raise Problem(
                404, "There are no comments for this page: it is not in the book, or does not take any.", "page"
            )
        return sections

    def network(request: Request) -> str:
        return guards.network_of(request, service.deployment.proxies)

    def reader(request: Request) -> str:
        """The hash of the reader's token; a Problem without one."""
        token = guards.reader_of(request)
        if token is None:
            service.limits.spend("failure", network(request))
            raise Problem(403, "Your browser sent no cookie. Allow cookies for this site, and send it again.", "ticket")
        return stored.hashed(token)

    async def rendered(given: str) -> tuple[str, Rendered]:
        """The text as it is kept, and its HTML."""
        cleaned = text.clean(given)
        if text.is_blank(cleaned):
            raise Problem(422, "There is nothing in it yet. Write something first.", "text")
        if len(cleaned) > text.TEXT:
            raise Problem(
                413,
                f"The text has {len(cleaned):,} characters; {text.TEXT:,} are the most. Shorten it, or send it in two.",
                "text",
            )
        try:
            return cleaned, await service.rendering(lambda: service.renderer.render(cleaned))
        except TooManyLinks:
            raise Problem(422, f"There are more than {LINKS} links in it. Leave some out.", "text") from None

    async def comment_of(
        content: Content, page: str, parent: int | None, owner: str | None, key: str | None
    ) -> Comment:
        """The comment that is asked for, checked and rendered, not yet kept."""
        sections = sections_of(page)
        section = content.section if parent is None else None  # a reply is about what its comment is about
        if section is not None and section not in sections:
            raise Problem(422, "The page has no such section now. Choose another, or none; your text stays.", "section")
        author = text.clean_line(content.author)
        if len(author) > text.AUTHOR:
            raise Problem(413, f"The name has {len(author)} characters; {text.AUTHOR} are the most.", "author")
        cleaned, done = await rendered(content.text)
        return Comment(
            id=0, page=page, section=section, section_title=sections.get(section) if section else None, parent=parent,
            kind=content.kind, state="pending" if service.moderated else "visible",
            author="" if text.is_blank(author) else author, text=cleaned, html=done.html, renderer=done.renderer,
            created=stored.now(), edited=None, resolved=None, owner=owner, key=key,
        )  # fmt: skip

    async def shown(comment: Comment, status: int = 200) -> Response:
        if comment.state not in ("visible", "pending"):
            raise REFUSED["late"]
        return answer(
            {
                "id": comment.id,
                "state": comment.state,
                "editable_for": comment.editable_for(stored.now()),
                "html": views.comment_html(comment, service.threads().get(comment.page, {})),
                "count": await service.reading(lambda: service.store.count(comment.page)),
            },
            status,
        )

    # -- reading

    @read("/thread")
    async def thread(request: Request) -> Response:
        page = request.query_params.get("page", "")
        sections_of(page)
        found = await service.thread(page)
        token = guards.reader_of(request)
        own = await service.own(stored.hashed(token), page) if token else []
        if own:
            tail = json.dumps(own, ensure_ascii=False).encode()
            found = await service.rendering(lambda: service.with_own(found, tail))
        return prepared(request, found, "application/json", CSP, "Accept-Encoding, Cookie")

    @read("/on/{page:path}")
    async def on(request: Request) -> Response:
        page = request.path_params["page"]
        sections_of(page)
        found = await service.whole_page(page)
        return prepared(request, found, "text/html; charset=utf-8", PAGE_CSP)

    def base(request: Request) -> str:
        return service.deployment.public[0] if public else f"http://{request.headers['host'].lower()}"

    @read("/feed.xml")
    async def feed(request: Request) -> Response:
        found = await service.feed(None, base(request))
        return prepared(request, found, "application/atom+xml; charset=utf-8", server.CSP_ASSET)

    @read("/feed/{page:path}.xml")
    async def feed_of(request: Request) -> Response:
        page = request.path_params["page"]
        sections_of(page)
        found = await service.feed(page, base(request))
        return prepared(request, found, "application/atom+xml; charset=utf-8", server.CSP_ASSET)

    # -- writing

    @api.post("/ticket", response_model=None)
    async def ticket(request: Request, body: Nothing) -> Response:
        service.limits.take("ticket", network(request))
        token = guards.reader_of(request)
        response = answer({"ticket": service.tickets.make(token or (new := guards.new_reader()))})
        if token is None:
            secure = request.headers["origin"].lower().startswith("https:")
            response.set_cookie(
                guards.COOKIE,
                new,
                guards.COOKIE_SECONDS,
                path=views.PREFIX,
                httponly=True,
                samesite="strict",
                secure=secure,
            )
        return response

    @api.post("/preview", response_model=None)
    async def preview(request: Request, body: Draft) -> Response:
        service.limits.take("preview", network(request))
        return answer({"html": (await rendered(body.text))[1].html})

    @api.post("/comments", response_model=None)
    async def post(request: Request, body: New) -> Response:
        where = network(request)
        service.limits.check("failure", where)
        owner = reader(request)
        try:
            service.tickets.check(body.ticket, guards.reader_of(request) or "")
        except Problem as problem:
            if problem.status == 403:
                service.limits.spend("failure", where)
            raise
        service.limits.take("post", where)
        new = await comment_of(body, body.page, body.parent, owner, body.key.lower())
        if body.website:  # only a program fills a field that nobody sees: let it believe that it was heard
            return await shown(await service.reading(lambda: service.store.pretended(new)), 201)
        comment, fresh = await service.writing(lambda: service.store.post(new))
        return await shown(comment, 201 if fresh else 200)

    def number(request: Request, id: str) -> int:
        service.limits.check("failure", network(request))
        return int(id) if re.fullmatch(r"[0-9]{1,15}", id, re.ASCII) else 0

    @api.patch("/comments/{id}", response_model=None)
    async def edit(request: Request, id: str, body: Content) -> Response:
        found, owner = number(request, id), reader(request)
        service.limits.take("edit", network(request))
        try:
            known = await service.reading(lambda: service.store.owned(found, owner))
            new = await comment_of(body, known.page, known.parent, owner, None)
            changed = await service.writing(lambda: service.store.edit(found, owner, new, stored.now(), new.state))
        except Refused as refused:
            if refused.reason == "foreign":
                service.limits.spend("failure", network(request))
            raise
        return await shown(changed)

    @api.delete("/comments/{id}", response_model=None)
    async def delete(request: Request, id: str) -> Response:
        found, owner = number(request, id), reader(request)
        service.limits.take("edit", network(request))
        try:
            gone = await service.writing(lambda: service.store.delete_own(found, owner, stored.now()))
        except Refused as refused:
            if refused.reason == "foreign":
                service.limits.spend("failure", network(request))
            raise
        return answer({"count": await service.reading(lambda: service.store.count(gone.page))})

    # -- errors, all of one shape

    @api.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return refusal(error)

    @api.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return refusal(REFUSED[error.reason])

    @api.exception_handler(HTTPException)
    async def http_problem(request: Request, error: HTTPException) -> Response:
        words = {
            404: "There is nothing at this address.",
            405: "This address does not take that method.",
        }.get(error.status_code, "The request makes no sense: its JSON is malformed.")
        response = refusal(Problem(error.status_code, words))
        response.headers.update(error.headers or {})
        return response

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return refusal(_invalid(error))

    @api.exception_handler(sqlite3.Error)
    async def disk(request: Request, error: sqlite3.Error) -> Response:
        return refusal(_unavailable(error))

    @api.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return refusal(Problem(503, "Something went wrong here. Your text is still in the form; try again later."))

    api.add_middleware(guards.Door, public=public, refuse=refusal)
    return api


PAGE_CSP = server.page_csp(b"")  # no inline scripts


def _invalid(error: RequestValidationError) -> Problem:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(400, "The request makes no sense: its JSON is malformed.")
    place = [part for part in first["loc"] if part != "body"]
    field = place[0] if place and place[0] in FIELDS else None
    if field is None:
        return Problem(422, "The request must be a JSON object with the fields of the form, and no others.")
    return Problem(422, FIELDS[field], field)


def _unavailable(error: sqlite3.Error) -> Problem:
    name = getattr(error, "sqlite_errorname", "") or ""
    _complain(f"the comments' database: {name} {error}")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Problem(503, "The comments are busy. Your text is still in the form; send it again.", retry_after=2)
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")):
        return Problem(
            503, "Nothing can be saved here now: the disk is full or broken. Your text is still in the form; try again later.",
            retry_after=60,
        )  # fmt: skip
    return Problem(
        503, "The comments cannot be reached now. Your text is still in the form; try again later.", retry_after=60
    )


_said: dict[str, float] = {}


def _complain(message: str) -> None:
    """Log an error, the same one once a minute: a full disk must not be filled with complaints."""
    if time.monotonic() - _said.get(message, -60) >= 60:
        _said[message] = time.monotonic()
        log.error(message)
