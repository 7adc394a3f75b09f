import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from yanmo.core.console import Console
from yanmo.data.prepare import prepare
from yanmo.data.prepared import HeldOut
from yanmo.eval.baselines import NGramBaselines, baselines_of
from yanmo.eval.loss import Evaluation, evaluate
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import World
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig

ALONE = World(torch.device("cpu"))


def measured(model: GPT, text: HeldOut, rows: int) -> Evaluation:
    return evaluate(model, text.batches(rows), text.targets, text.characters, nullcontext, ALONE)


def test_an_untrained_model_stands_at_the_uniform_line(novel: Path, console: Console) -> None:
    done = prepare(CorpusConfig(path=(str(novel),)), TokenizerConfig(), DataConfig(), 16, console)
    V = done.tokenizer.vocab_size
    model = GPT(GPTConfig(V, 1, 1, 8, 16))
    torch.nn.init.zeros_(model.tokens.weight)
    found = measured(model, done.held_out(16), 4)
    lines = baselines_of(done.shards, V, 0)
    assert found.loss == pytest.approx(math.log(V), rel=1e-5)
    assert found.bits_per_char == pytest.approx(lines.uniform, rel=1e-5)
    assert found.perplexity == pytest.approx(V, rel=1e-4)


def test_evaluation_leaves_the_model_in_training(novel: Path, console: Console) -> None:
    done = prepare(CorpusConfig(path=(str(novel),)), TokenizerConfig(), DataConfig(), 16, console)
    model = GPT(GPTConfig(done.tokenizer.vocab_size, 1, 1, 8, 16, dropout=0.5)).train()
    losses = {measured(model, done.held_out(16), 4).loss for _ in range(2)}
    assert len(losses) == 1
    assert model.training


def test_the_batch_size_of_an_evaluation_does_not_matter(novel: Path, console: Console) -> None:
    done = prepare(CorpusConfig(path=(str(novel),)), TokenizerConfig(), DataConfig(), 16, console)
    model = GPT(GPTConfig(done.tokenizer.vocab_size, 1, 1, 8, 16))
    model.initialise(0)
    one, five = (measured(model, done.held_out(16), rows).loss for rows in (1, 5))
    assert one == pytest.approx(five, rel=1e-6)


def test_reference_lines_are_what_counting_gives(tmp_path: Path, console: Console) -> None:
    """Against the definition, written out with dictionaries."""
    path = tmp_path / "x.txt"
    rng = np.random.default_rng(0)
    path.write_text(
        "".join(rng.choice(list("甲乙丙丁\n"), 3000, p=[0.5, 0.2, 0.15, 0.1, 0.05])),
        encoding="utf-8",
    )
    done = prepare(
        CorpusConfig(path=(str(path),)), TokenizerConfig(), DataConfig(val_fraction=0.1), 8, console
    )
    lines = baselines_of(done.shards, done.tokenizer.vocab_size, 0)
    train = done.shards.train.slice(0, len(done.shards.train)).tolist()
    val = done.shards.val.slice(0, len(done.shards.val)).tolist()
    V, bits_1, bits_2 = done.tokenizer.vocab_size, 0.0, 0.0
    types = len(set(train))
    uni = {t: (train.count(t) + types / V) / (len(train) + types) for t in range(V)}
    pairs = list(zip([0, *train[:-1]], train, strict=True))
    for before, token in zip([0, *val[:-1]], val, strict=True):
        bits_1 -= math.log2(uni[token])
        followers = [b for a, b in pairs if a == before]
        kinds = max(len(set(followers)), 1)
        bits_2 -= math.log2((followers.count(token) + kinds * uni[token]) / (len(followers) + kinds))
    characters = done.shards.manifest.splits.val.characters
    assert lines.unigram == pytest.approx(bits_1 / characters)
    assert lines.bigram == pytest.approx(bits_2 / characters)
    assert lines.floor is None
    assert lines.uniform > lines.unigram > lines.bigram - 0.2


@pytest.mark.slow
def test_the_demo_corpus_has_a_floor_below_its_bigram_line(console: Console) -> None:
    done = prepare(CorpusConfig(path=("yanmo:demo",)), TokenizerConfig(), DataConfig(), 128, console)
    lines = baselines_of(done.shards, done.tokenizer.vocab_size, done.tokenizer.end_of_text)
    assert lines.floor is not None
    assert 0.3 < lines.floor < lines.bigram < lines.unigram < lines.uniform


def test_perplexity_of_a_hopeless_model_is_still_a_number() -> None:
    assert math.isfinite(Evaluation(10_000.0, 1.0).perplexity)


def test_a_model_is_placed_among_the_lines_in_words() -> None:
    lines = NGramBaselines(uniform=12.0, unigram=9.0, bigram=6.0)
    assert "above the unigram line of 9.00" in lines.describe_rank(9.5)
    assert "between the unigram line of 9.00 and the bigram line of 6.00" in lines.describe_rank(7)
    assert lines.describe_rank(5) == "below the bigram line of 6.00"
    known = NGramBaselines(12.0, 9.0, 6.0, floor=0.5)
    assert known.describe_rank(0.75) == "0.25 above the floor of 0.50"


def test_a_result_above_the_bigram_line_says_what_to_expect_and_why() -> None:
    lines = NGramBaselines(uniform=10.0, unigram=8.0, bigram=6.0)
    assert lines.expectation(5.99) == ""
    for bits, writes in [
        (6.0, "words, not sentences"),
        (7.9, "words, not sentences"),
        (8.0, "random characters"),
        (12.0, "random characters"),
    ]:
        said = lines.expectation(bits)
        assert writes in said and f"({bits:.2f})" in said and "train.minutes" in said
