# Generated from chapters/retrieval/rag.md; edit the chapter.
"""Retrieval-augmented generation. You connect search and language model: a question finds pages,
passages of them go into a prompt, and the model writes a sentence that must cite one. Fusing
two searches is compared with the better one by a paired interval, a grammar guarantees the form
of every citation, and qdrant returns the same ten pages as exact search. You also measure what
none of this guarantees.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException
from torch import nn

from groundup.classification import LogisticRegression
from groundup.decoding import (
    Machine,
    TokenConstraint,
    either,
    generate,
    greedy,
    one_of,
    then,
    times,
)
from groundup.embedding_models import page_text
from groundup.real_model import chat_ids
from groundup.search import analyse
from groundup.tokenization import Tokenizer

__all__ = [
    "passages",
    "Retriever",
    "PassageSearch",
    "reciprocal_rank_fusion",
    "Hybrid",
    "title_features",
    "Reranker",
    "Source",
    "plain_line",
    "numbered_sources",
    "INSTRUCTION",
    "source_prompt",
    "citation_machine",
    "Within",
    "REFUSAL",
    "Answer",
    "RAG",
    "Without",
    "Refusal",
    "choose_refusal",
    "ReadRepair",
    "QdrantSearch",
]


def passages(text: str, words: int = 60, overlap: int = 0, paragraphs: bool = False) -> list[str]:
    """`text` in windows of at most `words` words, each sharing `overlap` with the one before.

    paragraphs : cut at blank lines first, so that no passage goes across one
    Spaces at the ends are dropped; a blank text has no passages. Raises ValueError unless
    0 ≤ overlap < words.
    """
    if not 0 <= overlap < words:
        raise ValueError(f"need 0 ≤ overlap < words, got {overlap} and {words}")
    found = []
    for part in re.split(r"\n\s*\n", text) if paragraphs else [text]:
        spans = [match.span() for match in re.finditer(r"\S+", part)]
        for start in range(0, max(len(spans) - overlap, min(len(spans), 1)), words - overlap):
            window = spans[start : start + words]
            found.append(part[window[0][0] : window[-1][1]])
    return found


class Retriever(Protocol):
    """What every engine of the book offers: the k best names with scores, best first."""

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]: ...


class PassageSearch:
    """Finds pages by their best passage, in a retriever of passages called page#number.

    Asks for more passages until k pages are among them, or there are no more.
    """

    def __init__(self, retriever: Retriever):
        self.retriever = retriever

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """(page, score of its best passage), best first."""
        wanted = k
        while True:
            found, best = self.retriever.search(text, wanted), {}
            for name, score in found:
                best.setdefault(name.rpartition("#")[0], score)
            if len(best) >= k or len(found) < wanted:
                return list(best.items())[:k]
            wanted *= 4


def reciprocal_rank_fusion(
    rankings: Iterable[Sequence[str]], k: int = 10, constant: float = 60
) -> list[tuple[str, float]]:
    """The k names with the largest sum of 1 / (constant + rank), ranks from 1, equals by name.

    A name that a ranking lacks gets nothing from it. Raises ValueError for k < 1, a negative
    constant, and a ranking that is no list of names, each once.
    Source: Cormack, Clarke & Büttcher (2009).
    """
    if k < 1 or constant < 0:
        raise ValueError(f"need k ≥ 1 and constant ≥ 0, got {k} and {constant}")
    parts = defaultdict(list)
    for ranking in rankings:
        if isinstance(ranking, str) or len(set(ranking)) < len(ranking):
            raise ValueError("a ranking must be a list of names, each once")
        for rank, name in enumerate(ranking, 1):
            parts[name].append(1 / (constant + rank))
    scores = {name: math.fsum(each) for name, each in parts.items()}  # in any order the same
    return sorted(scores.items(), key=lambda hit: (-hit[1], hit[0]))[:k]


class Hybrid:
    """Asks several retrievers for `depth` names each and fuses their rankings.

    Raises ValueError for no retrievers, or a depth below 1.
    """

    def __init__(self, *retrievers: Retriever, depth: int = 50, constant: float = 60):
        if not retrievers or depth < 1:
            raise ValueError("need at least one retriever, and a depth of at least 1")
        self.retrievers, self.depth, self.constant = retrievers, depth, constant

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """As :func:`reciprocal_rank_fusion` of what the retrievers find."""
        found = [retriever.search(text, max(k, self.depth)) for retriever in self.retrievers]
        rankings = [[name for name, _ in hits] for hits in found]
        return reciprocal_rank_fusion(rankings, k, self.constant)


def title_features(question: str, name: str) -> list[float]:
    """Shares: of the question's terms in the name, of its last part's terms in the question."""
    asked, title = set(analyse(question)), set(analyse(name))
    last = set(analyse(name.rpartition(".")[2], stop=False))
    return [len(asked & title) / max(len(asked), 1), len(asked & last) / max(len(last), 1)]


class Reranker:
    """Reorders what several retrievers find by the probability that a page answers.

    A logistic regression on, for each retriever, the score, its share of the best score, and
    whether the page was found there at all; and on :func:`title_features`. A page that one
    retriever did not return counts with the lowest score that it did return, which is an upper
    bound. Raises ValueError as :class:`Hybrid`.
    """

    def __init__(self, *retrievers: Retriever, depth: int = 50, l2: float = 1.0):
        if not retrievers or depth < 1:
            raise ValueError("need at least one retriever, and a depth of at least 1")
        self.retrievers, self.depth, self.model = retrievers, depth, LogisticRegression(l2)
        self.mean = self.spread = None  # (features,)

    def features(self, text: str, depth: int | None = None) -> tuple[list[str], np.ndarray]:
        """The candidates, sorted, and their features (candidates, 3 · retrievers + 2)."""
        found = [dict(r.search(text, depth or self.depth)) for r in self.retrievers]
        names = sorted(set().union(*found))
        columns = []
        for hits in found:
            low, high = min(hits.values(), default=0.0), max(hits.values(), default=0.0)
            scores = np.array([hits.get(name, low) for name in names])
            columns += [scores, scores / high if high > 0 else 0 * scores]
            columns.append(np.array([float(name in hits) for name in names]))
        titles = np.array([title_features(text, name) for name in names]).reshape(-1, 2)
        return names, np.column_stack([*columns, titles])

    def fit(self, queries: Iterable) -> Reranker:
        """Learn from queries with `text` and `answers`. ValueError if no candidate is an answer."""
        rows, labels = [], []
        for query in queries:
            names, X = self.features(query.text)
            rows.append(X)
            labels += [float(name in query.answers) for name in names]
        X, y = np.concatenate(rows), np.array(labels)
        self.mean, self.spread = X.mean(axis=0), X.std(axis=0)
        self.spread[self.spread == 0] = 1.0
        self.model.fit((X - self.mean) / self.spread, y)
        return self

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """(name, probability), best first, equals by name. ValueError before `fit`."""
        if self.mean is None:
            raise ValueError("fit the reranker first")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        names, X = self.features(text, max(k, self.depth))
        if not names:
            return []
        chance = self.model.predict_proba((X - self.mean) / self.spread)[:, 1]
        hits = zip(names, chance.tolist())
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


@dataclass(frozen=True)
class Source:
    """A passage with the number under which an answer may cite it."""

    number: int
    name: str
    text: str


def plain_line(text: str) -> str:
    """`text` as one line of printable ASCII that holds no label such as [1]: that becomes (1).

    Accents are dropped, other characters become a question mark.
    """
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"[^!-~]+", " ", text.encode("ascii", "replace").decode()).strip()
    return re.sub(r"\[( *\d+ *)\]", r"(\1)", text)


def numbered_sources(
    names: Iterable[str],
    pages: Mapping[str, str],
    question: str,
    count: int = 3,
    words: int = 24,
) -> list[Source]:
    """For each of the first `count` names a passage of its page: the first, which says what it is.

    Another one where that shares at least two more terms with the question, of several the one
    that shares most. Texts are :func:`plain_line`. Raises ValueError for a name without a page,
    and for count or words below 1.
    """
    names = list(names)[:count]
    if absent := [name for name in names if name not in pages]:
        raise ValueError(f"there is no page {absent[0]!r}: is the index out of date?")
    if count < 1 or words < 1:
        raise ValueError(f"need count and words of at least 1, got {count} and {words}")
    asked, sources = set(analyse(question)), []
    for number, name in enumerate(names, 1):
        text = page_text(name, pages[name]).removeprefix(f"{name}: ")
        parts = passages(text, words, paragraphs=True) or [""]
        shared = [len(asked & set(analyse(part))) for part in parts]
        shared[0] += 1  # so that another must be better by two
        sources.append(Source(number, name, plain_line(parts[int(np.argmax(shared))])))
    return sources


INSTRUCTION = "Answer in one sentence, from the numbered sources only."


def source_prompt(
    tokenizer: Tokenizer,
    question: str,
    sources: Sequence[Source],
    instruction: str = INSTRUCTION,
) -> list[int]:
    """The ids of a conversation that asks `question` about the sources, one line for each.

    Each source stands on a line of its own behind its number. No text can end its turn, since
    `chat_ids` encodes it as ordinary text, or begin a line with a number of its own.
    """
    lines = [f"[{s.number}] {plain_line(f'{s.name}: {s.text}')}" for s in sources]
    content = "\n".join([*lines, "", f"Question: {plain_line(question)}"])
    messages = [{"role": "system", "content": instruction}, {"role": "user", "content": content}]
    return chat_ids(tokenizer, messages)


def citation_machine(numbers: Iterable[int], sentences: int = 1, begin: str = "") -> Machine:
    """Accepts 1 to `sentences` sentences, each with the number of a source: "It sorts. [2]"

    A sentence is printable ASCII without brackets. A full stop in it is followed by another
    character at once (numpy.sort, 0.5), or it ends the sentence and a number of `numbers` in
    brackets follows. The text begins with `begin`. Raises ValueError for no numbers, one below
    0, sentences < 1, and a beginning that is not ASCII.
    """
    numbers = sorted(set(numbers))
    if not numbers or numbers[0] < 0 or sentences < 1:
        raise ValueError(f"need numbers from 0 on and sentences ≥ 1, got {numbers}, {sentences}")
    word = one_of(set(range(0x21, 0x7F)) - set(b".[]"))
    part = either(one_of(b" "), word, then(b".", word))
    cite = then(b". [", either(*(str(n).encode() for n in numbers)), b"]")
    if not begin.isascii():
        raise ValueError(f"the beginning must be ASCII, not {begin!r}")
    sentence = then(word, times(part, 0, None), cite)
    return Machine(then(begin.encode(), sentence, times(then(b" ", sentence), 0, sentences - 1)))


class Within:
    """A constraint with a budget: its texts are complete after at most `tokens` tokens.

    constraint : a `TokenConstraint` of a :class:`Machine` with finitely many states

    While the budget is large, what the constraint allows is allowed. Near its end, only tokens
    after which a complete text is still within reach, byte by byte if need be. A state is the
    constraint's and the tokens left. Raises ValueError if the shortest text needs more tokens.
    """

    def __init__(self, constraint: TokenConstraint, tokens: int):
        self.constraint, self.tokens, self.end = constraint, tokens, constraint.end
        self.distance = _distances(constraint.machine)
        self.far, self._masks = max(self.distance.values()), {}
        if tokens < self.distance[constraint.start()]:
            least = self.distance[constraint.start()]
            raise ValueError(f"the shortest text may need {least} tokens, the budget is {tokens}")

    def start(self) -> tuple:
        return self.constraint.start(), self.tokens

    def allowed(self, state: tuple) -> torch.Tensor:
        """(vocabulary,) boolean: the ids that may come."""
        inner, left = state
        mask = self.constraint.allowed(inner)
        if left > self.far:
            return mask
        if state not in self._masks:
            self._masks[state] = kept = torch.zeros_like(mask)
            for token in mask.nonzero().flatten().tolist() if left > 0 else ():
                after = self.constraint.advance(inner, token)
                kept[token] = after is None or self.distance[after] < left
        return self._masks[state]

    def advance(self, state: tuple, token: int) -> tuple:
        """The state after `token`. Raises ValueError where the constraint does not allow it."""
        return self.constraint.advance(state[0], token), state[1] - 1

    def done(self, state: tuple) -> bool:
        """May the text stop here?"""
        return self.constraint.done(state[0])


def _distances(machine: Machine) -> dict[int, int]:
    """Bytes from each state of the machine to the end of a text, at least."""
    steps, todo = {}, [machine.start()]
    while todo:
        state = todo.pop()
        if state not in steps:
            after = {machine.step(state, byte) for byte in machine.next_bytes(state)}
            steps[state] = after
            todo += after
    found = {state: 0 for state in steps if machine.accepting(state)}
    while len(found) < len(steps):
        near = {
            s: 1 + min(map(found.get, after & found.keys()))
            for s, after in steps.items()
            if s not in found and after & found.keys()
        }
        found |= near
    return found


REFUSAL = "The documentation that I searched does not answer this."


@dataclass(frozen=True)
class Answer:
    """What a :class:`RAG` says, and on what grounds.

    text : the sentences with their citations, or REFUSAL
    cited : numbers of the sources that the sentences cite, in order, each once
    sources : what the prompt held
    retrieval : score of the best page found; -inf if none was
    likelihood : mean log-probability of the tokens that the model chose, in nats, after the
        constraint's mask; forced tokens do not count. -inf if nothing was written
    refused : was the text replaced by REFUSAL?
    """

    text: str
    cited: tuple[int, ...]
    sources: tuple[Source, ...]
    retrieval: float
    likelihood: float
    refused: bool


class RAG:
    """Answers questions from pages: search, quote, write, cite, or refuse.

    retriever : finds names; names without a page are passed over
    pages : name -> text
    model, tokenizer : as from `real_model.load_smollm2`
    count, words : sources in the prompt, and words of each
    tokens : the longest answer; begin : how each begins
    refuse : (retrieval, likelihood) -> whether to say nothing; by default it always answers
    """

    def __init__(
        self,
        retriever: Retriever,
        pages: Mapping[str, str],
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        count: int = 3,
        words: int = 24,
        tokens: int = 28,
        begin: str = "",
        refuse: Callable[[float, float], bool] = lambda retrieval, likelihood: False,
    ):
        self.retriever, self.pages, self.model, self.tokenizer = retriever, pages, model, tokenizer
        self.count, self.words, self.tokens, self.begin = count, words, tokens, begin
        self.refuse = refuse
        self._constraints: dict[int, Within] = {}

    def constraint(self, count: int) -> Within:
        """Sentences that cite 1 to `count`; made once, since its masks take time."""
        if count not in self._constraints:
            end = self.tokenizer.special["<|im_end|>"]
            special = set(self.tokenizer.special.values())
            ids = range(self.model.config.vocabulary)
            known = [b"" if i in special else self.tokenizer.decode_bytes([i]) for i in ids]
            machine = citation_machine(range(1, count + 1), begin=self.begin)
            self._constraints[count] = Within(TokenConstraint(machine, known, end), self.tokens)
        return self._constraints[count]

    def answer(self, question: str) -> Answer:
        """An answer with citations. Nothing found, as for an empty question: it is refused."""
        hits = self.retriever.search(question, self.count) if question.strip() else []
        hits = [(name, score) for name, score in hits if name in self.pages]
        if not hits:
            return Answer(REFUSAL, (), (), -math.inf, -math.inf, True)
        names = [name for name, _ in hits]
        sources = numbered_sources(names, self.pages, question, self.count, self.words)
        text, likelihood = self.write(question, sources)
        retrieval = float(hits[0][1])
        if self.refuse(retrieval, likelihood):
            return Answer(REFUSAL, (), tuple(sources), retrieval, likelihood, True)
        cited = tuple(dict.fromkeys(int(n) for n in re.findall(r"\[(\d+)\]", text)))
        return Answer(text, cited, tuple(sources), retrieval, likelihood, False)

    def write(self, question: str, sources: Sequence[Source]) -> tuple[str, float]:
        """The text that the model writes, and its likelihood as in :class:`Answer`."""
        chances = []

        def choose(logits: torch.Tensor) -> torch.Tensor:
            chosen = greedy(logits)
            chances.append(float(logits[0].double().log_softmax(-1)[chosen]))
            return chosen

        prompt = source_prompt(self.tokenizer, question, sources)
        constraint = self.constraint(len(sources))
        ids = list(generate(self.model, prompt, self.tokens, choose, constraint=constraint))
        return self.tokenizer.decode(ids), float(np.mean(chances))


class Without:
    """A retriever that never returns the `hidden` names: they count as deleted."""

    def __init__(self, retriever: Retriever, hidden: Iterable[str]):
        self.retriever, self.hidden = retriever, frozenset(hidden)

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """The k best of the others."""
        hits = self.retriever.search(text, k + len(self.hidden))
        return [hit for hit in hits if hit[0] not in self.hidden][:k]


@dataclass(frozen=True)
class Refusal:
    """Refuses where the retrieval or the likelihood lies below its threshold."""

    retrieval: float = -math.inf
    likelihood: float = -math.inf

    def __call__(self, retrieval: float, likelihood: float) -> bool:
        return retrieval < self.retrieval or likelihood < self.likelihood


def choose_refusal(
    retrieval: Sequence[float],
    likelihood: Sequence[float],
    answerable: Sequence[bool],
    cost: float = 1.0,
) -> Refusal:
    """The thresholds of least cost: `cost` for each false answer, 1 for each false refusal.

    Of equal ones, those that refuse least. Raises ValueError for lengths that differ, none, or
    a cost that is not positive.
    """
    r, s, good = (np.asarray(x) for x in (retrieval, likelihood, answerable))
    if not len(r) == len(s) == len(good) > 0 or not cost > 0:
        raise ValueError(f"need equal lengths > 0 and a cost > 0: {len(r)}, {len(s)}, {len(good)}")
    best, least = Refusal(), math.inf
    weight = np.where(good, 1.0, -cost)  # what refusing a row adds
    for low in [-math.inf, *np.unique(r).tolist(), math.inf]:  # the last refuses everything
        for floor in [-math.inf, *np.unique(s).tolist()]:
            total = weight[(r < low) | (s < floor)].sum()
            if total < least - 1e-9:
                best, least = Refusal(low, floor), total
    return best


class ReadRepair:
    """An index that is compared with the pages on every read, and repaired where they differ.

    index : has `search`, `add`, `delete` and `flush`, as `search.Index`
    indexed : name -> the text that the index holds
    pages : name -> the text as it is now

    `repaired` counts repairs. A page that the index lacks is never found, so never repaired.
    """

    def __init__(self, index, indexed: Mapping[str, str], pages: Mapping[str, str]):
        self.index, self.pages, self.repaired = index, pages, 0
        self.indexed = {name: hash(text) for name, text in indexed.items()}

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """As the index's, after as many repairs as it takes for all k to be up to date."""
        while True:
            hits = self.index.search(text, k)
            stale = [n for n, _ in hits if self._now(n) != self.indexed.get(n)]
            if not stale:
                return hits
            for name in stale:
                self.index.delete(name)
                self.indexed.pop(name, None)
                if name in self.pages:
                    self.index.add(name, self.pages[name])
                    self.indexed[name] = self._now(name)
            self.index.flush()
            self.repaired += len(stale)

    def _now(self, name: str) -> int | None:
        return hash(self.pages[name]) if name in self.pages else None


class QdrantSearch:
    """`search(text, k)` on qdrant: vectors of unit length, kept by a server or in this process.

    names, vectors : n names and (n, d); encode : a list of texts -> (m, d)
    url : of a server, such as http://localhost:6333; None for a store in this process
    collection : replaced if it exists

    The server is asked for exact search. Raises ValueError for names and vectors that do not
    fit, and ConnectionError with the remedy if the server cannot be reached.
    """

    def __init__(
        self,
        names: Sequence[str],
        vectors: np.ndarray,
        encode: Callable[[list[str]], np.ndarray],
        url: str | None = None,
        collection: str = "pages",
    ):
        if np.ndim(vectors) != 2 or len(names) != len(vectors) or len(set(names)) < len(names):
            raise ValueError(f"need one row per name, each once: {len(names)}, {np.shape(vectors)}")
        self.encode, self.url, self.collection = encode, url, collection
        options = {"location": ":memory:"} if url is None else {"url": url, "timeout": 5}
        self.client = QdrantClient(**options, check_compatibility=False)
        size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
        if self._asked(self.client.collection_exists, collection):
            self._asked(self.client.delete_collection, collection)
        self._asked(self.client.create_collection, collection, vectors_config=size)
        if len(names):
            payload, ids = [{"name": name} for name in names], range(len(names))
            upload = self.client.upload_collection
            self._asked(upload, collection, vectors, payload, ids, wait=True)
        self._exact = None if url is None else models.SearchParams(exact=True)

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """As `VectorSearch`: the k best names, best first, equals by name. ValueError for k < 1."""
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        query = self.encode([text])[0].tolist()
        found = self._asked(self.client.query_points, self.collection, query=query, limit=k,
                            search_params=self._exact)  # fmt: skip
        hits = [(point.payload["name"], float(point.score)) for point in found.points]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))

    def _asked(self, call, *args, **options):
        try:
            return call(*args, **options)
        except ResponseHandlingException as error:
            raise ConnectionError(
                f"no qdrant answers at {self.url} ({error}): start one, for example with "
                "docker run -p 6333:6333 qdrant/qdrant, or leave the url out"
            ) from None
