"""Our algorithms beside the libraries' in one run, one thread each: `python -m benchmarks.algorithms` prints JSON."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable

import bm25s
import faiss
import numpy as np
import tiktoken
import tokenizers
import torch
import transformers
from diffusers import DDPMScheduler
from sklearn import cluster, linear_model, mixture
from sklearn.datasets import make_regression
from sklearn.exceptions import ConvergenceWarning
from tokenizers import pre_tokenizers
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from groundup import datasets
from groundup.attention import MultiHeadAttention, attention, causal_mask, tiled_attention
from groundup.clustering import GaussianMixture, kmeans, kmeans_plus_plus
from groundup.decoding import generate
from groundup.diffusion import Diffusion, LinearDenoiser, NoisePredictor, UNet, cosine_betas, sample
from groundup.embedding_models import embed, load_minilm, mean_pool, pad, page_text
from groundup.information import NGram, decode, encode
from groundup.modern_llm import load_llama
from groundup.neural_networks import Linear, ReLU, Sequential, cross_entropy
from groundup.optimization import AdamW
from groundup.pretraining import Recipe, TokenStream, train
from groundup.real_model import GGUF, read_llama
from groundup.regression import lasso
from groundup.search import Index, analyse
from groundup.tokenization import GPT2_PATTERN, Tokenizer, train_bpe, train_bpe_naive
from groundup.transformer import GPT, GPTConfig
from groundup.vector_search import HNSW


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """The least wall-clock time of `repeat` runs."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def training_steps(count: int = 100) -> tuple[Callable[[], None], Callable[[], None]]:
    """`count` AdamW steps of an MLP 784-128-10 on batches of 50 digits in float32: by our autograd, and by torch."""
    torch.set_num_threads(1)
    images, labels = datasets.mnist()
    x, rng = images.reshape(-1, 784), np.random.default_rng(0)
    model = Sequential(Linear(784, 128, rng, np.float32), ReLU(), Linear(128, 10, rng, np.float32))
    twin = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    weights = dict(zip(twin.state_dict(), model.arrays().values(), strict=True))
    twin.load_state_dict({key: torch.tensor(array.T) for key, array in weights.items()})
    tx, tlabels = torch.tensor(x), torch.tensor(labels)
    ours, theirs = AdamW(model.arrays()), torch.optim.AdamW(twin.parameters())
    batches = [slice(50 * i, 50 * i + 50) for i in range(count)]

    def by_us() -> None:
        for rows in batches:
            loss = cross_entropy(model(x[rows]), labels[rows])
            model.zero_grad()
            loss.backward()
            ours.step(model.gradients())

    def by_torch() -> None:
        for rows in batches:
            loss = torch.nn.functional.cross_entropy(twin(tx[rows]), tlabels[rows])
            theirs.zero_grad()
            loss.backward()
            theirs.step()

    return by_us, by_torch


def bpe() -> dict[str, float]:
    """Training 500 merges on 1 MB, and encoding 1 MB with GPT-2's vocabulary, beside the libraries on one thread."""
    text = datasets.king_james()[:1_000_000]
    split = pre_tokenizers.Split(tokenizers.Regex(GPT2_PATTERN), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def by_hugging_face() -> tokenizers.Tokenizer:
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
        theirs.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=756, initial_alphabet=alphabet, show_progress=False)
        theirs.train_from_iterator([text], trainer)
        return theirs

    ranks = datasets.bpe_ranks("gpt2")
    reference = tiktoken.Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={})
    training = seconds(lambda: train_bpe(text, 500))
    naive = seconds(lambda: train_bpe_naive(text, 500, GPT2_PATTERN), 1)
    encoding = seconds(lambda: Tokenizer(ranks).encode_ordinary(text))
    trained, theirs = Tokenizer.train(text, 500), by_hugging_face()
    assert trained.encode_ordinary(text) == theirs.encode(text).ids
    return {
        "BPE training, naive time ÷ ours": round(naive / training),
        "BPE training, × Hugging Face's time": round(training / seconds(by_hugging_face), 2),
        "BPE encoding with an empty cache, × tiktoken's time": round(
            encoding / seconds(lambda: reference.encode_ordinary(text)), 2
        ),
        "BPE encoding with 500 merges, × Hugging Face's time": round(
            seconds(lambda: Tokenizer(trained.ranks).encode_ordinary(text)) / seconds(lambda: theirs.encode(text)), 2
        ),
        "BPE encoding, MB/s": round(len(text.encode()) / 1e6 / encoding, 2),
    }


def attention_forms(time: int = 2048) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Causal attention in float32, 4 heads of 64, without gradients; and a layer forward and backward: (ours, torch's)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, time, 64)
    mask, fused = causal_mask(time), torch.nn.functional.scaled_dot_product_attention
    layer, twin = MultiHeadAttention(256, 4), torch.nn.MultiheadAttention(256, 4, batch_first=True)
    x, short = torch.randn(8, 128, 256), causal_mask(128)

    def by_torch() -> None:
        twin(x, x, x, attn_mask=~short, need_weights=False)[0].sum().backward()

    return {
        f"attention, plain, {time:,} positions": (
            torch.no_grad()(lambda: attention(q, k, v, mask)),
            torch.no_grad()(lambda: fused(q, k, v, is_causal=True)),
        ),
        f"attention, tiled, {time:,} positions": (
            torch.no_grad()(lambda: tiled_attention(q, k, v, causal=True)),
            torch.no_grad()(lambda: fused(q, k, v, is_causal=True)),
        ),
        "multi-head attention, forward and backward": (
            lambda: layer(x, mask=short).sum().backward(),
            by_torch,
        ),
    }


def diffusion(count: int = 32) -> dict[str, float]:
    """Drawing `count` images in 100 steps, beside diffusers' DDPMScheduler.step with the same untrained network."""
    torch.set_num_threads(1)
    process = Diffusion(cosine_betas(100, shift=1.0))
    linear = LinearDenoiser(torch.rand(500, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1, process)
    model = NoisePredictor(UNet(inputs=2), linear).eval()

    def by_us() -> None:
        sample(model, process, (count, 1, 20, 20), torch.Generator().manual_seed(0))

    def by_diffusers() -> None:
        generator = torch.Generator().manual_seed(0)
        scheduler = DDPMScheduler(100, trained_betas=process.betas.float().numpy())
        scheduler.set_timesteps(100)
        x = torch.randn(count, 1, 20, 20, generator=generator)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t.expand(count)), t, x, generator=generator).prev_sample

    ours = seconds(by_us)
    return {
        "diffusion samples/s, × diffusers'": round(seconds(by_diffusers) / ours, 2),
        "diffusion, samples/s": round(count / ours, 1),
    }


def real_model(count: int = 24) -> dict[str, float]:
    """Greedy decoding of `count` tokens by SmolLM2 in float32, beside transformers' generate with the same weights."""
    torch.set_num_threads(1)
    with GGUF(datasets.smollm2()) as file:
        config, state = read_llama(file)
    sizes = transformers.LlamaConfig(
        vocab_size=config.vocabulary, hidden_size=config.width, intermediate_size=config.hidden,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        rms_norm_eps=config.eps, rope_theta=config.theta, max_position_embeddings=config.context,
        tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):  # the weights are there already
        theirs = transformers.LlamaForCausalLM(sizes).eval()
    theirs.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]}, assign=True)
    theirs.model.rotary_emb = LlamaRotaryEmbedding(sizes)
    model, prompt = load_llama(state, config), list(range(1000, 1040))
    ids = torch.tensor([prompt])
    options = dict(max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0)
    with torch.no_grad():
        library = seconds(lambda: theirs.generate(ids, attention_mask=torch.ones_like(ids), **options), 2)
    ours = seconds(lambda: list(generate(model, prompt, count)), 2)
    return {
        "SmolLM2 tokens/s, × transformers'": round(library / ours, 2),
        "SmolLM2, tokens/s": round(count / ours, 1),
    }


def pretraining(count: int = 20) -> dict[str, float]:
    """`count` training steps of a GPT on 512 tokens each, beside torch's layers of the same sizes."""
    config, recipe = GPTConfig(2048, 128, 96, 2, 3), Recipe(count, warmup=2)
    ids = torch.randint(config.vocabulary, (20_000,), generator=torch.Generator().manual_seed(0))

    class Twin(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Embedding(config.vocabulary, config.width)
            self.positions = torch.nn.Embedding(config.context, config.width)
            layer = torch.nn.TransformerEncoderLayer(
                config.width, config.heads, config.inner, 0.0, "gelu", batch_first=True, norm_first=True
            )
            self.blocks = torch.nn.TransformerEncoder(
                layer, config.layers, torch.nn.LayerNorm(config.width), enable_nested_tensor=False
            )
            self.mask = torch.nn.Transformer.generate_square_subsequent_mask(config.context)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            stream = self.tokens(x) + self.positions.weight
            return self.blocks(stream, mask=self.mask, is_causal=True) @ self.tokens.weight.T

    def steps(model: torch.nn.Module) -> Callable[[], None]:
        return lambda: train(model, TokenStream(ids, 4, config.context), recipe) and None

    ours, theirs = seconds(steps(GPT(config))), seconds(steps(Twin()))
    return {
        "pretraining tokens/s, × torch's layers": round(theirs / ours, 2),
        "pretraining, tokens/s": round(512 * count / ours),
    }


def vector_search(count: int = 3000, width: int = 64) -> dict[str, float]:
    """HNSW on clustered unit vectors, with the least `ef` of a recall@10 of 0.95, beside faiss's, one thread each."""
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((100, width))[rng.integers(0, 100, count + 100)]
    points = (points + 0.8 * rng.standard_normal(points.shape)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    vectors, queries = points[:count], points[count:]
    truth = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    ours, theirs = HNSW(), faiss.IndexHNSWFlat(width, 16, faiss.METRIC_INNER_PRODUCT)
    theirs.hnsw.efConstruction = 100
    ours.add(range(count), vectors)
    theirs.add(vectors)

    def recall(found) -> float:
        return float(np.mean([len(set(f) & set(t)) / 10 for f, t in zip(found, truth.tolist(), strict=True)]))

    def by_us() -> list[list[int]]:
        return [[id for id, _ in ours.search(query)] for query in queries]

    def by_faiss() -> list[list[int]]:
        return theirs.search(queries, 10)[1].tolist()

    for ours.ef in range(10, 200, 2):
        ours.distances = 0
        if recall(by_us()) >= 0.95:
            break
    compared = ours.distances
    for theirs.hnsw.efSearch in range(10, 200, 2):
        faiss.cvar.hnsw_stats.reset()
        if recall(by_faiss()) >= 0.95:
            break
    return {
        "HNSW at recall 0.95, distances, × faiss's": round(compared / faiss.cvar.hnsw_stats.ndis, 2),
        "HNSW at recall 0.95, queries/s, × faiss's": round(seconds(by_faiss) / seconds(by_us), 4),
    }


def search() -> dict[str, float]:
    """The benchmark's queries, analysis included, and building the index from terms, beside bm25s."""
    pages, queries = datasets.documentation(), [query.text for query in datasets.see_also()]
    terms = {name: analyse(name) + analyse(text) for name, text in pages.items()}
    reference = bm25s.BM25(method="lucene", k1=1.2, b=0.75, dtype="float64")

    def by_us() -> Index:
        index = Index(lambda name: terms[name], title=0)
        for name in pages:
            index.add(name, name)
        index.compact()
        index.analyse = analyse
        return index

    def by_bm25s() -> None:
        for query in queries:
            known = [term for term in analyse(query) if term in reference.vocab_dict]
            reference.retrieve([known], k=10, show_progress=False)

    index = by_us()
    building = seconds(by_us) / seconds(lambda: reference.index(list(terms.values()), show_progress=False))
    ours = seconds(lambda: [index.search(query) for query in queries])
    return {
        "building an index, × bm25s's time": round(building, 2),
        "BM25 queries/s, × bm25s's": round(seconds(by_bm25s) / ours, 2),
        "BM25 queries, queries/s": round(len(queries) / ours),
    }


def minilm() -> dict[str, float]:
    """MiniLM on 128 pages of the documentation, cut at 40 tokens: ids, batches, encoder and mean, beside transformers."""
    texts = [page_text(*page) for page in list(datasets.documentation().items())[::59]][:128]
    model, tokenizer = load_minilm()
    folder = datasets.minilm()
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    coder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    coder.no_padding()
    coder.enable_truncation(40)

    def by_transformers() -> None:
        codes = sorted((code.ids for code in coder.encode_batch(texts)), key=len)
        for start in range(0, len(codes), 32):
            ids, mask = pad(codes[start : start + 32])
            with torch.inference_mode():
                mean_pool(theirs(ids, attention_mask=mask.long()).last_hidden_state, mask)

    ours = seconds(lambda: embed(texts, model, tokenizer, limit=40))
    return {
        "MiniLM texts/s, × transformers'": round(seconds(by_transformers) / ours, 2),
        "MiniLM, texts/s": round(len(texts) / ours),
    }


def measure() -> dict[str, float]:
    """Ratios to a library's time on the same problem from the same start, and the coder's bytes per second."""
    found: dict[str, float] = {}

    def compare(
        name: str, ours: Callable[[], object], theirs: Callable[[], object], library: str = "scikit-learn"
    ) -> None:
        found[f"{name}, × {library}'s time"] = round(seconds(ours) / seconds(theirs), 2)

    X, y = make_regression(500, 50, n_informative=10, noise=5.0, random_state=0)
    X, y = X - X.mean(axis=0), y - y.mean()
    theirs = linear_model.Lasso(1.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    compare("lasso by coordinate descent", lambda: lasso(X, y, 1.0), lambda: theirs.fit(X, y))

    digits, _ = datasets.digits()
    first = kmeans_plus_plus(digits, 10, rng=0)
    lloyd = cluster.KMeans(10, init=first, n_init=1, tol=0, algorithm="lloyd")
    compare("k-means", lambda: kmeans(digits, 10, init=first), lambda: lloyd.fit(digits))

    rows = np.random.default_rng(0).standard_normal((8000, 4))
    start = kmeans_plus_plus(rows, 4, rng=0)
    em = mixture.GaussianMixture(4, means_init=start, max_iter=20, tol=0, reg_covar=0)
    compare("EM", lambda: GaussianMixture(4, tol=0, iterations=20).fit(rows, init=start), lambda: em.fit(rows))

    compare("training step of our autograd", *training_steps(), library="torch")

    for name, (ours, theirs) in attention_forms().items():
        compare(name, ours, theirs, library="torch")

    text = datasets.king_james().encode()
    model, part = NGram(text[:-400_000], 6), text[-8000:]
    code = encode(part, model.frequencies)
    found["arithmetic encoder, bytes/s"] = round(len(part) / seconds(lambda: encode(part, model.frequencies), 1))
    found["arithmetic decoder, bytes/s"] = round(
        len(part) / seconds(lambda: decode(code, len(part), model.frequencies), 1)
    )
    return found | bpe() | diffusion() | pretraining() | real_model() | search() | minilm() | vector_search()


if __name__ == "__main__":
    os.environ["RAYON_NUM_THREADS"] = "1"  # Hugging Face's tokenizers
    warnings.simplefilter("ignore", ConvergenceWarning)  # EM stops after 20 steps on purpose
    print(json.dumps(measure()))
