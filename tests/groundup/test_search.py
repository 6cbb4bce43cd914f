"""groundup.search against bm25s, snowballstemmer, scikit-learn's nDCG and brute force over lists of terms."""

import math
import re
from dataclasses import FrozenInstanceError

import bm25s
import numpy as np
import pytest
import snowballstemmer
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from groundup import datasets
from groundup.search import (
    BM25,
    STOP_WORDS,
    Index,
    Levels,
    Segment,
    Writer,
    analyse,
    build_segment,
    evaluate,
    hit_at_k,
    merge_segments,
    ndcg_at_k,
    porter,
    reciprocal_rank,
)

few = settings(deadline=None, max_examples=80)
words = st.lists(st.sampled_from("abcdef"), max_size=12)
corpora = st.lists(words, min_size=1, max_size=8)
queries = st.lists(st.sampled_from("abcdefz"), max_size=5)
scorings = st.builds(BM25, st.floats(0, 5), st.floats(0, 1))


def make(corpus, **options):
    index = Index(str.split, **{"title": 0, **options})
    for i, terms in enumerate(corpus):
        index.add(f"p{i}", " ".join(terms))
    index.flush()
    return index


def brute_force(corpus, query, scoring):
    """{name: score} of {name: terms}, by the formula."""
    scores, n = {}, len(corpus)
    average = sum(map(len, corpus.values())) / max(n, 1)
    for name, terms in corpus.items():
        score = 0.0
        for term in query:
            df, f = sum(term in page for page in corpus.values()), terms.count(term)
            if f:
                norm = scoring.k1 * (1 - scoring.b + scoring.b * len(terms) / average)
                score += math.log(1 + (n - df + 0.5) / (df + 0.5)) * f / (f + norm)
        if set(query) & set(terms):
            scores[name] = score
    return scores


# --- analysis ----------------------------------------------------------------------------------


@few
@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=14))
def test_porter_agrees_with_snowball_on_any_letters(word):
    assert porter(word) == snowballstemmer.stemmer("porter").stemWord(word)


ENDINGS = "sses ies eed ed ing at bl iz y ational tional izer fulness icate ative ement ion ll e tt".split()


@few
@given(st.text("abeilorstyz", min_size=1, max_size=6), st.lists(st.sampled_from(ENDINGS), max_size=3))
def test_porter_agrees_on_suffixes(start, endings):
    word = start + "".join(endings)
    if len(word) > 2:
        assert porter(word) == snowballstemmer.stemmer("porter").stemWord(word)


@pytest.mark.parametrize("word", ["Cat", "read_csv", "naïve", "", "a1"])
def test_porter_refuses(word):
    with pytest.raises(ValueError, match="lower-case letters"):
        porter(word)


@pytest.mark.parametrize("word", ["is", "as", "s", "by"])
def test_short_words_stay(word):
    assert porter(word) == word


plain = {"stop": False, "stem": False}


@pytest.mark.parametrize(
    ("text", "options", "terms"),
    [
        ("", {}, []),
        ("... !", {}, []),
        ("read_csv", plain, ["read_csv", "read", "csv"]),
        ("np.read_csv.", plain, ["np.read_csv", "np", "read_csv", "read", "csv"]),
        ("DataFrame HTTPServer", plain, ["dataframe", "data", "frame", "httpserver", "http", "server"]),
        ("DataFrame", plain | {"whole": False}, ["data", "frame"]),
        ("plain words", plain | {"whole": False}, ["plain", "words"]),
        ("a.b", plain | {"split": False}, ["a.b"]),
        ("DataFrame", plain | {"lower": False, "split": False}, ["DataFrame"]),
        ("1.5 float64 2d", plain, ["1.5", "float64", "2d"]),
        ("__init__ _", plain, ["__init__", "init", "_"]),
        ("The cats", {"stem": False}, ["cats"]),
        ("The cats", {"stop": False}, ["the", "cat"]),
        ("naïve Übergröße", plain, ["naïve", "übergröße"]),
    ],
)
def test_analyse(text, options, terms):
    assert analyse(text, **options) == terms


@few
@given(st.text(max_size=60))
def test_analyse_takes_any_text(text):
    assert all(term and term.lower() not in STOP_WORDS for term in analyse(text, stem=False))
    assert len(analyse(text, stop=False, split=False)) == len(re.findall(r"\w+(?:\.\w+)*", text))


# --- segments ----------------------------------------------------------------------------------


def same(a, b):
    assert a.names == b.names and list(a.terms.items()) == list(b.terms.items())
    for name in ("lengths", "starts", "docs", "offsets", "positions"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@few
@given(corpora)
def test_a_segment_holds_every_position(corpus):
    segment = build_segment((f"p{i}", terms) for i, terms in enumerate(corpus))
    assert list(segment.terms) == sorted({t for terms in corpus for t in terms})
    assert segment.lengths.tolist() == [len(terms) for terms in corpus]
    for term in segment.terms:
        docs, counts = segment.postings(term)
        assert dict(zip(docs.tolist(), counts.tolist())) == {
            i: terms.count(term) for i, terms in enumerate(corpus) if term in terms
        }
        found = list(zip(*(array.tolist() for array in segment.occurrences(term))))
        assert found == [(i, p) for i, terms in enumerate(corpus) for p, t in enumerate(terms) if t == term]
    for term in ("z", None):
        assert all(len(array) == 0 for array in (*segment.postings(term), *segment.occurrences(term)))


@few
@given(corpora, st.data())
def test_any_split_merges_to_the_same_segment(corpus, data):
    pages = [(f"p{i}", terms) for i, terms in enumerate(corpus)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pages)), max_size=4)))
    parts = [build_segment(pages[a:b]) for a, b in zip([0, *cuts], [*cuts, len(pages)])]
    same(merge_segments(parts), build_segment(pages))
    alive = [np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
             for n in (len(p.names) for p in parts)]  # fmt: skip
    stays = [stay for a in alive for stay in a]
    same(merge_segments(parts, alive), build_segment([p for p, stay in zip(pages, stays) if stay]))


def test_merging_nothing_and_empty_pages():
    assert merge_segments([]).names == () and build_segment([]).terms == {}
    same(merge_segments([build_segment([("a", [])])]), build_segment([("a", [])]))


def test_merge_refuses():
    one = build_segment([("a", ["x"])])
    with pytest.raises(ValueError, match="two segments"):
        merge_segments([one, one])
    with pytest.raises(ValueError, match="one boolean array per segment"):
        merge_segments([one], [np.array([True, False])])


def test_a_segment_cannot_be_changed_and_merging_leaves_its_sources_alone():
    one, two = build_segment([("a", ["x", "y"])]), build_segment([("b", ["y"])])
    merged = merge_segments([one, two], [np.array([False]), np.array([True])])
    assert isinstance(merged, Segment) and merged.names == ("b",)
    same(one, build_segment([("a", ["x", "y"])]))
    with pytest.raises(FrozenInstanceError):
        one.names = ()
    fields = (one.names, one.lengths, one.terms, one.starts, one.docs, one.offsets, one.positions)
    same(Segment(*fields), one)


def test_gaps_take_a_place_and_do_not_count():
    segment = build_segment([("a", ["x", None, "y", None])])
    assert list(segment.terms) == ["x", "y"] and segment.lengths.tolist() == [2]
    assert segment.positions.tolist() == [0, 2]


# --- levels and the writer ---------------------------------------------------------------------


@few
@given(corpora, st.integers(2, 4), st.data())
def test_levels_keep_every_live_page_once(corpus, fanout, data):
    levels, pages = Levels(fanout), {f"p{i}": terms for i, terms in enumerate(corpus)}
    for name, terms in pages.items():
        levels.put(build_segment([(name, terms)]))
    for depth, level in enumerate(levels.levels):  # the digits of the count to the base fanout
        assert len(level) == len(pages) // fanout**depth % fanout
        assert all(len(segment.names) == fanout**depth for segment, _ in level)
    assert len(levels) == len(pages) and levels.written >= sum(map(len, corpus))
    gone = data.draw(st.sets(st.sampled_from(sorted(pages))))
    for name in gone:
        levels.hide(name)
    order = [n for s, alive in levels.parts for n, stays in zip(s.names, alive) if stays]
    assert sorted(order) == sorted(pages.keys() - gone) and len(levels) == len(order)
    levels.merge()
    ((merged, alive),) = levels.parts
    same(merged, build_segment((name, pages[name]) for name in order))
    assert alive.all()


def test_levels_refuse():
    with pytest.raises(ValueError, match="need fanout"):
        Levels(1)
    levels = Levels()
    levels.merge()
    assert levels.parts == [] and len(levels) == 0
    levels.put(build_segment([("a", ["x"])]))
    levels.hide("a")
    with pytest.raises(ValueError, match="not in the index"):
        levels.hide("a")


def test_a_writer_flushes_a_full_buffer_and_can_replace_a_page():
    writer = Writer(str.split, title=0, buffer=3)
    for name in "abc":
        assert len(writer) == 0
        writer.add(name, "x y")
    assert len(writer) == 3 and writer.waiting == {} and writer.written == 6
    writer.delete("b")
    writer.add("b", "z")
    assert list(writer.waiting) == ["b"] and len(writer) == 2
    writer.compact()
    ((segment, _),) = writer.parts
    assert sorted(segment.names) == ["a", "b", "c"] and segment.postings("z")[0].size == 1
    assert issubclass(Index, Writer) and issubclass(Writer, Levels)


# --- BM25 and the index ------------------------------------------------------------------------


@few
@given(corpora, queries, scorings, st.integers(1, 4), st.integers(2, 3))
def test_scores_equal_the_formula(corpus, query, scoring, buffer, fanout):
    index = make(corpus, scoring=scoring, buffer=buffer, fanout=fanout)
    expected = brute_force({f"p{i}": terms for i, terms in enumerate(corpus)}, query, scoring)
    found = dict(index.search(" ".join(query), k=100))
    assert found.keys() == expected.keys()
    for name, score in found.items():
        assert score == pytest.approx(expected[name], rel=1e-9, abs=1e-12)


@few
@given(corpora.filter(any), queries, scorings)
def test_scores_equal_bm25s(corpus, query, scoring):
    reference = bm25s.BM25(method="lucene", k1=scoring.k1, b=scoring.b, dtype="float64")
    reference.index(corpus, show_progress=False)
    expected = reference.get_scores(query) if set(query) & {t for c in corpus for t in c} else []
    found = dict(make(corpus, scoring=scoring).search(" ".join(query), k=100))
    for i, score in enumerate(expected):
        assert found.get(f"p{i}", 0.0) == pytest.approx(score, abs=1e-6)


@few
@given(corpora, queries, st.integers(1, 9), st.integers(1, 3), st.integers(2, 3))
def test_segments_do_not_change_results(corpus, query, k, buffer, fanout):
    text, one = " ".join(query), make(corpus, buffer=100)
    many = make(corpus, buffer=buffer, fanout=fanout)
    everything = one.search(text, 100)
    assert everything == sorted(everything, key=lambda hit: (-hit[1], hit[0]))
    assert many.search(text, k) == one.search(text, k) == everything[:k]
    many.compact()
    assert len(many.parts) == 1 and many.search(text, k) == everything[:k]


@few
@given(corpora, queries, st.data(), st.integers(1, 3))
def test_deletes_are_as_if_never_added(corpus, query, data, buffer):
    pages = {f"p{i}": terms for i, terms in enumerate(corpus)}
    gone = data.draw(st.sets(st.sampled_from(sorted(pages))))
    index, text = make(corpus, buffer=buffer), " ".join(query)
    for name in gone:
        index.delete(name)
    rest = Index(str.split, title=0)
    for name in pages.keys() - gone:
        rest.add(name, " ".join(pages[name]))
    rest.flush()
    for _ in range(2):
        assert len(index) == len(rest)
        assert index.search(text, 20) == rest.search(text, 20)
        assert index.phrase(text) == rest.phrase(text)
        assert all(index.frequency(t) == rest.frequency(t) for t in "abcz")
        index.compact()
    for name in gone:  # and they can come back
        index.add(name, " ".join(pages[name]))
    index.flush()
    assert index.search(text, 20) == make(corpus).search(text, 20)


@few
@given(corpora, st.lists(st.sampled_from("abcz"), max_size=4), st.integers(1, 3))
def test_phrases_equal_a_scan(corpus, phrase, buffer):
    n = len(phrase)
    expected = [
        f"p{i}"
        for i, terms in enumerate(corpus)
        if n and any(terms[j : j + n] == phrase for j in range(len(terms) - n + 1))
    ]
    assert make(corpus, buffer=buffer).phrase(" ".join(phrase)) == sorted(expected)


def test_the_name_counts_as_text_but_phrases_do_not_cross_it():
    index, spelled = Index(str.split, title=2), Index(str.split, title=0)
    for i, text in enumerate(("a b", "c")):
        index.add(f"x{i} y{i}", text)
        spelled.add(f"x{i} y{i}", f"x{i} y{i} x{i} y{i} {text}")
    index.flush(), spelled.flush()
    for query in ("x1", "y0 a", "c"):
        assert index.search(query) == spelled.search(query)
    assert index.phrase("x0 y0") == ["x0 y0"]
    assert index.phrase("y0 x0") == index.phrase("y0 a") == []


def test_edges():
    index = Index()
    assert index.search("anything") == [] and index.phrase("anything") == [] and len(index) == 0
    index.compact()
    index.add("a", "some words")
    assert index.search("words") == []  # not flushed
    index.flush()
    index.flush()
    assert [name for name, _ in index.search("words", k=1000)] == ["a"]
    assert index.search("") == index.search("the of") == index.search("unknown") == []
    assert index.phrase("") == []
    assert index.search("words words")[0][1] == pytest.approx(2 * index.search("words")[0][1])
    index.delete("a")
    assert index.search("words") == [] and len(index) == 0
    index.compact()
    assert index.search("words") == []


def test_waiting_pages_can_be_deleted():
    index = Index()
    index.add("a", "")
    index.delete("a")
    index.flush()
    assert len(index) == 0 and index.parts == []


def test_equal_scores_are_ordered_by_name():
    index = Index(str.split, title=0, buffer=2)
    for name in "dbeac":
        index.add(name, "x")
    index.flush()
    assert [name for name, _ in index.search("x", 3)] == ["a", "b", "c"]


def test_the_index_refuses():
    index = Index()
    index.add("a", "x")
    with pytest.raises(ValueError, match="delete it first"):
        index.add("a", "y")
    index.flush()
    with pytest.raises(ValueError, match="delete it first"):
        index.add("a", "y")
    with pytest.raises(ValueError, match="not in the index"):
        index.delete("b")
    for k in (0, -1):
        with pytest.raises(ValueError, match="k must be"):
            index.search("x", k)
    for options, match in (({"title": -1}, "title"), ({"buffer": 0}, "buffer"), ({"fanout": 1}, "fanout")):
        with pytest.raises(ValueError, match=f"need .*{match} ≥"):
            Index(**options)


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.5), (1, -0.1), (1, 1.1), (math.nan, 0.5), (math.inf, 0.5)])
def test_bm25_refuses(k1, b):
    with pytest.raises(ValueError, match="need k1"):
        BM25(k1, b)


def test_merges_keep_the_number_of_segments_low():
    index = Index(str.split, title=0, buffer=2, fanout=2)
    for i in range(64):
        index.add(str(i), "x")
    assert len(index.parts) == 1 and index.written == 64 * 6  # one flush, five merges


# --- metrics -----------------------------------------------------------------------------------


@few
@given(st.permutations("abcdefgh"), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 10))
def test_metrics_equal_the_references(ranking, answers, k):
    relevant = [[float(name in answers) for name in ranking]]
    expected = ndcg_score(relevant, [list(range(len(ranking), 0, -1))], k=k)
    assert ndcg_at_k(ranking, answers, k) == pytest.approx(expected)
    first = min(ranking.index(a) for a in answers) + 1
    assert reciprocal_rank(ranking, answers) == 1 / first
    assert hit_at_k(ranking, tuple(answers), k) == (first <= k)


def test_metrics_of_nothing_found():
    assert hit_at_k([], {"a"}, 3) == reciprocal_rank([], {"a"}) == ndcg_at_k([], {"a"}, 3) == 0
    assert ndcg_at_k(["a"], {"a", "b"}, 1) == 1


@pytest.mark.parametrize("metric", [hit_at_k, ndcg_at_k, lambda r, a, k: reciprocal_rank(r, a)])
def test_metrics_refuse(metric):
    for ranking, answers, match in (("ab", {"a"}, "ranking"), (["a", "a"], {"a"}, "ranking"),
                                    (["a"], "a", "answers"), (["a"], [], "answers")):  # fmt: skip
        with pytest.raises(ValueError, match=match):
            metric(ranking, answers, 1)
    if metric in (hit_at_k, ndcg_at_k):
        with pytest.raises(ValueError, match="k must be"):
            metric(["a"], {"a"}, 0)


def test_evaluate():
    asked = [datasets.Query("x", ("a",), ()), datasets.Query("y", ("b", "c"), ())]

    def search(text, k):
        return [("c", 2.0), ("a", 1.0)][:k]

    found = evaluate(search, asked, k=10)
    assert list(found) == ["hit@1", "hit@5", "hit@10", "rr@10", "ndcg@10"]
    assert found["rr@10"].tolist() == [0.5, 1.0] and found["hit@1"].tolist() == [0.0, 1.0]
    assert list(evaluate(search, asked, k=1)) == ["hit@1", "rr@1", "ndcg@1"]
    for queries, k in (([], 10), (asked, 0)):
        with pytest.raises(ValueError, match="at least one query"):
            evaluate(search, queries, k)
