"""The commands behind the Makefile: `python -m book COMMAND`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = 8000


def parser():
    from book.comments import commands as moderation

    top = argparse.ArgumentParser(prog="python -m book", description="The press of AI from the Ground Up.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name, text, only=False):
        command = commands.add_parser(name, help=text, description=text)
        if only:
            command.add_argument(
                "--only",
                default=os.environ.get("ONLY"),
                metavar="PART[/SLUG]",
                help="a part or a chapter, with what it needs; default: everything",
            )
        return command

    add("setup", "Create .venv and install what the book needs; does nothing when it is up to date.")
    serve = add("serve", "Execute, build and serve the book.", only=True)
    serve.add_argument("--port", type=int, default=int(os.environ.get("PORT") or PORT))
    serve.add_argument(
        "--host", default=os.environ.get("BOOK_HOST") or "127.0.0.1", help="address to listen on; default: %(default)s"
    )
    serve.add_argument(
        "--public",
        action="append",
        metavar="URL",
        help="the address at which readers open the book, e.g. https://book.example.org; may be given several times",
    )
    serve.add_argument(
        "--trusted-proxy",
        action="append",
        metavar="CIDR",
        help="the proxy in front, whose X-Forwarded-For is believed, e.g. 10.0.0.0/8; may be given several times",
    )
    serve.add_argument(
        "--log",
        choices=("text", "json"),
        default=os.environ.get("BOOK_LOG") or "text",
        help="text: errors only; json: one object for each request too; default: %(default)s",
    )
    moderation.data_option(serve)
    add("site", "Execute and build the book into _build/html.", only=True)
    write = add("write", "Serve the book, rebuild what is saved, and reload the open page.", only=True)
    write.add_argument("--port", type=int, default=int(os.environ.get("PORT") or PORT))
    moderation.data_option(write)
    add("test", "Everything that CI runs: generated files, notebooks, nbval, tests, site, browser.")
    run = add("run", "Execute one chapter with its exercises and solutions, and the producers it needs.")
    run.add_argument("name", metavar="PART/SLUG")
    run.add_argument("--force", action="store_true", help="execute even if nothing changed")
    for name, what in (("export", "groundup/ from the chapters"), ("exercises", "exercises/ from the solutions")):
        command = add(name, f"Write {what}.")
        command.add_argument("--check", action="store_true", help="write nothing; fail with a diff when stale")
    new = add("new", "A new chapter with exercises and solutions, entered in _toc.yml.")
    new.add_argument("name", metavar="PART/SLUG")
    add("lab", "JupyterLab in which a double click opens a chapter as a notebook.")
    bench = add("bench", "Measure execution, builds and pages; write _build/bench.json.")
    bench.add_argument("--out", type=Path, default=ROOT / "_build" / "bench.json", metavar="FILE")
    add("check", "Look for what is wrong without executing anything.")
    moderation.options(add("comments", "Moderate, export, import and back up the readers' comments."))
    return top


def main(argv=None):
    arguments = parser().parse_args(argv)
    if arguments.command == "setup":
        from book import setup

        return setup.main()
    from book.errors import BookError

    try:
        return dispatch(arguments)
    except BookError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def comments(arguments):
    """What `server.serve` needs to know about comments; nothing for a book without them."""
    from book.comments.settings import Deployment, Settings, from_environment

    settings = Settings.of_book(ROOT)
    if settings.provider != "embedded":
        return {"csp": settings.csp()}
    deployment = Deployment.read(
        arguments.data,
        getattr(arguments, "public", None) or from_environment("BOOK_PUBLIC"),
        getattr(arguments, "trusted_proxy", None) or from_environment("BOOK_TRUSTED_PROXY"),
        getattr(arguments, "host", "127.0.0.1"),
    )

    def service():
        from book.comments.service import Service

        return Service(settings, deployment, ROOT)

    return {"comments": service, "hosts": deployment.hosts}


def dispatch(arguments):
    if arguments.command == "comments":
        from book.comments import commands

        return commands.run(arguments)
    from book import exercises, export, press
    from book.notebooks import Book

    book = Book(ROOT)
    match arguments.command:
        case "export":
            book.check(generated=False)
            changed = export.export(book, arguments.check)
            report(changed, "groundup/ is up to date")
        case "exercises":
            book.check(generated=False)
            changed = exercises.exercises(book, arguments.check)
            report(changed, "exercises/ is up to date")
        case "check":
            press.prepare(book, check=True)
            print("Nothing wrong found.")
        case "run":
            from book import execution

            press.prepare(book)
            execution.execute(book, book.select(arguments.name), force=arguments.force)
        case "site":
            from book import site

            press.make(book, arguments.only)
            print(f"The site is in {site.published(book).relative_to(ROOT)}")
        case "serve":
            from book import server, site

            press.make(book, arguments.only)
            return server.serve(
                site.published(book),
                host=arguments.host,
                port=arguments.port,
                logs=arguments.log,
                **comments(arguments),
            )
        case "write":
            from book import write

            return write.write(book, arguments.only, arguments.port, **comments(arguments))
        case "test":
            from book import testing

            return testing.test(book)
        case "new":
            from book import new

            new.new(book, arguments.name)
        case "lab":
            from book import lab

            return lab.lab(ROOT)
        case "bench":
            from benchmarks import bench

            bench.bench(book, arguments.out)
    return 0


def report(changed, nothing):
    for path in changed:
        print(f"{'wrote' if path.exists() else 'removed'} {path.relative_to(ROOT)}")
    if not changed:
        print(nothing)
