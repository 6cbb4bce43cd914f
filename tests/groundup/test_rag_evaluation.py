"""groundup.rag_evaluation against scikit-learn, SciPy and cases by hand; the files of questions and answers."""

import hashlib
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score, f1_score

from groundup import datasets, rag_evaluation
from groundup.modern_llm import Llama, LlamaConfig
from groundup.rag import RAG, Source, source_prompt
from groundup.rag_evaluation import (
    EXACT,
    JUDGE,
    LABELS,
    PADDING,
    STAGES,
    Agreement,
    Claim,
    McNemar,
    Rate,
    Support,
    agreement,
    claims,
    cohen_kappa,
    find_all,
    greedy_shortfall,
    is_faithful,
    judge_request,
    mcnemar,
    prompt_hash,
    quotation,
    rate,
    record,
    retrievers,
    stage,
    support,
    system_under_test,
    token_f1,
    write_answers,
    yes_probability,
)
from groundup.search import Index, analyse
from groundup.tokenization import Tokenizer

few = settings(deadline=None, max_examples=60)
pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30)
flags = st.lists(st.booleans(), min_size=1, max_size=40)


# --- rates -------------------------------------------------------------------------------------


@few
@given(flags)
def test_rate_is_wilsons_interval(values):
    found = rate(values)
    theirs = binomtest(sum(values), len(values)).proportion_ci(method="wilson")
    assert isinstance(found, Rate) and found.n == len(values)
    assert found.value == sum(values) / len(values)
    assert np.allclose((found.low, found.high), theirs, atol=1e-12)


def test_rate_is_printed_with_its_interval():
    assert str(rate([1, 1, 0])) == "0.67 [0.21, 0.94] of 3"
    assert str(Rate(0.5, 0.25, 0.75, 8)) == "0.50 [0.25, 0.75] of 8"


@pytest.mark.parametrize("values", [[], [0.5], [2], [[1, 0]], [math.nan]])
def test_rate_refuses(values):
    with pytest.raises(ValueError, match="at least one flag"):
        rate(values)


# --- agreement ---------------------------------------------------------------------------------


@few
@given(pairs)
def test_kappa_is_scikit_learns(labels):
    a, b = map(list, zip(*labels))
    if len({*a, *b}) == 1:
        assert math.isnan(cohen_kappa(a, b))
    else:
        assert np.isclose(cohen_kappa(a, b), cohen_kappa_score(a, b), atol=1e-12)
        assert np.isclose(cohen_kappa(a, b), cohen_kappa(b, a), atol=1e-12)


def test_kappa_takes_any_labels_and_is_zero_for_a_constant_reader():
    assert cohen_kappa(["yes", "no", "partly"], ["yes", "no", "partly"]) == 1
    assert cohen_kappa(["yes"] * 4, ["yes", "yes", "no", "no"]) == 0
    assert cohen_kappa([True, False], [False, True]) == -1


@few
@given(pairs)
def test_agreement_lies_in_its_interval_or_beside_it_by_bootstrap_noise(labels):
    a, b = map(list, zip(*labels))
    found = agreement(a, b, resamples=200, rng=1)
    assert isinstance(found, Agreement)
    assert found.observed == np.mean(np.array(a) == b)
    assert found == agreement(a, b, resamples=200, rng=1) or math.isnan(found.kappa) or math.isnan(found.low)
    if not math.isnan(found.low):
        assert -1 <= found.low <= found.high <= 1


def test_the_interval_of_agreement_equals_resampling_the_cases():
    rng = np.random.default_rng(3)
    a = rng.integers(0, 2, 200)
    b = np.where(rng.random(200) < 0.8, a, 1 - a)
    rows = rng.integers(0, 200, (300, 200))
    by_hand = np.quantile([cohen_kappa_score(a[r], b[r]) for r in rows], [0.025, 0.975])
    found = agreement(a, b, rng=0)
    assert np.allclose((found.low, found.high), by_hand, atol=0.04)


def test_agreement_of_equal_labels_is_complete():
    assert agreement([0, 1] * 20, [0, 1] * 20) == Agreement(1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1, 2])])
def test_agreement_needs_a_label_from_each(a, b):
    for function in (cohen_kappa, agreement):
        with pytest.raises(ValueError, match="one label from each"):
            function(a, b)


# --- faithfulness ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("", []),
        ("[1]", []),
        ("Use numpy.sort [1].", [("Use numpy.sort.", (1,))]),
        (
            "Use numpy.sort. [1] It is 2.5 times faster. [2]",
            [("Use numpy.sort.", (1,)), ("It is 2.5 times faster.", (2,))],
        ),
        ("One [1][2]. Two", [("One.", (1, 2)), ("Two", ())]),
        ("One. [1] [3]", [("One.", (1, 3))]),
        ("a[0] is x[i] [12].", [("a[0] is x[i].", (12,))]),
    ],
)
def test_claims(answer, found):
    assert claims(answer) == [Claim(*each) for each in found]


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("the default is 100 or 0.5", ["100", "0.5"]),
        ("call numpy.sort or read_csv, not DataFrame", ["numpy.sort", "read_csv", "DataFrame"]),
        ("Use the nearest word", []),
        ("with_mean=False in float32", ["with_mean", "float32"]),
    ],
)
def test_exact_words(text, exact):
    assert [word for word in re.findall(r"[\w.]*\w", text) if re.search(EXACT, word)] == exact


@pytest.mark.parametrize(
    ("claim", "source", "expected"),
    [
        ("It sorts arrays", "sorting of an array", Support(1.0, ())),
        ("default 100 trees", "default 10 trees", Support(2 / 3, ("100",))),
        ("use numpy.sort", "numpy.sort: use it", Support(1.0, ())),
        ("use sort_values", "pandas.DataFrame.sort_values use", Support(1.0, ())),
        ("the of", "anything", Support(0.0, ())),
        ("10 and 10", "nothing", Support(0.0, ("10",))),
    ],
)
def test_support(claim, source, expected):
    found = support(claim, source)
    assert np.isclose(found.share, expected.share) and found.missing == expected.missing


def test_support_of_a_text_by_itself_is_complete():
    for page in list(datasets.documentation().values())[::500]:
        found = support(page[:200].rsplit(" ", 1)[0], page)
        assert found.share > 0.95 and not found.missing


def test_the_rule_wants_every_sentence_supported_by_what_it_cites():
    sources = {1: "numpy.sort returns a sorted copy of an array", 2: "the default kind is quicksort"}
    assert is_faithful("numpy.sort returns a sorted copy. [1] The default is quicksort. [2]", sources)
    assert not is_faithful("numpy.sort returns a sorted copy. [2]", sources)
    assert not is_faithful("numpy.sort returns a sorted copy. [1] Elephants are grey. [1]", sources)
    assert not is_faithful("numpy.sort returns a sorted copy.", sources)
    assert not is_faithful("numpy.sort returns a sorted copy. [3]", sources)
    assert not is_faithful("numpy.sort returns 2 sorted copies. [1]", sources)
    assert not is_faithful("", sources)
    assert is_faithful("Elephants are sorted. [1]", sources, share=0.5)


# --- answers -----------------------------------------------------------------------------------


@few
@given(st.text("abc ", max_size=12), st.text("abc ", max_size=12))
def test_token_f1_is_scikit_learns(answer, reference):
    said, wanted = set(analyse(answer)), set(analyse(reference))
    words = sorted(said | wanted)
    if words:
        truth, found = [[w in s for w in words] for s in (wanted, said)]
        assert np.isclose(token_f1(answer, reference), f1_score(truth, found, zero_division=0))
    else:
        assert token_f1(answer, reference) == 0


def test_token_f1_leaves_citations_out():
    assert token_f1("Sort it. [1]", "sort") == token_f1("Sort it.", "sort") == 1


def test_stage_names_the_first_failure():
    known = dict(retrieved=True, shown=True)
    assert stage(True, False, **known, correct=True, faithful=True) == "right"
    assert stage(True, False, correct=True, faithful=True) == "right"  # another page answered it
    assert stage(True, False, **known, correct=True) == "unsupported"
    assert stage(True, False, faithful=True) == "not retrieved"
    assert stage(True, True) == "not retrieved"
    assert stage(True, True, retrieved=True) == "not in the prompt"
    assert stage(True, True, **known, correct=True, faithful=True) == "false refusal"
    assert stage(True, False, **known, faithful=True) == "wrong answer"
    assert stage(False, True) == "right refusal"
    assert stage(False, False, faithful=True) == "false answer"
    with pytest.raises(ValueError, match="cannot be shown"):
        stage(True, False, shown=True)


@few
@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_stage_is_always_one_of_the_stages(values):
    answerable, refused, retrieved, shown, correct, faithful = values
    found = stage(answerable, refused, retrieved=retrieved or shown, shown=shown, correct=correct, faithful=faithful)
    assert found in STAGES and (found in STAGES[-2:]) == (not answerable)


# --- two systems -------------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar_is_the_binomial_test(cases):
    a, b = zip(*cases)
    found = mcnemar(a, b)
    assert isinstance(found, McNemar)
    assert (found.only_a, found.only_b) == (sum(x > y for x, y in cases), sum(y > x for x, y in cases))
    n = found.only_a + found.only_b
    assert np.isclose(found.p, binomtest(found.only_a, n).pvalue if n else 1.0)


def test_mcnemar_needs_the_same_cases():
    for a, b in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="the same cases"):
            mcnemar(a, b)
    assert mcnemar([1, 1], [1, 1]) == McNemar(0, 0, 1.0)


# --- answers on file, with a small model of random weights -------------------------------------

PAGES = {
    "lib.sort": "Sort the values of an array.\n\nThe kind of sort is quick by default.",
    "lib.argsort": "Indices that would sort an array.",
    "lib.mean": "The mean of the values along an axis.",
    "lib.median": "The middle value along an axis.",
}
QUERIES = [
    datasets.Query("order the values of an array", ("lib.sort",), ("lib.argsort",)),
    datasets.Query("what would order an array", ("lib.argsort",), ("lib.sort",)),
    datasets.Query("average along an axis", ("lib.mean",), ("lib.median",)),
    datasets.Query("value in the middle of an axis", ("lib.median",), ("lib.mean",)),
]


@pytest.fixture
def tokenizer():
    ranks = {bytes([b]): b for b in range(256)}
    return Tokenizer(ranks, r"\w+|\W", {"<|im_start|>": 256, "<|im_end|>": 257})


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(258, 2048, 16, 1, 2, 1, 32, std=0.3)
    return Llama(config).requires_grad_(False).eval()


@pytest.fixture
def index():
    index = Index()
    for name, text in PAGES.items():
        index.add(name, text)
    index.flush()
    return index


@pytest.fixture
def rag(index, model, tokenizer):
    return RAG(index, PAGES, model, tokenizer, count=2, words=8, tokens=24)


@pytest.fixture
def small(monkeypatch, model, tokenizer):
    """The module on four pages, with vectors of hashed words."""

    def vector(text):
        rows = [int(hashlib.sha256(term.encode()).hexdigest(), 16) % 64 for term in analyse(text)]
        counts = np.bincount(rows, minlength=64) + 1e-3
        return (counts / np.linalg.norm(counts)).astype(np.float32)

    def embed(texts, *_, **__):
        return np.stack([vector(text) for text in texts])

    monkeypatch.setattr(datasets, "documentation", lambda: PAGES)
    monkeypatch.setattr(datasets, "see_also", lambda: QUERIES)
    monkeypatch.setattr(datasets, "halves", lambda queries: (queries[:2], queries[2:]))
    monkeypatch.setattr(rag_evaluation, "corpus_vectors", lambda: (list(PAGES), embed(PAGES.values())))
    monkeypatch.setattr(rag_evaluation, "load_minilm", lambda: ())
    monkeypatch.setattr(rag_evaluation, "embed", embed)
    monkeypatch.setattr(rag_evaluation, "load_smollm2", lambda: (model, tokenizer))


def test_retrievers_share_an_interface(small):
    engines = retrievers()
    assert list(engines) == ["BM25", "vectors", "hybrid", "reranked"]
    for engine in engines.values():
        hits = engine.search("sort the values of an array", 3)
        assert hits[0][0] == "lib.sort" and len(hits) <= 3
        assert [score for _, score in hits] == sorted((score for _, score in hits), reverse=True)


def test_find_all_is_what_each_retriever_finds_and_a_threshold(small):
    texts = ["sort an array", "mean"]
    kept = find_all(texts, "any version")
    assert json.loads(json.dumps(kept)) == kept
    assert find_all(texts, "another version") == kept
    for name, engine in retrievers().items():
        assert kept["found"][name] == [[list(hit) for hit in engine.search(t, 10)] for t in texts]
    assert kept["threshold"] == -math.inf or 0 <= kept["threshold"] <= 1


def test_system_under_test_takes_any_retriever(small, index):
    rag = system_under_test(index)
    assert rag.retriever is index and (rag.count, rag.words, rag.tokens) == (3, 40, 40)
    assert not rag.answer("sort an array").refused
    assert type(system_under_test().retriever).__name__ == "Reranker"


def test_a_record_holds_what_the_system_says(rag):
    question = "sort the values"
    model_row, quoted = record(rag, question)
    answer = rag.answer(question)
    assert (model_row["system"], quoted["system"]) == ("model", "quotation")
    assert model_row["text"] == answer.text == rag.tokenizer.decode(model_row["tokens"])
    assert model_row["sources"] == [[s.name, s.text] for s in answer.sources] == quoted["sources"]
    assert (model_row["retrieval"], model_row["likelihood"]) == (answer.retrieval, answer.likelihood)
    assert quoted["text"] == quotation(answer.sources) and quoted["tokens"] == []
    prompt = source_prompt(rag.tokenizer, question, answer.sources)
    assert model_row["prompt"] == prompt_hash(prompt)
    request = judge_request(question, answer.sources, answer.text)
    assert math.isclose(model_row["judge"], yes_probability(rag.model, rag.tokenizer, request), abs_tol=1e-5)


def test_record_notices_a_system_that_changes_its_mind(rag):
    answer = rag.answer
    rag.answer = lambda question: replace(answer(question), text="Something else. [1]")
    with pytest.raises(ValueError, match="two answers"):
        record(rag, "sort")


def test_write_answers_keeps_the_labels_of_what_stays(small, monkeypatch, tmp_path):
    questions = [datasets.Question(q.text, "which", q.answers, "a reference", (), "") for q in QUERIES[:2]]
    monkeypatch.setattr(datasets, "rag_questions", lambda: questions)
    path = tmp_path / "rag-answers.json"
    first = write_answers(tmp_path)
    assert first == hashlib.sha256(path.read_bytes()).hexdigest()
    rows = json.loads(path.read_text())
    assert [(r["system"], r["question"]) for r in rows] == [
        (system, q.text) for q in questions for system in ("model", "quotation")
    ]
    assert not any(reading in row for row in rows for reading in LABELS)
    for row in rows:
        row["first"] = {"correct": "no", "faithful": 1}
    rows[0]["text"] += " changed"
    path.write_text(json.dumps(rows))
    assert write_answers(tmp_path) != first
    again = json.loads(path.read_text())
    assert "first" not in again[0] and all(row["first"]["faithful"] == 1 for row in again[1:])


def test_a_quotation_is_the_first_source_with_its_number():
    assert quotation([Source(1, "lib.sort", "It sorts."), Source(2, "lib.mean", "")]) == "lib.sort: It sorts. [1]"
    sources = {1: "lib.sort: It sorts."}
    assert is_faithful(quotation([Source(1, "lib.sort", "It sorts.")]), sources)
    assert claims(quotation([Source(1, "a", "")])) == [Claim("a: .", (1,))]


def test_greedy_shortfall_is_zero_for_what_greedy_decoding_writes(rag):
    row, _ = record(rag, "mean")
    sources = rag.answer("mean").sources
    prompt, rule = source_prompt(rag.tokenizer, "mean", sources), rag.constraint(len(sources))
    tokens = row["tokens"]
    assert greedy_shortfall(rag.model, prompt, tokens, rule) < 1e-4
    logits = rag.model(torch.tensor([[*prompt, *tokens]]))[0]
    allowed = rule.allowed(rule.start())
    second = logits[len(prompt) - 1].masked_fill(~allowed, -math.inf).topk(2)
    behind = greedy_shortfall(rag.model, prompt, [int(second.indices[1])], rule)
    assert math.isclose(behind, float(second.values[0] - second.values[1]), abs_tol=1e-3)
    assert greedy_shortfall(rag.model, [prompt[0]], tokens, rule) >= 0
    with pytest.raises(ValueError, match="not allowed"):
        greedy_shortfall(rag.model, prompt, [ord("[")], rule)
    for some, more in (([], tokens), (prompt, [])):
        with pytest.raises(ValueError, match="at least one token"):
            greedy_shortfall(rag.model, some, more, rule)


def test_prompt_hash_tells_prompts_apart():
    assert prompt_hash([1, 23]) != prompt_hash([12, 3])
    assert prompt_hash([1, 2]) == hashlib.sha256(b"1 2").hexdigest()


def test_yes_probability_weighs_two_tokens_only(model, tokenizer):
    found = yes_probability(model, tokenizer, "Is it so?")
    prompt = rag_evaluation.chat_ids(tokenizer, [{"role": "user", "content": "Is it so?"}])
    share = model(torch.tensor([prompt]))[0, -1].double().softmax(-1)
    assert math.isclose(found, float(share[ord("Y")] / (share[ord("Y")] + share[ord("N")])), rel_tol=1e-4)


def test_judge_request_shows_sources_question_and_answer():
    text = judge_request("What?", [Source(1, "lib.sort", "It sorts.")], "That." + PADDING)
    assert text.startswith("[1] lib.sort: It sorts.") and text.endswith(JUDGE)
    assert "Question: What?\nAnswer: That. This is" in text


# --- the questions -----------------------------------------------------------------------------


def test_the_questions_are_complete_and_asked_once():
    questions, pages = datasets.rag_questions(), datasets.documentation()
    assert len({q.text for q in questions}) == len(questions) == 40
    assert sum(bool(q.answers) for q in questions) == 26
    for q in questions:
        assert q.kind in ("which", "detail", "elsewhere", "nothing") and q.reference and "\n" not in q.text
        assert bool(q.answers) == (q.kind in ("which", "detail")) == (not q.absent)
        assert set(q.answers) <= pages.keys() and list(q.answers) == sorted(q.answers)
        assert bool(q.keys) == (q.kind == "detail")


def test_what_answers_is_on_the_pages_and_what_does_not_is_not():
    pages = datasets.documentation()
    everything = "\n".join(pages.values()).lower()
    for q in datasets.rag_questions():
        for name in q.answers:
            text = " ".join(pages[name].split())
            assert not q.keys or any(re.search(key, text) for key in q.keys), (q.text, name)
        assert not q.absent or not re.search(q.absent.lower(), everything), q.text


def test_a_written_file_that_is_altered_or_missing_names_the_remedy(monkeypatch):
    monkeypatch.setitem(datasets.WRITTEN, "rag-questions", "0" * 64)
    with pytest.raises(datasets.DataError, match="git checkout"):
        datasets.rag_questions()
    monkeypatch.setitem(datasets.WRITTEN, "no-such-file", "0" * 64)
    with pytest.raises(datasets.DataError, match="is missing"):
        datasets.written("no-such-file")
    with pytest.raises(datasets.DataError, match="no file is called"):
        datasets.written("nothing")


def test_every_answer_is_there_once_and_labelled_twice():
    rows, questions = datasets.rag_answers(), datasets.rag_questions()
    assert [(r["system"], r["question"]) for r in rows] == [
        (system, q.text) for q in questions for system in ("model", "quotation")
    ]
    pages = datasets.documentation()
    for row in rows:
        for reading in LABELS:
            assert set(row[reading]) == {"correct", "faithful"}
            assert row[reading]["correct"] in ("yes", "partly", "no") and row[reading]["faithful"] in (0, 1)
        assert row["text"] and claims(row["text"])[-1].cited
        assert all(name in pages for name, _ in row["sources"]) and len(row["sources"]) == 3
        assert bool(row["tokens"]) == (row["system"] == "model") and len(row["prompt"]) == 64
        assert 0 <= row["judge"] <= 1 and 0 <= row["judge padded"] <= 1 and row["likelihood"] <= 0
    for q in questions:
        for row in rows:
            if row["question"] == q.text and not q.answers:
                assert row["first"]["correct"] == row["second"]["correct"] == "no"
