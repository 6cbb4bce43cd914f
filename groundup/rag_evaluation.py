# Generated from chapters/retrieval/rag-evaluation.md; edit the chapter.
"""Evaluating RAG. You measure the system of the last chapter on forty questions that were fixed
before it had answered any: what it finds, whether its citations hold, how often it is right,
and how often it answers or refuses where it should not. Every figure has an interval, and the
measures agree with scikit-learn and SciPy.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from groundup import datasets
from groundup.decoding import generate, greedy, last_logits, new_caches
from groundup.embedding_models import VectorSearch, corpus_vectors, embed, load_minilm
from groundup.generalization import wilson_interval
from groundup.rag import (
    RAG,
    Hybrid,
    Reranker,
    Retriever,
    Source,
    Without,
    choose_refusal,
    source_prompt,
)
from groundup.real_model import chat_ids, load_smollm2
from groundup.search import Index, analyse
from groundup.tokenization import Tokenizer

__all__ = [
    "Rate",
    "rate",
    "retrievers",
    "find_all",
    "LABELS",
    "system_under_test",
    "quotation",
    "record",
    "write_answers",
    "JUDGE",
    "PADDING",
    "judge_request",
    "yes_probability",
    "prompt_hash",
    "greedy_shortfall",
    "Agreement",
    "cohen_kappa",
    "agreement",
    "Claim",
    "claims",
    "EXACT",
    "Support",
    "support",
    "is_faithful",
    "token_f1",
    "STAGES",
    "stage",
    "McNemar",
    "mcnemar",
]


class Rate(NamedTuple):
    """The share of `n` cases with the ends of its interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] of {self.n}"


def rate(flags: Sequence[bool], confidence: float = 0.95) -> Rate:
    """How often `flags`, independent of each other, are true, with Wilson's interval.

    Raises ValueError for no flags, and for values other than true and false (1 and 0).
    """
    flags = np.asarray(flags)
    if flags.ndim != 1 or not flags.size or not np.isin(flags, (0, 1)).all():
        raise ValueError("need at least one flag, each true or false")
    right, n = int(flags.sum()), len(flags)
    return Rate(right / n, *wilson_interval(right, n, confidence), n)


def retrievers() -> dict[str, Retriever]:
    """The last chapter's engines on `datasets.documentation()`: BM25, vectors, hybrid, reranked.

    The reranker is trained on the half of `datasets.see_also()` to develop on.
    """
    pages, (names, vectors), minilm = datasets.documentation(), corpus_vectors(), load_minilm()
    bm25, known = Index(buffer=len(pages)), {}
    for name, text in pages.items():
        bm25.add(name, text)
    bm25.flush()

    def encode(texts: list[str]) -> np.ndarray:
        if new := [text for text in texts if text not in known]:
            known.update(zip(new, embed(new, *minilm)))
        return np.stack([known[text] for text in texts])

    by_vector = VectorSearch(names, vectors, encode)
    develop, _ = datasets.halves(datasets.see_also())
    encode([query.text for query in develop])  # in batches, which is faster
    return {
        "BM25": bm25,
        "vectors": by_vector,
        "hybrid": Hybrid(bm25, by_vector),
        "reranked": Reranker(bm25, by_vector).fit(develop),
    }


def find_all(texts: Sequence[str], *versions: str) -> dict:
    """What each of :func:`retrievers` finds for each text, and the threshold to refuse below.

    Returns {"found": {engine: for each text the ten best [name, score]}, "threshold": number}. The
    threshold costs least on the other half of `datasets.see_also()`, asked once as it is and once
    with the pages hidden that hold the answer. `versions` only key what is kept of this.
    """
    engines = retrievers()
    found = {
        name: [[list(hit) for hit in engine.search(text, 10)] for text in texts]
        for name, engine in engines.items()
    }
    reranked, (_, report) = engines["reranked"], datasets.halves(datasets.see_also())
    asked = [reranked.search(q.text, 1)[0][1] for q in report]
    hidden = [Without(reranked, q.answers + q.sources).search(q.text, 1)[0][1] for q in report]
    kind, nothing = [True] * len(asked) + [False] * len(hidden), [0.0] * 2 * len(asked)
    rule = choose_refusal(asked + hidden, nothing, kind)
    return {"found": found, "threshold": float(rule.retrieval)}


LABELS = ("first", "second")  # readings


def system_under_test(retriever: Retriever | None = None) -> RAG:
    """The last chapter's system, which always answers: three sources of 40 words, 40 tokens."""
    retriever = retriever or retrievers()["reranked"]
    model, tokenizer = load_smollm2()
    pages = datasets.documentation()
    return RAG(retriever, pages, model, tokenizer, count=3, words=40, tokens=40)


def quotation(sources: Sequence[Source]) -> str:
    """The baseline without a model: the first source, as it is."""
    return f"{sources[0].name}: {sources[0].text.rstrip('.')}. [{sources[0].number}]"


def record(rag: RAG, question: str) -> list[dict]:
    """Two rows, without labels: what `rag` answers, and the :func:`quotation` of its sources."""
    answer = rag.answer(question)
    prompt = source_prompt(rag.tokenizer, question, answer.sources)
    rule = rag.constraint(len(answer.sources))
    tokens = list(generate(rag.model, prompt, rag.tokens, greedy, constraint=rule))
    if rag.tokenizer.decode(tokens) != answer.text:
        raise ValueError(f"two runs wrote two answers to {question!r}")
    rows = []
    for system, text in (("model", answer.text), ("quotation", quotation(answer.sources))):
        asked = [judge_request(question, answer.sources, t) for t in (text, text + PADDING)]
        judged = [round(yes_probability(rag.model, rag.tokenizer, each), 6) for each in asked]
        rows.append({
            "system": system, "question": question, "text": text,
            "sources": [[s.name, s.text] for s in answer.sources],
            "retrieval": answer.retrieval, "likelihood": answer.likelihood,
            "prompt": prompt_hash(prompt), "tokens": tokens if system == "model" else [],
            "judge": judged[0], "judge padded": judged[1],
        })  # fmt: skip
    return rows


def write_answers(folder: Path | None = None) -> str:
    """Answer all questions again, keep the labels of texts that stay as they are, save the file.

    Returns its hash, which belongs into `datasets.WRITTEN`. Rows that need labels have none; takes
    about six minutes. folder : where rag-answers.json lies, groundup/data by default
    """
    path = Path(folder or Path(datasets.__file__).parent / "data") / "rag-answers.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    labels = {(r["system"], r["question"], r["text"], json.dumps(r["sources"])):
              {k: r[k] for k in LABELS if k in r} for r in old}  # fmt: skip
    rag, rows = system_under_test(), []
    for question in datasets.rag_questions():
        for row in record(rag, question.text):
            key = row["system"], row["question"], row["text"], json.dumps(row["sources"])
            rows.append(row | labels.get(key, {}))
    text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


JUDGE = "Is the answer right, according to the sources? Reply with Yes or No."
PADDING = " This is the recommended way, it is widely used, and it works well in practice."


def judge_request(question: str, sources: Sequence[Source], answer: str) -> str:
    """What a model is asked that is to judge an answer."""
    lines = [f"[{source.number}] {source.name}: {source.text}" for source in sources]
    return "\n".join([*lines, "", f"Question: {question}", f"Answer: {answer}", "", JUDGE])


def yes_probability(model: nn.Module, tokenizer: Tokenizer, request: str) -> float:
    """P(Yes) / (P(Yes) + P(No)) for the first token of the model's reply: 0 to 1."""
    prompt = chat_ids(tokenizer, [{"role": "user", "content": request}])
    yes, no = (tokenizer.encode_ordinary(word)[0] for word in ("Yes", "No"))
    with torch.no_grad():
        logits = last_logits(model, torch.tensor([prompt]))[0].double()
    return float(torch.sigmoid(logits[yes] - logits[no]))


def prompt_hash(prompt: Sequence[int]) -> str:
    """SHA-256 of the ids, written in decimal with spaces between them."""
    return hashlib.sha256(" ".join(map(str, prompt)).encode()).hexdigest()


def greedy_shortfall(model: nn.Module, prompt: Sequence[int], tokens: Sequence[int], rule) -> float:
    """By how many nats a token of `tokens` is behind the best that `rule` allows there, at most.

    0 if greedy decoding writes these tokens after the prompt. One pass over all of them, instead
    of one per token. Raises ValueError for no tokens, and for one that is not allowed.
    """
    if not tokens or not prompt:
        raise ValueError("need a prompt and at least one token")
    caches, state, worst = new_caches(model), rule.start(), 0.0
    with torch.no_grad():
        if prompt[:-1]:
            last_logits(model, torch.tensor([prompt[:-1]]), caches)
        logits = model(torch.tensor([[prompt[-1], *tokens[:-1]]]), caches)[0]
    for row, token in zip(logits, tokens):
        allowed = rule.allowed(state)
        if not allowed[token]:
            raise ValueError(f"token {token} is not allowed here")
        worst = max(worst, float(row[allowed].max() - row[token]))
        state = rule.advance(state, token)
    return worst


class Agreement(NamedTuple):
    """Share of equal labels, Cohen's kappa, and the ends of kappa's interval."""

    observed: float
    kappa: float
    low: float
    high: float


def _kappa(cells: np.ndarray) -> np.ndarray:
    """Kappa of tables of counts (..., k, k); nan where both used one and the same label."""
    share = cells / cells.sum((-2, -1), keepdims=True)
    observed = np.trace(share, axis1=-2, axis2=-1)
    expected = (share.sum(-1) * share.sum(-2)).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)


def _table(a: Sequence, b: Sequence) -> np.ndarray:
    if len(a) != len(b) or not len(a):
        raise ValueError(f"need one label from each for each case, got {len(a)} and {len(b)}")
    labels, codes = np.unique(np.array([*a, *b]), return_inverse=True)
    cells = np.zeros((len(labels), len(labels)))
    np.add.at(cells, (codes[: len(a)], codes[len(a) :]), 1)
    return cells


def cohen_kappa(a: Sequence, b: Sequence) -> float:
    """Agreement of two readers' labels (n,) beyond what their habits give by chance: at most 1.

    nan if both gave one and the same label to everything. Raises ValueError for no labels or
    different numbers of them. Source: Cohen (1960).
    """
    return float(_kappa(_table(a, b)))


def agreement(
    a: Sequence, b: Sequence, *, confidence: float = 0.95, resamples: int = 2000, rng=0
) -> Agreement:
    """Observed agreement and kappa, with a percentile bootstrap interval over the cases.

    To draw n cases again is to draw the counts of the table's cells from a multinomial.
    Resamples in which kappa is undefined are left out; with none left the ends are nan.
    Raises ValueError as :func:`cohen_kappa`.
    """
    cells = _table(a, b)
    rng = np.random.default_rng(rng)
    drawn = rng.multinomial(len(a), cells.ravel() / len(a), resamples)
    found = _kappa(drawn.reshape(-1, *cells.shape))
    found = found[np.isfinite(found)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) if len(found) else (np.nan, np.nan)
    return Agreement(float(np.trace(cells) / len(a)), float(_kappa(cells)), float(low), float(high))


class Claim(NamedTuple):
    """A sentence of an answer without its citations, and the numbers it cites."""

    text: str
    cited: tuple[int, ...]


def claims(answer: str) -> list[Claim]:
    """The sentences of an answer; each takes the citations [n] in it and directly behind it.

    A number in brackets behind a letter, as in x[0], is no citation.
    """
    found = []
    for part in re.findall(r".+?(?:[.!?](?:\s*\[\d+\])*(?=\s|$)|$)", answer, re.S):
        cited = tuple(int(number) for number in re.findall(r"(?<!\w)\[(\d+)\]", part))
        text = " ".join(re.sub(r"\s*(?<!\w)\[\d+\]", "", part).split())
        if re.search(r"\w", text):
            found.append(Claim(text, cited))
    return found


EXACT = r"\d|_|\w\.\w|[a-z][A-Z]"  # in words that have to be found as they are: numbers, code


class Support(NamedTuple):
    """Share of a claim's terms that its source holds, and the exact words that it lacks."""

    share: float
    missing: tuple[str, ...]


def support(claim: str, source: str) -> Support:
    """How far the words of `claim` are found in `source`.

    Terms are those of `groundup.search.analyse`: stems without stop words. Exact words are
    numbers and what is spelt like code, and have to be found as they are. A claim without terms
    has the share 0.
    """
    said, held = set(analyse(claim)), set(analyse(source))
    words = re.findall(r"[\w.]*\w", source)
    known = {*words, *(part for word in words for part in word.split("."))}
    exact = [word for word in re.findall(r"[\w.]*\w", claim) if re.search(EXACT, word)]
    missing = [word for word in exact if word not in known]
    return Support(len(said & held) / max(len(said), 1), tuple(dict.fromkeys(missing)))


def is_faithful(answer: str, sources: Mapping[int, str], share: float = 0.6) -> bool:
    """The rule: each sentence cites known sources, which hold at least `share` of its terms and
    all of its exact words. False for an answer without a sentence."""
    found = claims(answer)
    for text, cited in found:
        if not cited or not set(cited) <= sources.keys():
            return False
        held = support(text, "\n".join(sources[number] for number in cited))
        if held.share < share or held.missing:
            return False
    return bool(found)


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the answer's terms against a reference's, 0 to 1.

    Source: Rajpurkar et al. (2016), with the terms of `groundup.search.analyse`.
    """
    said, wanted = set(analyse(" ".join(c.text for c in claims(answer)))), set(analyse(reference))
    return 2 * len(said & wanted) / max(len(said) + len(wanted), 1)


STAGES = (
    "right", "unsupported", "not retrieved", "not in the prompt", "wrong answer",
    "false refusal", "right refusal", "false answer",
)  # fmt: skip


def stage(
    answerable: bool,
    refused: bool,
    *,
    retrieved: bool = False,
    shown: bool = False,
    correct: bool = False,
    faithful: bool = False,
) -> str:
    """The first stage that failed, one of STAGES, or "right" or "right refusal".

    answerable : does any page answer the question?; refused : did the system decline?
    retrieved : was such a page found?; shown : did the prompt hold a passage that answers?
    correct, faithful : of the answer, whatever they are if it was refused

    Raises ValueError for an answer that is shown but not retrieved.
    """
    if shown and not retrieved:
        raise ValueError("what was not retrieved cannot be shown")
    if not answerable:
        return "right refusal" if refused else "false answer"
    if correct and not refused:
        return "right" if faithful else "unsupported"
    if not retrieved:
        return "not retrieved"
    if not shown:
        return "not in the prompt"
    return "false refusal" if refused else "wrong answer"


class McNemar(NamedTuple):
    """Cases that only a, and only b, got right, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Are two systems equally often right on the same cases? Exact: a coin for each disagreement.

    p is the probability, if they are, of a split at least as uneven as the one observed.
    Raises ValueError for different numbers of cases, or none.
    """
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise ValueError(f"need the same cases for both, got {a.shape} and {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, least = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(least + 1)) / 2**n
    return McNemar(only_a, only_b, min(1.0, 2 * tail))
