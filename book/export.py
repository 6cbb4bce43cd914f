"""chapters → groundup: the cells tagged `export` of a chapter become one module of the library."""

from __future__ import annotations

import ast
import difflib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from book.errors import BookError, at
from book.notebooks import HAND_WRITTEN, WIDTH, Book, Cell, Notebook

MARK = "# Generated from {file}; edit the chapter.\n"
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def export(book: Book, check: bool = False) -> list[Path]:
    """Write `groundup/*.py` from the chapters; return the files that changed.

    With `check`, write nothing and raise :class:`BookError` with a diff when a file is stale.
    """
    wanted = {f"{chapter.module}.py": source for chapter, source in _modules(book)}
    folder = book.root / "groundup"
    return replace_generated(
        book.root,
        {folder / name: text for name, text in wanted.items()},
        [p for p in folder.glob("*.py") if p.stem not in (*HAND_WRITTEN, "__init__") and p.name not in wanted],
        check,
        "python -m book export",
    )


def replace_generated(root: Path, wanted: dict[Path, str], gone: list[Path], check: bool, command: str) -> list[Path]:
    """Bring generated files up to date, or (with `check`) raise with a diff of what is stale."""
    changed, problems = [], []
    for path, text in wanted.items():
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old != text:
            changed.append(path)
            name = path.relative_to(root).as_posix()
            diff = difflib.unified_diff(
                old.splitlines(), text.splitlines(), f"{name} (now)", f"{name} (wanted)", lineterm=""
            )
            problems.append(f"{name} is stale; run: {command}\n" + textwrap.indent("\n".join(diff), "  "))
    problems += [f"{path.relative_to(root)} has no source any more; run: {command}" for path in gone]
    if check and problems:
        raise BookError(problems)
    if not check:
        for path in changed:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path], encoding="utf-8")
        for path in gone:
            path.unlink()
    return changed + gone


def exported(book: Book) -> dict[str, set[str]]:
    """module -> the names that its chapter exports."""
    return {
        chapter.module: {name for cell in _export_cells(chapter) for name in _names(cell.tree(chapter.file))}
        for chapter in book.chapters
    }


def check_imports(book: Book) -> None:
    """Raise where a notebook imports from `groundup` what no earlier chapter exports."""
    names, problems = exported(book), []
    module_of = {chapter.module: chapter for chapter in book.chapters}
    for hand in HAND_WRITTEN:
        path = book.root / "groundup" / f"{hand}.py"
        names[hand] = set(_names(ast.parse(path.read_text(encoding="utf-8")))) if path.exists() else set()
    place_of = {chapter.name: i for i, chapter in enumerate(book.chapters)}
    for notebook in book.notebooks:
        for line, module, name in notebook.imports():
            place = at(notebook.file, line)
            source = module_of.get(module)
            if module not in names:
                problems.append(f"{place}: there is no groundup.{module}; its modules are {', '.join(sorted(names))}")
            elif source and source.name == notebook.name and notebook.kind == "chapters":
                problems.append(f"{place}: a chapter does not import its own module; define {name or 'it'} in a cell")
            elif source and place_of[source.name] > place_of[notebook.name]:
                problems.append(
                    f"{place}: groundup.{module} comes from a later chapter, {source.file}; move the definition"
                )
            elif name and name not in names[module]:
                where = [f"groundup.{other}" for other, has in names.items() if name in has]
                hint = f"it is in {', '.join(where)}" if where else "tag its cell `export` in an earlier chapter"
                problems.append(f"{place}: groundup.{module} exports no “{name}”; {hint}")
    if problems:
        raise BookError(problems)


def _export_cells(chapter: Notebook) -> list[Cell]:
    return [cell for cell in chapter.code if "export" in cell.tags]


def _names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, _DEFINITIONS):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def _modules(book: Book) -> Iterator[tuple[Notebook, str]]:
    problems: list[str] = []
    sources: list[tuple[Notebook, str]] = []
    for chapter in book.chapters:
        if not _export_cells(chapter):
            continue
        try:
            found = list(_rule_problems(chapter))
            if not found:
                sources.append((chapter, _source(chapter)))
            problems += found
        except BookError as error:
            problems += error.problems
    problems += _lint(sources)
    if problems:
        raise BookError(problems)
    return iter(sources)


def _rule_problems(chapter: Notebook) -> Iterator[str]:
    """Breaches of the export rules, each with its line."""
    exports = _export_cells(chapter)
    for cell in exports:
        for node in cell.tree(chapter.file).body:
            place = at(chapter.file, node.lineno, cell.number)
            if isinstance(node, (ast.Import, ast.ImportFrom)) or (
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            ):
                continue
            if not isinstance(node, (*_DEFINITIONS, ast.Assign, ast.AnnAssign)):
                yield f"{place}: an export cell holds imports, functions, classes and constants; move this statement out"
                continue
            for call in _calls_at_import(node):
                yield f"{at(chapter.file, call.lineno, cell.number)}: “{ast.unparse(call)}” would run at import; move it into a function"
    seen: dict[str, int] = {}
    wanted = {name for cell in exports for name in _names(cell.tree(chapter.file))}
    for cell in chapter.code:
        for node in cell.tree(chapter.file).body:
            if isinstance(node, (*_DEFINITIONS, ast.Assign, ast.AnnAssign)):
                for name in _names(ast.Module([node], [])):
                    if name in wanted and name in seen:
                        yield (
                            f"{at(chapter.file, node.lineno, cell.number)}: “{name}” is exported and was defined on line "
                            f"{seen[name]}; rename one (the naive version is called …_naive)"
                        )
                    seen.setdefault(name, node.lineno)
        for node in ast.walk(cell.tree(chapter.file)):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                base = node.targets[0].value
                if isinstance(base, ast.Name) and base.id in wanted and base.id[:1].isupper():
                    yield f"{at(chapter.file, node.lineno, cell.number)}: the class {base.id} is patched here; write it whole in its cell"


def _calls_at_import(node: ast.stmt) -> Iterator[ast.expr]:
    """Calls that run when the definition is executed: defaults, decorators, bases, class bodies, constants."""
    allowed = {"dataclass", "dataclasses.dataclass", "field", "dataclasses.field", "frozenset", "namedtuple", "TypeVar"}

    def of(expression: ast.AST | None) -> Iterator[ast.expr]:
        if expression is not None:
            for child in ast.walk(expression):
                if isinstance(child, ast.Lambda):
                    return
                if isinstance(child, ast.Call) and ast.unparse(child.func) not in allowed:
                    yield child

    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        yield from of(node.value)
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for part in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
            yield from of(part)
    elif isinstance(node, ast.ClassDef):
        for part in [*node.decorator_list, *node.bases]:
            yield from of(part)
        for child in node.body:
            if isinstance(child, (*_DEFINITIONS, ast.Assign, ast.AnnAssign)):
                yield from _calls_at_import(child)
            elif not isinstance(child, (ast.Pass, ast.Expr)):
                yield from of(child)


def _source(chapter: Notebook) -> str:
    """The module's text: mark, docstring, the imports it needs, the cells' text in order."""
    bodies, used = [], set()
    for cell in _export_cells(chapter):
        tree = cell.tree(chapter.file)
        lines = cell.source.splitlines()
        for node in tree.body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for line in range(node.lineno - cell.line, node.end_lineno - cell.line + 1):
                    lines[line] = ""
        bodies.append("\n".join(lines).strip("\n"))
        used |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    names = [name for cell in _export_cells(chapter) for name in _names(cell.tree(chapter.file))]
    public = [name for name in names if not name.startswith("_")]
    imports: dict[str, str] = {}
    future = "from __future__ import annotations"
    for cell in chapter.code:
        for node in ast.walk(cell.tree(chapter.file)):
            if isinstance(node, (ast.Import, ast.ImportFrom)) and getattr(node, "module", "") != "__future__":
                start = "import " if isinstance(node, ast.Import) else f"from {node.module} import "
                for alias in node.names:
                    local = alias.asname or alias.name.split(".")[0]
                    if local in used and local not in names:
                        imports.setdefault(local, start + alias.name + (f" as {alias.asname}" if alias.asname else ""))
    summary = (
        textwrap.fill(f"{chapter.title}. {chapter.promise}", WIDTH - 4).replace("\\", "\\\\").replace('"""', "'''")
    )
    text = "\n\n".join(
        [
            MARK.format(file=chapter.file.as_posix()) + f'"""{summary}\n"""',
            future,
            "\n".join(imports.values()),
            f"__all__ = {json.dumps(public)}",
            "\n\n\n".join(body for body in bodies if body),
        ]
    )
    sort = ["check", "--select=I,UP037", "--fix-only", "-q", "--config=lint.isort.known-first-party=['groundup']"]
    return _ruff(["format", "-q"], _ruff(sort, text + "\n", chapter), chapter)


def _ruff(command: list[str], text: str, chapter: Notebook) -> str:
    done = _run_ruff([*command, f"--line-length={WIDTH}", "--target-version=py311"], text, chapter)
    if done.returncode:
        raise BookError(f"{chapter.file}: the exported cells do not make a module: {done.stderr.strip()}")
    return done.stdout


def _run_ruff(command: list[str], text: str, chapter: Notebook) -> subprocess.CompletedProcess[str]:
    name = f"--stdin-filename={chapter.module}.py"
    return subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--isolated", name, "-"], input=text, capture_output=True, text=True
    )


def _lint(sources: list[tuple[Notebook, str]]) -> list[str]:
    """Names that do not resolve inside the module, or are imported for nothing."""
    problems = []
    for chapter, text in sources:
        done = _run_ruff(["check", "--select=F401,F811,F821", "--output-format=json"], text, chapter)
        for found in json.loads(done.stdout or "[]"):
            row = found["location"]["row"]
            line = text.splitlines()[row - 1].strip()
            problems.append(
                f"{chapter.file}: groundup/{chapter.module}.py line {row} (“{line}”): {found['message']}; "
                "import it in a cell, pass it as an argument, or tag its cell `export`"
            )
    return problems
