"""Execute the notebooks: in parallel, each once, producers of artifacts before their consumers.

Results are `_build/executed/<address>.ipynb` and `_build/executed/records.json`; the latter
holds for each notebook its key (see `book.keys`), seconds, peak memory and checks. A notebook
whose key is unchanged is not executed: fresh prose is put around the outputs it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TextIO

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from book.errors import BookError, at
from book.keys import Keys
from book.notebooks import Book, Cell, Notebook
from book.progress import Progress
from groundup import artifacts
from groundup.checks import MIME

WORKERS = 2
CELL_SECONDS = 300  # a cell that takes longer is stuck

#: for every kernel: the same bytes on every run, one thread each, nothing from the network
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "AVX2,STRICT",
    "PYTHONHASHSEED": "0",
    "SOURCE_DATE_EPOCH": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


def environment(book: Book, **more: str) -> dict[str, str]:
    """The environment of a kernel that runs a notebook of `book`."""
    path = [str(book.root), *filter(None, [os.environ.get("PYTHONPATH")])]
    ours = {name: value for name, value in os.environ.items() if name != "GROUNDUP_PROGRESS"}  # the reader's alone
    return {
        **ours,
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(path),
        "GROUNDUP_ARTIFACTS": str(book.build / "artifacts"),
        **more,
    }


def records(book: Book) -> dict[str, dict[str, Any]]:
    """What is known of each executed notebook, by address."""
    try:
        return json.loads((book.build / "executed" / "records.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def executed_path(book: Book, address: str) -> Path:
    return book.build / "executed" / f"{address}.ipynb"


def execute(book: Book, selection: list[Notebook], force: bool = False, quiet: bool = False) -> list[Notebook]:
    """Bring `selection`, and the producers it needs, up to date; return the notebooks that ran.

    Every notebook that can run does; then the failures are raised together as a BookError.
    """
    plan = _with_producers(book, selection)
    keys, known = Keys(book), records(book)
    waiting = {nb.address: nb for nb in plan}
    running: dict[Future, Notebook] = {}
    ran: list[Notebook] = []
    problems: list[str] = []
    failed: set[str] = set()
    with Progress("Executing", quiet=quiet) as progress, ThreadPoolExecutor(WORKERS) as pool:

        def ready() -> Iterator[Notebook]:
            """Notebooks whose producers are done, the longest first; those up to date drop out here."""
            for notebook in sorted(waiting.values(), key=lambda nb: -known.get(nb.address, {}).get("seconds", 10)):
                makers = {book.producers[name].address for name in book.needs(notebook)} - {notebook.address}
                if makers & failed:
                    waiting.pop(notebook.address)
                    failed.add(notebook.address)
                    problems.append(f"{notebook.file}: not run, because a notebook it needs failed")
                elif not makers & (waiting.keys() | {nb.address for nb in running.values()}):
                    yield notebook

        progress.expect({nb.address: known.get(nb.address, {}).get("seconds", 10) for nb in plan}, WORKERS)
        while waiting or running:
            for notebook in list(ready()):
                if len(running) == WORKERS:
                    break
                waiting.pop(notebook.address)
                key = keys.of(notebook)
                if not force and _is_current(book, notebook, key, known):
                    refresh(book, notebook)
                    progress.skip(notebook.address)
                    continue
                progress.start(notebook.address)
                running[pool.submit(run, book, notebook, key)] = notebook
            if not running:
                continue
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                notebook = running.pop(future)
                try:
                    record = future.result()
                except BookError as error:
                    failed.add(notebook.address)
                    problems += error.problems
                    progress.done(notebook.address, failed=True)
                else:
                    known[notebook.address] = record
                    _keep_records(book, known)
                    ran.append(notebook)
                    progress.done(notebook.address)
    if problems:
        raise BookError(problems)
    return ran


def _with_producers(book: Book, selection: list[Notebook]) -> list[Notebook]:
    chosen: dict[str, Notebook] = {}

    def add(notebook: Notebook) -> None:
        if notebook.address in chosen:
            return
        chosen[notebook.address] = notebook
        for name in book.needs(notebook):
            add(book.producers[name])

    for notebook in selection:
        add(notebook)
    return list(chosen.values())


def _is_current(book: Book, notebook: Notebook, key: str, known: dict[str, dict]) -> bool:
    if known.get(notebook.address, {}).get("key") != key or not executed_path(book, notebook.address).exists():
        return False
    made = notebook.card.get("produces", ()) if notebook.kind == "chapters" else ()
    return all((artifacts.describe(name, book.build / "artifacts") or {}).get("key") == key for name in made)


def _keep_records(book: Book, known: dict[str, dict]) -> None:
    listed = {nb.address for nb in book.notebooks}
    text = json.dumps({a: r for a, r in sorted(known.items()) if a in listed}, indent=1)
    write_atomically(book.build / "executed" / "records.json", text)


def write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def run(book: Book, notebook: Notebook, key: str = "", env: dict[str, str] | None = None) -> dict[str, Any]:
    """Execute one notebook, write its result, and return its record."""
    result = nbformat.from_dict(json.loads(json.dumps(notebook.raw)))
    env = environment(book, GROUNDUP_KEY=key) if env is None else env
    started = time.perf_counter()
    said = tempfile.TemporaryFile(mode="w+")  # what the kernel process itself prints: of use only when it dies
    try:
        memory = _with_a_kernel(lambda: asyncio.run(_execute(result, notebook, env, said)))
    except CellExecutionError:
        raise BookError(_cell_error(notebook, result)) from None
    except CellTimeoutError:
        raise BookError(f"{_place(notebook, result)}: ran for more than {CELL_SECONDS} s; make it do less") from None
    except DeadKernelError:
        said.seek(0)
        last = said.read().strip()[-300:] or "most likely for want of memory; make the cell hold less"
        raise BookError(f"{_place(notebook, result)}: the kernel died: {last}") from None
    finally:
        said.close()
    seconds = time.perf_counter() - started
    checks = outcomes(result)
    problems = [*_output_problems(notebook, result), *_missing_artifacts(book, notebook, key)]
    if problems:
        raise BookError(problems)
    _write(book, notebook, result)
    return {
        "key": key,
        "seconds": round(seconds, 2),
        "memory": memory,
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cells": len(notebook.code),
        "checks": dict(checks),
    }


def _with_a_kernel(execute: Callable[[], int], tries: int = 3) -> int:
    """`execute()`, again if its kernel did not come up: another process may have taken the port it was given."""
    while True:
        try:
            return execute()
        except RuntimeError as error:
            tries -= 1
            if "before replying to kernel_info" not in str(error) or not tries:
                raise


async def _execute(result: nbformat.NotebookNode, notebook: Notebook, env: dict[str, str], said: TextIO) -> int:
    """Run every code cell of `result` in place; return the kernel's peak memory in bytes."""
    client = NotebookClient(result, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False)
    client.reset_execution_trackers()
    folder = str((notebook.root / notebook.file).parent)
    async with client.async_setup_kernel(env=env, cwd=folder, stderr=said):
        info = await client.async_wait_for_reply(client.kc.kernel_info())
        if info:
            result.metadata["language_info"] = info["content"]["language_info"]
        for index, cell in enumerate(result.cells):
            await client.async_execute_cell(cell, index)
        peak = "__import__('resource').getrusage(__import__('resource').RUSAGE_SELF).ru_maxrss"
        reply = await client.async_wait_for_reply(
            client.kc.execute("", silent=True, store_history=False, user_expressions={"peak": peak})
        )
    unit = 1 if platform.system() == "Darwin" else 1024
    try:
        return int(reply["content"]["user_expressions"]["peak"]["data"]["text/plain"]) * unit
    except (TypeError, KeyError, ValueError):  # no `resource` module on this system
        return 0


def refresh(book: Book, notebook: Notebook) -> None:
    """Put the outputs that a notebook has into its present text: prose may have changed."""
    path = executed_path(book, notebook.address)
    old = nbformat.read(path, as_version=4)
    fresh = nbformat.from_dict(json.loads(json.dumps(notebook.raw)))
    outputs = [cell for cell in old.cells if cell.cell_type == "code"]
    for cell, had in zip((c for c in fresh.cells if c.cell_type == "code"), outputs):
        cell.outputs, cell.execution_count = had.outputs, had.execution_count
    fresh.metadata["language_info"] = old.metadata.get("language_info", {})
    _write(book, notebook, fresh)


def _write(book: Book, notebook: Notebook, result: nbformat.NotebookNode) -> None:
    result.metadata.pop("source_map", None)
    for number, cell in enumerate(result.cells):
        cell["id"] = f"cell-{number}"
    text = nbformat.writes(result) + "\n"
    path = executed_path(book, notebook.address)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def outcomes(result: nbformat.NotebookNode) -> Counter[str]:
    """How many checks of an executed notebook passed, failed, …"""
    return Counter(data["status"] for _, data in _checks(result))


def _checks(result: nbformat.NotebookNode) -> Iterator[tuple[int, dict[str, str]]]:
    for number, cell in enumerate(result.cells, 1):
        for output in cell.get("outputs", ()):
            if MIME in output.get("data", {}):
                yield number, output["data"][MIME]


def _output_problems(notebook: Notebook, result: nbformat.NotebookNode) -> Iterator[str]:
    """What an executed notebook must not show."""
    by_number = {cell.number: cell for cell in notebook.cells}
    wanted = {"exercises": {"unsolved"}, "solutions": {"passed", "rejected", "accepted"}}.get(notebook.kind, set())
    for number, data in _checks(result):
        if data["status"] not in wanted:
            cell = by_number[number]
            said = f"{data['name']}: {data['status']}" + (f" ({data['message']})" if data["message"] else "")
            remedy = (
                "a check must say “not solved yet” on the stub"
                if notebook.kind == "exercises"
                else "the solution must pass its own check"
            )
            yield f"{at(notebook.file, cell.line, number)}: {said}; {remedy}"
    for number, cell in enumerate(result.cells, 1):
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and output.name == "stderr":
                first = next((line for line in output.text.splitlines() if line.strip()), "")
                yield (
                    f"{at(notebook.file, by_number[number].line, number)}: printed to stderr “{first[:160]}”; "
                    "readers see this as a warning: mend its cause"
                )


def _missing_artifacts(book: Book, notebook: Notebook, key: str) -> Iterator[str]:
    if notebook.kind == "chapters":
        for name in notebook.card.get("produces", ()):
            if (artifacts.describe(name, book.build / "artifacts") or {}).get("key") != key:
                yield f"{at(notebook.file, 1)}: says it produces “{name}” but did not save it; call artifacts.save(“{name}”, …)"


def _place(notebook: Notebook, result: nbformat.NotebookNode) -> str:
    """Where execution was: the first code cell that has not finished."""
    running = [c for c, r in zip(notebook.cells, result.cells) if c.kind == "code" and not r.get("execution_count")]
    cell: Cell = running[0] if running else notebook.cells[-1]
    return at(notebook.file, cell.line, cell.number)


def _cell_error(notebook: Notebook, result: nbformat.NotebookNode) -> str:
    """The error of the cell that raised, its traceback pointing at lines of the chapter."""
    by_count = {
        cell.get("execution_count"): notebook.cells[i]
        for i, cell in enumerate(result.cells)
        if cell.cell_type == "code" and cell.get("execution_count")
    }
    cell, error = next(
        (notebook.cells[i], output)
        for i, shown in reversed(list(enumerate(result.cells)))
        for output in shown.get("outputs", ())
        if output.output_type == "error"
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
    line = cell.line

    def locate(match: re.Match) -> str:
        nonlocal line
        source = by_count.get(int(match[1]), cell)
        found = source.line + int(match[2]) - 1
        if source is cell:
            line = found
        return f"{notebook.file}:{found}"

    text = re.sub(r"Cell In\[(\d+)\], line (\d+)", locate, text)
    indented = "\n".join(f"    {row}" for row in text.splitlines() if row.strip("- "))
    return f"{at(notebook.file, line, cell.number)}: {error.ename}: {error.evalue}\n{indented}"


def machine() -> str:
    """The processor's name, as well as this system tells it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
        if found:
            return re.sub(r"\((R|TM)\)|CPU|Processor|@.*", "", found[1]).strip()
    return platform.processor() or platform.machine()


def fill_cache(book: Book, selection: list[Notebook]) -> None:
    """Give the Jupyter Book build the outputs, in the jupyter-cache it reads, so that it executes nothing."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    path = book.build / ".jupyter_cache"
    shutil.rmtree(path, ignore_errors=True)
    cache, known = get_cache(path), records(book)
    for notebook in selection:
        bundle = CacheBundleIn(
            nbformat.read(executed_path(book, notebook.address), as_version=4),
            str(notebook.root / notebook.file),
            data={"execution_seconds": known[notebook.address]["seconds"]},
        )
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
