"""The stepper encodes in the browser: held to `groundup.tokenization`, id by id and join by join."""

from __future__ import annotations

import random
import unicodedata

import pytest
import regex
from figures_js import run, written

from groundup.tokenization import GPT2_PATTERN, Tokenizer, byte_ids

ALL = """
const ranked = (tokens) => new Map(tokens.map((token, i) => [token, i]));
export const steps = (texts, tokens, limit, pattern) =>
  texts.map((text) => encode(text, ranked(tokens), limit, pattern).map((s) => ({ ...s, pair: s.pair ?? [] })));
export const cuts = (texts, pattern) => texts.map((text) => cut(text, pattern));
"""
ALPHABETS = [
    (0x20, 0x7E), (0x20, 0x7E), (0x80, 0x17F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x600, 0x6FF),
    (0x900, 0x97F), (0x2000, 0x206F), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0, 0x1F),
]  # fmt: skip
SPACES = [" ", " ", "  ", "\n", "\r\n", "\t", "\x85", "\x1c", "\u00a0", "\u3000", "\u200d", "\ufeff", "'ll ", ""]


@pytest.fixture(scope="module")
def data() -> dict:
    return written("language/tokenization", "tokenizer")


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        text = ""
        while len(text) < rng.randint(0, 60):
            low, high = rng.choice(ALPHABETS)
            letters = [c for c in map(chr, range(low, high + 1)) if unicodedata.category(c) != "Cn"]
            text += "".join(rng.choices(letters, k=rng.randint(1, 9))) + rng.choice(SPACES)
        found.append(text)
    return found


def tokenizer(tokens: list[str], merges: int) -> Tokenizer:
    return Tokenizer({token.encode("latin-1"): i for i, token in enumerate(tokens[: 256 + merges])})


def test_the_data_are_the_vocabulary_that_the_chapter_trained(data):
    tokens = [token.encode("latin-1") for token in data["tokens"]]
    assert tokens[:256] == list(byte_ids()) and len(tokens) == len(set(tokens)) == 256 + 8000
    known = set(tokens[:256])
    for token in tokens[256:]:  # each is made of two that are older
        assert any(token[:i] in known and token[i:] in known for i in range(1, len(token)))
        known.add(token)
    assert data["pattern"] == GPT2_PATTERN
    assert all(0 < len(text) <= 80 for _, text in data["samples"])


def test_pieces_are_those_of_pythons_pattern():
    some = texts(400, 0)
    (found,) = run("tokenizer", [["cuts", some, GPT2_PATTERN]], ALL)
    assert found == [regex.findall(GPT2_PATTERN, text) for text in some]


@pytest.mark.parametrize("merges", [0, 1, 125, 2048, 8000])
def test_ids(data, merges):
    some = texts(150, merges) + [text for _, text in data["samples"]]
    (found,) = run("tokenizer", [["steps", some, data["tokens"], 256 + merges, data["pattern"]]], ALL)
    ours = tokenizer(data["tokens"], merges)
    for text, steps in zip(some, found):
        last = [token.encode("latin-1") for piece in steps[-1]["pieces"] for token in piece]
        assert [ours.ranks[token] for token in last] == ours.encode_ordinary(text)


def test_each_step_is_the_lowest_pair_there_is(data):
    ranks = tokenizer(data["tokens"], 8000).ranks
    some = texts(60, 9) + [text for _, text in data["samples"]]
    (found,) = run("tokenizer", [["steps", some, data["tokens"], 256 + 8000, data["pattern"]]], ALL)
    for text, steps in zip(some, found):
        states = [[[token.encode("latin-1") for token in piece] for piece in step["pieces"]] for step in steps]
        assert states[0] == [[bytes([b]) for b in piece.encode()] for piece in regex.findall(GPT2_PATTERN, text)]
        for before, after, step in zip(states, states[1:], steps[1:]):
            pairs = [(a + b, (a, b)) for piece in before for a, b in zip(piece, piece[1:]) if a + b in ranks]
            joined, pair = min(pairs, key=lambda each: ranks[each[0]])
            assert [token.encode("latin-1") for token in step["pair"]] == list(pair)
            assert b"".join(sum(after, [])) == text.encode()
            assert len(sum(before, [])) - len(sum(after, [])) == step["places"]
            count = sum(piece.count(joined) for piece in after) - sum(piece.count(joined) for piece in before)
            assert count == step["places"] > 0
        assert not [1 for piece in states[-1] for a, b in zip(piece, piece[1:]) if a + b in ranks]


def test_labels_show_bytes_where_there_is_no_character():
    cases = {
        " the": "␣the", "\n\t": "↵⇥", "é": "é", b"\xc3": "c3", b"\xa9": "a9", b"\xe0\xa4": "e0 a4",
        "\u0903": "◌\u0903", "\u200d": "e2 80 8d", "\ufeff": "ef bb bf", "\x00": "00", "\u00a0": "c2 a0",
    }  # fmt: skip
    given = [(key.encode() if isinstance(key, str) else key).decode("latin-1") for key in cases]
    assert run("tokenizer", [["label", token] for token in given]) == list(cases.values())
