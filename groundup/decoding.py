# Generated from chapters/language/decoding.md; edit the chapter.
"""Decoding. You build everything between a model's logits and a text: the choice of a token, the
cache that makes the next one cheap, and a mask that lets only valid JSON through. Tokens agree
with `transformers` one by one, and all of 200 sampled JSON texts pass `jsonschema`, written by
a model that has read nothing but the King James Bible.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from operator import index
from typing import Any, Protocol

import torch
from torch import nn

__all__ = [
    "greedy",
    "scale_temperature",
    "top_k",
    "top_p",
    "min_p",
    "Sampler",
    "KVCache",
    "new_caches",
    "generate",
    "last_logits",
    "beam_search",
    "NOTHING",
    "EMPTY",
    "Expression",
    "one_of",
    "then",
    "either",
    "times",
    "derivative",
    "ByteMachine",
    "Machine",
    "TokenConstraint",
    "Unsatisfiable",
    "KINDS",
    "NOTES",
    "KNOWN",
    "json_expression",
    "KIND",
    "JSONConstraint",
]


def greedy(logits: torch.Tensor) -> torch.Tensor:
    """The most probable id of each row, (..., vocabulary) -> (...); of equal ones the lowest."""
    return logits.argmax(-1)


def scale_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """logits / temperature. ValueError unless 0 < temperature < ∞; for 0 take `greedy`."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"need 0 < temperature < ∞, not {temperature}; at 0 it is greedy")
    return logits / temperature


def top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """-inf for all but the k largest of each row, (..., vocabulary).

    What ties with the k-th stays too; k above the vocabulary keeps all. ValueError for k < 1.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"top-k keeps a whole number of tokens from 1 on, not {k}")
    smallest = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """-inf for all but the shortest list of most probable tokens that holds p, (..., vocabulary).

    The token that crosses p stays. Of equal ones the lower ids come first. p = 1 keeps all.
    ValueError unless 0 < p ≤ 1. Source: Holtzman et al. (2020).
    """
    if not 0 < p <= 1:
        raise ValueError(f"top-p needs 0 < p ≤ 1, not {p}")
    if p == 1:
        return logits
    order = logits.argsort(dim=-1, descending=True, stable=True)
    share = logits.gather(-1, order).double().softmax(-1)
    late = share.cumsum(-1) - share >= p  # p was reached before this token
    late[..., 0] = False
    return logits.masked_fill(torch.zeros_like(late).scatter(-1, order, late), -math.inf)


def min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """-inf for tokens less probable than p times the most probable one, (..., vocabulary).

    ValueError unless 0 < p ≤ 1. Source: Nguyen et al. (2025).
    """
    if not 0 < p <= 1:
        raise ValueError(f"min-p needs 0 < p ≤ 1, not {p}")
    floor = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < floor, -math.inf)


class Sampler:
    """Draws ids from logits: temperature, then top-k, top-p and min-p, then one uniform number.

    Called with logits (..., vocabulary) it returns ids (...). Temperature 0 is `greedy`. A filter
    that is None is off. The order is that of `transformers`.

    seed : an int, a generator (on any device), or None for torch's global generator

    Raises ValueError for settings that the filters refuse, for logits that are NaN or +inf, and
    for rows that allow nothing.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | torch.Generator | None = None,
    ):
        self.temperature, self.top_k, self.top_p, self.min_p = temperature, top_k, top_p, min_p
        self.generator = seed
        if seed is not None and not isinstance(seed, torch.Generator):
            self.generator = torch.Generator().manual_seed(seed)
        if not 0 <= temperature < math.inf:
            raise ValueError(f"need 0 ≤ temperature < ∞, not {temperature}")
        for keep, setting in self._filters():  # refuse bad settings now, not at the first token
            keep(torch.zeros(2), setting)

    def filter(self, logits: torch.Tensor) -> torch.Tensor:
        """The float64 logits (..., vocabulary) it draws from: -inf where a token is excluded."""
        logits = logits.double()  # a temperature may be as small as it likes
        if self.temperature == 0:
            best = greedy(logits).unsqueeze(-1)
            return torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)
        shifted = logits - logits.amax(-1, keepdim=True)
        logits = scale_temperature(shifted, self.temperature)
        for keep, setting in self._filters():
            logits = keep(logits, setting)
        return logits

    def _filters(self):
        pairs = (top_k, self.top_k), (top_p, self.top_p), (min_p, self.min_p)
        return [(keep, setting) for keep, setting in pairs if setting is not None]

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        highest = logits.amax(-1)
        if not highest.isfinite().all():
            raise ValueError("logits are NaN or +inf, or exclude every token of a row")
        if self.temperature == 0:
            return greedy(logits)
        total = self.filter(logits).softmax(-1).cumsum(-1)  # (..., vocabulary)
        where = logits.device if self.generator is None else self.generator.device
        u = torch.rand(
            (*highest.shape, 1), generator=self.generator, dtype=torch.float64, device=where
        )
        u = u.to(logits.device) * total[..., -1:]
        return torch.searchsorted(total, u, right=True).squeeze(-1)  # the first with total > u


class KVCache:
    """Keys and values of one layer, for the positions read so far.

    `append(k, v)` takes (batch, heads, new, dim) each and returns all that is held, (batch,
    heads, length, dim), as views that are good until the next call. Room grows by doubling, so
    n appends copy O(n) positions. `length` is the number of positions held. For inference:
    autograd cannot go back through it. Raises ValueError for tensors that do not fit.
    """

    def __init__(self):
        self.length = 0
        self._k = self._v = None

    def append(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if k.ndim != 4 or k.shape[:3] != v.shape[:3] or v.ndim != 4:
            raise ValueError(
                f"need (batch, heads, new, dim) twice, got {tuple(k.shape)} and {tuple(v.shape)}"
            )
        stop = self.length + k.shape[2]
        if self._k is None:
            room = max(stop, 16)
            self._k, self._v = (x.new_empty(*x.shape[:2], room, x.shape[3]) for x in (k, v))
        for name, new, held in (("keys", k, self._k), ("values", v, self._v)):
            one, other = (*new.shape[:2], new.shape[3]), (*held.shape[:2], held.shape[3])
            if one != other or (new.dtype, new.device) != (held.dtype, held.device):
                raise ValueError(
                    f"the cache holds {name} with (batch, heads, dim) = {other}, {held.dtype} on "
                    f"{held.device}; these have {one}, {new.dtype} on {new.device}"
                )
        if stop > self._k.shape[2]:
            self._k, self._v = (self._grown(x, 2 * stop) for x in (self._k, self._v))
        self._k[:, :, self.length : stop], self._v[:, :, self.length : stop] = k, v
        self.length = stop
        return self._k[:, :, :stop], self._v[:, :, :stop]

    def truncate(self, length: int) -> None:
        """Keep the first `length` positions. ValueError if fewer are held."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} positions of {self.length}")
        self.length = length

    def reorder(self, index: torch.Tensor) -> None:
        """Make sequence i of the batch a copy of the old sequence index[i]; the size may change."""
        if self._k is not None:
            self._k, self._v = self._k[index], self._v[index]

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values held, without the room for more."""
        held = () if self._k is None else (self._k, self._v)
        return sum(x[:, :, : self.length].numel() * x.element_size() for x in held)

    def _grown(self, x: torch.Tensor, room: int) -> torch.Tensor:
        larger = x.new_empty(*x.shape[:2], room, x.shape[3])
        larger[:, :, : self.length] = x[:, :, : self.length]
        return larger


def new_caches(model: nn.Module) -> list[KVCache]:
    """An empty cache for each of `model.blocks`."""
    return [KVCache() for _ in model.blocks]


def generate(
    model: nn.Module,
    ids: Iterable[int],
    steps: int,
    choose: Callable[[torch.Tensor], torch.Tensor] = greedy,
    stop: Collection[int] = (),
    cache: bool = True,
    constraint=None,
) -> Iterator[int]:
    """Continue `ids` by up to `steps` tokens, one at a time.

    model : ids (batch, time) and caches -> logits (batch, time, vocabulary); has `config.context`,
        `config.vocabulary` and `blocks`. Put it into evaluation mode first.
    choose : logits (1, vocabulary) -> id (1,), such as a `Sampler`
    stop : ids that end the text; they are not yielded, nor is `constraint.end`
    cache : keep keys and values; without it each step reads everything again
    constraint : has `start`, `allowed`, `advance` and `done`, as `TokenConstraint`. The text ends
        where nothing more is allowed; `steps` cuts it off like any other. Where one id is
        allowed, neither model nor `choose` is asked.

    Raises ValueError, before the first token, for an empty prompt, negative steps, and for more
    tokens than the context holds.
    """
    ids, config = [index(i) for i in ids], model.config
    if not ids:
        raise ValueError(
            "the prompt is empty, and a model predicts only what follows something: begin with "
            "the id of a start token, or of a line feed"
        )
    if steps < 0:
        raise ValueError(f"cannot generate {steps} tokens")
    if len(ids) + steps > config.context:
        raise ValueError(
            f"{len(ids)} tokens of prompt and {steps} more are {len(ids) + steps}, but the "
            f"context is {config.context}: shorten the prompt, or ask for fewer"
        )
    ends = set(stop) | {getattr(constraint, "end", None)}
    caches = new_caches(model) if cache else None
    return _generate(model, ids, steps, choose, ends, caches, constraint)


def _generate(model, ids, steps, choose, ends, caches, constraint) -> Iterator[int]:
    unread, state, allowed = ids, constraint.start() if constraint else None, None
    for _ in range(steps):
        if constraint:
            allowed = constraint.allowed(state)
            count = int(allowed.sum())
            if count == 0:
                return
        if constraint and count == 1:  # no need to ask; the model reads it with the next
            chosen = int(allowed.nonzero())
        else:
            chosen = _next(model, unread, choose, caches, allowed)
            unread = [] if caches else unread
        if chosen in ends:
            return
        yield chosen
        unread.append(chosen)
        state = constraint.advance(state, chosen) if constraint else None


def _next(model, unread, choose, caches, allowed) -> int:
    with torch.no_grad():  # not around the `yield`: there it would reach the caller's code
        logits = last_logits(model, torch.tensor([unread], device=_device(model)), caches)
    if allowed is not None:
        if allowed.shape != logits.shape[-1:]:
            raise ValueError(f"a mask of {len(allowed)} ids for {logits.shape[-1]} logits")
        logits = logits.masked_fill(~allowed.to(logits.device), -math.inf)
    return int(choose(logits))


def last_logits(model: nn.Module, ids: torch.Tensor, caches=None) -> torch.Tensor:
    """Logits (batch, vocabulary) for what follows ids (batch, time) and the caches' positions.

    A model whose `forward` has a parameter `last` is asked for the last position alone.
    """
    last = {"last": True} if "last" in inspect.signature(model.forward).parameters else {}
    return model(ids, caches, **last)[:, -1]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters(), torch.empty(0)).device


def beam_search(
    model: nn.Module, ids: Iterable[int], steps: int, beams: int, stop: Collection[int] = ()
) -> list[tuple[float, list[int]]]:
    """Up to `beams` continuations of `ids`, the most probable that the search finds, best first.

    Each is (log-probability, new ids); one that meets an id of `stop` ends there, and its
    log-probability includes that id. No correction for length. Raises ValueError for beams < 1
    and what `generate` refuses.
    """
    if beams < 1:
        raise ValueError(f"need at least one beam, not {beams}")
    ids = [index(i) for i in ids]
    generate(model, ids, steps)  # refuses what does not fit
    with torch.no_grad():
        return _beams(model, ids, steps, beams, stop)


def _beams(model, ids, steps, beams, stop) -> list[tuple[float, list[int]]]:
    device, caches = _device(model), new_caches(model)
    finished, held, scores = [], [[]], torch.zeros(1, dtype=torch.float64, device=device)
    unread = torch.tensor([ids], device=device)
    for _ in range(steps):
        logits = last_logits(model, unread, caches).double()
        total = (scores[:, None] + logits.log_softmax(-1)).flatten()  # (beams · vocabulary,)
        best = total.topk(min((1 + len(stop)) * beams, len(total)))
        parents, tokens = best.indices // logits.shape[-1], best.indices % logits.shape[-1]
        found = list(zip(best.values.tolist(), parents.tolist(), tokens.tolist()))
        finished += [(s, held[i]) for s, i, token in found[:beams] if token in stop]
        found = [entry for entry in found if entry[2] not in stop][:beams]
        finished = sorted(finished, key=lambda entry: -entry[0])[:beams]
        held = [[*held[i], token] for _, i, token in found]
        scores = torch.tensor([s for s, _, _ in found], dtype=torch.float64, device=device)
        if not found or (len(finished) == beams and finished[-1][0] >= found[0][0]):
            return finished  # longer ones are less probable still
        for cache in caches:
            cache.reorder(torch.tensor([i for _, i, _ in found], device=device))
        unread = torch.tensor([[token] for _, _, token in found], device=device)
    running = list(zip(scores.tolist(), held))
    return sorted(finished + running, key=lambda entry: -entry[0])[:beams]


# An expression stands for a set of byte strings. bytes: one string. frozenset: any one of its
# bytes. ("then", parts…), ("either", frozenset of parts), ("times", part, low, high or None).
NOTHING, EMPTY = None, b""  # no string at all; the string of no bytes
Expression = bytes | frozenset | tuple | None


def one_of(values: Iterable[int]) -> Expression:
    """One byte of `values`, which may be bytes."""
    return frozenset(values) or NOTHING


def then(*parts: Expression) -> Expression:
    """The parts, one after the other."""
    flat = []
    for part in parts:
        if part is NOTHING:
            return NOTHING
        for piece in part[1:] if isinstance(part, tuple) and part[0] == "then" else (part,):
            if isinstance(piece, bytes) and flat and isinstance(flat[-1], bytes):
                flat[-1] += piece
            elif piece != EMPTY:
                flat.append(piece)
    return ("then", *flat) if len(flat) > 1 else flat[0] if flat else EMPTY


def either(*parts: Expression) -> Expression:
    """Any one of the parts."""
    flat = set()
    for part in parts:
        flat |= part[1] if isinstance(part, tuple) and part[0] == "either" else {part}
    flat -= {NOTHING}
    return ("either", frozenset(flat)) if len(flat) > 1 else flat.pop() if flat else NOTHING


def times(part: Expression, low: int, high: int | None) -> Expression:
    """`part` repeated low to high times, with no upper limit if high is None.

    Raises ValueError unless 0 ≤ low ≤ high.
    """
    if low < 0 or (high is not None and high < low):
        raise ValueError(f"cannot repeat {low} to {high} times")
    if part is NOTHING:
        return NOTHING if low else EMPTY
    if high == 0 or part == EMPTY:
        return EMPTY
    return part if (low, high) == (1, 1) else ("times", part, low, high)


def _nullable(e: Expression) -> bool:
    """Does it match the empty string?"""
    match e:
        case bytes():
            return not e
        case ("then", *parts):
            return all(map(_nullable, parts))
        case ("either", parts):
            return any(map(_nullable, parts))
        case ("times", part, low, _):
            return low == 0 or _nullable(part)
    return False


def _first(e: Expression) -> frozenset[int]:
    """The bytes that a match may begin with."""
    match e:
        case bytes():
            return frozenset(e[:1])
        case ("then", *parts):
            firsts = set()
            for part in parts:
                firsts |= _first(part)
                if not _nullable(part):
                    break
            return frozenset(firsts)
        case ("either", parts):
            return frozenset().union(*map(_first, parts))
        case ("times", part, _, _):
            return _first(part)
    return e


def derivative(e: Expression, byte: int) -> Expression:
    """What may follow `byte` in the strings of `e` that begin with it; NOTHING if none does.

    Source: Brzozowski (1964).
    """
    match e:
        case None:
            return NOTHING
        case bytes():
            return e[1:] if e[:1] == bytes([byte]) else NOTHING
        case frozenset():
            return EMPTY if byte in e else NOTHING
        case ("either", parts):
            return either(*(derivative(part, byte) for part in parts))
        case ("times", part, low, high):
            rest = times(part, max(low - 1, 0), None if high is None else high - 1)
            return then(derivative(part, byte), rest)
    head, tail = e[1], then(*e[2:])
    inside = then(derivative(head, byte), tail)
    return either(inside, derivative(tail, byte)) if _nullable(head) else inside


def _longest(e: Expression) -> float:
    """Bytes of the longest match; inf if there is none."""
    match e:
        case bytes():
            return len(e)
        case ("then", *parts):
            return sum(map(_longest, parts))
        case ("either", parts):
            return max(map(_longest, parts))
        case ("times", part, _, high):
            return math.inf if high is None else high * _longest(part)
    return 1


def _alphabet(e: Expression) -> frozenset[int]:
    """All bytes that occur in its matches."""
    match e:
        case ("then", *parts) | ("either", parts):
            return frozenset().union(*map(_alphabet, parts))
        case ("times", part, _, _):
            return _alphabet(part)
    return frozenset(e)


class ByteMachine(Protocol):
    """Reads bytes and says which may come next. States are hashable; none is a dead end."""

    alphabet: frozenset[int]  # all bytes that it may ever ask for

    def start(self) -> Hashable: ...
    def next_bytes(self, state: Hashable) -> frozenset[int]: ...
    def step(self, state: Hashable, byte: int) -> Hashable | None: ...
    def accepting(self, state: Hashable) -> bool: ...


class Machine:
    """The `ByteMachine` of an expression. A state is a number; each is made when first reached.

    longest : bytes of the longest text, inf if there is no limit

    `step` returns None where the byte may not come. Raises ValueError for NOTHING, which no text
    matches.
    """

    def __init__(self, expression: Expression):
        if expression is NOTHING:
            raise ValueError("no text matches this expression")
        self.alphabet, self.longest = _alphabet(expression), _longest(expression)
        self._expressions, self._numbers = [expression], {expression: 0}
        self._steps: list[dict[int, int]] = [{}]
        self._next: list[frozenset[int]] = [_first(expression)]

    def start(self) -> int:
        return 0

    def next_bytes(self, state: int) -> frozenset[int]:
        return self._next[state]

    def step(self, state: int, byte: int) -> int | None:
        if byte not in self._next[state]:
            return None
        known = self._steps[state]
        if byte not in known:
            e = derivative(self._expressions[state], byte)
            known[byte] = number = self._numbers.setdefault(e, len(self._expressions))
            if number == len(self._expressions):
                self._expressions.append(e)
                self._steps.append({})
                self._next.append(_first(e))
        return known[byte]

    def accepting(self, state: int) -> bool:
        return _nullable(self._expressions[state])

    def matches(self, text: bytes) -> bool:
        """Does the whole text belong to the language?"""
        state = 0
        for byte in text:
            state = self.step(state, byte)
            if state is None:
                return False
        return self.accepting(state)


def _trie(tokens: Sequence[bytes]) -> list:
    """A node is [ids of the tokens that end here, {byte: the next node}]."""
    root = [[], {}]
    for i, token in enumerate(tokens):
        if token:
            node = root
            for byte in token:
                node = node[1].setdefault(byte, [[], {}])
            node[0].append(i)
    return root


def _survivors(trie: list, machine: ByteMachine, state: Hashable) -> list[int]:
    """Ids of the tokens all of whose bytes the machine can read from `state`."""
    ids, todo = [], [(trie, state)]
    while todo:
        (_, children), here = todo.pop()
        for byte in machine.next_bytes(here) & children.keys():
            child = children[byte]
            ids += child[0]
            if child[1]:
                todo.append((child, machine.step(here, byte)))
    return ids


class TokenConstraint:
    """Tells `generate` which tokens keep a text within the language of a `ByteMachine`.

    machine : knows bytes, not tokens
    token_bytes : bytes of each id; b"" for tokens that are not text, which are never allowed
    end : the id that ends the text, allowed where the machine accepts. Without it a text ends
        where nothing may follow.

    A state is the machine's, or None after `end`. From every state the bytes lead to a complete
    text, since each byte is a token too. Raises ValueError where a byte that the machine may need
    is no token by itself.
    """

    def __init__(self, machine: ByteMachine, token_bytes: Sequence[bytes], end: int | None = None):
        if end is not None and not 0 <= end < len(token_bytes):
            raise ValueError(f"end is {end}, but the ids are 0 to {len(token_bytes) - 1}")
        self.machine, self.end, self.size = machine, end, len(token_bytes)
        self._bytes = [b"" if i == end else bytes(t) for i, t in enumerate(token_bytes)]
        if absent := machine.alphabet - {t[0] for t in self._bytes if len(t) == 1}:
            raise ValueError(f"these bytes are no token by themselves: {bytes(sorted(absent))!r}")
        self.trie = _trie(self._bytes)
        self._masks: dict[Hashable, torch.Tensor] = {}

    def start(self) -> Hashable:
        return self.machine.start()

    def allowed(self, state: Hashable) -> torch.Tensor:
        """(vocabulary,) boolean: the ids that may come. It is kept; do not change it."""
        if state not in self._masks:
            if len(self._masks) >= 10_000:  # bounded, whatever the texts are
                self._masks.clear()
            mask = torch.zeros(self.size, dtype=torch.bool)
            mask[self._ids(state)] = True
            self._masks[state] = mask
        return self._masks[state]

    def _ids(self, state: Hashable) -> list[int]:
        if state is None:
            return []
        ends = self.end is not None and self.machine.accepting(state)
        return _survivors(self.trie, self.machine, state) + [self.end] * ends

    def advance(self, state: Hashable, token: int) -> Hashable:
        """The state after `token`. Raises ValueError where it is not allowed."""
        if state is not None and token == self.end and self.machine.accepting(state):
            return None
        if state is None or not 0 <= token < self.size or not self._bytes[token]:
            raise ValueError(f"token {token} is not allowed here")
        for byte in self._bytes[token]:
            state = self.machine.step(state, byte)
            if state is None:
                raise ValueError(f"token {token}, {self._bytes[token]!r}, is not allowed here")
        return state

    def done(self, state: Hashable) -> bool:
        """May the text stop here?"""
        return state is None or self.machine.accepting(state)


class Unsatisfiable(ValueError):
    """No JSON value satisfies the schema."""


KINDS = ("object", "array", "string", "integer", "number", "boolean", "null")
NOTES = {"title", "description", "default", "examples", "$schema", "$id", "$comment"}
KNOWN = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
}


def _utf8_character() -> Expression:
    """One character within a JSON string, as UTF-8 (RFC 3629, section 4) or as a short escape."""
    more, span = one_of(range(0x80, 0xC0)), lambda low, high: one_of(range(low, high + 1))
    return either(
        one_of(set(range(0x20, 0x80)) - set(b'"\\')),
        then(b"\\", one_of(b'"\\/bfnrt')),
        then(span(0xC2, 0xDF), more),
        then(b"\xe0", span(0xA0, 0xBF), more),
        then(either(span(0xE1, 0xEC), span(0xEE, 0xEF)), more, more),
        then(b"\xed", span(0x80, 0x9F), more),  # no surrogates
        then(b"\xf0", span(0x90, 0xBF), more, more),
        then(span(0xF1, 0xF3), more, more, more),
        then(b"\xf4", span(0x80, 0x8F), more, more),
    )


def _numerals(low: str, high: str, point: int) -> Expression:
    """Numerals of one length from low to high, with a dot before the last `point` digits."""
    if not low:
        return EMPTY
    digits, dot = len(low) - 1, b"." if len(low) == point else b""
    middle, parts = [int(low[0]), int(high[0])], []
    if low[0] == high[0]:
        return then(dot, low[0].encode(), _numerals(low[1:], high[1:], point))
    if set(low[1:]) - {"0"}:
        parts.append(then(low[0].encode(), _numerals(low[1:], "9" * digits, point)))
        middle[0] += 1
    if set(high[1:]) - {"9"}:
        parts.append(then(high[0].encode(), _numerals("0" * digits, high[1:], point)))
        middle[1] -= 1
    if middle[0] <= middle[1]:
        first = one_of(range(0x30 + middle[0], 0x31 + middle[1]))
        parts.append(then(first, _numerals("0" * digits, "9" * digits, point)))
    return then(dot, either(*parts))


def _multiples(low: int, high: int, point: int) -> Expression:
    """The numbers low·10^-point to high·10^-point in steps of 10^-point, all digits written."""
    parts = []
    if low < 0:
        parts.append(then(b"-", _multiples(max(1, -high), -low, point)))
    if high >= 0:
        low = max(low, 0)
        for size in range(max(point + 1, len(str(low))), max(point + 1, len(str(high))) + 1):
            least = 10 ** (size - 1) if size > point + 1 else 0
            bottom, top = max(low, least), min(high, 10**size - 1)
            if bottom <= top:
                parts.append(_numerals(str(bottom).zfill(size), str(top).zfill(size), point))
    return either(*parts)


def _number(schema: dict, places: int, digits: int, where: str) -> Expression:
    """Numbers within the schema's bounds: whole ones, and ones with 1 to `places` decimals."""
    bounds = {}
    for key in KNOWN["number"] & schema.keys():
        value = schema[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise ValueError(f"{where}: {key} must be a number, not {value!r}")
        bounds[key] = Decimal(repr(value))
    lows = [bounds[k] for k in ("minimum", "exclusiveMinimum") if k in bounds]
    highs = [bounds[k] for k in ("maximum", "exclusiveMaximum") if k in bounds]
    largest = Decimal(10**digits - 1)
    high = min(highs) if highs else max([largest, *(low + largest for low in lows)])
    low = max(lows) if lows else min(-largest, high - largest)
    if not (low.is_finite() and high.is_finite()):
        raise ValueError(f"{where}: bounds must be finite")
    parts = []
    for point in range(places + 1):
        start = int((low * 10**point).to_integral_value(ROUND_CEILING))
        stop = int((high * 10**point).to_integral_value(ROUND_FLOOR))
        start += start == low * 10**point and bounds.get("exclusiveMinimum") == low
        stop -= stop == high * 10**point and bounds.get("exclusiveMaximum") == high
        parts.append(_multiples(start, stop, point) if start <= stop else NOTHING)
    if either(*parts) is NOTHING:
        raise Unsatisfiable(
            f"{where}: no number with at most {places} decimals lies between {low} and {high}"
        )
    return either(*parts)


def json_expression(
    schema: dict,
    max_length: int = 32,
    max_items: int = 8,
    digits: int = 6,
    places: int = 2,
    spaces: bool = True,
) -> Expression:
    """The JSON texts that satisfy `schema`, as bytes. With the limits there are finitely many.

    Known are type, enum, const, anyOf, properties, required, additionalProperties false,
    items, minItems, maxItems, minLength, maxLength, and the four bounds of numbers. Objects have
    the listed properties only, in the schema's order.

    max_length, max_items : of strings and arrays to which the schema sets no limit
    digits : of numbers beyond a bound that is absent; places : decimals
    spaces : one space may follow each comma and colon

    Raises Unsatisfiable, a ValueError, for a schema that no value satisfies, and ValueError for one
    that uses anything else; both name the place.
    """
    limits = {"max_length": max_length, "max_items": max_items, "digits": digits, "places": places}
    limits["space"] = times(b" ", 0, int(spaces))
    return _compile(schema, "schema", limits)


def _compile(schema: Any, where: str, limits: dict) -> Expression:
    if schema is False:
        raise Unsatisfiable(f"{where}: false allows no value")
    if not isinstance(schema, dict):
        raise ValueError(f"{where}: a schema is an object, not {schema!r}")
    known = {"type", "enum", "const", "anyOf"}.union(NOTES, *KNOWN.values())
    if unknown := schema.keys() - known:
        raise ValueError(f"{where}: the keyword {min(unknown)!r} is not supported")
    keys = schema.keys() - NOTES
    for key in ("anyOf", "enum", "const"):
        if key in keys and (beside := keys - {key, "type"} if key != "anyOf" else keys - {key}):
            raise ValueError(f"{where}: {min(beside)!r} beside {key!r} is not supported")
    if "anyOf" in keys:
        return _any(schema["anyOf"], where, limits)
    kinds = schema.get("type", KINDS)
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    if "type" in keys and (not isinstance(kinds, list | tuple) or not set(kinds) <= set(KINDS)):
        raise ValueError(f"{where}: {schema['type']!r} is not a type of JSON")
    if "enum" in keys or "const" in keys:
        values = schema["enum"] if "enum" in keys else [schema["const"]]
        if not isinstance(values, list):
            raise ValueError(f"{where}: enum must be an array, not {values!r}")
        fitting = [v for v in values if any(_is(v, kind) for kind in kinds)]
        if not fitting:
            why = f"no value of {values} is of type {schema['type']}" if values else "empty enum"
            raise Unsatisfiable(f"{where}: {why}")
        return either(*map(_json, fitting))
    if "type" not in keys:
        raise ValueError(f"{where}: give one of type, enum, const, anyOf")
    if not kinds:
        raise Unsatisfiable(f"{where}: the list of types is empty")
    return _first_of([(KIND[kind], (schema, where, limits)) for kind in kinds])


def _first_of(choices: list[tuple[Callable, tuple]]) -> Expression:
    """Any of the choices that can be satisfied; the first reason if none can."""
    parts, reasons = [], []
    for make, args in choices:
        try:
            parts.append(make(*args))
        except Unsatisfiable as error:
            reasons.append(error)
    if not parts:
        raise reasons[0]
    return either(*parts)


def _any(options, where, limits) -> Expression:
    if not isinstance(options, list) or not options:
        raise ValueError(f"{where}: anyOf must be a list that is not empty")
    return _first_of(
        [(_compile, (s, f"{where}.anyOf[{i}]", limits)) for i, s in enumerate(options)]
    )


def _is(value: Any, kind: str) -> bool:
    """Is the value of this type, as JSON Schema understands it?"""
    if isinstance(value, bool):
        return kind == "boolean"
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return {
        "object": isinstance(value, dict), "array": isinstance(value, list),
        "string": isinstance(value, str), "null": value is None,
        "integer": whole, "number": isinstance(value, int | float), "boolean": False,
    }[kind]  # fmt: skip


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _range(schema: dict, low: str, high: str, limit: int, where: str) -> tuple[int, int]:
    """The two bounds of a length, the upper one `limit` if the schema has none."""
    for key in {low, high} & schema.keys():
        if isinstance(schema[key], bool) or not isinstance(schema[key], int) or schema[key] < 0:
            raise ValueError(f"{where}: {key} must be a whole number from 0 on")
    least = schema.get(low, 0)
    most = schema.get(high, max(limit, least))
    if least > most:
        raise Unsatisfiable(f"{where}: {low} {least} is above {high} {most}")
    return least, most


def _string(schema, where, limits) -> Expression:
    low, high = _range(schema, "minLength", "maxLength", limits["max_length"], where)
    return then(b'"', times(_utf8_character(), low, high), b'"')


def _array(schema, where, limits) -> Expression:
    low, high = _range(schema, "minItems", "maxItems", limits["max_items"], where)
    if high == 0:
        return b"[]"
    if "items" not in schema:
        raise ValueError(f"{where}: an array needs items")
    try:
        item = _compile(schema["items"], f"{where}.items", limits)
    except Unsatisfiable:
        if low:
            raise
        return b"[]"
    full = then(item, times(then(b",", limits["space"], item), max(low - 1, 0), high - 1))
    return then(b"[", full if low else times(full, 0, 1), b"]")


def _object(schema, where, limits) -> Expression:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list):
        raise ValueError(f"{where}: properties must be an object, and required an array")
    if schema.get("additionalProperties", False) not in (False, True):
        raise ValueError(f"{where}: a schema for additionalProperties is not supported")
    if absent := [name for name in required if name not in properties]:
        kind = Unsatisfiable if schema.get("additionalProperties") is False else ValueError
        raise kind(f"{where}: {absent[0]!r} is required, but not among the properties")
    members = []
    for name, value in properties.items():
        try:
            e = _compile(value, f"{where}.{name}", limits)
        except Unsatisfiable:
            if name in required:
                raise
            continue  # it can be left out, and must be
        members.append((then(_json(name), b":", limits["space"], e), name in required))
    rest, first = EMPTY, EMPTY  # the members from here on: after others, and as the first ones
    for member, needed in reversed(members):
        first = then(member, rest) if needed else either(then(member, rest), first)
        rest = then(times(then(b",", limits["space"], member), int(needed), 1), rest)
    return then(b"{", first, b"}")


KIND = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": lambda schema, where, limits: _number(schema, 0, limits["digits"], where),
    "number": lambda schema, where, limits: _number(
        schema, limits["places"], limits["digits"], where
    ),
    "boolean": lambda *_: either(b"true", b"false"),
    "null": lambda *_: b"null",
}


class JSONConstraint(TokenConstraint):
    """A `TokenConstraint` to the JSON texts that satisfy a schema.

    Limits and errors as in `json_expression`. `machine.longest` bytes suffice for any text, so as
    many steps always suffice too.
    """

    def __init__(
        self, schema: dict, token_bytes: Sequence[bytes], end: int | None = None, **limits: int
    ):
        super().__init__(Machine(json_expression(schema, **limits)), token_bytes, end)
