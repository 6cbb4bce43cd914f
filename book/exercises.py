"""solutions → exercises: the solution notebook with its solutions emptied.

What stands between `### BEGIN SOLUTION` and `### END SOLUTION` becomes a stub, and cells tagged
`solution-only` are dropped. The rest is the same text, line for line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it.renderer import RendererHTML
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from book.errors import BookError, at
from book.export import exported, replace_generated
from book.notebooks import Book, Cell, Notebook

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
MARK = "# Generated from {file}; edit that file."


def exercises(book: Book, check: bool = False) -> list[Path]:
    """Write `exercises/**/*.md` from the solutions; return the files that changed.

    With `check`, write nothing and raise :class:`BookError` with a diff when a file is stale.
    """
    wanted = {}
    problems: list[str] = []
    names = exported(book)
    for solution in book.of("solutions"):
        try:
            problems += list(rule_problems(solution, names))
            wanted[book.root / "exercises" / f"{solution.name}.md"] = exercise_text(solution)
        except BookError as error:
            problems += error.problems
    if problems:
        raise BookError(problems)
    have = {p for p in (book.root / "exercises").rglob("*.md") if ".ipynb_checkpoints" not in p.parts}
    return replace_generated(book.root, wanted, sorted(have - wanted.keys()), check, "python -m book exercises")


def exercise_text(solution: Notebook) -> str:
    """The exercise notebook's text."""
    lines = solution.text.splitlines()
    kept: list[str] = []
    for start, end, tags, code in _blocks(solution.text):
        if "solution-only" in tags:
            continue
        block = lines[start:end]
        kept += _emptied(solution, block, start) if code else block
    text = "\n".join(kept).rstrip() + "\n"
    text = re.sub(r"\n{3,}", "\n\n", text)
    text = text.replace("---\n", f"---\n{MARK.format(file=solution.file.as_posix())}\n", 1)
    text = re.sub(r"^# Solutions: ", "# Exercises: ", text, count=1, flags=re.M)
    return _without_unused_imports(_relabelled(text))


def _blocks(text: str) -> Iterator[tuple[int, int, set[str], bool]]:
    """Consecutive spans of lines: (start, end, tags, whether it is a code cell)."""
    config = MdParserConfig(disable_syntax=["inline"])
    tokens = create_md_parser(config, RendererHTML).parse(text + "\n")
    end = len(text.splitlines())
    position, tags, depth = 0, set(), 0
    for token in tokens:
        depth += token.nesting
        if depth or token.map is None:
            continue
        if token.type == "fence" and token.info.startswith("{code-cell}"):
            yield position, token.map[0], tags, False
            found = re.search(r"^:?tags: *\[(.*?)\]", token.content, re.M)
            names = {t.strip() for t in found[1].split(",")} if found else set()
            yield token.map[0], token.map[1], names, True
            position, tags = token.map[1], set()
        elif token.type == "myst_block_break":
            yield position, token.map[0], tags, False
            found = re.search(r'"tags": *\[(.*?)\]', token.content)
            tags = {t.strip(' "') for t in found[1].split(",")} if found else set()
            position = token.map[0] if tags - {"solution-only"} else token.map[1]
    yield position, end, tags, False


def _emptied(solution: Notebook, block: list[str], start: int) -> list[str]:
    """A code cell with its solutions replaced by stubs."""
    out: list[str] = []
    inside: list[str] | None = None
    indent, opened = "", 0
    for offset, line in enumerate(block):
        place = at(solution.file, start + offset + 1)
        if line.strip() == BEGIN:
            if inside is not None:
                raise BookError(f"{place}: {BEGIN} inside another; add the missing {END}")
            inside, indent, opened = [], line[: len(line) - len(line.lstrip())], start + offset + 1
        elif line.strip() == END:
            if inside is None:
                raise BookError(f"{place}: {END} without {BEGIN}; add or remove one")
            out += _stub(inside, indent)
            inside = None
        elif inside is not None:
            inside.append(line)
        else:
            out.append(line)
    if inside is not None:
        raise BookError(f"{at(solution.file, opened)}: {BEGIN} without {END}; add it")
    return out


def _stub(lines: list[str], indent: str) -> list[str]:
    if indent:
        return [f"{indent}raise NotImplementedError  # your code here"]
    names: list[str] = []
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return [f"{name} = ...  # your answer here" for name in dict.fromkeys(names)]


def _relabelled(text: str) -> str:
    """Give labels another name than on the solution page: a label is unique in the book."""
    patterns = (
        r"^\s*name: *([\w:.-]+)\s*$",
        r"^\(([\w:.-]+)\)=",
        r"^:(?:label|name): *([\w:.-]+)",
        r"\$\$ *\(([\w:.-]+)\) *$",
    )
    front = text.index("\n---\n", 4)
    head, body = text[:front], text[front:]
    labels = {label for pattern in patterns for label in re.findall(pattern, body, re.M)}
    for label in labels:
        body = re.sub(rf"(?<![\w.-]){re.escape(label)}(?![\w-])", f"{label}-exercise", body)
    return head + body


def _without_unused_imports(text: str) -> str:
    """Drop `accepts`, `rejects` and whatever else only the solutions used from `groundup.checks`."""

    def narrow(match: re.Match) -> str:
        names = [name.strip() for name in match[1].split(",")]
        rest = text[: match.start()] + text[match.end() :]
        used = [name for name in names if re.search(rf"(?<![\w.]){name}\b", rest)]
        return f"from groundup.checks import {', '.join(used)}" if used else ""

    return re.sub(r"^from groundup\.checks import ([\w, ]+)$", narrow, text, flags=re.M)


@dataclass
class Exercise:
    """One exercise of a solution notebook: its heading, place, options and cells."""

    title: str
    line: int
    options: dict[str, str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)


def parse(notebook: Notebook) -> list[Exercise]:
    """The exercises of a notebook: its `##` sections that hold an `{exercise}` directive."""
    found: list[Exercise] = []
    current: Exercise | None = None
    for cell in notebook.cells:
        if cell.kind == "code":
            if current:
                current.cells.append(cell)
            continue
        fence = ""
        for offset, line in enumerate(cell.source.splitlines()):
            mark = re.match(r"(`{3,}|~{3,}|:{3,})", line)
            if mark:
                fence = "" if fence and line.strip() == fence else fence or mark[1]
                if line.startswith("```{exercise}") and current:
                    current.options = {"": ""}
            elif not fence and (heading := re.match(r"## +(.+)", line)):
                current = Exercise(heading[1].strip(), cell.line + offset)
                found.append(current)
            elif fence and current and "" in current.options and (option := re.match(r":(\w+): *(.+)", line)):
                current.options[option[1]] = option[2].strip()
        if current:
            current.options.pop("", None) if len(current.options) > 1 else None
    return [exercise for exercise in found if exercise.options]


def checks(notebook: Notebook) -> list[list[str]]:
    """For each exercise of a notebook the names of its checks, as a check shows them."""
    return [
        [
            node.name.removeprefix("check_").replace("_", " ")
            for cell in exercise.cells
            for node in cell.tree(notebook.file).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
        ]
        for exercise in parse(notebook)
    ]


def rule_problems(solution: Notebook, exported_names: dict[str, set[str]]) -> Iterator[str]:
    """Breaches of the rules for exercises and checks, each with its place and remedy."""
    if not solution.title.startswith("Solutions: "):
        yield f"{at(solution.file, 1)}: the title must start with “Solutions: ”; it becomes “Exercises: …” for the reader"
    exercises = parse(solution)
    if not exercises:
        yield f"{at(solution.file, 1)}: no exercises; start each with a ## heading and an {{exercise}} directive"
    library = {name: module for module, names in exported_names.items() for name in names}
    for exercise in exercises:
        place = f"{at(solution.file, exercise.line)}: “{exercise.title}”"
        checks: dict[str, bool] = {}
        proofs: dict[str, set[str]] = {"rejects": set(), "accepts": set()}
        matches: dict[str, int] = {}
        emptied = 0
        for cell in exercise.cells:
            emptied += cell.source.count(BEGIN)
            tree = cell.tree(solution.file)
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("check_"):
                    checks.setdefault(node.name, False)
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in library:
                    if BEGIN in "\n".join(
                        cell.source.splitlines()[node.lineno - cell.line : node.end_lineno - cell.line + 1]
                    ):
                        yield (
                            f"{at(solution.file, node.lineno)}: asks for {node.name}, which groundup.{library[node.name]} "
                            "already exports; ask for something the reader cannot import"
                        )
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                name = node.func.id
                if name in checks and "solution-only" not in cell.tags:
                    checks[name] = True
                elif name in proofs and node.args and isinstance(node.args[0], ast.Name):
                    proofs[name].add(node.args[0].id)
                    match = next((k.value for k in node.keywords if k.arg == "match"), None)
                    if name == "rejects" and isinstance(match, ast.Constant):
                        if match.value in matches:
                            yield (
                                f"{at(solution.file, node.lineno)}: match=“{match.value}” is also used on line "
                                f"{matches[match.value]}; give each wrong turn a message of its own"
                            )
                        matches[match.value] = node.lineno
        if not emptied:
            yield f"{place}: nothing to solve; put the solution between {BEGIN} and {END}"
        if not checks:
            yield f"{place}: no check; define check_… with @check and call it on the answer"
        for name, called in checks.items():
            if not called:
                yield f"{place}: {name} is never called on the reader's answer; add a cell with {name}(…)"
            if name not in proofs["rejects"]:
                yield f"{place}: no wrong turn for {name}; add rejects({name}, …, match=…) in a solution-only cell"
            if name not in proofs["accepts"]:
                yield f"{place}: no other right answer for {name}; add accepts({name}, …) in a solution-only cell"
