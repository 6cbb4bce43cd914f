"""What one chapter makes and another needs: trained weights, embedded corpora, generated answers.

A chapter that lists a name under ``produces:`` calls ``save(name, value)``; one that lists it
under ``needs:`` calls ``load(name)``. Values are tensors by name, kept as safetensors, or
anything that JSON holds; nothing is pickled. Files live in ``_build/artifacts``.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import linecache
import os
import re
import symtable
import sys
import tempfile
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".safetensors", ".json")


class ArtifactError(RuntimeError):
    """An artifact is missing, damaged, or not the same when made again."""


def folder() -> Path:
    """Where artifacts are kept: $GROUNDUP_ARTIFACTS, else `_build/artifacts` of this repository."""
    default = Path(__file__).resolve().parent.parent / "_build" / "artifacts"
    return Path(os.environ.get("GROUNDUP_ARTIFACTS", default))


def save(name: str, value: Any) -> None:
    """Keep `value` under `name`: a mapping of str to arrays or tensors, or anything JSON holds.

    The file appears whole or not at all. When the book is being verified (a second run in a
    fresh kernel), nothing is written: `value` must equal what the first run saved, to the bit.

    Raises
    ------
    ArtifactError: when verifying, and the second run made something else.
    TypeError: for a value that is neither tensors nor JSON.
    """
    if os.environ.get("GROUNDUP_VERIFY") == "1":
        _same(name, value)
        return
    _write(name, value, os.environ.get("GROUNDUP_KEY", "interactive"))


def load(name: str) -> Any:
    """The value saved under `name`: tensors come back as they went in (NumPy or torch).

    Raises ArtifactError with the command that makes it when it is missing or damaged.
    """
    return _read(name)[0]


def cached(name: str, make: Callable[..., Any], *args: Any) -> Any:
    """`make(*args)`, kept under `name` until the code of `make`, its arguments or the packages change.

    For what takes long and is plainly deterministic, such as embedding a corpus. `make` and the
    functions it calls are followed by their source; what else they read must be arguments.
    """
    key = _call_key(make, args)

    def kept() -> bool:
        return (describe(name) or {}).get("key") == key

    if not kept():
        with _alone(name):  # two notebooks that need it at once make it once
            if not kept():
                _write(name, make(*args), key)
    try:
        return _read(name)[0]
    except ArtifactError:  # damaged
        _write(name, make(*args), key)
        return _read(name)[0]


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process at a time makes `name`; others wait here. The system frees the lock of one that dies."""
    import fcntl

    folder().mkdir(parents=True, exist_ok=True)
    with open(folder() / f".{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(name: str, where: Path | None = None) -> str | None:
    """The hash of an artifact's content, or None when there is none."""
    header = describe(name, where)
    return header and header["sha256"]


def describe(name: str, where: Path | None = None) -> dict[str, str] | None:
    """`{"key": what made it, "sha256": of its content}`, or None when there is none."""
    path = _find(name, where)
    if path is None:
        return None
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))["header"]
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            return json.loads(file.read(size))["__metadata__"]
    except (ValueError, KeyError):
        return None


def _find(name: str, where: Path | None = None) -> Path | None:
    where = where or folder()
    return next((path for s in SUFFIXES if (path := where / f"{name}{s}").exists()), None)


def _is_tensors(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(v, np.ndarray) or type(v).__module__.startswith("torch") for v in value.values())
    )


def _hash(value: Any) -> str:
    found = hashlib.sha256()
    if _is_tensors(value):
        for name in sorted(value):
            array = value[name]
            if not isinstance(array, np.ndarray):  # bfloat16 has no NumPy form: hash its bytes
                import torch

                array = array.detach().cpu().contiguous()
                found.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
                found.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
            else:
                found.update(f"{name} {array.dtype} {array.shape}".encode())
                found.update(np.ascontiguousarray(array).tobytes())
    else:
        found.update(json.dumps(value, sort_keys=True).encode())
    return found.hexdigest()


def _write(name: str, value: Any, key: str) -> None:
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    header = {"key": key, "sha256": _hash(value)}
    if _is_tensors(value):
        suffix = ".safetensors"
        if all(isinstance(v, np.ndarray) for v in value.values()):
            from safetensors.numpy import save as pack

            data = pack({k: np.ascontiguousarray(v) for k, v in value.items()}, {**header, "kind": "numpy"})
        else:
            from safetensors.torch import save as pack

            data = pack({k: v.detach().cpu().contiguous() for k, v in value.items()}, {**header, "kind": "torch"})
    else:
        suffix = ".json"
        data = json.dumps({"header": {**header, "kind": "json"}, "value": value}, ensure_ascii=False).encode()
    handle, temporary = tempfile.mkstemp(dir=where, prefix=f".{name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, where / f"{name}{suffix}")
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    for other in set(SUFFIXES) - {suffix}:
        (where / f"{name}{other}").unlink(missing_ok=True)


def _read(name: str) -> tuple[Any, dict[str, str]]:
    path, header = _find(name), describe(name)
    if path is None:
        raise ArtifactError(f"the artifact “{name}” has not been made yet; run: {_maker(name)}")
    if header is None:
        raise ArtifactError(f"{path.name} is damaged; delete it and run: {_maker(name)}")
    if path.suffix == ".json":
        value = json.loads(path.read_text(encoding="utf-8"))["value"]
    elif header.get("kind") == "numpy":
        from safetensors.numpy import load_file

        value = load_file(path)
    else:
        from safetensors.torch import load_file

        value = load_file(path)
    if _hash(value) != header["sha256"]:
        raise ArtifactError(f"{path.name} is damaged: its content does not match its hash; run: {_maker(name)}")
    return value, header


def _maker(name: str) -> str:
    """The command that makes artifact `name`, from the front matter of the chapter that produces it."""
    import yaml

    for path in sorted((Path(__file__).resolve().parent.parent / "chapters").rglob("*.md")):
        front = path.read_text(encoding="utf-8").split("\n---\n", 1)[0].removeprefix("---\n")
        with contextlib.suppress(yaml.YAMLError):
            card = (yaml.safe_load(front) or {}).get("book") or {}
            if name in card.get("produces", ()):
                return f"python -m book run {path.parent.name}/{path.stem}"
    return "python -m book run <part>/<slug> for the chapter that lists it under `produces:` (none does now)"


def _same(name: str, value: Any) -> None:
    saved = load(name)
    if _hash(saved) == _hash(value):
        return
    where = ""
    if _is_tensors(saved) and _is_tensors(value):
        differ = [k for k in saved if k not in value or _hash({k: saved[k]}) != _hash({k: value[k]})]
        differ += [k for k in value if k not in saved]
        where = f" ({', '.join(differ[:5])}{', …' if len(differ) > 5 else ''})"
    raise ArtifactError(
        f"a second run made a different “{name}”{where}: something in this notebook is not seeded, "
        "or reads what the first run left behind"
    )


def _call_key(make: Callable, args: tuple) -> str:
    found, seen, packages = hashlib.sha256(), set(), set()

    def follow(thing: Any) -> None:
        thing = inspect.unwrap(thing) if callable(thing) else thing  # through @cache and @torch.no_grad
        if isinstance(thing, types.ModuleType):
            packages.add(thing.__name__.split(".")[0])
        elif isinstance(thing, (types.FunctionType, type)):
            top = thing.__module__.split(".")[0]
            if top not in ("__main__", "groundup") and not thing.__module__.startswith("tests"):
                packages.add(top)
            elif thing not in seen:
                seen.add(thing)
                tree = _definition(thing)
                found.update(ast.dump(tree).encode())
                space = getattr(thing, "__globals__", None) or vars(sys.modules[thing.__module__])
                for each in sorted(_global_names(tree) & space.keys()):
                    follow(space[each])
        elif isinstance(thing, (str, int, float, bool, bytes, type(None), types.UnionType)):
            found.update(repr(thing).encode())
        elif isinstance(thing, re.Pattern):
            follow((thing.pattern, thing.flags))
        elif isinstance(thing, (list, tuple)):
            found.update(f"{type(thing).__name__}{len(thing)}".encode())
            for each in thing:
                follow(each)
        elif isinstance(thing, Mapping) and not _is_tensors(thing):
            follow(sorted(thing.items()))
        elif isinstance(thing, np.ndarray) or type(thing).__module__.startswith("torch"):
            found.update(_hash({"": thing}).encode())
        elif callable(thing):
            packages.add(type(thing).__module__.split(".")[0])
        else:
            raise TypeError(
                f"artifacts.cached cannot key a {type(thing).__name__}: pass {make.__name__} plain values, "
                "arrays, tensors, and functions with source"
            )

    follow(make)
    follow(args)
    for package in sorted(packages):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.update(f"{package}=={importlib.metadata.version(package)}".encode())
    return found.hexdigest()


def without_docstrings(tree: ast.AST) -> ast.AST:
    """Remove every docstring below `tree`, in place."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _definition(thing: types.FunctionType | type) -> ast.stmt:
    """What defines a function or class, in a module or in a notebook's cell: its syntax, without docstrings."""
    try:
        return without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0])
    except (OSError, TypeError):  # a class of a notebook belongs to no file: look through its cells
        for file, entry in reversed(list(linecache.cache.items())):
            if len(entry) == 4 and ("ipykernel" in file or "ipython" in file):
                for statement in ast.parse("".join(entry[2])).body:
                    if isinstance(statement, ast.ClassDef) and statement.name == thing.__name__:
                        return without_docstrings(statement)
        raise


def _global_names(tree: ast.stmt) -> set[str]:
    """Names that a definition looks up in its module when it runs or is made, annotations aside."""
    lazy = f"from __future__ import annotations\n{ast.unparse(tree)}"  # annotations then are not looked up
    found: set[str] = set()
    tables = [symtable.symtable(lazy, "definition", "exec")]
    while tables:
        table = tables.pop()
        top = table.get_type() == "module"
        found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
        tables += table.get_children()
    return found - {tree.name}
