"""The map of chapters as a drawing: rows by what needs what, few crossings, no line through a box.

A line is straight where it passes a row, in a lane of its own, and curves only between rows. So it cannot meet a box.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from scipy.optimize import linprog

FONT = Path(__file__).parents[1] / "static/fonts/serif-600.woff2"
SIZE, LINE = 15, 18  # of the text, in the drawing's units (pixels at full width)
PADDING, GAP, LANE, PORT = 13, 24, 2, 7  # PORT: between the ends of two lines at one box
BOX, BETWEEN = 36, 36  # height of a box of one line, of the space between two rows
TRIES = 60

Edge = tuple[str, str]


def ancestors(needs: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Everything that each name needs, directly or through others. Raises ValueError on a circle."""
    found: dict[str, set[str]] = {}

    def of(name: str, above: tuple[str, ...] = ()) -> set[str]:
        if name in above:
            raise ValueError(f"{' needs '.join([*above[above.index(name) :], name])}: a circle")
        if name not in found:
            found[name] = set().union(*({each} | of(each, (*above, name)) for each in needs.get(name, ())))
        return found[name]

    for name in needs:
        of(name)
    return found


def reduced(needs: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """`needs`, restricted to its own keys, without what follows from the rest."""
    every = ancestors(needs)
    return {
        name: [other for other in needs if other in above and not any(other in every[one] for one in above)]
        for name, above in every.items()
        if name in needs
    }


def closure(needs: Mapping[str, Iterable[str]], targets: Iterable[str]) -> list[str]:
    """`targets` and all they need, in the order of `needs`."""
    every = ancestors(needs)
    wanted = set().union(*({target} | every[target] for target in targets))
    return [name for name in needs if name in wanted]


@cache
def _widths() -> tuple[dict[int, str], dict, int]:
    font = TTFont(FONT)
    return font.getBestCmap(), font["hmtx"].metrics, font["head"].unitsPerEm


def width(text: str) -> float:
    """How wide `text` is in the book's own bold type of `SIZE`."""
    glyphs, metrics, em = _widths()
    return sum(metrics[glyphs.get(ord(letter), ".notdef")][0] for letter in text) * SIZE / em


def wrapped(text: str, most: float = 128) -> list[str]:
    """`text` on one line, or on the fewest lines of at most `most`."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}") <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


@dataclass
class Box:
    name: str
    lines: list[str]
    x: float = 0.0  # of its centre
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


@dataclass
class Drawing:
    width: float
    height: float
    boxes: dict[str, Box]
    lines: dict[Edge, str] = field(default_factory=dict)  # (needed, needing): an SVG path


def draw(needs: Mapping[str, Iterable[str]], titles: Mapping[str, str]) -> Drawing:
    """Lay out the reduced graph `needs` (name: what it needs)."""
    edges = [(above, name) for name, found in needs.items() for above in found]
    rows, chains = _with_lanes(_rows(list(needs), edges), edges)
    boxes = {name: Box(name, wrapped(titles[name])) for name in needs}
    for box in boxes.values():
        box.width = round(max(map(width, box.lines)) + 2 * PADDING)
        box.height = BOX + LINE * (len(box.lines) - 1)
    order = _ordered(rows, chains)
    half = {name: boxes[name].width / 2 if name in boxes else LANE for row in order for name in row}
    x = _spread(order, chains, half)
    tops, heights, y = [], [], 1.0
    for row in order:
        tops.append(y)
        heights.append(max([boxes[name].height for name in row if name in boxes], default=0))
        y += heights[-1] + BETWEEN
    for level, row in enumerate(order):
        for name in filter(boxes.__contains__, row):
            boxes[name].x, boxes[name].y = round(x[name], 1), tops[level] + heights[level] / 2
    drawing = Drawing(max(x[name] + half[name] for name in x) + 1, y - BETWEEN + 1, boxes)
    level_of = {name: level for level, row in enumerate(order) for name in row}
    leaves, enters = _ports(chains.values(), x, 0, 1), _ports(chains.values(), x, -1, -2)
    for edge, chain in chains.items():
        through = [leaves[edge], *(x[lane] for lane in chain[1:-1]), enters[edge]]
        levels = [level_of[name] for name in chain]
        start, end = boxes[chain[0]], boxes[chain[-1]]
        ends = start.y + start.height / 2, end.y - end.height / 2
        drawing.lines[edge] = _path(through, [(tops[i], tops[i] + heights[i]) for i in levels], ends)
    return drawing


def _ports(chains: Iterable[list[str]], x: Mapping[str, float], end: int, towards: int) -> dict[Edge, float]:
    """Where each line meets the box at its `end`: straight ones in the middle, the others beside it on their side."""
    found: dict[Edge, float] = {}
    beside: dict[tuple[str, bool], list[tuple[float, Edge]]] = {}
    for chain in chains:
        box, lean = chain[end], x[chain[towards]] - x[chain[end]]
        found[chain[0], chain[-1]] = x[box]
        if abs(lean) > 1:
            beside.setdefault((box, lean > 0), []).append((abs(lean), (chain[0], chain[-1])))
    for (box, right), lines in beside.items():
        for i, (_, edge) in enumerate(sorted(lines), 1):
            found[edge] = x[box] + (i if right else -i) * PORT
    return found


def _rows(names: list[str], edges: list[Edge]) -> dict[str, int]:
    """Each name's row, below all it needs, so that the lines are short together."""
    index = {name: i for i, name in enumerate(names)}
    cost, apart = np.zeros(len(names)), np.zeros((len(edges), len(names)))
    for i, (above, below) in enumerate(edges):
        cost[index[below]] += 1
        cost[index[above]] -= 1
        apart[i, index[above]], apart[i, index[below]] = 1, -1
    if not edges:
        return dict.fromkeys(names, 0)
    row = linprog(cost + 1e-3, A_ub=apart, b_ub=-np.ones(len(edges)), bounds=(0, None)).x
    return {name: round(row[i]) for name, i in index.items()}


def _with_lanes(row: dict[str, int], edges: list[Edge]) -> tuple[list[list[str]], dict[Edge, list[str]]]:
    """The names of each row, with a lane wherever a line passes; and what each line runs through."""
    rows: list[list[str]] = [[] for _ in range(1 + max(row.values()))]
    for name, level in row.items():
        rows[level].append(name)
    chains = {}
    for above, below in edges:
        lanes = [f"{above}>{below}@{level}" for level in range(row[above] + 1, row[below])]
        for lane in lanes:
            rows[int(lane.rpartition("@")[2])].append(lane)
        chains[above, below] = [above, *lanes, below]
    return rows, chains


def _ordered(rows: list[list[str]], chains: Mapping[Edge, list[str]]) -> list[list[str]]:
    """The rows, each in an order with few crossings: the best of some sweeps from random starts."""
    up: dict[str, list[str]] = {name: [] for row in rows for name in row}
    down: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for chain in chains.values():
        for above, below in zip(chain, chain[1:]):
            down[above].append(below)
            up[below].append(above)

    def crossings(order: list[list[str]]) -> int:
        total = 0
        for row, following in zip(order, order[1:]):
            place = {name: i for i, name in enumerate(following)}
            ends = [place[below] for name in row for below in sorted(down[name], key=place.get)]
            total += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
        return total

    best, fewest = rows, crossings(rows)
    for seed in range(TRIES):
        draw = random.Random(seed)
        order = [draw.sample(row, len(row)) if seed else list(row) for row in rows]
        for sweep in range(12):
            levels = range(1, len(order)) if sweep % 2 == 0 else range(len(order) - 2, -1, -1)
            for level in levels:
                near, other = (up, level - 1) if sweep % 2 == 0 else (down, level + 1)
                place = {name: i / len(order[other]) for i, name in enumerate(order[other])}
                here = {name: i / len(order[level]) for i, name in enumerate(order[level])}
                order[level].sort(
                    key=lambda name: sum(map(place.get, near[name])) / len(near[name]) if near[name] else here[name]
                )
            if (count := crossings(order)) < fewest:
                best, fewest = [list(row) for row in order], count
    return best


def _spread(order: list[list[str]], chains: Mapping[Edge, list[str]], half: Mapping[str, float]) -> dict[str, float]:
    """Each name's x: the lines as upright as the order and the widths allow, the drawing narrow."""
    names = [name for row in order for name in row]
    index = {name: i for i, name in enumerate(names)}
    pairs = sorted({pair for chain in chains.values() for pair in zip(chain, chain[1:])})
    count, edge = len(names), len(names) + len(pairs)  # x of each name, |Δx| of each pair, the whole width
    cost, rules, limits = np.zeros(edge + 1), [], []
    cost[edge] = 0.3

    def at_most(limit: float, **terms: float) -> None:
        rule = np.zeros(edge + 1)
        for i, factor in terms.items():
            rule[int(i[1:])] += factor
        rules.append(rule)
        limits.append(limit)

    for i, (above, below) in enumerate(pairs):
        cost[count + i] = {0: 1, 1: 2, 2: 6}[(above not in half or "@" in above) + ("@" in below)]
        for sign in (1, -1):
            at_most(0, **{f"_{index[above]}": sign, f"_{index[below]}": -sign, f"_{count + i}": -1})
    for row in order:
        for one, next_ in zip(row, row[1:]):
            at_most(-half[one] - half[next_] - GAP, **{f"_{index[one]}": 1, f"_{index[next_]}": -1})
        if row:
            at_most(-half[row[-1]], **{f"_{index[row[-1]]}": 1, f"_{edge}": -1})
    bounds = [(half[name] + 1, None) for name in names] + [(0, None)] * (len(pairs) + 1)
    found = linprog(cost, A_ub=np.array(rules), b_ub=limits, bounds=bounds).x
    return {name: float(found[i]) for name, i in index.items()}


def _path(x: list[float], rows: list[tuple[float, float]], ends: tuple[float, float]) -> str:
    """From below the first box to above the last: upright past `rows` (top, bottom), curved between them."""
    steps = [f"M{x[0]:.1f} {ends[0]:.1f}"]
    for here, there, (_, low), (high, _) in zip(x, x[1:], rows, rows[1:]):
        middle = (low + high) / 2
        steps.append(f"V{low:.1f}")
        if abs(here - there) > 0.05:
            steps.append(f"C{here:.1f} {middle:.1f} {there:.1f} {middle:.1f} {there:.1f} {high:.1f}")
    return "".join([*steps, f"V{ends[1]:.1f}"])
