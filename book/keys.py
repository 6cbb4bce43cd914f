"""What a notebook's result depends on, as one hash: `keys.Keys(book).of(notebook)`.

The key holds the notebook's code, the syntax trees (without docstrings) of every `groundup`
definition it reaches, the artifacts it reads, and the pins of the packages all this imports.
Prose, comments in the library and what other notebooks do leave it unchanged.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata

from book.notebooks import Book, Notebook
from groundup import artifacts
from groundup.artifacts import without_docstrings

FORMAT = 1  # raise it when execution itself changes what notebooks put out


@dataclass
class Module:
    """One module of `groundup`: its definitions, and what its names import."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, tuple[str, str | None]] = field(default_factory=dict)


def _imports(tree: ast.AST) -> dict[str, tuple[str, str | None]]:
    """local name -> (module, name in it or None for the module itself)."""
    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                found[local] = (alias.name if alias.asname else local, None)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                if node.module == "groundup":
                    found[alias.asname or alias.name] = (f"groundup.{alias.name}", None)
                else:
                    found[alias.asname or alias.name] = (node.module, alias.name)
    return found


def _uses(tree: ast.AST) -> set[tuple[str, str | None]]:
    """Names read below `tree`, each with the attribute taken of it where there is one."""
    found: set[tuple[str, str | None]] = set()
    bases: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add((node.value.id, node.attr))
            bases.add(id(node.value))
        elif isinstance(node, ast.Name) and id(node) not in bases:
            found.add((node.id, None))
    return found


class Keys:
    """Keys of a book's notebooks, each module of `groundup` parsed once."""

    def __init__(self, book: Book):
        self.book = book
        self._modules: dict[str, Module] = {}

    def module(self, name: str) -> Module:
        if name not in self._modules:
            path = self.book.root / "groundup" / f"{name}.py"
            module = Module()
            if path.exists():
                tree = without_docstrings(ast.parse(path.read_text(encoding="utf-8")))
                module.imported = _imports(tree)
                for node in tree.body:
                    for defined in _defines(node):
                        module.definitions.setdefault(defined, []).append(node)
            self._modules[name] = module
        return self._modules[name]

    def of(self, notebook: Notebook) -> str:
        """The hash that says whether `notebook` must run again."""
        trees = [cell.tree(notebook.file) for cell in notebook.code]
        reached, packages, strings = self._reach(trees)
        state = {
            "format": FORMAT,
            "python": sys.version_info[:2],
            "cells": [[c.source, sorted(c.tags & {"raises-exception"})] for c in notebook.code],
            "library": sorted(reached.items()),
            "pins": sorted(pins(packages).items()),
            "data": [pin for name, pin in sorted(self.data_pins.items()) if name in strings],
            "artifacts": {
                name: artifacts.digest(name, self.book.build / "artifacts") for name in self.book.needs(notebook)
            },
        }
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    @cached_property
    def data_pins(self) -> dict[str, str]:
        """package -> its whole line, hashes included, in requirements-data.txt."""
        path = self.book.root / "requirements-data.txt"
        text = path.read_text(encoding="utf-8").replace("\\\n", " ") if path.exists() else ""
        lines = (" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#"))
        return {re.split(r"[=<>!~ ]", line, maxsplit=1)[0]: line for line in lines}

    def _reach(self, trees: list[ast.AST]) -> tuple[dict[str, str], set[str], set[str]]:
        """Follow names through `groundup`: definitions reached, packages imported, strings met."""
        reached: dict[str, str] = {}
        packages: set[str] = set()
        strings: set[str] = set()

        def scan(tree: ast.AST, imported: dict, local: dict, module: str | None) -> None:
            strings.update(n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str))
            scope = {**imported, **_imports(tree)}
            for name, attribute in sorted(_uses(tree), key=str):
                if name in local and module:
                    reach(module, name)
                elif name in scope:
                    target, member = scope[name]
                    top, _, rest = target.partition(".")
                    if top != "groundup":
                        packages.add(top)
                    elif member or attribute:
                        reach(rest, member or attribute)
                    else:
                        for each in self.module(rest).definitions:
                            reach(rest, each)

        def reach(module: str, name: str) -> None:
            if (full := f"{module}.{name}") in reached:
                return
            known = self.module(module)
            nodes = known.definitions.get(name, [])
            reached[full] = hashlib.sha256("".join(ast.dump(node) for node in nodes).encode()).hexdigest()
            for node in nodes:
                scan(node, known.imported, known.definitions, module)

        imported = {name: target for tree in trees for name, target in _imports(tree).items()}
        packages.update(target.split(".")[0] for target, _ in imported.values() if not target.startswith("groundup"))
        for tree in trees:
            scan(tree, imported, {}, None)
        return reached, packages, strings


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


@cache
def _distribution(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The version of a distribution and the names of those it requires; None when it is not installed."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    needs = [requirement for requirement in found.requires or () if "extra ==" not in requirement]
    return found.version, tuple(re.match(r"[\w.-]+", requirement)[0] for requirement in needs)


def pins(packages: set[str]) -> dict[str, str]:
    """distribution -> version, for these imported packages and all that they require."""
    found: dict[str, str] = {}
    todo = [d for name in packages - sys.stdlib_module_names for d in _distributions().get(name, ())]
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name not in found and (distribution := _distribution(name)):
            found[name], needs = distribution
            todo += needs
    return found
