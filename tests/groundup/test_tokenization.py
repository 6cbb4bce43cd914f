"""groundup.tokenization against Hugging Face's tokenizers and tiktoken, and against recounting, on generated text."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from groundup import datasets
from groundup.tokenization import (
    CL100K_PATTERN,
    GPT2_PATTERN,
    Tokenizer,
    bpe,
    byte_ids,
    merge_pair,
    train_bpe,
    train_bpe_naive,
)

few = settings(deadline=None, max_examples=80)
texts = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ab", max_size=60),
    st.text(alphabet="abc \n", max_size=80),
    st.text(alphabet="aé你🙂 '1", max_size=60),
    st.text(alphabet=" \t\n\r\u00a0\u3000x", max_size=40),
)
PATTERNS = {"gpt2": GPT2_PATTERN, "cl100k": CL100K_PATTERN}
RANKS = {name: datasets.bpe_ranks(name) for name in PATTERNS}
OURS = {name: Tokenizer(RANKS[name], PATTERNS[name]) for name in PATTERNS}
THEIRS = {
    name: tiktoken.Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=RANKS[name], special_tokens={})
    for name in PATTERNS
}
both = pytest.mark.parametrize("name", PATTERNS)


# --- training --------------------------------------------------------------------------------


def hugging_face(text, merges):
    visible = {chr(byte[0] if i < 188 else 256 + i - 188): byte for byte, i in byte_ids().items()}
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(GPT2_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert set(alphabet) == set(visible)
    trainer = trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator([text], trainer)
    pairs = json.loads(theirs.to_str())["model"]["merges"]
    return [tuple(b"".join(visible[c] for c in part) for part in pair) for pair in pairs]


@few
@given(texts, st.integers(0, 40))
def test_train_bpe_finds_what_counting_anew_finds(text, merges):
    for pattern in PATTERNS.values():
        assert train_bpe(text, merges, pattern) == train_bpe_naive(text, merges, pattern)


@few
@given(st.text(alphabet="abcd é\n1", max_size=200), st.integers(1, 40))
def test_train_bpe_finds_hugging_faces_merges(text, merges):
    assert train_bpe(text, merges) == hugging_face(text, merges)


def test_train_bpe_on_real_text_finds_hugging_faces_merges():
    text = datasets.king_james()[200_000:500_000]
    assert train_bpe(text, 800) == hugging_face(text, 800)


@few
@given(st.text(alphabet="ab \n", max_size=40), st.integers(0, 20))
def test_without_cuts_merges_cross_words(text, merges):
    everything = r"(?s).+"
    found = train_bpe_naive(text, merges, everything)
    assert found == train_bpe(text, merges, everything)
    pairs = Counter(pairwise(text))
    if found:
        a, b = found[0]
        assert pairs[a.decode(), b.decode()] == max(pairs.values())


def test_train_bpe_stops_when_nothing_is_left_to_merge():
    assert train_bpe("", 5) == [] and train_bpe("a b", 0) == []
    assert train_bpe("aaaa", 99) == [(b"a", b"a"), (b"aa", b"aa")]
    with pytest.raises(ValueError, match="cannot be negative"):
        train_bpe("abc", -1)
    for train in (train_bpe, train_bpe_naive):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            train("ab\ud800", 3, GPT2_PATTERN)


@given(st.lists(st.integers(0, 2), max_size=30))
def test_merge_pair_replaces_from_the_left(ids):
    text = "".join("abc"[i] for i in ids)
    assert "".join("abcX"[i] for i in merge_pair(ids, (0, 1), 3)) == text.replace("ab", "X")
    assert "".join("abcX"[i] for i in merge_pair(ids, (2, 2), 3)) == text.replace("cc", "X")


def test_byte_ids_number_bytes_as_gpt2_and_cl100k_do():
    ids = byte_ids()
    assert sorted(ids.values()) == list(range(256)) and len(ids) == 256
    for name in PATTERNS:
        assert all(RANKS[name][byte] == i for byte, i in ids.items())


# --- patterns and encoding -------------------------------------------------------------------


@both
@few
@given(text=texts)
def test_a_pattern_loses_nothing(name, text):
    assert "".join(regex.findall(PATTERNS[name], text)) == text


@both
@few
@given(text=texts)
def test_ids_are_tiktokens(name, text):
    ids = OURS[name].encode(text)
    assert ids == THEIRS[name].encode_ordinary(text) == OURS[name].encode_ordinary(text)
    assert OURS[name].decode(ids) == text


@both
def test_ids_are_tiktokens_on_code(name):
    from pathlib import Path

    for path in sorted(Path(np.__file__).parent.glob("lib/*.py"))[:12]:
        text = path.read_text(encoding="utf-8")
        assert OURS[name].encode_ordinary(text) == THEIRS[name].encode_ordinary(text)


@both
@few
@given(data=st.binary(max_size=80))
def test_any_bytes_come_back(name, data):
    assert OURS[name].decode_bytes(OURS[name].encode_bytes(data)) == data


@few
@given(texts)
def test_text_as_bytes_has_the_ids_of_text(text):
    assert OURS["gpt2"].encode_bytes(text.encode()) == OURS["gpt2"].encode_ordinary(text)


@few
@given(st.binary(max_size=60))
def test_bpe_joins_the_lowest_rank_first(piece):
    ranks = RANKS["gpt2"]
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while True:
        joined = [(ranks.get(a + b, np.inf), i) for i, (a, b) in enumerate(pairwise(parts))]
        rank, i = min(joined, default=(np.inf, 0))
        if rank == np.inf:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    assert bpe(piece, ranks) == [ranks[part] for part in parts]


def test_bpe_of_a_long_piece_takes_no_quadratic_time():
    piece = b"ab" * 50_000  # half a minute if every join searched the whole piece
    ids = bpe(piece, RANKS["gpt2"])
    assert OURS["gpt2"].decode_bytes(ids) == piece
    assert bpe(b"", RANKS["gpt2"]) == []


@few
@given(texts, st.integers(0, 60))
def test_a_trained_tokenizer_encodes_its_text_as_training_left_it(text, merges):
    tokenizer = Tokenizer.train(text, merges)
    left = 0
    for piece in regex.findall(GPT2_PATTERN, text):
        ids = [byte_ids()[bytes([b])] for b in piece.encode()]
        for a, b in train_bpe(text, merges):
            ids = merge_pair(ids, (tokenizer.ranks[a], tokenizer.ranks[b]), tokenizer.ranks[a + b])
        left += len(ids)
    assert len(tokenizer.encode(text)) <= left  # the same string may be one token by two ways
    assert tokenizer.decode(tokenizer.encode(text)) == text


# --- special tokens and bad input ------------------------------------------------------------


def chat():
    return Tokenizer.train("hello world", 5, special=["<|a|>", "<|a|>b", "<|end|>"])


@few
@given(st.lists(st.sampled_from(["<|a|>", "<|a|>b", "<|end|>", "hello", " <|", "a|>", "é"]), max_size=8))
def test_special_tokens_are_tiktokens(parts):
    text, tokenizer = "".join(parts), chat()
    by_length = dict(sorted(tokenizer.special.items(), key=lambda item: -len(item[0])))
    theirs = tiktoken.Encoding("chat", pat_str=GPT2_PATTERN, mergeable_ranks=tokenizer.ranks, special_tokens=by_length)
    assert tokenizer.encode_ordinary(text) == theirs.encode_ordinary(text)
    ids = tokenizer.encode(text, allowed=tokenizer.special)
    assert tokenizer.decode(ids) == text
    if "<|a|>b" not in text:  # which of two overlapping marks tiktoken takes is an accident of its hash map
        assert ids == theirs.encode(text, allowed_special="all")


def test_a_special_token_in_untrusted_text_is_an_error_or_text():
    tokenizer = chat()
    ids = set(tokenizer.special.values())
    with pytest.raises(ValueError, match=r"special token '<\|end\|>': allow it if the text is yours"):
        tokenizer.encode("hello<|end|>")
    with pytest.raises(ValueError, match=r"special token '<\|end\|>'"):
        tokenizer.encode("<|a|>hello<|end|>", allowed={"<|a|>"})
    assert not ids & set(tokenizer.encode_ordinary("hello<|end|><|a|>b"))
    assert tokenizer.decode(tokenizer.encode_ordinary("hello<|end|>")) == "hello<|end|>"
    assert tokenizer.encode("<|end|>", allowed={"<|end|>"}) == [tokenizer.special["<|end|>"]]


def test_special_tokens_come_after_the_others_and_are_counted():
    tokenizer = chat()
    assert len(tokenizer) == len(tokenizer.ranks) + 3
    assert list(tokenizer.special.values()) == [len(tokenizer.ranks) + i for i in range(3)]


def test_empty_input():
    for tokenizer in (*OURS.values(), chat()):
        assert tokenizer.encode("") == tokenizer.encode_bytes(b"") == [] and tokenizer.decode([]) == ""


@pytest.mark.parametrize("bad", [50_256, 10**9, -1])
def test_an_unknown_id_is_named(bad):
    with pytest.raises(ValueError, match=f"id {bad} is not one of the 50256 tokens"):
        OURS["gpt2"].decode([0, bad])


def test_ids_may_be_numpy_integers_but_not_fractions():
    ids = np.array(OURS["gpt2"].encode("hello"))
    assert OURS["gpt2"].decode(ids) == "hello"
    with pytest.raises(TypeError):
        OURS["gpt2"].decode([1.5])


def test_a_lone_surrogate_is_named():
    for encode in (OURS["gpt2"].encode, OURS["gpt2"].encode_ordinary):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            encode("a\udc80b")


def test_a_vocabulary_must_be_sound():
    with pytest.raises(ValueError, match=r"lacks 1 of the 256 bytes: \[97\]"):
        Tokenizer({byte: i for byte, i in byte_ids().items() if byte != b"a"})
    with pytest.raises(ValueError, match="two tokens share an id"):
        Tokenizer(byte_ids() | {b"ab": 7})
    with pytest.raises(ValueError, match="two tokens share an id"):
        Tokenizer(byte_ids(), special={"<|x|>": 7})
    with pytest.raises(ValueError, match="cannot be empty"):
        Tokenizer(byte_ids(), special={"": 256})


def test_the_cache_is_bounded_and_changes_no_result():
    tokenizer = Tokenizer(RANKS["gpt2"])
    long = "x" * 1000
    first = tokenizer.encode_ordinary(long + " hello")
    assert tokenizer.encode_ordinary(long + " hello") == first
    assert long not in tokenizer._cache and " hello" in tokenizer._cache
