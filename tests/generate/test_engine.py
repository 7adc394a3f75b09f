import copy
import json
import math
import platform
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.makers.console import here
from tests.makers.models import TOKENIZER, TOKENIZERS, char_tokenizer, drawn, lively_model, reader, small
from yanmo.core.console import visible
from yanmo.core.errors import ConfigError, DeviceError
from yanmo.generate.assembly import TextAssembler
from yanmo.generate.engine import (
    CHUNK_TOKENS,
    MAX_ROWS,
    Engine,
    RunningSequence,
    describe,
    generate,
    generate_batch,
    make_writer,
    rows_together,
    set_threads,
)
from yanmo.generate.sampling import TokenConstraints, typed
from yanmo.generate.score import score
from yanmo.generate.text import (
    Sample,
    TextDelta,
    encode_prompt,
    in_order,
    save_samples,
    write,
    write_all,
    write_from,
    write_pieces,
    write_samples,
)
from yanmo.hub.imports.proof import SENTENCES
from yanmo.model.cache import CacheRows, KVCache
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.model.packed import Int8Weight, LaidOutWeight, can_lay_out
from yanmo.parallel import machine
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import CharTokenizer


def test_writing_with_the_cache_equals_writing_without() -> None:
    model, config = lively_model(), SampleConfig(temperature=0, max_new_tokens=12)
    ids = [300 - 40, 261, 262]
    written = [tokens[0] for tokens in generate(model, ids, config, end_of_text=-1)]
    expected = list(ids)
    for _ in range(12):
        with torch.no_grad():
            expected.append(int(model(torch.tensor([expected]))[0, -1].argmax()))
    assert written == expected[3:]


def test_writing_goes_on_past_the_window() -> None:
    """When 16 tokens are full, the newest 8 are read again."""
    model, config = lively_model(), SampleConfig(temperature=0, max_new_tokens=60)
    written = [tokens[0] for tokens in generate(model, [260], config, end_of_text=-1)]
    assert len(written) == 60
    assert len(set(written)) > 10  # a text that depends on what came before
    history, window = [260, *written], [260]
    for token in written:
        if len(window) > 16:
            window = window[-8:]
        with torch.no_grad():
            assert token == int(model(torch.tensor([window]))[0, -1].argmax())
        window.append(token)  # type: ignore[arg-type]
    assert history[1:] == written


def test_same_seed_same_text_and_samples_do_not_disturb_each_other() -> None:
    model = lively_model()
    config = SampleConfig(temperature=1, top_p=1, max_new_tokens=20, seed=5)
    one = write_all(model, TOKENIZER, "江湖", config)
    three = write_all(model, TOKENIZER, "江湖", config.model_copy(update={"num_samples": 3}))
    assert three[0] == one[0]
    assert len(set(three)) == 3
    assert write_all(model, TOKENIZER, "江湖", config.model_copy(update={"seed": 6})) != one


def test_what_is_streamed_is_the_text() -> None:
    model = lively_model()
    config = SampleConfig(temperature=1.5, top_p=1, max_new_tokens=40, num_samples=2)
    streamed = ["", ""]
    for number, text in write(model, TOKENIZER, "夜雨", config):
        streamed[number] += text
    for sample in write_samples(model, TOKENIZER, ["夜雨"], config):
        assert streamed[sample.number] == sample.text == TOKENIZER.decode(list(sample.tokens))
    config = config.model_copy(update={"num_samples": 1})
    prompt = encode_prompt(TOKENIZER, "夜雨", config, 16)
    assert "".join(piece.text for piece in write_from(model, TOKENIZER, prompt, config)) == streamed[0]


@pytest.mark.parametrize("length", [17, 40, 1000])
def test_of_a_prompt_longer_than_the_window_the_end_is_continued_and_that_is_said(length: int) -> None:
    model, config = lively_model(), SampleConfig(max_new_tokens=5, seed=1)
    prompt, said = ("江湖夜雨" * 250)[-length:], list[str]()
    expected = write_all(model, TOKENIZER, prompt[-16:], config, said.append)
    assert said == []
    assert write_all(model, TOKENIZER, prompt, config, said.append) == expected
    (sample,) = write_samples(model, TOKENIZER, [prompt], config, say=said.append)
    assert (sample.prompt, sample.text, len(sample.tokens)) == (prompt, expected[0], 5)
    assert said == [f"the prompt has {length:,} tokens; the model only reads the last 16 of them"] * 2
    with pytest.warns(UserWarning, match="only reads the last 16"):
        assert "".join(text for _, text in write(model, TOKENIZER, prompt, config)) == expected[0]


def test_a_prompt_as_long_as_the_window_is_fine() -> None:
    config = SampleConfig(max_new_tokens=3, temperature=0)
    assert len(list(generate(lively_model(), [260] * 16, config, end_of_text=-1))) == 3


# -- several prompts in one batch ---------------------------------------------------------------


PROMPTS = [
    "江湖夜雨十年灯，桃李春风",
    "夜雨",
    "",
    "一杯酒。桃李春风一",
    "夜雨",
    "江湖夜雨十年灯，桃李春风一杯酒。",
]
"""Of 12, 2, 1, 9, 2 and 16 tokens: in a window of 16 they are full at different steps."""


class Endless(CharTokenizer):
    """No text of it ends."""

    suppressed = (0,)


ENDLESS = Endless(TOKENIZER._characters)


@pytest.mark.parametrize("kind", ["sdpa", "matmul"])
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.2, "num_samples": 3}])
def test_a_rows_text_is_that_of_the_row_written_alone(kind: str, settings: dict[str, float]) -> None:
    model = lively_model()
    model.use_attention(kind)  # type: ignore[arg-type]
    config = SampleConfig(max_new_tokens=60, top_p=1, seed=2, **settings)  # type: ignore[arg-type]
    together = write_samples(model, ENDLESS, PROMPTS, config)
    alone = [sample for prompt in PROMPTS for sample in write_samples(model, ENDLESS, [prompt], config)]
    assert [sample.tokens for sample in together] == [sample.tokens for sample in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert len({sample.tokens for sample in together}) == len(together) - config.num_samples  # 夜雨 twice


def test_a_batch_writes_what_whole_windows_predict() -> None:
    """Against the model without any cache: each row slides by its own length."""
    model, config = lively_model(), SampleConfig(temperature=0, max_new_tokens=40)
    for sample in write_samples(model, ENDLESS, PROMPTS, config):
        window = encode_prompt(TOKENIZER, sample.prompt, config, 16).ids
        for token in sample.tokens:
            if len(window) > 16:
                window = window[-8:]
            with torch.no_grad():
                assert token == 1 + int(model(torch.tensor([window]))[0, -1, 1:].argmax())
            window.append(token)


def test_more_samples_than_rows_wait_for_a_slot_and_are_written_unchanged() -> None:
    model, config = lively_model(), SampleConfig(temperature=1, top_p=1, max_new_tokens=20, num_samples=40)
    forty = write_samples(model, ENDLESS, ["江湖", "夜"], config)
    assert [(s.prompt, s.number) for s in forty] == [(p, n) for p in ("江湖", "夜") for n in range(40)]
    assert len({sample.tokens for sample in forty}) == 80
    ids = [encode_prompt(ENDLESS, prompt, config, 16).ids for prompt in ("江湖", "夜")]
    few_bytes = 3 * 2 * 2 * 16 * 16 * 4  # three slots of lively_model
    written: dict[tuple[int, int], list[int]] = {}
    for grown in generate_batch(model, ids, config, TokenConstraints.of(ENDLESS, config), few_bytes):
        assert len(grown) <= 3
        for one in grown:
            written.setdefault((one.prompt, one.number), []).append(one.past.ids[-1])
    assert [tuple(tokens) for _, tokens in sorted(written.items())] == [sample.tokens for sample in forty]


def test_the_memory_of_a_bfloat16_model_counts_the_float32_it_looks_back_on() -> None:
    model = lively_model()
    cache = KVCache(model.config, 1, like=model.bfloat16().tokens.weight)
    assert rows_together(model, 10 * (cache.keys.nbytes + cache.values.nbytes)) == 5
    assert rows_together(model) == MAX_ROWS
    assert rows_together(model, 1) == 1


# -- alone and in a crowd -----------------------------------------------------------------------


CROWDED = {
    "gpt2": GPTConfig(TOKENIZER.vocab_size, n_layer=2, n_head=4, n_embd=64, block_size=32),
    "modern": GPTConfig(TOKENIZER.vocab_size, 2, 4, 64, 32, family="modern", n_kv_head=2),
    "moe": GPTConfig(TOKENIZER.vocab_size, 2, 4, 64, 32, family="moe", n_expert=6, n_expert_active=2),
}


def asked(rng: random.Random) -> RunningSequence:
    """A request of any kind: a short or a long prompt, any sampler."""
    prompt = [rng.randrange(1, TOKENIZER.vocab_size) for _ in range(rng.choice((1, 3, 11, 31, 32)))]
    config = SampleConfig(
        temperature=rng.choice((0.0, 0.7, 1.3)), top_k=rng.choice((0, 20)), top_p=rng.choice((0.9, 1.0)),
        repetition_penalty=rng.choice((1.0, 1.2)), max_new_tokens=rng.choice((1, 9, 60)),
        seed=rng.randrange(1000),
    )  # fmt: skip
    return RunningSequence(prompt, config, TokenConstraints(0), number=rng.randrange(3), alternatives=3)


def again(one: RunningSequence) -> RunningSequence:
    return RunningSequence(one.prompt_ids, one.config, one.rules, number=one.number, alternatives=3)


def in_a_crowd(model: GPT, sequences: list[RunningSequence], rows: int, rng: random.Random) -> None:
    """Write them all; they come when they like, and every fifth goes away before it is whole."""
    engine, coming = Engine(model, rows), list(sequences)
    leaving = {one: rng.randrange(1, 10) for one in sequences[::5]}
    while coming or engine.is_busy:
        for _ in range(min(rng.randrange(3), len(coming))):
            engine.add(coming.pop(0))
        for one in engine.step():
            one.ended |= len(one.choices) == leaving.get(one)


@pytest.mark.slow
@pytest.mark.parametrize("family", CROWDED)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_seed_gives_the_same_alone_and_in_a_crowd_to_the_bit(
    family: str, precision: str, drawn_seed: int
) -> None:
    """Tokens, log probabilities and alternatives; on two threads, where torch shares out attention."""
    rng = random.Random(drawn_seed)
    model = make_writer(drawn(CROWDED[family]), torch.device("cpu"), precision, None)
    sequences = [asked(rng) for _ in range(16)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_a_crowd(model, sequences, 8, rng)
        for one in sequences:
            alone, engine = again(one), Engine(model, 8)
            engine.add(alone)
            while engine.is_busy and len(alone.choices) < len(one.choices):
                engine.step()
            assert alone.choices == one.choices
    finally:
        torch.set_num_threads(threads)
    assert sum(len(one.choices) for one in sequences) > 100


def test_a_prompt_is_read_once_for_all_its_samples_and_in_chunks() -> None:
    model, sizes = lively_model(block_size=600), list[int]()
    model.tokens.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].size(1)))
    config = SampleConfig(temperature=0, max_new_tokens=2, num_samples=3)
    prompt = [260 + number % 9 for number in range(CHUNK_TOKENS + 44)]
    assert (
        len(list(generate_batch(model, [prompt], config, TokenConstraints(-1)))) == 3
    )  # the first only reads
    assert sizes == [CHUNK_TOKENS, 44, 1]


def test_while_a_long_prompt_is_read_the_others_go_on() -> None:
    engine = Engine(lively_model(block_size=600), 2)
    short, long = (
        RunningSequence([260] * length, SampleConfig(temperature=0, max_new_tokens=9), TokenConstraints(-1))
        for length in (1, 2 * CHUNK_TOKENS + 1)
    )
    engine.add(short)
    engine.add(long)
    assert [len(engine.step()) for _ in range(4)] == [1, 1, 2, 2]
    assert (len(short.choices), len(long.choices)) == (4, 2)


def test_greedy_text_is_the_same_in_groups_of_any_size_where_two_tokens_are_not_all_but_equal() -> None:
    model, near = lively_model(block_size=64), 0
    config = SampleConfig(temperature=0, max_new_tokens=60, min_new_tokens=60)
    for seed in range(12):
        prompt = [260 + (seed * 7 + place) % 13 for place in range(1 + seed % 5)]
        alone, beside = (
            RunningSequence(prompt, config, TokenConstraints(0), alternatives=2) for _ in range(2)
        )
        for one, rows in ((alone, 1), (beside, 8)):  # as generate writes, and as serve does
            engine = Engine(model, rows)
            engine.add(one)
            while engine.is_busy:
                engine.step()
        for one, other in zip(alone.choices, beside.choices, strict=True):
            (_, first), (_, second) = one.top
            if first - second < 1e-4:
                near += 1
                break  # from here on they may differ
            assert one.id == other.id and one.logprob == pytest.approx(other.logprob, abs=1e-5)
    assert near <= 2


class Unhurried(Engine):
    """Reads a window when it needs it, and not before."""

    def _read_ahead(self) -> None:
        pass


@pytest.mark.parametrize("pinned", [0, 5])
def test_a_text_that_grows_beyond_its_window_waits_for_no_reading_and_is_the_same_to_the_bit(
    pinned: int,
) -> None:
    model = lively_model(block_size=4 * CHUNK_TOKENS + 6)
    config = SampleConfig(temperature=1, max_new_tokens=500, min_new_tokens=500)
    steps, choices = [], []
    for kind in (Engine, Unhurried):
        engine = kind(model, 2)
        one = RunningSequence([260, 261, 262, 263, 264, 265], config, TokenConstraints(0), pinned=pinned)
        engine.add(one)
        steps.append(
            sum(1 for _ in iter(lambda engine=engine: engine.is_busy and engine.step() is not None, False))
        )
        choices.append(one.choices)
    assert choices[0] == choices[1]
    assert steps[0] == 500 < steps[1]


def test_what_is_taken_back_was_not_read_ahead() -> None:
    model = lively_model(block_size=4 * CHUNK_TOKENS + 6)
    config = SampleConfig(temperature=1, max_new_tokens=400, min_new_tokens=400)
    written = []
    for kind in (Engine, Unhurried):
        engine = kind(model, 1)
        one = RunningSequence([260], config, TokenConstraints(0))
        engine.add(one)
        chance = random.Random(5)
        while engine.is_busy:
            grown = engine.step()
            if grown and len(one.choices) > 3 and chance.random() < 0.02 and one.taken_back < 6:
                engine.take_back(one, max(len(one.choices) - chance.randrange(1, 90), 0))
        written.append(one.choices)
    assert written[0] == written[1]


def test_who_goes_back_to_the_beginning_is_not_read_for_another_sample_of_the_prompt() -> None:
    prompt = list(range(260, 272))

    def row(length: int) -> RunningSequence:
        config = SampleConfig(temperature=1, seed=3, max_new_tokens=length, min_new_tokens=length)
        return RunningSequence(prompt, config, TokenConstraints(0))

    model = lively_model(block_size=16)
    alone, beside = Engine(model, 2), Engine(model, 2)
    expected, first, other, later = row(10), row(40), row(25), row(10)
    other.prompt_ids = prompt[:5]
    alone.add(expected)
    for one in (first, other, later):
        beside.add(one)
    while not other.ended:
        beside.step()
    beside.take_back(first, 0)  # its window has moved beyond the prompt; ``later`` begins in this very step
    for engine in (alone, beside):
        while engine.is_busy:
            engine.step()
    assert later.choices == expected.choices


def test_a_slot_that_is_free_is_taken_by_the_next() -> None:
    engine, lengths = Engine(lively_model(), 2), (1, 5, 2, 2)
    sequences = [
        RunningSequence([260], SampleConfig(temperature=0, max_new_tokens=length), TokenConstraints(-1))
        for length in lengths
    ]
    for one in sequences:
        engine.add(one)
    steps = 0
    while engine.is_busy:
        engine.step()
        steps += 1
    assert steps == 5 and [len(one.choices) for one in sequences] == list(lengths)


def test_alternatives_are_the_likeliest_before_and_after_the_sampler() -> None:
    model, engine = lively_model(), Engine(lively_model(), 1)
    config = SampleConfig(temperature=0.5, top_k=2, top_p=1, max_new_tokens=1, repetition_penalty=3)
    one = RunningSequence([260, 261, 262], config, TokenConstraints(-1, never=(5,)), alternatives=20)
    engine.add(one)
    engine.step()
    with torch.no_grad():
        said = model(torch.tensor([[260, 261, 262]]))[0, -1].log_softmax(0)
    (choice,) = one.choices
    assert [token for token, _ in choice.top] == said.argsort(descending=True)[:20].tolist()
    assert [value for _, value in choice.top] == pytest.approx(
        said.sort(descending=True).values[:20].tolist(), abs=1e-5
    )
    assert len(choice.top_sampled) == 2 and choice.id in dict(choice.top_sampled)
    assert sum(math.exp(value) for _, value in choice.top_sampled) == pytest.approx(1, abs=1e-5)


class EvenOnly:
    """A rule that forgets nothing and allows even ids only."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def begin(self, prompt: Sequence[int]) -> "EvenOnly":
        return EvenOnly(list(prompt))

    def barred(self) -> Tensor:
        return torch.arange(TOKENIZER.vocab_size) % 2 == 1

    def push(self, token: int) -> None:
        self.seen.append(token)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_rule_of_the_text_is_never_overruled_and_hears_of_every_token(temperature: float) -> None:
    even = tuple(range(0, TOKENIZER.vocab_size, 2))
    config = SampleConfig(temperature=temperature, max_new_tokens=9, top_k=3, repetition_penalty=1.3)
    engine = Engine(lively_model(), 1)
    # the sampler's own bans leave nothing that the rule allows: then it, and not they, is obeyed
    one = RunningSequence([261], config, TokenConstraints(-1, never=even[1:]), text_rules=[EvenOnly([])])
    engine.add(one)
    while engine.is_busy:
        engine.step()
    (state,) = one.rule_states
    assert isinstance(state, EvenOnly) and state.seen == one.past.ids and len(one.choices) == 9
    assert all(token % 2 == 0 for token in one.past.ids[1:])


def test_large_models_write_in_bfloat16_where_their_run_found_it_faster() -> None:
    def precision(model: GPT, asked: str | None, trained: str | None) -> torch.dtype:
        return make_writer(model, torch.device("cpu"), asked, trained).tokens.weight.dtype

    small, large = lively_model(), GPT(GPTConfig(1000, n_layer=1, n_head=2, n_embd=1280, block_size=8))
    assert precision(small, None, "bfloat16") == torch.float32
    assert precision(large, None, "float32") == torch.float32
    assert precision(large, None, None) == torch.float32
    assert precision(large, None, "bfloat16") == torch.bfloat16
    assert precision(large, "float32", "bfloat16") == torch.float32
    assert precision(small, "bfloat16", None) == torch.bfloat16
    assert "; bfloat16 on cpu" in describe(SampleConfig(), small)


@pytest.mark.parametrize(
    ("asked", "larger", "left"), [(None, False, 2), (None, True, 3), ("3", False, 3)], ids=str
)
def test_small_models_leave_a_core_to_those_they_answer(
    asked: str | None, larger: bool, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(machine, "_THREADS", 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with torch.device("meta"):
        models = [GPT(GPTConfig(20_000, 2, 4, 1024 if larger else 64, 64)), lively_model()]
    try:
        torch.set_num_threads(3)
        for _ in range(2):  # once more changes nothing
            set_threads(models)
        assert torch.get_num_threads() == left
    finally:
        torch.set_num_threads(before)


def test_what_is_written_in_bfloat16_is_nearly_as_likely() -> None:
    config = SampleConfig(temperature=0, max_new_tokens=40)
    (exact,) = write_samples(lively_model(), ENDLESS, ["江湖"], config)
    rounded = make_writer(lively_model(), torch.device("cpu"), "bfloat16", None)
    (found,) = write_samples(rounded, ENDLESS, ["江湖"], config)
    assert found.tokens[:3] == exact.tokens[:3]
    torch.testing.assert_close(found.logprobs[0], exact.logprobs[0], atol=0.1, rtol=0.05)


@pytest.mark.parametrize("family", ["gpt2", "modern", "moe"])
def test_a_model_whose_matrices_are_laid_out_for_writing_says_the_same(family: str) -> None:
    model = drawn(small(family, TOKENIZER, tied_head=family != "modern"))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        exact = model(ids)
        found = make_writer(model, torch.device("cpu"), "float32", None)(ids)
    assert isinstance(model.head_weight, LaidOutWeight) == can_lay_out(torch.device("cpu"))
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "modern", "moe"])
def test_with_8_bit_weights_a_model_says_nearly_the_same(family: str) -> None:
    def logits(precision: str) -> Tensor:
        model = make_writer(
            drawn(small(family, TOKENIZER, tied_head=family != "modern")),
            torch.device("cpu"),
            precision,
            None,
        )
        assert isinstance(model.head_weight, Int8Weight) == (precision == "int8")
        with torch.no_grad():
            return model(torch.arange(40)[None]).float()

    exact, found = logits("float32"), logits("int8")
    off = (found - exact).norm(dim=-1) / exact.norm(dim=-1)  # (1, T)
    assert float(off.median()) < 0.03  # where two experts are all but equal, a token goes to the other


@pytest.mark.slow
def test_with_8_bit_weights_a_trained_model_foretells_a_text_as_well() -> None:
    def nats(precision: str) -> float:
        model = make_writer(copy.deepcopy(reader()), torch.device("cpu"), precision, None)
        texts = [char_tokenizer().encode(text) for text in SENTENCES]
        return -sum(one.logprob for ids in texts for one in score(model, ids, 0))

    assert nats("int8") == pytest.approx(nats("float32"), rel=0.005)


def test_8_bit_weights_are_chosen_by_name_and_named() -> None:
    model = make_writer(drawn(small("gpt2", TOKENIZER)), torch.device("cpu"), "int8", "float32")
    assert "; int8 on cpu" in describe(SampleConfig(), model)


def test_where_there_are_no_8_bit_products_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn(small("gpt2", TOKENIZER))
    with pytest.raises(DeviceError, match="for CPUs"):
        make_writer(model, torch.device("meta"), "int8", None)
    narrow = GPT(GPTConfig(10, n_layer=1, n_head=2, n_embd=20, block_size=8))
    with pytest.raises(ConfigError, match="multiples of 32; this model has 20"):
        make_writer(narrow, torch.device("cpu"), "int8", None)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(DeviceError, match="x86-64 or ARM"):
        make_writer(model, torch.device("cpu"), "int8", None)
    assert model.tokens.weight.dtype == torch.float32  # and untouched


class Scripted(GPT):
    """Each token is followed by the one that follows it in one of some texts, the last one by the end."""

    def __init__(self, *texts: str) -> None:
        super().__init__(GPTConfig(TOKENIZER.vocab_size, n_layer=1, n_head=1, n_embd=4, block_size=64))
        self.next: dict[int, int] = {}
        for text in texts:
            ids = [*TOKENIZER.encode(text).tolist(), TOKENIZER.end_of_text]
            self.next |= dict(zip(ids, ids[1:], strict=False))

    def head(self, x: Tensor) -> Tensor:
        return x

    def hidden_states(self, ids: Tensor, cache: CacheRows | None = None) -> Tensor:
        assert cache is not None
        logits = torch.full((*ids.shape, self.config.vocab_size), -20.0)
        for row, token in enumerate(ids[:, -1].tolist()):
            logits[row, -1, self.next.get(token, 0)] = 20.0  # rows for the shape only read id 0
        cache.grow(ids.size(1))
        return logits


def test_end_of_text_ends_a_sample_and_is_not_shown() -> None:
    model = Scripted("江湖夜雨", "十")
    config = SampleConfig(temperature=0, max_new_tokens=9)
    found = write_samples(model, TOKENIZER, ["十", "江"], config)
    assert [sample.text for sample in found] == ["", "湖夜雨"]
    assert [sample.tokens[-1] for sample in found] == [0, 0]
    assert [len(sample.logprobs) for sample in found] == [1, 4]


def test_a_stop_text_frees_the_slot_at_once() -> None:
    model = lively_model()
    config = SampleConfig(temperature=0, max_new_tokens=12)
    whole = write_samples(model, ENDLESS, PROMPTS, config)
    stop = whole[1].text[3:5]  # a text that the second row writes, and perhaps others
    stopped = write_samples(model, ENDLESS, PROMPTS, config.model_copy(update={"stop": (stop,)}))
    for sample, full in zip(stopped, whole, strict=True):
        assert sample.text == full.text.partition(stop)[0]
    assert len(stopped[1].tokens) == 5 < len(stopped[0].tokens)


def test_log_probabilities_are_the_models_own_whatever_the_sampler_does() -> None:
    model = lively_model()
    config = SampleConfig(
        temperature=0.5, top_k=5, repetition_penalty=1.5, no_repeat_ngram=2, max_new_tokens=10, banned=("江",)
    )
    (sample,) = write_samples(model, TOKENIZER, ["夜雨"], config)
    ids = [*TOKENIZER.encode("夜雨").tolist(), *sample.tokens]
    with torch.no_grad():
        expected = (
            model(torch.tensor([ids])).log_softmax(-1)[0, 1:-1].gather(1, torch.tensor(ids[2:])[:, None])
        )
    assert list(sample.logprobs) == pytest.approx(expected.flatten().tolist(), abs=1e-4)


class Chinese(CharTokenizer):
    """Writes neither bytes nor an end."""

    suppressed = tuple(range(257))


@pytest.mark.xdist_group("models")  # transformers is loaded there
@pytest.mark.parametrize("banned", [slice(0), slice(0, 1)])
@pytest.mark.parametrize(
    "settings", [{}, {"repetition_penalty": 1.7}, {"no_repeat_ngram": 2, "repetition_penalty": 1.1}]
)
def test_greedy_writing_with_rules_is_that_of_transformers(
    settings: dict[str, float], banned: slice, tmp_path: Path
) -> None:
    from transformers import GPT2LMHeadModel

    from tests.makers.models import saved_model

    torch.manual_seed(0)
    tokenizer, prompt = Chinese(TOKENIZER._characters), "桃李春风一杯酒"
    model = saved_model(tmp_path, GPTConfig(TOKENIZER.vocab_size, 2, 2, 16, 64))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    plain = SampleConfig(temperature=0, max_new_tokens=30)
    text = write_all(model, tokenizer, prompt, plain)[0]
    assert len(text) == 30
    words = [text[banned]] if text[banned] else []
    config = plain.model_copy(update={**settings, "banned": tuple(words)})
    ids = torch.tensor([TOKENIZER.encode(prompt).tolist()])
    expected = theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=30,
        pad_token_id=0,
        suppress_tokens=list(range(257)),
        bad_words_ids=[TOKENIZER.encode(word).tolist() for word in words] or None,
        repetition_penalty=settings.get("repetition_penalty"),
        no_repeat_ngram_size=settings.get("no_repeat_ngram"),
    )[0, ids.size(1) :].tolist()
    assert list(write_samples(model, tokenizer, [prompt], config)[0].tokens) == expected
    assert (tokenizer.decode(expected) == text) == (config == plain)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_banned_phrase_is_never_written_however_it_is_spelled(kind: str, drawn_seed: int) -> None:
    tokenizer = TOKENIZERS[kind]()
    model = lively_model(block_size=64, vocab_size=tokenizer.vocab_size)
    plain = SampleConfig(temperature=1.5, top_p=1, max_new_tokens=40, num_samples=4)
    rng = random.Random(f"{drawn_seed} {kind}")
    for _ in range(6):
        config = plain.model_copy(update={"seed": rng.randrange(1000)})
        prompt = rng.choice(SENTENCES)[:12]
        texts = write_all(model, tokenizer, prompt, config)
        # phrases that would be written: the end of the prompt counts, which may be a beginning
        cuts = [(text, rng.randrange(len(text) - 4)) for text in texts if len(text) > 4]
        phrases = [text[at : at + rng.randrange(1, 4)] for text, at in cuts]
        phrases.append((prompt + texts[0])[len(prompt) - 1 : len(prompt) + 1])
        phrases = [phrase for phrase in phrases if "\ufffd" not in phrase]  # no character: half of one
        banned = config.model_copy(update={"banned": tuple(phrases)})
        for sample in write_samples(model, tokenizer, [prompt], banned):
            joined = prompt[-2:] + sample.text
            for phrase in phrases:
                at = joined.find(phrase)
                assert at < 0 or at + len(phrase) <= 2, (phrase, joined)


def test_what_is_banned_is_taken_back_to_where_it_began_and_not_shown_in_the_stream() -> None:
    model = lively_model()
    plain = SampleConfig(temperature=0, max_new_tokens=12, min_new_tokens=12)
    (text,) = write_all(model, ENDLESS, "江", plain)
    config = plain.model_copy(update={"banned": (text[3:6],)})
    streamed: list[str] = []
    for _, piece in write(model, ENDLESS, "江", config):
        streamed.append(piece)
    (sample,) = write_samples(model, ENDLESS, ["江"], config)
    assert "".join(streamed) == sample.text
    assert sample.text[:3] == text[:3] and sample.text[3] != text[3] and len(sample.text) == 12


def test_who_can_write_nothing_but_a_banned_phrase_ends_before_it() -> None:
    class Two(CharTokenizer):
        suppressed = tuple(range(257))

    tokenizer = Two("江湖")
    model = lively_model(vocab_size=tokenizer.vocab_size)
    config = SampleConfig(temperature=1, top_p=1, max_new_tokens=30, banned=("江江", "江湖", "湖湖", "湖江"))
    (sample,) = write_samples(model, tokenizer, ["江"], config)
    assert sample.text == "" and sample.tokens == ()


def test_the_pinned_text_stays_at_the_beginning_of_the_window() -> None:
    model = lively_model()
    config = SampleConfig(temperature=0, max_new_tokens=40, pinned="江湖夜")
    (sample,) = write_samples(model, ENDLESS, ["雨" * 30], config, say=lambda _: None)
    pinned = ENDLESS.encode("江湖夜").tolist()
    rest = ENDLESS.encode("雨" * 13).tolist()
    for token in sample.tokens:
        if len(rest) + 3 > 16:
            rest = rest[-6:]
        with torch.no_grad():
            assert token == 1 + int(model(torch.tensor([pinned + rest]))[0, -1, 1:].argmax())
        rest.append(token)


def test_pinned_notes_that_fill_the_window_are_refused() -> None:
    config = SampleConfig(pinned="江湖夜雨" * 3)
    with pytest.raises(ConfigError, match="the pinned text has 12 tokens, and the model's window is 16"):
        write_samples(lively_model(), TOKENIZER, ["江"], config)


# -- text ---------------------------------------------------------------------------------------


def pushed(stops: list[str], text: str, tokenizer: CharTokenizer = TOKENIZER) -> list[str]:
    """What each token of ``text`` makes certain, and what the end does."""
    stream = TextAssembler(tokenizer, [], stops)
    pieces = []
    for token in tokenizer.encode(text).tolist():
        pieces.append(stream.push(token))
        if stream.ended:
            break
    return [*pieces, stream.flush()]


def test_what_may_begin_a_stop_text_is_held_back() -> None:
    assert pushed(["夜雨"], "江夜雨十") == ["江", "", "", ""]
    assert pushed(["夜雨"], "江夜十") == ["江", "", "夜十", ""]
    assert pushed(["夜雨"], "江夜") == ["江", "", "夜"]
    assert pushed(["夜夜雨"], "夜夜夜雨") == ["", "", "夜", "", ""]
    assert pushed(["雨十", "夜雨十年", ""], "夜雨十年") == ["", "", "夜", ""]
    assert pushed([], "夜雨") == ["夜", "雨", ""]


def test_a_stop_text_may_be_written_in_bytes() -> None:
    """龘 is no character of this vocabulary: three tokens, the first two of which are half a character."""
    assert pushed(["龘龘"], "江龘龘夜") == ["江", "", "", "", "", "", "", ""]
    assert pushed(["龘龘"], "龘龖") == ["", "", "", "", "", "龘龖", ""]
    stream = TextAssembler(TOKENIZER, [], ["龘夜"])
    half = TOKENIZER.encode("龘").tolist()[:2]
    assert [stream.push(token) for token in half] == ["", ""]
    assert stream.flush() == "\ufffd"


def test_a_stop_text_ends_a_sample_and_is_not_part_of_it() -> None:
    model = Scripted("江湖夜雨十年灯", "桃李龘风")
    config = SampleConfig(temperature=0, max_new_tokens=20, stop=("十年", "龘风"))
    assert write_all(model, TOKENIZER, "江", config) == ["湖夜雨"]
    sample = write_samples(model, TOKENIZER, ["江"], config)[0]
    assert TOKENIZER.decode(list(sample.tokens)) == "湖夜雨十年"
    assert write_all(model, TOKENIZER, "桃", config) == ["李"]


def test_a_stream_knows_the_prompt_it_continues() -> None:
    class Spacing(CharTokenizer):
        def stream(self):  # type: ignore[no-untyped-def]
            class Stream:
                before = 0

                def push(self, token: int) -> str:
                    text = (" " if self.before else "") + TOKENIZER.decode([token])
                    self.before = token
                    return text

                def flush(self) -> str:
                    return ""

            return Stream()

    model = Scripted("江湖夜")
    tokenizer = Spacing(TOKENIZER._characters)
    assert write_all(model, tokenizer, "江", SampleConfig(temperature=0)) == [" 湖 夜"]


def test_an_empty_prompt_is_the_beginning_of_a_document() -> None:
    class Starting(CharTokenizer):
        document_start = (5, 6)

    plain = SampleConfig()
    assert encode_prompt(TOKENIZER, "", plain, 16).ids == [0]
    assert encode_prompt(Starting("江湖"), "", plain, 16).ids == [0, 5, 6]
    assert encode_prompt(Starting("江湖"), "江", plain, 16).ids == [257]
    end = encode_prompt(TOKENIZER, "江<|endoftext|>", plain, 16, special=True).ids
    assert end == [*TOKENIZER.encode("江").tolist(), 0]
    assert len(encode_prompt(TOKENIZER, "江<|endoftext|>", plain, 16).ids) == 14


def test_half_a_character_in_a_prompt_is_a_clear_error() -> None:
    with pytest.raises(ConfigError) as caught:
        write_samples(lively_model(), TOKENIZER, ["江", "夜\udc80"], SampleConfig())
    assert caught.value.what == "the prompt holds half a character (a lone surrogate)"
    assert caught.value.where == "character 2 of the prompt"


def test_samples_are_shown_in_order_the_first_as_it_comes() -> None:
    whole = Sample("", 0, 0, "", (), ())
    taken: list[int] = []

    def pieces() -> Iterator[TextDelta]:
        for place, (number, text, end) in enumerate(
            [(0, "a", 0), (1, "x", 0), (0, "b", 0), (1, "y", 1), (0, "c", 1)]
        ):
            taken.append(place)
            yield TextDelta(0, number, text, whole if end else None)
        yield TextDelta(1, 0, "z", whole)

    shown = [(piece.text, len(taken)) for piece in in_order(pieces())]
    assert shown == [("a", 1), ("b", 3), ("c", 5), ("x", 5), ("y", 5), ("z", 5)]
    written = list(write_pieces(lively_model(), TOKENIZER, ["江", "夜"], SampleConfig(max_new_tokens=5)))
    assert sorted(piece.prompt for piece in in_order(written)) == [
        piece.prompt for piece in in_order(written)
    ]


# -- files --------------------------------------------------------------------------------------


def test_saved_samples_are_numbered_on_and_all_listed(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    one = [Sample("江", n, 3, f"湖{n}", (), ()) for n in range(2)]
    first = save_samples(folder, one, SampleConfig(seed=3, prompt="江"), Path("runs/a/model"), lively_model())
    assert [path.name for path in first] == ["001.txt", "002.txt"]
    assert first[1].read_text(encoding="utf-8") == "江湖1\n"
    (folder / "009.txt").write_text("mine", encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert save_samples(folder, one, SampleConfig(seed=3), Path("runs/a/model"), lively_model()) == []
    other = [Sample("江", 0, 3, "夜", (), ())] * 2
    more = save_samples(folder, other, SampleConfig(top_k=5), Path("runs/b/model"), lively_model().bfloat16())
    assert [path.name for path in more] == ["010.txt"]
    listed = json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"]
    assert [(e["number"], e["file"], e["prompt"], e["sample"], e["seed"]) for e in listed] == [
        (1, "001.txt", "江", 0, 3), (2, "002.txt", "江", 1, 3), (10, "010.txt", "江", 0, 3),
    ]  # fmt: skip
    assert (folder / "010.txt").read_text(encoding="utf-8") == "江夜\n"
    assert [entry["sampler"]["top_k"] for entry in listed] == [0, 0, 5]
    assert [entry["precision"] for entry in listed] == ["float32", "float32", "bfloat16"]
    assert Path(listed[2]["model"]) == Path("runs/b/model") and listed[2]["yanmo"]
    for torn in ("[]", '{"samples": [{"number": 1e999}]}', '{"samples": [{"number": NaN}]}', "[" * 100_000):
        (folder / "samples.json").write_text(torn, encoding="utf-8")
        with pytest.raises(ConfigError, match="not a list of samples"):
            save_samples(folder, one, SampleConfig(), Path("m"), lively_model())


# -- the command line ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, nothing trained."""
    from tests.makers.models import saved_model

    torch.manual_seed(1)
    place = tmp_path / "model"
    place.mkdir()
    saved_model(place, GPTConfig(TOKENIZER.vocab_size, 2, 2, 16, 16))
    TOKENIZER.save(place, 16)
    return place


def answer(*words: str) -> tuple[int, str, str]:
    """What the command line answers: exit code, standard output, standard error."""
    done = here(*words)
    return done.returncode, done.stdout, done.stderr


def test_generate_streams_texts_and_says_how_they_were_chosen(folder: Path) -> None:
    words = ["generate", str(folder), "-p", "江湖", "--max-new-tokens", "6", "--seed", "4", "--min-p", "0.01"]
    code, out, err = answer(*words, "--top-k", "9", "--repetition-penalty", "1.2", "--no-repeat-ngram", "3")
    assert code == 0 and out.startswith("江湖") and out.endswith("\n") and "\n──" not in out
    for setting in ("top_k=9", "min_p=0.01", "repetition_penalty=1.2", "no_repeat_ngram=3", "seed=4"):
        assert setting in err
    assert err.count("\n") == 1 and "sampler" not in out
    code, out, err = answer(*words, "--num-samples", "3", "--json")
    found = json.loads(out)
    assert [sample["number"] for sample in found["samples"]] == [0, 1, 2]
    assert found["sampler"]["min_p"] == 0.01 and "tokens" not in found["samples"][0]
    code, out, _ = answer(*words, "--logprobs", "--stop", "夜", "--stop", "雨", "--banned", "江")
    (sample,) = json.loads(out)["samples"]
    assert len(sample["tokens"]) == len(sample["logprobs"]) <= 6 and max(sample["logprobs"]) < 0
    assert TOKENIZER.encode("江").tolist()[0] not in sample["tokens"]


def test_generate_continues_a_file_of_prompts_and_saves_what_it_wrote(folder: Path) -> None:
    Path("prompts.txt").write_bytes("\ufeff江湖\r\n\r\n  \r\n夜雨<|endoftext|>\r\n".encode())
    words = ["generate", str(folder), "--prompts", "prompts.txt", "--special", "--num-samples", "2"]
    words += ["--max-new-tokens", "5", "--save", "out", "--seed"]
    code, out, err = answer(*words, "1")
    assert code == 0, err
    shown = [part.partition("\n")[2] for part in out.split("── ")[1:]]
    shown = [text.removesuffix("\n") for text in shown]
    files = sorted(Path("out").glob("*.txt"))
    assert [path.name for path in files] == ["001.txt", "002.txt", "003.txt", "004.txt"]
    assert "001.txt to 004.txt" in err
    texts = [path.read_bytes().decode().removesuffix("\n") for path in files]
    assert [out.count(text) for text in texts] == [1] * 4
    assert texts[0].startswith("江湖") and texts[3].startswith("夜雨<|endoftext|>")
    code, again, err = answer(*words, "1")
    assert (code, again) == (0, out) and "saved: 4 of 4 samples existed already" in err
    assert answer(*words, "2")[0] == 0
    listed = json.loads(Path("out/samples.json").read_text(encoding="utf-8"))["samples"]
    assert [entry["prompt"] for entry in listed] == ["江湖"] * 2 + ["夜雨<|endoftext|>"] * 2 + [
        "江湖", "江湖", "夜雨<|endoftext|>", "夜雨<|endoftext|>",
    ]  # fmt: skip
    assert Path("out/005.txt").read_bytes() != files[0].read_bytes()


@pytest.mark.parametrize("verb", ["text", "--json"])
def test_each_prompt_that_is_given_is_continued_in_its_order(folder: Path, verb: str) -> None:
    words = ["generate", str(folder), "--max-new-tokens", "3", *(["--json"] if verb == "--json" else [])]
    code, out, err = answer(*words, "-p", "江湖", "-p", "夜雨", "--prompt", "十年")
    assert code == 0, err
    places = [out.index(prompt) for prompt in ("江湖", "夜雨", "十年")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "data",
    ["江湖\n夜雨".encode("gb18030"), "江湖\r\n夜雨\r\n".encode("utf-16"), "\ufeff江湖\n夜雨\n".encode(),
     "江湖夜雨，十年燈，桃李春風一杯酒\n".encode("big5")],
)  # fmt: skip
def test_prompts_from_a_file_and_a_pipe_are_read_in_any_encoding_of_corpora(
    folder: Path, data: bytes
) -> None:
    Path("prompts.txt").write_bytes(data)
    words = ["generate", str(folder), "--max-new-tokens", "2", "--json"]
    found = json.loads(answer(*words, "--prompts", "prompts.txt")[1])["samples"]
    text = data.decode("big5") if b"\xa6\xbf" in data else "江湖\n夜雨"
    lines = text.strip("\n").split("\n")
    assert [sample["prompt"] for sample in found] == lines
    done = here(*words, "-p", "-", "-p", "灯", typed=data)
    assert [sample["prompt"] for sample in json.loads(done.stdout)["samples"]] == ["\n".join(lines), "灯"]


@pytest.mark.parametrize(
    ("given", "read", "said"),
    [
        ("上联：春风\\n下联：", "上联：春风\n下联：", "is a line end"),
        ("\\n", "\n", "is a line end"),
        ("一\\n\\n二\\n", "一\n\n二\n", "is a line end"),
        ("频率\\nu，C:\\new", "频率\\nu，C:\\new", "two characters"),
        ("写作\\\\n。", "写作\\n。", ""),
        ("真\n假\\t", "真\n假\\t", ""),
    ],
)
def test_a_typed_backslash_n_is_a_line_end_where_no_backslash_can_be_meant(
    folder: Path, given: str, read: str, said: str
) -> None:
    text, about = typed(given)
    assert text == read and said in about and bool(said) == bool(about)
    code, out, err = answer(
        "generate", str(folder), "-p", given, "--stop", given, "--max-new-tokens", "2", "--json"
    )
    assert code == 0 and json.loads(out)["samples"][0]["prompt"] == read
    assert json.loads(out)["sampler"]["stop"] == [read] and said in err


def test_without_a_seed_another_text_is_written_each_time_and_the_seed_is_said(folder: Path) -> None:
    words = [
        "generate",
        str(folder),
        "-p",
        "江湖",
        "--max-new-tokens",
        "12",
        "--temperature",
        "1.5",
        "--save",
        "out",
    ]
    answers = [answer(*words) for _ in range(3)]
    assert len({out for _, out, _ in answers}) == 3 == len(list(Path("out").glob("*.txt")))
    seeds = [re.findall(r"--seed (\d+) writes the same text again", err) for _, _, err in answers]
    for (_, out, err), (seed,) in zip(answers, seeds, strict=True):
        assert f"seed={seed}" in err
        assert answer(*words, "--seed", seed)[1] == out
    assert len(list(Path("out").glob("*.txt"))) == 3
    assert "drawn" not in answer(*words, "--temperature", "0")[2]  # no seed matters


@pytest.mark.parametrize("prompt", ["江\x1b[2J湖", "\x9b31m夜", "\x07\u202e雨\u2066", "十\r年\x7f"])
def test_what_a_terminal_would_obey_is_shown_there_and_kept_in_a_pipe(folder: Path, prompt: str) -> None:
    words = ["generate", str(folder), "-p", prompt, "--max-new-tokens", "2", "--seed", "1"]
    piped, shown = here(*words), here(*words, on_terminal=True)
    assert piped.stdout.startswith(prompt)
    assert shown.stdout.startswith(visible(prompt)) and visible(prompt) != prompt
    assert visible(piped.stdout) == shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--prompts", "empty.txt"], "there is no prompt in the file"),
        (["--prompts", "none.txt"], "the prompts cannot be read"),
        (["--prompts", "binary.txt"], "the prompts cannot be read"),
        (["--prompts", "empty.txt", "-p", "江"], "two sources of prompts"),
        (["--prompts", "latin.txt"], "the prompts cannot be read"),
        (["--prompts", "."], "the prompts cannot be read"),
        (["-p", "\udc80"], "half a character"),
        (["--banned", "\udc80"], "half a character"),
        (["--temperature", "nan"], "sample.temperature=nan"),
        (["--temperature", "-1"], "sample.temperature=-1"),
        (["--temperature", "1e999"], "sample.temperature=inf"),
        (["--top-p", "nan"], "sample.top_p=nan"),
        (["--top-p", "0"], "sample.top_p=0"),
        (["--min-p", "nan"], "sample.min_p=nan"),
        (["--min-p", "2"], "sample.min_p=2"),
        (["--top-k", "-5"], "sample.top_k=-5"),
        (["--repetition-penalty", "nan"], "sample.repetition_penalty=nan"),
        (["--repetition-penalty", "0.5"], "sample.repetition_penalty=0.5"),
        (["--no-repeat-ngram", "-1"], "sample.no_repeat_ngram=-1"),
        (["--seed", "-1"], "sample.seed=-1"),
        (["--seed", "99999999999999999999"], "sample.seed=99999999999999999999"),
        (["--max-new-tokens", "0"], "sample.max_new_tokens=0"),
        (["--num-samples", "0"], "sample.num_samples=0"),
    ],
)
def test_mistakes_in_writing_are_answered_with_exit_2(folder: Path, arguments: list[str], said: str) -> None:
    Path("empty.txt").write_text("\n \n", encoding="utf-8")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    Path("latin.txt").write_bytes("Voilà, déjà vu: ça été".encode("latin-1"))
    code, out, err = answer("generate", str(folder), *arguments)
    assert code == 2, err
    assert said in err and "hint:" in err and "Traceback" not in err
    assert out == ""


def test_extreme_but_lawful_settings_write(folder: Path) -> None:
    words = ["generate", str(folder), "-p", "江", "--max-new-tokens", "20", "--num-samples", "40", "--json"]
    words += ["--temperature", "1e6", "--top-k", "999999999", "--repetition-penalty", "1000"]
    code, out, err = answer(
        *words, "--no-repeat-ngram", "1", "--min-p", "1", "--banned", "夜雨", "--stop", "灯"
    )
    assert code == 0, err
    assert len(json.loads(out)["samples"]) == 40
