# Generated from chapters/language/real-model.md; edit the chapter.
"""A real model. You open the file of a chat model that others trained, decompress its weights, and
ask it questions, with no code but this book's. Its logits agree with `transformers` to
$10^{-3}$, and both choose the same tokens.
"""

from __future__ import annotations

import codecs
import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from groundup import datasets
from groundup.decoding import generate, greedy
from groundup.modern_llm import Llama, LlamaConfig, interleaved_to_halves, load_llama
from groundup.tokenization import Tokenizer, bpe, byte_ids

__all__ = [
    "MAGIC",
    "VERSIONS",
    "ALIGNMENT",
    "SCALARS",
    "STRING",
    "ARRAY",
    "DEPTH",
    "BLOCKS",
    "GGUFError",
    "Cursor",
    "TensorInfo",
    "GGUF",
    "dequantise",
    "quantise_q4_1",
    "write_gguf",
    "GGUF_NAMES",
    "read_llama",
    "PATTERNS",
    "SparseTokenizer",
    "read_tokenizer",
    "load_smollm2",
    "SYSTEM",
    "chat_ids",
    "ask",
]

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
SCALARS = {  # code of a metadata type -> how NumPy writes it
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
STRING, ARRAY, DEPTH = 8, 9, 4  # the other two codes; how deep arrays may be nested
BLOCKS = {  # code of a tensor type -> its name, numbers in a block, bytes of a block
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34),
}  # fmt: skip


class GGUFError(ValueError):
    """The file is not GGUF, is damaged, or uses something that this reader does not know."""


class Cursor:
    """Reads values from `data`, one after the other; GGUFError before it would leave the end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        if count > len(self.data) - self.at:
            raise GGUFError(f"the file ends within {what}: it has {len(self.data):,} bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def numbers(self, code: int, count: int, what: str) -> list:
        """`count` numbers of the type `code` of SCALARS."""
        dtype = np.dtype(SCALARS[code])
        data = self.take(count * dtype.itemsize, what)
        if code == 7 and data.strip(b"\0\1"):
            raise GGUFError(f"{what}: a truth value is a byte 0 or 1")
        return np.frombuffer(data, dtype).tolist()

    def number(self, code: int, what: str):
        """One number."""
        return self.numbers(code, 1, what)[0]

    def count(self, least: int, what: str) -> int:
        """How many things follow. Each takes `least` bytes or more, which bounds the number."""
        count = self.number(10, what)
        if count * least > len(self.data) - self.at:
            raise GGUFError(f"{count:,} × {what} do not fit into {len(self.data):,} bytes")
        return count

    def string(self, what: str) -> str:
        """A length and that many bytes of UTF-8."""
        data = self.take(self.number(10, what), what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise GGUFError(f"{what} is not UTF-8: {data[:20]!r}") from None

    def value(self, code: int, what: str, depth: int = 0):
        """A metadata value: a number, a string, or a list of either or of lists."""
        if code == STRING:
            return self.string(what)
        if code in SCALARS:
            return self.number(code, what)
        if code != ARRAY or depth == DEPTH:
            raise GGUFError(f"{what} has the unknown type {code}, or arrays nested too deep")
        inner = self.number(4, what)
        if inner in SCALARS:
            return self.numbers(inner, self.count(np.dtype(SCALARS[inner]).itemsize, what), what)
        count = self.count(8 if inner == STRING else 12, what)
        return [self.value(inner, what, depth + 1) for _ in range(count)]


class TensorInfo(NamedTuple):
    """Where a tensor is: NumPy's shape, the kind of its blocks, `bytes` bytes from `offset`."""

    shape: tuple[int, ...]
    kind: str
    offset: int
    bytes: int


def _entry(cursor: Cursor) -> tuple[str, TensorInfo]:
    name = cursor.string("a tensor's name")
    if (axes := cursor.number(4, name)) > 4:
        raise GGUFError(f"{name} has {axes} axes; 4 is the most")
    shape = tuple(cursor.numbers(10, axes, name))[::-1]  # the file has the fastest axis first
    code, offset = cursor.number(4, name), cursor.number(10, name)
    if code not in BLOCKS:
        raise GGUFError(f"{name} has the type {code}; this reader knows {[*BLOCKS]}")
    kind, per_block, size = BLOCKS[code]
    if not math.prod(shape) or (shape[-1] if shape else 1) % per_block:
        raise GGUFError(f"{name}: rows of {kind} cannot have the shape {shape}")
    return name, TensorInfo(shape, kind, offset, math.prod(shape) // per_block * size)


def _place(
    found: list[tuple[str, TensorInfo]], header: int, step: int, size: int
) -> dict[str, TensorInfo]:
    """Offsets from the start of a file of `size` bytes; each tensor in it, on bytes of its own."""
    if not isinstance(step, int) or step < 8 or step % 8:
        raise GGUFError(f"the alignment is {step!r}, not a multiple of 8")
    start = end = -(-header // step) * step
    placed = {}
    for name, info in sorted(found, key=lambda each: each[1].offset):
        info = info._replace(offset=start + info.offset)
        if name in placed:
            raise GGUFError(f"the tensor {name!r} is there twice")
        if info.offset % step or info.offset < end:
            raise GGUFError(f"{name} is not aligned to {step} bytes, or overlaps another")
        end = info.offset + info.bytes
        if end > size:
            raise GGUFError(f"{name} ends at byte {end:,}, the file at {size:,}")
        placed[name] = info
    return {name: placed[name] for name, _ in found}


class GGUF:
    """A GGUF file, mapped into memory: reading it copies nothing until you ask for numbers.

    metadata : dict, key -> number, string or list; tensors : dict, name -> TensorInfo

    Use it in a `with`; arrays from `raw` stay valid after it. Raises GGUFError for a file that
    is no GGUF of version 2 or 3, is cut off or inconsistent, or has tensor types not in BLOCKS.
    Source: ggml's specification, docs/gguf.md.
    """

    def __init__(self, path: str | Path):
        with open(path, "rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:  # there is nothing to map
                raise GGUFError(f"{path} is empty") from None
        cursor = Cursor(self._map)
        if (magic := cursor.take(4, "the magic number")) != MAGIC:
            raise GGUFError(f"{path} begins with {magic}, not with {MAGIC}")
        if (version := cursor.number(4, "the version")) not in VERSIONS:
            raise GGUFError(f"version {version} is not one of {VERSIONS}; is it big-endian?")
        tensors, entries = cursor.count(24, "tensors"), cursor.count(13, "metadata entries")
        self.metadata = {}
        for _ in range(entries):
            key = cursor.string("a metadata key")
            if key in self.metadata:
                raise GGUFError(f"the key {key!r} is there twice")
            self.metadata[key] = cursor.value(cursor.number(4, key), key)
        found = [_entry(cursor) for _ in range(tensors)]
        step = self.metadata.get("general.alignment", ALIGNMENT)
        self.tensors = _place(found, cursor.at, step, len(self._map))

    def __enter__(self) -> GGUF:
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. It stays mapped for as long as an array from `raw` is in use."""
        self._map = None

    def raw(self, name: str) -> np.ndarray:
        """The bytes of a tensor, (bytes,) uint8, read-only: a window on the file, not a copy."""
        if self._map is None:
            raise GGUFError("the file is closed")
        if name not in self.tensors:
            raise GGUFError(f"no tensor is called {name!r}")
        info = self.tensors[name]
        return np.frombuffer(self._map, np.uint8, info.bytes, info.offset)

    def tensor(self, name: str) -> np.ndarray:
        """The numbers of a tensor, float32 of its shape; of kind F32 still a window."""
        data = self.raw(name)
        return dequantise(self.tensors[name].kind, data, self.tensors[name].shape)


def dequantise(kind: str, data: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers of `shape` from the bytes of their blocks, one after the other.

    Q8_0 is a half-precision d and 32 signed bytes q, for d·q. Q4_1 is d, m and 16 bytes, for
    d·q + m: the low four bits of each are the first 16 q, the high four bits the others.
    Raises ValueError for a kind not in BLOCKS or bytes that do not fit the shape.
    """
    sizes = {name: (numbers, size) for name, numbers, size in BLOCKS.values()}
    if kind not in sizes:
        raise ValueError(f"kind must be one of {[*sizes]}, not {kind!r}")
    (per_block, size), data = sizes[kind], np.frombuffer(data, np.uint8)
    if math.prod(shape) * size != data.size * per_block:
        raise ValueError(f"{data.size} bytes are not {shape} numbers in {kind}")
    if kind in ("F32", "F16"):
        numbers = data.view("<f4" if kind == "F32" else "<f2")
        return numbers.astype(np.float32, copy=False).reshape(shape)
    blocks = data.reshape(-1, size)
    d = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (blocks, 1)
    if kind == "Q8_0":
        return (d * blocks[:, 2:].view(np.int8)).reshape(shape)
    m = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    w = np.empty((len(blocks), 32), np.float32)
    w[:, :16], w[:, 16:] = blocks[:, 4:] & 15, blocks[:, 4:] >> 4  # q
    w *= d
    w += m
    return w.reshape(shape)


def quantise_q4_1(x: np.ndarray) -> np.ndarray:
    """The bytes of `x` in Q4_1, uint8: see `dequantise`, whose inverse it is up to rounding.

    Raises ValueError for rows that are not whole blocks of 32, and for numbers that are not
    finite or too large for half precision.
    """
    x = np.asarray(x, np.float32)
    if not x.ndim or x.shape[-1] % 32 or not x.size:
        raise ValueError(f"rows must be whole blocks of 32 numbers, not {x.shape}")
    if not np.all(np.abs(x) < 65504):  # also false for nan
        raise ValueError("Q4_1 holds finite numbers of a size below 65,504")
    blocks = x.reshape(-1, 32)
    m = blocks.min(1, keepdims=True)
    d = (blocks.max(1, keepdims=True) - m) / 15
    if not np.all(d < 65504):
        raise ValueError("a block's step is too large for half precision")
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d > 0)
    q = np.minimum((blocks - m) * inverse + np.float32(0.5), 15).astype(np.uint8)
    halves = np.hstack([d, m]).astype("<f2").view(np.uint8)
    return np.hstack([halves, q[:, :16] | q[:, 16:] << 4]).ravel()


def write_gguf(path: str | Path, metadata: Mapping, tensors: Mapping) -> None:
    """Write a GGUF file of version 3.

    metadata : str -> bool, int, float, str, or lists of values of one kind
    tensors : name -> array, stored as F32, or (kind, bytes of its blocks, shape)

    Raises ValueError for values of other types, and bytes that do not fit their shape.
    """
    codes = {name: (code, numbers, size) for code, (name, numbers, size) in BLOCKS.items()}
    step, index, body = metadata.get("general.alignment", ALIGNMENT), b"", b""
    for name, tensor in tensors.items():
        array = tensor if isinstance(tensor, tuple) else np.asarray(tensor, "<f4")
        kind, data, shape = array if isinstance(array, tuple) else ("F32", array, array.shape)
        if kind not in codes:
            raise ValueError(f"{name}: the kind must be one of {[*codes]}, not {kind!r}")
        code, numbers, size = codes[kind]
        data = data.tobytes() if isinstance(data, np.ndarray) else bytes(data)
        if not math.prod(shape) or math.prod(shape) * size != len(data) * numbers:
            raise ValueError(f"{name}: {len(data)} bytes are not {shape} numbers in {kind}")
        index += _packed(STRING, name) + struct.pack("<I", len(shape))
        index += struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ", code, len(body))
        body += data + bytes(-len(data) % step)
    entries = b""
    for key, value in metadata.items():
        code = _code(value)
        entries += _packed(STRING, key) + struct.pack("<I", code) + _packed(code, value)
    head = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata)) + entries + index
    Path(path).write_bytes(head + bytes(-len(head) % step) + body)


def _code(value) -> int:
    """The code of the metadata type for `value`."""
    for kind, code in ((bool, 7), (float, 12), (str, STRING), (list, ARRAY)):
        if isinstance(value, kind):
            return code
    if not isinstance(value, int) or not -(2**63) <= value < 2**64:
        raise ValueError(f"GGUF has no type for {value!r}")
    return 4 if 0 <= value < 2**32 else 11 if value < 2**63 else 10


def _packed(code: int, value) -> bytes:
    """The bytes of a metadata value of the type `code`."""
    if code == STRING:
        return struct.pack("<Q", len(data := value.encode())) + data
    if code != ARRAY:
        return struct.pack({4: "<I", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}[code], value)
    inner = {_code(each) for each in value} or {4}
    if len(inner) > 1 and (inner - {4, 11} or min(value) < -(2**63)):
        raise ValueError(f"a list holds values of one type, not {value!r}")
    inner = max(inner)
    packed = b"".join(_packed(inner, each) for each in value)
    return struct.pack("<IQ", inner, len(value)) + packed


GGUF_NAMES = {  # llama.cpp's name -> Hugging Face's, of which load_llama knows ours
    "token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def read_llama(file: GGUF) -> tuple[LlamaConfig, dict[str, torch.Tensor]]:
    """Sizes and weights of a GGUF file of architecture llama, for `load_llama`.

    The weights are float32, under Hugging Face's names, with W_q and W_k for rotation of
    halves. Raises ValueError for another architecture, sizes that are missing, rotary scaling
    and unknown tensors.
    """
    if (kind := file.metadata.get("general.architecture")) != "llama":
        raise ValueError(f"the architecture is {kind!r}, not llama")
    if scaled := [key for key in file.metadata if ".rope.scaling." in key]:
        raise ValueError(f"Llama turns by position and nothing else: {scaled[0]}")
    keys = ("context_length", "embedding_length", "block_count", "attention.head_count",
            "attention.head_count_kv", "feed_forward_length", "rope.freq_base",
            "attention.layer_norm_rms_epsilon")  # fmt: skip
    absent = [key for key in keys if f"llama.{key}" not in file.metadata]
    if absent or "token_embd.weight" not in file.tensors:
        raise ValueError(f"the file lacks {absent or 'token_embd.weight'}")
    *sizes, theta, eps = (file.metadata[f"llama.{key}"] for key in keys)
    config = LlamaConfig(
        file.tensors["token_embd.weight"].shape[0], *sizes, theta=theta, eps=eps,
        tied="output.weight" not in file.tensors,
    )  # fmt: skip
    state = {}
    for name in file.tensors:
        *layer, part, suffix = name.split(".")
        if part not in GGUF_NAMES or suffix != "weight" or layer[:1] not in ([], ["blk"]):
            raise ValueError(f"Llama has no {name}")
        w = file.tensor(name)
        w = torch.from_numpy(w if w.flags.writeable else w.copy())  # torch wants to own F32
        if part in ("attn_q", "attn_k"):
            heads = config.heads if part == "attn_q" else config.kv_heads
            w = interleaved_to_halves(w, heads).contiguous()
        key = (f"layers.{layer[1]}." if layer else "") + GGUF_NAMES[part]
        state[f"model.{key}.weight" if part != "output" else "lm_head.weight"] = w
    return config, state


PATTERNS = {  # tokenizer.ggml.pre -> pattern; "smollm" cuts every digit off, then as GPT-2
    "smollm": (
        r"\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+"
        r"|\s+(?=\p{N})"  # spaces before a digit stay together
        r"|\s+(?!\S)|\s+"
    ),
}


class SparseTokenizer(Tokenizer):
    """A Tokenizer whose vocabulary lacks some bytes: they vanish from the text, unencoded.

    Parameters as for Tokenizer, without its demand for all 256 bytes; `absent` are the others.
    """

    def __init__(self, ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int]):
        self.absent = bytes(b for b in range(256) if bytes([b]) not in ranks)
        above = 1 + max([*ranks.values(), *special.values()], default=-1)
        spare = {bytes([b]): above + i for i, b in enumerate(self.absent)}  # never produced
        super().__init__({**ranks, **spare}, pattern, special)
        self._tokens = {i: token for i, token in self._tokens.items() if i < above}

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of `text`, all of it taken for text. ValueError for a lone surrogate."""
        ids = []
        for piece in self._pattern.findall(text):
            if (found := self._cache.get(piece)) is None:
                found = bpe(piece.encode().translate(None, self.absent), self.ranks)
                if len(self._cache) < 100_000 and len(piece) < 50:
                    self._cache[piece] = found
            ids += found
        return ids

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes, valid UTF-8 or not; equal to `encode_ordinary` where they are text."""
        ids = []
        for piece in self._pattern.findall(data.decode("utf-8", "surrogateescape")):
            kept = piece.encode("utf-8", "surrogateescape").translate(None, self.absent)
            ids += bpe(kept, self.ranks)
        return ids


def read_tokenizer(metadata: Mapping) -> SparseTokenizer:
    """The tokenizer in the metadata of a GGUF file. ValueError for one of another kind."""
    names = [f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges")]
    if absent := [name for name in names if name not in metadata]:
        raise ValueError(f"the metadata lack {absent[0]}")
    model, pre, tokens, types, merges = (metadata[name] for name in names)
    if model != "gpt2" or pre not in PATTERNS:
        raise ValueError(f"only byte-level BPE cut as {[*PATTERNS]} is read, not {model}, {pre}")
    stand_in, hidden = {}, 256
    for byte, i in byte_ids().items():  # the visible bytes come first there
        stand_in[byte.decode("latin-1") if i < 188 else chr(hidden + i - 188)] = byte
    try:
        plain = [i for i, kind in enumerate(types) if kind == 1]
        ranks = {b"".join(stand_in[c] for c in tokens[i]): i for i in plain}
        joined = [b"".join(stand_in[c] for c in merge.replace(" ", "")) for merge in merges]
        order = [ranks[each] for each in joined]
    except (KeyError, IndexError) as error:
        raise ValueError(f"the vocabulary is not written in GPT-2's bytes: {error}") from None
    if order != sorted(order) or len(types) != len(tokens):
        raise ValueError("ids are not in the order of the merges, or types are missing")
    special = {tokens[i]: i for i, kind in enumerate(types) if kind == 3}
    return SparseTokenizer(ranks, PATTERNS[pre], special)


def load_smollm2() -> tuple[Llama, SparseTokenizer]:
    """SmolLM2-135M-Instruct (Allal et al., 2025) and its tokenizer, from the installed file.

    The model is in evaluation mode and needs no gradients; its weights are 540 MB of float32.
    Raises DataError if the package with the file is missing or altered.
    """
    with GGUF(datasets.smollm2()) as file:
        config, state = read_llama(file)
        return load_llama(state, config).requires_grad_(False), read_tokenizer(file.metadata)


SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The ids of a conversation in SmolLM2's form, up to where the assistant's reply begins.

    messages : dicts with "role" (system, user or assistant) and "content"; SYSTEM is put in
        front unless the first is from the system

    Content is encoded as ordinary text, so it cannot end its turn or begin another. Raises
    ValueError for no messages, another role, and content that is not a string.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    for message in messages:
        if message.get("role") not in ("system", "user", "assistant"):
            raise ValueError(f"no role is called {message.get('role')!r}")
        if not isinstance(message.get("content"), str):
            raise ValueError(f"content must be a string, not {message.get('content')!r}")
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": SYSTEM}, *messages]
    begin, end = tokenizer.special["<|im_start|>"], tokenizer.special["<|im_end|>"]
    ids, newline = [], tokenizer.encode_ordinary("\n")
    for message in messages:
        text = f"{message['role']}\n{message['content']}"
        ids += [begin, *tokenizer.encode_ordinary(text), end, *newline]
    return [*ids, begin, *tokenizer.encode_ordinary("assistant\n")]


def ask(
    model: Llama,
    tokenizer: Tokenizer,
    question: str | Sequence[Mapping[str, str]],
    steps: int = 200,
    choose: Callable[[torch.Tensor], torch.Tensor] = greedy,
) -> Iterator[str]:
    """The answer to a question, or to a conversation as in `chat_ids`, in pieces as they come.

    At most `steps` tokens; `choose` as in `generate`. Bytes that are not UTF-8 become U+FFFD.
    Raises ValueError for what `chat_ids` and `generate` refuse.
    """
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    prompt, stop = chat_ids(tokenizer, messages), {tokenizer.special["<|im_end|>"]}
    tokens = generate(model, prompt, steps, choose, stop)
    return _pieces(tokens, tokenizer)


def _pieces(tokens: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may need two tokens
    for token in tokens:
        if piece := decoder.decode(tokenizer.decode_bytes([token])):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece
