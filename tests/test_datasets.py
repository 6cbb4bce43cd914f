"""The data is what its publisher packed, and a missing or altered package is named with its remedy."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groundup import datasets

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def package(tmp_path, monkeypatch, write):
    """An installed data package `some-data` of one file; returns that file."""
    file = write(tmp_path / "some_data/corpus.txt", "hello\n")
    folder = tmp_path / "some_data-1.0.dist-info"
    write(folder / "METADATA", "Metadata-Version: 2.1\nName: some-data\nVersion: 1.0\n")
    write(
        folder / "RECORD",
        "some_data/corpus.txt,sha256=WJG1tSLV3whtD_CxEPvZ0hu0_HFjrzTQgoai6Eb2vgM,6\nsome_data/gone.txt,,\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return file


def test_a_file_is_found_and_compared(package):
    assert datasets.package_file("some-data", "some_data/corpus.txt").read_text() == "hello\n"


def test_a_missing_package_names_the_remedy():
    with pytest.raises(
        datasets.DataError, match="no-such-data is not installed; run: pip install .*requirements-data.txt"
    ):
        datasets.package_file("no-such-data", "x")


def test_a_missing_file_names_the_remedy(package):
    with pytest.raises(datasets.DataError, match="some-data has no file some_data/gone.txt; run: pip"):
        datasets.package_file("some-data", "some_data/gone.txt")


def test_an_altered_file_names_the_remedy(package):
    package.write_text("hullo\n")
    with pytest.raises(datasets.DataError, match="corpus.txt is not the file that some-data came with; run: pip"):
        datasets.package_file("some-data", "some_data/corpus.txt")


def test_king_james_is_prose():
    text = datasets.king_james()
    assert text.startswith("In the beginning God created the heaven and the earth. And the earth was without form")
    assert 4.1e6 < len(text) < 4.2e6 and not set(text) & set("[]0123456789")


def test_digits_have_the_documented_shape():
    X, y = datasets.digits()
    assert X.shape == (1797, 64) and y.shape == (1797,) and X.min() == 0 and X.max() == 16


def test_latencies_follow_their_cdf():
    t = datasets.latencies(100_000, seed=3)
    at = np.array([5.0, 10.0, 50.0, 300.0])
    share = (t[:, None] <= at).mean(axis=0)
    np.testing.assert_allclose(share, datasets.latency_cdf(at), atol=4 * 0.5 / np.sqrt(len(t)))


def test_mnist_has_the_documented_shape_and_no_order():
    X, y = datasets.mnist()
    assert X.shape == (5000, 28, 28) and X.dtype == np.float32 and X.min() == 0 and X.max() == 1
    assert np.bincount(y).tolist() == [500] * 10
    assert (np.diff(y) != 0).mean() > 0.85, "the digits are mixed"
    assert X[y == 1].mean() < X[y == 0].mean() / 2, "images and labels belong together: a one has little ink"


@pytest.mark.parametrize(("name", "size"), [("gpt2", 50_256), ("cl100k", 100_256)])
def test_bpe_ranks_are_a_vocabulary(name, size):
    ranks = datasets.bpe_ranks(name)
    assert sorted(ranks.values()) == list(range(size))
    assert all(bytes([b]) in ranks for b in range(256)) and b" the" in ranks
    with pytest.raises(ValueError, match="no ranks called 'gpt5'; there are gpt2, cl100k"):
        datasets.bpe_ranks("gpt5")


def test_docstrings_are_public_and_listed_once():
    docs = datasets.docstrings("numpy")
    assert len(docs) > 900 and list(docs) == sorted(docs)
    assert "numpy.linalg.svd" in docs and docs["numpy.linalg.svd"].startswith("Singular Value Decomposition.")
    assert all(name.startswith("numpy.") and "._" not in name for name in docs)
    assert not any(".tests." in name or ".f2py." in name for name in docs)
    assert "numpy.sort" in docs and "numpy.ma.argsort" in docs and "numpy.add" in docs
    with pytest.raises(datasets.DataError, match="no_such_package is not installed; run: make setup"):
        datasets.docstrings("no_such_package")


def test_glove_rows_belong_to_their_words():
    words, vectors = datasets.glove()
    assert vectors.shape == (400_000, 50) and vectors.dtype == np.float32 and np.isfinite(vectors).all()
    assert len(words) == len(set(words)) == 400_000 and words[:4] == ["the", ",", ".", "of"]
    row = {word: i for i, word in enumerate(words)}
    # the beginning of the line "the" of glove.6B.50d.txt as published
    np.testing.assert_allclose(vectors[row["the"]][:5], [0.418, 0.24968, -0.41242, 0.1217, 0.34527], atol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for one, other in [("paris", "france"), ("queen", "king"), ("cats", "dogs"), ("tuesday", "wednesday")]:
        nearer = (unit[:20_000] @ unit[row[one]] > unit[row[other]] @ unit[row[one]]).sum()
        assert nearer <= 10, f"{other} is among the nearest of {one}"  # rows and words are not shifted


def test_glove_is_sorted_by_frequency():
    words, _ = datasets.glove(50_000)
    row = {word: i for i, word in enumerate(words)}
    text = datasets.king_james().lower().split()
    known = [row[word] for word in text if word in row]
    assert np.median(known) < 200 and row["house"] < row["castle"] < row["turret"]


def test_glove_is_cut_where_asked():
    words, vectors = datasets.glove(3)
    assert words == ["the", ",", "."] and vectors.shape == (3, 50) and vectors.flags.writeable
    for limit in (0, -1, 400_001):
        with pytest.raises(ValueError, match="limit must be between 1 and 400,000"):
            datasets.glove(limit)


def test_smollm2_is_a_gguf_file():
    with datasets.smollm2().open("rb") as file:
        assert file.read(4) == b"GGUF" and file.seek(0, 2) == 98_362_432


@pytest.fixture(scope="module")
def corpus():
    return datasets.documentation(), datasets.see_also()


def plain(text):
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def test_the_documentation_is_whole_and_listed_once(corpus):
    pages, _ = corpus
    assert len(pages) > 7_000 and list(pages) == sorted(pages)
    for package in datasets.DOCUMENTED:
        assert sum(name.startswith(f"{package}.") for name in pages) > 1_000
    for name in ("numpy.linalg.svd", "pandas.DataFrame.groupby", "pandas.Index.str.split", "numpy.ndarray.flatten"):
        assert name in pages, name
    assert pages["numpy.linalg.svd"].startswith("Singular Value Decomposition.")
    assert not any("._" in name or ".tests." in name for name in pages)


def test_no_page_holds_its_see_also(corpus):
    pages, _ = corpus
    heading = re.compile(r"^ *see also *\n *-{3,}|^ *\.\. seealso::", re.I | re.M)
    assert heading.search("\nSee Also\n--------\n") and not [n for n, t in pages.items() if heading.search(t)]
    kept = pages["numpy.linalg.svd"]  # the sections around it stay
    assert "Notes\n-----" in kept and "Parameters\n-----" in kept and "scipy.linalg.svd : " not in kept


def test_queries_do_not_give_their_answers_away(corpus):
    pages, queries = corpus
    assert len(queries) > 500 and [q.text for q in queries] == sorted({q.text for q in queries})
    for query in queries:
        assert query.answers and query.sources and set(query.answers + query.sources) <= pages.keys()
        for answer in query.answers:
            assert answer.split(".")[-1].lower() not in query.text.lower(), query
            assert plain(query.text) not in plain(pages[answer]), query


@pytest.mark.parametrize(
    ("description", "kept"),
    [
        ("Least-squares solution found by Cholesky factors", True),
        ("Return the singular values of an array", False),  # half of the words of the summary
        ("Factors found by svd of the rows", False),  # the name
        ("Equivalent function in the other package", False),  # points back
        ("Two words", False),
        ("a page with this text in its body", False),
    ],
)
def test_what_makes_a_query(description, kept):
    page = "Compute the singular values of an array.\n\nHere is a page with this text in its body."
    assert datasets._is_query(description, "numpy.linalg.svd", page) == kept


def test_see_also_is_read_and_removed():
    text = "One.\n\nSee Also\n--------\nb : First\n    goes on.\nc, d : Of two.\n:func:`~x.e` : Role.\n\nNotes\n-----\nEnd."
    assert list(datasets._see_also_entries(text)) == [("b", "First goes on."), ("x.e", "Role.")]
    assert datasets._without_see_also(text) == "One.\n\nNotes\n-----\nEnd."
    directive = "One.\n\n.. seealso::\n\n    :func:`b` : First.\n\nTwo."
    assert datasets._without_see_also(directive) == "One.\n\nTwo."


def test_halves_are_disjoint_in_their_answers(corpus):
    _, queries = corpus
    develop, report = datasets.halves(queries)
    assert len(develop) + len(report) == len(queries) and 0.8 < len(develop) / len(report) < 1.25
    first = {query.answers[0] for query in develop}
    assert not first & {query.answers[0] for query in report}
    assert datasets.halves(reversed(queries))[0] == develop[::-1]


def test_the_documentation_is_the_same_when_read_again(corpus):
    pins = [f"{p}==" for p in datasets.DOCUMENTED]
    code = "import json, sys; from groundup import datasets; print(json.dumps(datasets._read_documentation(sys.argv[1:])))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    again = subprocess.run([sys.executable, "-c", code, *pins], capture_output=True, text=True, env=env, cwd=ROOT)
    assert again.returncode == 0, again.stderr
    pages, queries = corpus
    made = json.loads(again.stdout)
    assert not [name for name in pages if made["pages"].get(name) != pages[name]]
    assert made["queries"] == [[q.text, list(q.answers), list(q.sources)] for q in queries]
