"""groundup.embedding_models against tokenizers, transformers' BertModel and brute force."""

import math
import unicodedata

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from groundup import datasets
from groundup.embedding_models import (
    Bert,
    BertBlock,
    BertConfig,
    VectorSearch,
    WordPiece,
    apply_head,
    basic_words,
    corpus_vectors,
    embed,
    embed_documentation,
    info_nce,
    load_bert,
    load_minilm,
    mean_pool,
    pad,
    page_text,
    search_vectors,
    train_head,
)

few = settings(deadline=None, max_examples=100)
TINY = BertConfig(vocabulary=40, positions=12, width=8, layers=2, heads=2, hidden=16)


@pytest.fixture(scope="module")
def minilm():
    return load_minilm()


@pytest.fixture(scope="module")
def reference():
    found = tokenizers.Tokenizer.from_file(str(datasets.minilm() / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    found.encode_special_tokens = True  # "[SEP]" in a text is text
    return found


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    theirs = BertModel(
        TheirConfig(
            vocab_size=40, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=12, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    for weights in theirs.parameters():
        torch.nn.init.normal_(weights, std=0.4)
    return load_bert(theirs.state_dict(), heads=2), theirs


def toy(*pieces):
    return WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *pieces])


def settled(c):
    """Characters whose category is what it was in Unicode 3.2: tables of both sides agree on them."""
    old = unicodedata.ucd_3_2_0.category(c)
    return old == unicodedata.category(c) and old not in ("Cn", "Cs")


texts = st.text(st.characters(exclude_categories=("Cs",)).filter(settled), max_size=60)
hard = st.lists(
    st.sampled_from(
        ["İstanbul", "ΣΊΣΥΦΟΣ", "naïve", "e\u0301", "a\u200bb", "中文x", "a\x00b", "\x1c", "\x0b", "\ufffd", "\u3000",
         "\u2028", "ﬁ", "ß", "[SEP]", "[MASK]", "##ing", "x" * 101, "é" * 101, "don't", "1.5e-3", "`code`", "𝔘", "각", "ſ",
         "__init__", "\u00ad", "Å", "\U000e0001", "½", "²"]
    ),
    max_size=8,
)  # fmt: skip


@few
@given(texts)
def test_ids_of_any_text_equal_the_librarys(reference, minilm, text):
    assert minilm[1].encode(text) == reference.encode(text).ids


@few
@given(hard, st.sampled_from(["", " ", "\n"]))
def test_ids_of_hard_strings_equal_the_librarys(reference, minilm, parts, between):
    text = between.join(parts)
    assert minilm[1].encode(text) == reference.encode(text).ids


def test_ids_of_pages_equal_the_librarys(reference, minilm):
    pages = list(datasets.documentation().values())[::25]
    assert [minilm[1].encode(p) for p in pages] == [e.ids for e in reference.encode_batch(pages)]


@few
@given(texts, st.integers(2, 20))
def test_a_limit_keeps_the_marks_and_the_first_pieces(minilm, text, limit):
    whole, cut = minilm[1].encode(text), minilm[1].encode(text, limit)
    assert cut == (whole if len(whole) <= limit else [*whole[: limit - 1], whole[-1]])


def test_the_cache_of_chunks_changes_nothing():
    tokenizer = toy("a", "##a", "b")
    first = tokenizer.encode("aab b")
    assert tokenizer.encode("aab b") == first == [2, 1, 6, 3]


@few
@given(st.text("abc", min_size=1, max_size=12), st.sets(st.text("abc", min_size=1, max_size=4)))
def test_pieces_are_the_longest_and_spell_the_word(word, known):
    vocabulary = sorted(known) + sorted(f"##{piece}" for piece in known)
    pieces = toy(*vocabulary).pieces(word)
    if pieces == ["[UNK]"]:
        return
    rest = word
    for i, piece in enumerate(pieces):
        bare = piece.removeprefix("##") if i else piece
        assert bare == max((k for k in known if rest.startswith(k)), key=len)
        rest = rest[len(bare) :]
    assert rest == ""


def test_words_of_nothing():
    assert basic_words("") == basic_words(" \n\u200b\u3000") == []
    assert toy().encode("") == [2, 3] and toy().pieces("") == []


def test_long_and_unknown_words():
    tokenizer = toy("a", "##a")
    assert tokenizer.pieces("a" * 100) == ["a", *["##a"] * 99]
    assert tokenizer.pieces("a" * 101) == tokenizer.pieces("ab") == ["[UNK]"]


def test_wordpiece_errors():
    with pytest.raises(ValueError, match="limit of at least 2"):
        toy().encode("a", 1)
    with pytest.raises(ValueError, match="each piece once"):
        toy("a", "a")
    with pytest.raises(ValueError, match="first"):
        WordPiece(["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
    with pytest.raises(ValueError, match="lacks"):
        WordPiece(["[PAD]", "[UNK]", "[CLS]"])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 2**31), st.booleans())
def test_hidden_states_equal_transformers(tiny, lengths, seed, second):
    ours, theirs = tiny
    rng = np.random.default_rng(seed)
    ids, mask = pad([rng.integers(0, 40, n).tolist() for n in lengths])
    types = torch.tensor(rng.integers(0, 2, ids.shape)) if second else None
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long(), token_type_ids=types).last_hidden_state
        found = ours(ids, mask, types)
    assert torch.allclose(found[mask], expected[mask], atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_a_block_equals_torchs_post_norm_layer(padded):
    torch.manual_seed(3)
    block = BertBlock(TINY).eval()
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0, activation="gelu", layer_norm_eps=TINY.eps, batch_first=True
    ).eval()
    ours, attention = block.state_dict(), theirs.self_attn
    for kind in ("weight", "bias"):
        projections = [ours[f"attention.{name}.{kind}"] for name in ("query", "key", "value")]
        getattr(attention, f"in_proj_{kind}").data = torch.cat(projections)
        for name, part in (("attention.output", attention.out_proj), ("attention_norm", theirs.norm1),
                           ("up", theirs.linear1), ("down", theirs.linear2), ("feed_norm", theirs.norm2)):  # fmt: skip
            getattr(part, kind).data = ours[f"{name}.{kind}"]
    x, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    if padded:
        mask[1, 3:] = False
    expected = theirs(x, src_key_padding_mask=~mask)
    found = block(x, mask[:, None, None])
    assert torch.allclose(found[mask], expected[mask], atol=1e-5)
    if not padded:
        assert torch.equal(block(x), found)


def test_a_bert_is_its_blocks_behind_embeddings():
    torch.manual_seed(4)
    model, ids = Bert(TINY).eval(), torch.tensor([[5, 6, 7]])
    assert [type(block) for block in model.blocks] == [BertBlock] * TINY.layers
    x = model.tokens(ids) + model.positions(torch.arange(3)) + model.types(torch.zeros_like(ids))
    x = model.norm(x)
    for block in model.blocks:
        x = block(x)
    assert torch.equal(model(ids), x)


def test_gradients_equal_transformers(tiny):
    ours, theirs = tiny
    ids, mask = pad([[1, 2, 3, 4, 5], [6, 7]])
    target = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    for model in tiny:
        model.zero_grad()
    (mean_pool(ours(ids, mask), mask) * target).sum().backward()
    hidden = theirs(ids, attention_mask=mask.long()).last_hidden_state
    (mean_pool(hidden, mask) * target).sum().backward()
    same = load_bert({k: p.grad for k, p in theirs.named_parameters() if "pooler" not in k}, heads=2)
    expected = dict(same.named_parameters())
    for name, p in ours.named_parameters():
        assert torch.allclose(p.grad, expected[name], atol=1e-4), name


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 2**31))
def test_a_text_does_not_depend_on_its_batch(lengths, seed):
    torch.manual_seed(seed % 1000)
    model, rng = Bert(TINY).eval(), np.random.default_rng(seed)
    sequences = [rng.integers(0, 40, n).tolist() for n in lengths]
    with torch.no_grad():
        ids, mask = pad(sequences)
        together = mean_pool(model(ids, mask), mask)
        alone = [mean_pool(model(i, m), m)[0] for i, m in (pad([s]) for s in sequences)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)


def test_bert_errors(tiny):
    model, theirs = tiny
    ids = torch.zeros(2, 3, dtype=torch.long)
    for wrong in (ids[0], ids[:, :0], torch.zeros(1, 13, dtype=torch.long)):
        with pytest.raises(ValueError, match="ids must be"):
            model(wrong)
    with pytest.raises(ValueError, match="mask is"):
        model(ids, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="types is"):
        model(ids, None, ids[:1])
    with pytest.raises(ValueError, match="at least one True"):
        model(ids, torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="boolean"):
        model(ids, torch.ones(2, 3))
    with pytest.raises(ValueError, match="heads divide"):
        BertConfig(width=10, heads=3)
    with pytest.raises(ValueError, match="at least 1"):
        BertConfig(layers=0)
    state = theirs.state_dict()
    with pytest.raises(ValueError, match="BERT has no"):
        load_bert({**state, "lm_head.weight": ids}, heads=2)
    for key in ("embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.bias"):
        with pytest.raises(ValueError, match="not the tensors"):
            load_bert({k: t for k, t in state.items() if k != key}, heads=2)
    with pytest.raises(ValueError):
        load_bert(state, heads=3)


@few
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_mean_pool_is_the_mean_and_ignores_padding(batch, time, seed):
    rng = np.random.default_rng(seed)
    hidden = torch.tensor(rng.standard_normal((batch, time, 3)))
    mask = torch.tensor(np.arange(time) < rng.integers(1, time + 1, (batch, 1)))
    found = mean_pool(hidden, mask)
    for row, h, m in zip(found, hidden, mask):
        assert torch.allclose(row, h[m].mean(0))
    garbage = hidden.masked_fill(~mask.unsqueeze(-1), math.nan)
    assert torch.equal(mean_pool(garbage, mask), found)


def test_pooling_and_padding_errors():
    hidden = torch.zeros(2, 3, 4)
    for mask in (torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)):
        with pytest.raises(ValueError, match="mask must be"):
            mean_pool(hidden, mask)
    for wrong in ([], [[1], []]):
        with pytest.raises(ValueError, match="at least one sequence"):
            pad(wrong)
    ids, mask = pad([[5], [6, 7, 8]])
    assert ids.tolist() == [[5, 0, 0], [6, 7, 8]] and mask.sum(1).tolist() == [1, 3]


def test_embed_keeps_order_and_unit_length(minilm):
    texts = ["a much longer text about caches and queues", "cache", "", "cache"]
    found = embed(texts, *minilm, batch=2)
    assert found.shape == (4, 384) and found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.allclose(found[1], found[3], atol=1e-5)
    for text, vector in zip(texts, found):
        assert np.allclose(embed([text], *minilm)[0], vector, atol=1e-5)
    assert embed([], *minilm).shape == (0, 384)
    cut = embed(["one two three four five six"], *minilm, limit=4)
    assert np.allclose(cut, embed(["one two"], *minilm), atol=1e-5)


def test_embed_equals_the_reference(minilm, reference):
    from safetensors.torch import load_file

    theirs = BertModel(TheirConfig.from_json_file(datasets.minilm() / "config.json")).eval()
    theirs.load_state_dict(load_file(datasets.minilm() / "model.safetensors"), strict=False)
    texts = [page_text(*page)[:600] for page in list(datasets.documentation().items())[::1500]]
    codes = [reference.encode(text).ids for text in texts]
    ids, mask = pad(codes)
    with torch.no_grad():
        hidden = theirs(ids, attention_mask=mask.long()).last_hidden_state
        ours = minilm[0](ids, mask)
    assert torch.allclose(ours[mask], hidden[mask], atol=1e-5)
    expected = torch.nn.functional.normalize(mean_pool(hidden, mask), dim=-1).numpy()
    assert np.allclose(embed(texts, *minilm, limit=512), expected, atol=1e-5)


def test_embed_errors(minilm):
    for bad in ({"limit": 1}, {"limit": 513}, {"batch": 0}):
        with pytest.raises(ValueError, match="need a list of texts"):
            embed(["a"], *minilm, **bad)
    with pytest.raises(ValueError, match="got a str"):
        embed("a", *minilm)


def test_page_text_drops_a_signature():
    assert page_text("np.add", "add(x1, x2)\n\nAdd.\n\nMore.") == "np.add: Add.\n\nMore."
    assert page_text("np.add", "add(x1, x2)") == "np.add: add(x1, x2)"
    assert page_text("np.add", "Add (all).\n\nMore.") == "np.add: Add (all).\n\nMore."


def test_the_corpus_is_embedded_once_in_the_order_of_its_pages(minilm, tmp_path, monkeypatch):
    pages = {
        "np.linalg.svd": "svd(a)\n\nSingular value decomposition of a matrix.",
        "np.cumsum": "Cumulative sum of the elements along an axis. " * 10,  # is cut
        "np.empty": "",
    }
    monkeypatch.setenv("GROUNDUP_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(datasets, "documentation", lambda: pages)
    names, vectors = corpus_vectors()
    expected = embed([page_text(*page) for page in pages.items()], *minilm, limit=40)
    assert names == list(pages) and np.allclose(vectors, expected, atol=1e-6)
    assert np.array_equal(embed_documentation(40)["vectors"], vectors)
    assert not np.allclose(embed_documentation(20)["vectors"][1], vectors[1], atol=1e-3)
    (file,) = tmp_path.glob("documentation-vectors.*")
    made = file.stat().st_mtime_ns
    assert np.array_equal(corpus_vectors()[1], vectors) and file.stat().st_mtime_ns == made
    engine = VectorSearch(names, vectors, lambda texts: embed(texts, *minilm))
    assert engine.search("factorise a matrix", 1)[0][0] == "np.linalg.svd"


@few
@given(st.integers(1, 20), st.integers(1, 25), st.integers(0, 2**31))
def test_search_equals_sorting_everything(n, k, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (n, 3)).astype(np.float32)  # many ties
    query, names = rng.integers(-1, 2, 3).astype(np.float32), [f"n{i:02}" for i in rng.permutation(n)]
    expected = sorted(zip(names, (vectors @ query).tolist()), key=lambda hit: (-hit[1], hit[0]))[:k]
    assert search_vectors(query, names, vectors, k) == expected
    engine = VectorSearch(names, vectors, lambda texts: np.array([query for _ in texts]))
    assert engine.search("x", k) == expected


def test_search_edge_cases_and_errors():
    assert search_vectors(np.ones(3), [], np.zeros((0, 3))) == []
    for query, names, vectors, k in (
        (np.ones(3), ["a"], np.zeros((1, 3)), 0),
        (np.ones(2), ["a"], np.zeros((1, 3)), 1),
        (np.ones(3), ["a", "b"], np.zeros((1, 3)), 1),
        (np.array([1, np.nan, 1]), ["a"], np.zeros((1, 3)), 1),
        (np.ones((1, 3)), ["a"], np.zeros((1, 3)), 1),
    ):
        with pytest.raises(ValueError):
            search_vectors(query, names, vectors, k)


@few
@given(st.integers(1, 5), st.integers(0, 4), st.floats(0.05, 5), st.integers(0, 2**31))
def test_info_nce_and_its_gradient(n, extra, temperature, seed):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.standard_normal((n, n + extra)), requires_grad=True)
    loss = info_nce(scores, temperature)
    p = (scores / temperature).softmax(-1)
    assert math.isclose(loss.item(), -p.diagonal().log().mean().item(), rel_tol=1e-9, abs_tol=1e-12)
    loss.backward()
    right = (p - torch.eye(n, n + extra)) / (n * temperature)
    assert torch.allclose(scores.grad, right.detach(), atol=1e-10)


def test_info_nce_leaves_out_what_is_also_right():
    scores = torch.tensor([[1.0, 5.0, 0.0], [0.0, 2.0, 1.0]])
    same = torch.tensor([[True, True, False], [False, True, False]])
    expected = [-math.log(math.e / (math.e + 1)), -math.log(math.exp(2) / (1 + math.exp(2) + math.e))]
    assert math.isclose(info_nce(scores, 1.0, same).item(), np.mean(expected), rel_tol=1e-6)
    for bad in ((scores, 0.0), (scores.T, 1.0), (scores[0], 1.0), (scores, 1.0, same[:1]), (scores, 1.0, same.float())):
        with pytest.raises(ValueError):
            info_nce(*bad)


def test_a_head_learns_a_rotation_that_its_pages_need():
    rng = np.random.default_rng(0)
    pages = rng.standard_normal((30, 6)).astype(np.float32)
    pages /= np.linalg.norm(pages, axis=1, keepdims=True)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    queries, pairs = pages @ turn, [[i] for i in range(30)]
    seen = []
    head = train_head(queries, pages, pairs, 0.1, 0.0, 200, 0.02, lambda i, h: seen.append((i, h)))
    assert [i for i, _ in seen] == list(range(201)) and not seen[0][1].any()
    assert np.array_equal(seen[-1][1], head)
    moved = apply_head(queries, head)
    assert np.allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    before = np.mean((queries @ pages.T).argmax(1) == np.arange(30))
    assert np.mean((moved @ pages.T).argmax(1) == np.arange(30)) > before + 0.5


def test_a_head_stays_small_under_decay_and_at_zero_without_steps():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((8, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [[i, (i + 1) % 8] for i in range(8)]
    free, held = (train_head(rows, rows[::-1].copy(), pairs, decay=d, steps=30) for d in (0.0, 10.0))
    assert np.abs(held).sum() < np.abs(free).sum()
    assert not train_head(rows, rows, pairs, steps=0).any()
    assert np.allclose(apply_head(rows, np.zeros((4, 4))), rows, atol=1e-6)


def test_train_head_errors():
    rows = np.eye(3, dtype=np.float32)
    for pairs in ([], [[0], [1]], [[0], [], [1]]):
        with pytest.raises(ValueError, match="at least one"):
            train_head(rows, rows, pairs)
    with pytest.raises(ValueError, match="at least one"):
        train_head(rows[:0], rows, [])
    for bad in ({"steps": -1}, {"rate": -1.0}, {"decay": -1.0}):
        with pytest.raises(ValueError, match="negative"):
            train_head(rows, rows, [[0], [1], [2]], **bad)
    with pytest.raises(ValueError, match="temperature"):
        train_head(rows, rows, [[0], [1], [2]], temperature=0.0)


def test_minilm_is_the_published_model(minilm):
    folder, (model, tokenizer) = datasets.minilm(), load_minilm()
    assert {"model.safetensors", "vocab.txt", "config.json"} <= {p.name for p in folder.iterdir()}
    assert model.config == BertConfig() and not model.training  # the defaults are its sizes
    assert len(tokenizer.ids) == model.config.vocabulary
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), minilm[0].parameters()))
