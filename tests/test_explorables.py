"""Figures that can be moved: what a cell writes, and what the build makes of it or refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from docutils import nodes

from book import execution, press, site
from book.extensions import diet, explore
from groundup import plotting
from groundup.explore import MIME, plain
from groundup.explore import explore as show


def test_data_become_plain_and_short():
    given = {"a": np.float32(1 / 3), "b": np.arange(3), "c": (1.0, True, None, "x"), "d": [np.int64(2), 1e-9 / 3]}
    assert plain(given, 3) == {"a": 0.333, "b": [0, 1, 2], "c": [1, True, None, "x"], "d": [2, 3.33e-10]}
    assert json.dumps(plain({"a": np.array([[2.0, -0.0]])})) == '{"a": [[2, 0]]}'
    assert plain(123456.789) == 123457 and plain(123456789) == 123456789, "whole numbers stay as they are"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": [1.0, {"b": float("nan")}]}, r"data\['a'\]\[1\]\['b'\] is nan.*clip it"),
        ({"a": np.array([np.inf])}, r"data\['a'\]\[0\] is inf"),
        ({1: 2}, "key 1; keys must be strings"),
        ({"a": {3}}, r"data\['a'\] is of type set"),
        ({"a": 1j}, "of type complex"),
    ],
)
def test_what_json_cannot_hold_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        show("kind", data)


def test_a_cell_shows_one_output_with_figure_and_data(edit):
    book = edit(
        "chapters/one/adding.md",
        "Some prose.",
        "```{code-cell} python\nimport matplotlib.pyplot as plt\n\nfrom groundup import plotting\n"
        "from groundup.explore import explore\n\nplotting.setup()\nplt.plot([1, 2])\n"
        'explore("bars", {"values": np.array([0.1, 0.25])})\n```\n',
    )
    press.prepare(book)
    execution.execute(book, book.chapters, quiet=True)
    cells = json.loads(execution.executed_path(book, "chapters/one/adding").read_text(encoding="utf-8"))["cells"]
    (cell,) = (cell for cell in cells if "explore(" in "".join(cell["source"]))
    (output,) = cell["outputs"]
    assert output["data"][MIME] == {"kind": "bars", "data": {"values": [0.1, 0.25]}}
    assert "<svg" in "".join(output["data"]["image/svg+xml"]), "JupyterLab shows this one"


def _document(kind: str, data: str = "{}", still: bool = True) -> nodes.document:
    """What myst-nb makes of such a cell: one container a format."""
    document = nodes.document(None, None)
    bundle = nodes.container(nb_element="mime_bundle")
    bundle += nodes.container("", explore.explorable("", kind=kind, data=data), mime_type=MIME)
    if still:
        bundle += nodes.container("", nodes.image(uri="a.svg"), mime_type="image/svg+xml")
    document += nodes.figure("", bundle, nodes.caption("", "What to see."))
    return document


def test_the_still_figure_is_put_into_what_carries_the_data():
    document = _document("optimizer")
    explore._join(None, document)
    (node,) = document.findall(explore.explorable)
    assert isinstance(node[0], nodes.image) and node["place"] == 1
    bundle = document[0][0]
    assert [child["mime_type"] for child in bundle] == ["image/svg+xml"], "the builder has no other choice"
    assert isinstance(document[0][1], nodes.caption)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (lambda: _document("optimizer", still=False), "“optimizer” has no still figure; hand `explore`"),
        (lambda: _document("optimiser"), "no module; write book/static/explore/optimiser.js, or use one of: .*optimizer"),
        (lambda: _document("shapeless"), r"does not say its room; give shapeless.js a line `size: \[wide, narrow\],`"),
        (lambda: _document("optimizer", _noise()), r"has 1\d\d,\d{3} bytes of data, compressed; at most 120,000"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy_and_the_still_figure_stays(monkeypatch, tmp_path, document, message):
    (tmp_path / "explore").mkdir()
    (tmp_path / "explore/optimizer.js").write_text("export default {\n  size: [30, 40],\n};")
    (tmp_path / "explore/shapeless.js").write_text("export default {};")
    monkeypatch.setattr(diet, "STATIC", tmp_path)
    told = []
    monkeypatch.setattr(explore.logger, "warning", lambda text, *values, **_: told.append(text % values))
    document = document()
    stills = len(list(document.findall(nodes.image)))
    explore._join(None, document)
    assert len(told) == 1 and re.search(message, told[0]), told
    assert not list(document.findall(explore.explorable)) and len(list(document.findall(nodes.image))) == stills


def _noise() -> str:
    return json.dumps(np.random.default_rng(0).random(20_000).round(12).tolist())


def test_every_module_says_its_room_and_loads_nothing():
    modules = sorted((diet.STATIC / "explore").glob("*.js"))
    assert modules
    for module in modules:
        text = module.read_text(encoding="utf-8")
        assert explore.SIZE.search(text), module.name
        assert not re.search(r"^\s*import\b|\bimport\(|\bfetch\(|\beval\(|innerHTML|localStorage|https?:", text, re.M), module.name
        assert len(text.splitlines()) <= 150, f"{module.name} is long: move what others need into explore.js"


def test_the_colours_are_those_of_the_plots():
    style = (diet.STYLES / "70-explore.css").read_text(encoding="utf-8")
    found = dict(re.findall(r"--plot-(\w+): (light-dark\(#\w{6}, #\w{6}\))", style))
    for name in ("BLUE", "ORANGE", "GREEN", "PURPLE", "RED", "GREY", "INK", "MUTED", "GRID"):
        light = getattr(plotting, name)
        assert found.pop(name.lower()) == f"light-dark({light}, {plotting.DARK[light]})"
    assert [*found] == ["paper"]


def test_the_site_is_refused_when_data_or_module_are_missing(tmp_path):
    (tmp_path / "index.html").write_text(
        '<h1>x</h1><div class="explore" data-src="_static/explore/x-1.json?v=1" data-module="_static/explore/x.js"></div>'
    )
    problems = list(site.problems_of(tmp_path))
    assert len(problems) == 2 and all("which does not exist" in problem for problem in problems)
