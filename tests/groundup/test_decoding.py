import json
import math
import re

import jsonschema
import numpy as np
import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from groundup.decoding import (
    EMPTY,
    NOTHING,
    ByteMachine,
    JSONConstraint,
    KVCache,
    Machine,
    Sampler,
    TokenConstraint,
    Unsatisfiable,
    beam_search,
    derivative,
    either,
    generate,
    greedy,
    json_expression,
    last_logits,
    min_p,
    new_caches,
    one_of,
    scale_temperature,
    then,
    times,
    top_k,
    top_p,
)
from groundup.transformer import GPT, GPTConfig, load_gpt2

MERGED = [b'{"', b'":', b'","', b'"}', b"12", b"true", b"null", b"ab", b"\xc3\xa9", b'"]', b", ", b"\\\\"]
TOKENS = [bytes([i]) for i in range(256)] + MERGED + [b""]


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    reference = GPT2LMHeadModel(
        GPT2Config(vocab_size=61, n_positions=40, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)
    ).eval()
    with torch.no_grad():
        for p in reference.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return load_gpt2(reference), reference


class Noise(nn.Module):
    """Random logits of any size, without weights."""

    def __init__(self, vocabulary, seed, scale=1e3, context=100_000):
        super().__init__()
        self.config = GPTConfig(vocabulary, context, 2, 1, 1)
        self.blocks, self.scale = [], scale
        self.generator = torch.Generator().manual_seed(seed)

    def forward(self, ids, caches=None):
        return self.scale * torch.randn(1, 1, self.config.vocabulary, generator=self.generator)


# --- the cache


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_cache_returns_all_that_was_appended(sizes, seed):
    g = torch.Generator().manual_seed(seed)
    cache, ks, vs = KVCache(), [], []
    for n in sizes:
        ks.append(torch.randn(2, 3, n, 4, generator=g))
        vs.append(torch.randn(2, 3, n, 5, generator=g))
        k, v = cache.append(ks[-1], vs[-1])
        assert torch.equal(k, torch.cat(ks, 2)) and torch.equal(v, torch.cat(vs, 2))
    assert cache.length == sum(sizes) and cache.nbytes == 2 * 3 * sum(sizes) * 9 * 4


def test_cache_copies_a_linear_amount():
    cache, moved = KVCache(), 0
    for _ in range(3000):
        before = cache._k
        cache.append(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        moved += 0 if before is None or before is cache._k else before.shape[2]
    assert moved < 2 * 3000


def test_cache_truncate_and_reorder():
    cache, k = KVCache(), torch.randn(3, 2, 5, 4)
    cache.reorder(torch.tensor([0]))  # nothing held: nothing to do
    cache.append(k, k)
    cache.truncate(2)
    new = torch.randn(3, 2, 1, 4)
    got, _ = cache.append(new, new)
    assert torch.equal(got, torch.cat([k[:, :, :2], new], 2))
    cache.reorder(torch.tensor([2, 2, 0, 1]))
    again = torch.randn(4, 2, 1, 4)
    got, _ = cache.append(again, again)
    assert torch.equal(got[:, :, :3], torch.cat([k[:, :, :2], new], 2)[[2, 2, 0, 1]])
    for wrong in (-1, 5):
        with pytest.raises(ValueError, match="cannot keep"):
            cache.truncate(wrong)


def test_cache_refuses_what_does_not_fit():
    cache, x = KVCache(), torch.zeros(2, 3, 1, 4)
    with pytest.raises(ValueError, match="twice"):
        cache.append(x[0], x[0])
    with pytest.raises(ValueError, match="twice"):
        cache.append(x, x.expand(2, 3, 2, 4))
    cache.append(x, x)
    for wrong in (x[:1], x[:, :2], x[..., :2], x.double()):
        with pytest.raises(ValueError, match="the cache holds keys"):
            cache.append(wrong, wrong)
    assert cache.length == 1


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_reading_in_pieces_equals_reading_at_once(sizes, seed):
    model = GPT(GPTConfig(11, 40, 8, 2, 2, std=0.5), torch.Generator().manual_seed(1)).eval()
    ids = torch.randint(0, 11, (2, sum(sizes)), generator=torch.Generator().manual_seed(seed))
    caches = new_caches(model)
    with torch.no_grad():
        pieces = torch.cat([model(part, caches) for part in ids.split(sizes, 1)], 1)
        assert torch.allclose(pieces, model(ids), atol=1e-5)


# --- filters and the sampler


@given(
    st.integers(1, 200), st.integers(1, 300), st.floats(0.01, 0.99), st.floats(0.01, 1), st.floats(0.1, 5), st.integers(0, 2**31)
)
@settings(max_examples=80, deadline=None)
def test_filters_equal_those_of_transformers(size, k, p, m, tau, seed):
    z = 3 * torch.randn(4, size, generator=torch.Generator().manual_seed(seed))
    share = z.double().softmax(-1)
    sums = share.sort(descending=True).values.cumsum(-1)
    assume((sums - p).abs().min() > 1e-5)  # no rounding at the edge
    assume((share / share.amax(-1, keepdim=True) - m).abs().min() > 1e-5 or m == 1)
    t = transformers
    assert torch.equal(scale_temperature(z, tau), t.TemperatureLogitsWarper(tau)(None, z))
    assert torch.equal(top_k(z, k), t.TopKLogitsWarper(k)(None, z))
    assert torch.equal(top_p(z, p), t.TopPLogitsWarper(p)(None, z))
    assert torch.equal(min_p(z, m), t.MinPLogitsWarper(m)(None, z))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.floats(0.01, 1))
def test_top_p_keeps_the_shortest_list(values, p):
    z = torch.tensor(values, dtype=torch.float64)
    kept = top_p(z, p).isfinite()
    share = z.softmax(-1)
    inside, smallest = share[kept], share[kept].min()
    assert inside.sum() >= p - 1e-9
    assert p == 1 or inside.sum() - smallest < p + 1e-9
    outside = share[~kept]
    assert not len(outside) or outside.max() <= smallest + 1e-12


def test_ties():
    z = torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0])
    assert top_k(z, 1).isfinite().tolist() == [False, True, True, True, False]
    assert top_p(z, 0.2).isfinite().tolist() == [False, True, False, False, False]
    assert min_p(z, 1.0).isfinite().tolist() == [False, True, True, True, False]
    assert greedy(z) == 1 and Sampler(0)(z) == 1


def test_settings_out_of_range():
    z = torch.zeros(3)
    for wrong in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            scale_temperature(z, wrong)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="top-k"):
            top_k(z, wrong)
    for wrong in (0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="top-p"):
            top_p(z, wrong)
        with pytest.raises(ValueError, match="min-p"):
            min_p(z, wrong)
        with pytest.raises(ValueError, match="top-p"):
            Sampler(0, top_p=wrong)
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="temperature"):
            Sampler(wrong)
    with pytest.raises(ValueError, match="top-k"):
        Sampler(top_k=0)
    for bad in (torch.tensor([math.nan, 0]), torch.tensor([math.inf, 0]), torch.full((2,), -math.inf)):
        with pytest.raises(ValueError, match="logits are"):
            Sampler()(bad)
        with pytest.raises(ValueError, match="logits are"):
            Sampler(0)(bad)


@given(st.integers(0, 2**31), st.floats(0.3, 2), st.sampled_from([None, 3]), st.sampled_from([None, 0.8]))
@settings(max_examples=15, deadline=None)
def test_the_sampler_follows_its_probabilities(seed, tau, k, p):
    from scipy import stats

    z = torch.randn(6, generator=torch.Generator().manual_seed(seed))
    sampler = Sampler(tau, k, p, seed=seed)
    q = sampler.filter(z).double().softmax(-1).numpy()
    counts = np.bincount(sampler(z.expand(20_000, 6)), minlength=6)
    assert counts[q == 0].sum() == 0
    assert (q > 0).sum() == 1 or stats.chisquare(counts[q > 0], 20_000 * q[q > 0] / q.sum()).pvalue > 1e-7


def test_sampler_shapes_seeds_and_extremes():
    z = torch.randn(2, 3, 7)
    assert Sampler(seed=1)(z).shape == (2, 3) and Sampler(0)(z).shape == (2, 3)
    assert torch.equal(Sampler(seed=1)(z), Sampler(seed=torch.Generator().manual_seed(1))(z))
    torch.manual_seed(5)
    first = Sampler()(z)
    torch.manual_seed(5)
    assert torch.equal(first, Sampler()(z))
    for tau in (1e-300, 1e-40, 1e-6):
        assert torch.equal(Sampler(tau, seed=0)(z), greedy(z))
    one = torch.full((9,), -math.inf)
    one[4] = -1e30
    assert Sampler(seed=0)(one) == 4


# --- generate and beams


def test_greedy_equals_transformers_with_and_without_cache(pair):
    model, reference = pair
    for seed in range(4):
        ids = torch.randint(1, 61, (1, 3 + seed), generator=torch.Generator().manual_seed(seed))
        theirs = reference.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
        theirs = theirs[0, ids.shape[1] :].tolist()
        assert theirs == list(generate(model, ids[0], 20)) == list(generate(model, ids[0], 20, cache=False))
        stop = theirs[7]
        assert list(generate(model, ids[0], 20, stop=[stop])) == theirs[: theirs.index(stop)]


def test_sampling_does_not_depend_on_the_cache(pair):
    texts = [list(generate(pair[0], [1, 2], 30, Sampler(0.8, top_p=0.9, seed=3), cache=c)) for c in (True, False)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("end", [None, 7])
def test_beams_equal_transformers(pair, beams, end):
    model, reference = pair
    for seed in range(3):
        ids = torch.randint(1, 61, (1, 5), generator=torch.Generator().manual_seed(seed))
        theirs = reference.generate(
            ids, max_new_tokens=15, do_sample=False, num_beams=beams, num_return_sequences=beams,
            length_penalty=0.0, eos_token_id=end, pad_token_id=0,
        )  # fmt: skip
        ours = beam_search(model, ids[0], 15, beams, () if end is None else (end,))
        for (_, found), row in zip(ours, theirs):
            row = row[5:].tolist()
            assert found == (row[: row.index(end)] if end in row else row)


def test_beam_search_finds_the_best_if_it_may_keep_everything():
    model = GPT(GPTConfig(4, 8, 8, 1, 2, std=1.0), torch.Generator().manual_seed(0)).eval()
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    with torch.no_grad():
        z = model(torch.cat([torch.full((64, 1), 2), every], 1)).log_softmax(-1)
    scores = z[:, :3].gather(-1, every[..., None]).sum((1, 2))
    found = beam_search(model, [2], 3, 64)
    assert found[0][1] == every[scores.argmax()].tolist() and len(found) == 64
    assert abs(found[0][0] - scores.max()) < 1e-5


def test_generate_refuses_before_the_first_token(pair):
    model, _ = pair
    for act in (generate, lambda *a: beam_search(*a, 2)):
        with pytest.raises(ValueError, match="empty"):
            act(model, [], 3)
        with pytest.raises(ValueError, match="cannot generate"):
            act(model, [1], -1)
        with pytest.raises(ValueError, match="30 tokens of prompt and 11 more are 41.* 40"):
            act(model, [1] * 30, 11)
    with pytest.raises(ValueError, match="beam"):
        beam_search(model, [1], 2, 0)
    assert list(generate(model, [1], 0)) == [] and len(list(generate(model, [1] * 30, 10))) == 10


def test_gradients_stay_as_the_caller_has_them(pair):
    for _ in generate(pair[0], [1], 3):
        assert torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_a_model_with_last_is_asked_for_the_last():
    class Last(Noise):
        def forward(self, ids, caches=None, last=False):
            self.asked = last
            return torch.zeros(1, 1 if last else ids.shape[1], 5)

    model = Last(5, 0)
    assert last_logits(model, torch.zeros(1, 3, dtype=torch.long)).shape == (1, 5) and model.asked


# --- expressions and machines

LEAVES = st.one_of(
    st.sampled_from([b"", b"a", b"b", b"ab"]), st.sampled_from([b"a", b"ab", b"abc"]).map(one_of), st.just(NOTHING)
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: then(*pair)),
        st.tuples(inner, inner).map(lambda pair: either(*pair)),
        st.tuples(inner, st.integers(0, 2), st.sampled_from([0, 1, 2, None])).map(
            lambda t: times(t[0], t[1], None if t[2] is None else t[1] + t[2])
        ),
    ),
    max_leaves=6,
)


def as_regex(e) -> bytes:
    match e:
        case None:
            return b"(?!)"
        case bytes():
            return b"(?:" + re.escape(e) + b")"
        case ("then", *parts):
            return b"(?:" + b"".join(map(as_regex, parts)) + b")"
        case ("either", parts):
            return b"(?:" + b"|".join(map(as_regex, parts)) + b")"
        case ("times", part, low, high):
            return b"(?:%s{%d,%s})" % (as_regex(part), low, b"" if high is None else b"%d" % high)
    return b"[" + bytes(sorted(e)) + b"]"


@given(EXPRESSIONS, st.lists(st.sampled_from(list(b"abc")), max_size=7).map(bytes))
@settings(max_examples=400, deadline=None)
def test_machines_match_what_re_matches(e, text):
    if e is NOTHING:
        with pytest.raises(ValueError, match="no text"):
            Machine(e)
        return
    machine = Machine(e)
    found = re.fullmatch(as_regex(e), text) is not None
    assert machine.matches(text) == found
    assert not found or len(text) <= machine.longest and set(text) <= machine.alphabet
    state = machine.start()  # next_bytes tells the truth, and there is no dead end
    for _ in range(30):
        for b in b"abcd":
            assert (machine.step(state, b) is not None) == (b in machine.next_bytes(state))
        if not machine.next_bytes(state):
            assert machine.accepting(state)
            break
        state = machine.step(state, min(machine.next_bytes(state)))


def test_expression_edges():
    assert then() == EMPTY and either() is NOTHING and one_of(b"") is NOTHING
    assert then(b"a", NOTHING) is NOTHING and times(NOTHING, 0, 3) == EMPTY and times(NOTHING, 1, 3) is NOTHING
    assert derivative(NOTHING, 97) is NOTHING and derivative(b"ab", 97) == b"b"
    for low, high in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="repeat"):
            times(b"a", low, high)


def test_token_constraint_with_an_end():
    tokens = [b"a", b"b", b"ab", b"", b"<end>"]
    c = TokenConstraint(Machine(then(b"a", times(b"b", 0, 1))), tokens, end=4)
    s = c.start()
    assert c.allowed(s).tolist() == [True, False, True, False, False] and not c.done(s)
    s = c.advance(s, 0)
    assert c.allowed(s).tolist() == [False, True, False, False, True] and c.done(s)
    s = c.advance(s, 4)
    assert not c.allowed(s).any() and c.done(s)
    for token in (0, 3, 4, -1, 99):
        with pytest.raises(ValueError, match="not allowed"):
            c.advance(s, token)
    with pytest.raises(ValueError, match="not allowed"):
        c.advance(c.start(), 1)
    texts = {tuple(generate(Noise(5, seed), [0], 9, constraint=c)) for seed in range(30)}
    assert texts == {(0,), (0, 1), (2,)}  # the end is not yielded
    with pytest.raises(ValueError, match="end is 9"):
        TokenConstraint(Machine(b"a"), tokens, end=9)
    with pytest.raises(ValueError, match=r"no token by themselves: b'c'"):
        TokenConstraint(Machine(b"ac"), tokens)
    with pytest.raises(ValueError, match="a mask of 5 ids for 6 logits"):
        list(generate(Noise(6, 0), [0], 9, constraint=c))


@given(EXPRESSIONS, st.lists(st.sampled_from([b"a", b"b", b"c", b"ab", b"bc", b"abc", b"aa"]), max_size=5))
@settings(max_examples=100, deadline=None)
def test_masks_are_what_walking_each_token_gives(e, extra):
    assume(e is not NOTHING)
    tokens = [b"a", b"b", b"c", *extra, b""]
    machine = Machine(e)
    c = TokenConstraint(machine, tokens)
    for state in range(min(len(machine._next), 5)):
        for i, ok in enumerate(c.allowed(state).tolist()):
            here = state if tokens[i] else None
            for byte in tokens[i]:
                here = None if here is None else machine.step(here, byte)
            assert ok == (here is not None)


# --- JSON

VALUES = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.sampled_from(["", "a", 'é"\\', "\n"]))


def bounded(kind):
    numbers = st.integers(-300, 300) if kind == "integer" else st.decimals(-30, 30, places=1).map(float)
    keys = st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
    return st.dictionaries(keys, numbers, max_size=3).map(lambda d: {"type": kind, **d})


def sizes(kind, low, high):
    pairs = st.dictionaries(st.sampled_from([low, high]), st.integers(0, 3))
    return pairs.map(lambda d: {"type": kind, **d})


def objects(inner):
    names = st.sampled_from(["a", "b", 'q"', "é"])
    return st.tuples(st.dictionaries(names, inner, max_size=3), st.lists(names, max_size=2)).map(
        lambda t: {
            "type": "object", "properties": t[0], "additionalProperties": False,
            "required": [n for n in t[1] if n in t[0]],
        }  # fmt: skip
    )


SCHEMAS = st.recursive(
    st.one_of(
        bounded("integer"), bounded("number"), sizes("string", "minLength", "maxLength"),
        st.sampled_from(["boolean", "null"]).map(lambda k: {"type": k}),
        st.lists(VALUES, min_size=1, max_size=3).map(lambda v: {"enum": v}), VALUES.map(lambda v: {"const": v}),
        st.just({"type": ["string", "null"], "maxLength": 2}),
    ),  # fmt: skip
    lambda inner: st.one_of(
        objects(inner),
        st.tuples(sizes("array", "minItems", "maxItems"), inner).map(lambda t: {**t[0], "items": t[1]}),
        st.lists(inner, min_size=1, max_size=2).map(lambda s: {"anyOf": s}),
    ),
    max_leaves=5,
)


@given(SCHEMAS, st.integers(0, 2**31), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_text_under_the_mask_satisfies_the_schema(schema, seed, spaces):
    try:
        c = JSONConstraint(schema, TOKENS, max_length=4, max_items=3, digits=3, spaces=spaces)
    except Unsatisfiable:
        return
    steps = int(c.machine.longest)
    for scale in (1.0, 1e30):
        ids = list(generate(Noise(len(TOKENS), seed, scale), [0], steps, Sampler(seed=seed), constraint=c))
        text = b"".join(TOKENS[i] for i in ids)
        jsonschema.validate(json.loads(text.decode()), schema)


@given(bounded("integer"))
@settings(max_examples=150, deadline=None)
def test_integers_are_all_there_and_a_refusal_is_right(schema):
    valid = [n for n in range(-400, 401) if jsonschema.Draft202012Validator(schema).is_valid(n)]
    try:
        machine = Machine(json_expression(schema, digits=3))
    except Unsatisfiable:
        assert not valid
        return
    assert [n for n in range(-400, 401) if machine.matches(str(n).encode())] == valid
    for odd in (b"-0", b"007", b"", b"-", b"1.0", b"+1"):
        assert not machine.matches(odd)


@given(bounded("number"))
@settings(max_examples=80, deadline=None)
def test_numbers_are_all_there(schema):
    valid = [n / 10 for n in range(-320, 321) if jsonschema.Draft202012Validator(schema).is_valid(n / 10)]
    try:
        machine = Machine(json_expression(schema, places=1, digits=2))
    except Unsatisfiable:
        assert not valid
        return
    assert [x for x in (n / 10 for n in range(-320, 321)) if machine.matches(b"%.1f" % x if x else b"0.0")] == valid


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (False, "false allows no value"),
        ({"enum": []}, "empty enum"),
        ({"type": "string", "enum": [1]}, "of type string"),
        ({"type": "integer", "const": True}, "of type integer"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "minLength 3 is above maxLength 2"),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 1}, "minItems 2"),
        ({"type": "array", "items": {"enum": []}, "minItems": 1}, r"schema\.items: empty enum"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "between 3 and 2"),
        ({"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "no number"),
        ({"type": "number", "minimum": 0.301, "maximum": 0.304}, "at most 2 decimals"),
        ({"type": "object", "required": ["x"], "additionalProperties": False}, "'x' is required"),
        ({"type": "object", "properties": {"x": {"enum": []}}, "required": ["x"]}, r"schema\.x: empty"),
        ({"anyOf": [{"enum": []}, False]}, r"anyOf\[0\]: empty"),
        ({"type": []}, "list of types is empty"),
    ],
)
def test_what_cannot_be_satisfied_is_refused(schema, reason):
    with pytest.raises(Unsatisfiable, match=reason):
        JSONConstraint(schema, TOKENS)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (True, "a schema is an object"),
        ({}, "give one of"),
        ({"type": "text"}, "not a type"),
        ({"type": "string", "pattern": "a"}, "'pattern' is not supported"),
        ({"$ref": "#"}, "ref' is not supported"),
        ({"enum": ["a"], "minLength": 1}, "'minLength' beside 'enum'"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, "beside 'anyOf'"),
        ({"anyOf": []}, "anyOf must be"),
        ({"enum": "ab"}, "enum must be"),
        ({"type": "array"}, "needs items"),
        ({"type": "array", "items": {"type": "null"}, "minItems": -1}, "minItems must"),
        ({"type": "string", "maxLength": True}, "maxLength must"),
        ({"type": "integer", "minimum": "1"}, "minimum must be a number"),
        ({"type": "number", "maximum": math.inf}, "finite"),
        ({"type": "object", "required": ["x"]}, "not among the properties"),
        ({"type": "object", "properties": []}, "properties must be"),
        ({"type": "object", "additionalProperties": {"type": "null"}}, "additionalProperties"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(schema, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        json_expression(schema)
    assert not isinstance(caught.value, Unsatisfiable)


def test_json_edges():
    def texts(schema, *candidates, **limits):
        machine = Machine(json_expression(schema, **limits))
        return [machine.matches(c.encode()) for c in candidates]

    optional = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"enum": []}}}
    assert texts(optional, "{}", '{"a":1}', '{"b":2}', '{"a":1,"b":2}') == [True] * 4
    assert texts(optional, '{"b":2,"a":1}', '{"a":1,}', '{,"b":2}', '{"c":1}') == [False] * 4
    assert texts(optional, '{"a": 1, "b": 2}') == [True] and texts(optional, '{"a": 1}', spaces=False) == [False]
    three = {"type": "string", "minLength": 3, "maxLength": 3}
    assert texts(three, '"abc"', '"é€😀"', '"\\n\\"\\\\"') == [True] * 3
    assert texts(three, '"ab"', '"abcd"', '"a\nb"', '"a"bc"', '"\\x"') == [False] * 5
    assert texts({"type": "array", "items": {"enum": []}}, "[]", "[1]") == [True, False]
    assert texts({"type": "array", "maxItems": 0}, "[]") == [True]
    assert texts({"enum": [1, "1", None, {"a": [True]}]}, "1", '"1"', "null", '{"a":[true]}') == [True] * 4
    assert texts({"type": "number", "minimum": -1, "maximum": 1}, "-0.5", "0", "1.00", "1.01") == [True, True, True, False]
    assert texts({"type": "integer", "minimum": 10**9}, str(10**9), "7") == [True, False]
    machine = Machine(json_expression({"type": "string", "maxLength": 1}))
    for bad in (b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"'):
        assert not machine.matches(bad)


def test_last_logits_fill_fresh_caches_one_per_layer():
    model, ids = GPT(GPTConfig(11, 8, 8, 2, 2)).eval(), torch.tensor([[1, 2, 3]])
    caches = new_caches(model)
    with torch.no_grad():
        begun = last_logits(model, ids[:, :2], caches)
        assert torch.allclose(begun, last_logits(model, ids[:, :2]), atol=1e-6)
        assert torch.allclose(last_logits(model, ids[:, 2:], caches), last_logits(model, ids), atol=1e-6)
    assert [cache.length for cache in caches] == [3, 3]
    assert [cache.length for cache in new_caches(model)] == [0, 0]


class Counted(ByteMachine):
    """As many opening as closing brackets, at most `depth` open: no regular expression, a machine all the same."""

    alphabet = frozenset(b"()")

    def __init__(self, depth):
        self.depth = depth

    def start(self):
        return 0

    def next_bytes(self, state):
        return frozenset(b"(" * (state < self.depth) + b")" * (state > 0))

    def step(self, state, byte):
        return state + (1 if byte == ord("(") else -1) if byte in self.next_bytes(state) else None

    def accepting(self, state):
        return state == 0


def test_a_constraint_takes_any_byte_machine():
    machine: ByteMachine = Counted(2)
    constraint = TokenConstraint(machine, [b"(", b")", b"()", b"((", b"(((", b""], end=5)
    assert constraint.allowed(0).tolist() == [1, 0, 1, 1, 0, 1]
    assert constraint.allowed(constraint.advance(0, 3)).tolist() == [0, 1, 0, 0, 0, 0]
    model = GPT(GPTConfig(6, 16, 8, 1, 2)).eval()
    for seed in range(5):
        choose = Sampler(generator=torch.Generator().manual_seed(seed))
        tokens = list(generate(model, [0], 12, choose, stop={5}, constraint=constraint))
        opened = 0
        for byte in b"".join(constraint._bytes[i] for i in tokens):
            opened += 1 if byte == ord("(") else -1
            assert 0 <= opened <= 2
