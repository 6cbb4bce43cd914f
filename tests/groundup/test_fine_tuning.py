import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from groundup.decoding import generate
from groundup.fine_tuning import (
    ANSWER,
    END,
    IGNORE,
    REQUEST,
    LoRALinear,
    adapters_of,
    add_lora,
    answers,
    collate,
    exact_match,
    format_example,
    format_prompt,
    lora_parameters,
    masked_loss,
    merge_lora,
    renew_markers,
    unmerge_lora,
)
from groundup.tokenization import Tokenizer
from groundup.transformer import GPT, GPTConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

TOKENIZER = Tokenizer.train("let there be light and there was light " * 5, 20)
NAMES = ("query", "value", "feed.up")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(context=80, **kwargs):
    config = GPTConfig(len(TOKENIZER), context, 16, 2, 2, std=0.2, **kwargs)
    return GPT(config, seeded()).double().eval()


def filled(model, seed=1):
    for p in lora_parameters(model).values():
        p.data = p.data + 0.1 * torch.randn(p.shape, generator=seeded(seed), dtype=p.dtype)
    return model


@settings(deadline=None, max_examples=40)
@given(texts, texts)
def test_an_example_is_prompt_answer_end_and_no_text_forges_a_marker(request, answer):
    row, start = format_example(request, answer, TOKENIZER)
    markers = [TOKENIZER.ranks[m] for m in (REQUEST, ANSWER, END)]
    assert row[:start] == format_prompt(request, TOKENIZER)
    assert [i for i in row if i in markers] == markers
    assert TOKENIZER.decode(row[start:-1]).strip() == answer.strip()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=5))
def test_targets_are_the_answers_and_the_loss_is_cross_entropy(examples):
    model = tiny(200)
    ids, targets = collate(examples, TOKENIZER, 200)
    for (request, answer), row, wanted in zip(examples, ids.tolist(), targets.tolist()):
        whole, start = format_example(request, answer, TOKENIZER)
        assert [t for t in wanted if t != IGNORE] == whole[start:]
        assert wanted[: start - 1] == [IGNORE] * (start - 1)
        assert row[: len(whole) - 1] == whole[:-1]
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten(), ignore_index=IGNORE)
    assert torch.allclose(masked_loss(model, ids, targets), loss)
    everything = collate(examples, TOKENIZER, 200, masked=False)[1]
    assert (everything != IGNORE).sum() == sum(
        len(format_example(r, a, TOKENIZER)[0]) - 1 for r, a in examples
    )


def test_answers_equal_generate_one_by_one():
    model = tiny()
    requests = ["let", "light", "let there be", "was light and", "be"]
    end = TOKENIZER.ranks[END]
    for request, found in zip(requests, answers(model, TOKENIZER, requests, limit=6)):
        ids = list(generate(model, format_prompt(request, TOKENIZER), 6, stop=[end]))
        assert found == (TOKENIZER.decode(ids).strip() if len(ids) < 6 else None)
    assert answers(model, TOKENIZER, []) == []


def test_exact_match_counts_and_needs_the_end():
    model = tiny()
    items = [("let", "be light"), ("be", "was"), ("light", "and there")]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = masked_loss(model, *collate(items, TOKENIZER, 80))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert exact_match(model, TOKENIZER, items) == 3
    assert exact_match(model, TOKENIZER, [("let", "was"), *items[1:]]) == 2
    assert exact_match(model, TOKENIZER, items, limit=1) == 0


def test_markers_are_renewed_and_nothing_else():
    model = tiny()
    before = model.tokens.weight.detach().clone()
    renew_markers(model, TOKENIZER, seeded(3))
    rows = [TOKENIZER.ranks[m] for m in (REQUEST, ANSWER, END)]
    changed = (model.tokens.weight != before).any(1).nonzero().flatten().tolist()
    assert changed == sorted(rows)


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 16), st.floats(0.5, 32), st.integers(0, 99))
def test_lora_equals_peft_through_training(rank, alpha, seed):
    model = tiny()
    other = peft.get_peft_model(
        copy.deepcopy(model),
        peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(NAMES), lora_dropout=0.0),
    ).double()
    mine = filled(add_lora(copy.deepcopy(model), NAMES, rank, alpha, seeded(seed)), seed)
    pairs = []
    for name, layer in adapters_of(mine).items():
        twin = other.get_submodule(f"base_model.model.{name}")
        twin.lora_A.default.weight.data = layer.A.detach().clone()
        twin.lora_B.default.weight.data = layer.B.detach().clone()
        pairs += [(layer.A, twin.lora_A.default.weight), (layer.B, twin.lora_B.default.weight)]
    assert len(pairs) == 2 * 3 * 2
    ids = torch.randint(len(TOKENIZER), (3, 7), generator=seeded(seed))
    optimizers = [torch.optim.AdamW([p[i] for p in pairs], lr=1e-3) for i in (0, 1)]
    for _ in range(3):
        a, b = mine(ids), other(ids)
        assert torch.allclose(a, b, atol=1e-9)
        for logits, optimizer in zip((a, b), optimizers):
            optimizer.zero_grad()
            logits.square().mean().backward()
            optimizer.step()
    assert all(torch.allclose(p, q, atol=1e-6) for p, q in pairs)


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 16), st.floats(0.5, 32))
def test_merge_equals_unmerged_and_comes_back(rank, alpha):
    model = tiny()
    ids = torch.randint(len(TOKENIZER), (2, 9), generator=seeded(4))
    start = model(ids)
    add_lora(model, NAMES, rank, alpha, seeded())
    assert torch.equal(model(ids), start)  # B = 0
    apart = filled(model)(ids)
    assert not torch.allclose(apart, start)
    assert torch.allclose(merge_lora(model)(ids), apart, atol=1e-9)
    assert torch.allclose(unmerge_lora(model)(ids), apart, atol=1e-9)


def test_only_adapters_train_and_their_number_is_as_counted():
    model = add_lora(tiny(), NAMES, 3, 6, seeded())
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in lora_parameters(model).values()}
    assert sum(p.numel() for p in trained) == 2 * 3 * (32 + 32 + 80)
    ids = torch.randint(len(TOKENIZER), (2, 5), generator=seeded())
    model(ids).sum().backward()
    layers = adapters_of(model).values()
    assert all((layer.A.grad == 0).all() and (layer.B.grad != 0).any() for layer in layers)
    assert all(layer.base.weight.grad is None for layer in layers)


def test_dropout_acts_in_training_only():
    layer = LoRALinear(nn.Linear(6, 4), 2, 4, 0.5, seeded())
    layer.B.data.fill_(1.0)
    x = torch.randn(50, 6, generator=seeded())
    torch.manual_seed(0)
    assert not torch.allclose(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda: format_prompt(" ", TOKENIZER), "request is empty"),
        (lambda: format_example("a", " ", TOKENIZER), "is empty"),
        (lambda: collate([], TOKENIZER, 9), "at least one"),
        (lambda: collate([("a b c d e f", "g h i")], TOKENIZER, 9), "context is 9"),
        (lambda: answers(tiny(8), TOKENIZER, ["a b c"], 6), "exceed the context"),
        (lambda: answers(tiny(), TOKENIZER, [""]), "request is empty"),
        (lambda: LoRALinear(nn.Embedding(3, 4), 1, 1), "nn.Linear"),
        (lambda: LoRALinear(nn.Linear(3, 4), 0, 1), "from 1 to 3"),
        (lambda: LoRALinear(nn.Linear(3, 4), 4, 1), "from 1 to 3"),
        (lambda: LoRALinear(nn.Linear(3, 4), 2.0, 1), "from 1 to 3"),
        (lambda: LoRALinear(nn.Linear(3, 4), 2, 0), "alpha"),
        (lambda: add_lora(tiny(), ["quarry"], 2, 4), "no linear layer"),
        (lambda: add_lora(tiny(), ["tokens"], 2, 4), "no linear layer"),
        (lambda: add_lora(add_lora(tiny(), ["query"], 2, 4), ["query"], 2, 4), "already"),
        (lambda: adapters_of(tiny()), "no adapter"),
        (lambda: lora_parameters(tiny()), "no adapter"),
        (lambda: merge_lora(tiny()), "no adapter"),
        (lambda: merge_lora(merge_lora(add_lora(tiny(), NAMES, 2, 4))), "merged already"),
        (lambda: unmerge_lora(add_lora(tiny(), NAMES, 2, 4)), "not merged"),
    ],
)
def test_errors(act, match):
    with pytest.raises(ValueError, match=match):
        act()


def test_masked_loss_refuses_what_it_cannot_average():
    ids = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="every target"):
        masked_loss(tiny(), ids, torch.full((1, 3), IGNORE))
    with pytest.raises(ValueError, match="targets"):
        masked_loss(tiny(), ids, ids[:, :2])


def test_a_refused_adapter_leaves_the_model_as_it_was():
    model = tiny()
    with pytest.raises(ValueError, match="from 1 to 16"):
        add_lora(model, NAMES, 17, 4)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(m, LoRALinear) for m in model.modules())


def test_only_the_markers_rows_are_drawn_anew():
    model = tiny()
    before = model.tokens.weight.detach().clone()
    renew_markers(model, TOKENIZER, seeded())
    changed = (model.tokens.weight != before).any(1).nonzero().flatten().tolist()
    assert sorted(changed) == sorted(TOKENIZER.ranks[byte] for byte in (REQUEST, ANSWER, END))
    assert torch.equal(tiny().tokens.weight, before)


def test_an_adapter_merged_and_taken_out_again_leaves_the_weights():
    model, ids = tiny(), torch.tensor([[1, 2, 3]])
    add_lora(model, NAMES, 2, 4, seeded())
    for layer in adapters_of(model).values():
        layer.B.data.normal_(generator=seeded(1))
    weights = {name: layer.base.weight.detach().clone() for name, layer in adapters_of(model).items()}
    plain = model(ids)
    assert torch.allclose(merge_lora(model)(ids), plain) and torch.allclose(unmerge_lora(model)(ids), plain)
    for name, layer in adapters_of(model).items():
        assert torch.allclose(layer.base.weight, weights[name], rtol=0, atol=1e-12)
