"""A memory of the text so far: what it adds, what it forgets, and that it changes nothing else."""

import math
import random
from itertools import zip_longest

import pytest
import torch
from torch import Tensor

from tests.makers.models import TOKENIZER, drawn, lively_model
from yanmo.generate import memory as module
from yanmo.generate.engine import Engine, RunningSequence
from yanmo.generate.memory import (
    FEW_PLACES,
    FORGOTTEN_TOGETHER,
    MAX_PLACES,
    Memory,
    MemoryReader,
    Places,
    as_unit,
)
from yanmo.generate.sampling import TokenConstraints
from yanmo.generate.score import score
from yanmo.generate.text import encode_prompt, write_samples
from yanmo.generate.text_engine import TextEngine
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import CharTokenizer

V = TOKENIZER.vocab_size
FAMILIES = {
    "gpt2": GPTConfig(V, n_layer=2, n_head=4, n_embd=64, block_size=17),
    "modern": GPTConfig(V, 2, 4, 64, 16, family="modern", n_kv_head=2),
    "moe": GPTConfig(V, 2, 4, 64, 16, family="moe", n_expert=6, n_expert_active=2),
}


def invented(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1, V) for _ in range(length)]


def memory_of(states: Tensor, followers: Tensor, written: int = 0) -> Memory:
    """Of places, of which the last ones were written."""
    read = Places(len(states), states.size(1))
    read.add(states[: len(states) - written], followers[: len(states) - written])
    memory = Memory(read, written)
    for state, token in zip(states[len(states) - written :], followers.tolist()[-written:], strict=False):
        memory.note(state, token)
    return memory


def random_memory(places: int, written: int = 0) -> Memory:
    generator = torch.Generator().manual_seed(0)
    states = as_unit(torch.randn(places, 64, generator=generator))
    return memory_of(states, torch.randint(0, V, (places,), generator=generator), written)


# -- the mixture --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [1, 7, 511, 512, 513, 3000])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_mixture_is_a_distribution_with_the_share_of_what_is_remembered(places: int, share: float) -> None:
    memory, said = random_memory(places, places // 2), torch.randn(V).log_softmax(0)
    state = torch.randn(64)
    mixed = memory.mix(said, state, share, [])
    assert float(mixed.exp().sum()) == pytest.approx(1, abs=1e-5)
    tokens, remembered = memory.recall(state)
    assert float(remembered.sum()) == pytest.approx(1, abs=1e-5)
    counts = share * places / (places + FEW_PLACES)
    expected = (1 - counts) * said.exp()
    expected[tokens] += counts * remembered
    torch.testing.assert_close(mixed.exp(), expected, atol=1e-6, rtol=1e-4)


def test_what_followed_the_likest_place_is_likeliest_and_likeness_is_a_softmax() -> None:
    axes = torch.eye(64)[:3]
    memory = memory_of(axes, torch.tensor([5, 6, 5]))
    tokens, found = memory.recall(3.0 * axes[1])
    weights = torch.tensor([0.0, module.THETA, 0.0]).softmax(0)
    assert tokens.tolist() == [5, 6]
    torch.testing.assert_close(found, torch.stack([weights[0] + weights[2], weights[1]]))


def test_without_a_share_or_without_places_no_bit_is_changed() -> None:
    said, state = torch.randn(V).log_softmax(0), torch.randn(64)
    assert random_memory(9).mix(said, state, 0.0, [1, 2]) is said
    assert Memory(Places(0, 64), 9).mix(said, state, 0.3, [1, 2]) is said


def test_what_always_followed_two_tokens_counts_as_several_memories() -> None:
    """Three times, in what was read and in what was written, and never anything else: then it is sure."""
    tokens = torch.tensor([7, 1, 2, 5, 9, 1, 2, 5, 4, 1, 2, 5, 3, 1, 1, 2])
    states = as_unit(torch.randn(len(tokens), 64, generator=torch.Generator().manual_seed(0)))
    memory, said, state = memory_of(states, tokens, 8), torch.randn(V).log_softmax(0), torch.randn(64)
    assert memory.sure([1, 2]) == 5
    assert [memory.sure(before) for before in ([2, 5], [5, 9], [8, 8], [2], [])] == [None] * 5
    unsure, mixed = (memory.mix(said, state, 0.3, before).exp() for before in ([], [1, 2]))
    assert float(mixed.sum()) == pytest.approx(1, abs=1e-5)
    rest = (1 - 0.3 * len(tokens) / (len(tokens) + FEW_PLACES)) ** 4
    assert float(mixed[5]) == pytest.approx(rest * float(unsure[5]) + 1 - rest, rel=1e-5)
    memory.forget(6)
    assert memory.sure([1, 2]) is None
    memory.note(torch.randn(64), 1)
    memory.note(torch.randn(64), 2)
    memory.note(torch.randn(64), 6)
    assert memory.sure([1, 2]) is None


def test_many_places_are_searched_as_well_as_if_each_was_weighed() -> None:
    """Of 20,000 places some hundred are near: they are found by their shadows."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(200, 64, generator=generator)
    which = torch.randint(0, 200, (20_000,), generator=generator)
    states = as_unit(centres[which] + 0.5 * torch.randn(20_000, 64, generator=generator))
    memory = memory_of(states, which)
    for number in range(50):
        query = centres[number]
        tokens, found = memory.recall(query)
        weights = (module.THETA * (states @ as_unit(query))).softmax(0)
        whole = torch.zeros(200).index_add_(0, which, weights)
        assert float(found[tokens.tolist().index(number)]) > 0.9 * float(whole[number])


# -- its bound ----------------------------------------------------------------------------------


def test_the_newest_places_are_kept_and_the_oldest_go() -> None:
    places, tokens = Places(10**6, 8), torch.arange(MAX_PLACES + 3 * FORGOTTEN_TOGETHER)
    states = as_unit(torch.randn(len(tokens), 8, generator=torch.Generator().manual_seed(0)))
    for part, followers in zip(states.split(4000), tokens.split(4000), strict=True):
        places.add(part, followers)
    searched, kept, followers = places.newest(MAX_PLACES)
    assert torch.equal(followers, tokens[-MAX_PLACES:])
    assert torch.equal(kept, states[-MAX_PLACES:].half())
    torch.testing.assert_close(searched, places.directions @ states[-MAX_PLACES:].T)
    assert len(places.states) == MAX_PLACES + FORGOTTEN_TOGETHER


def test_what_is_written_takes_the_place_of_the_oldest_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 4)
    memory = memory_of(torch.eye(64)[:6], torch.arange(6), written=2)
    assert memory.recall(torch.eye(64)[5])[0].tolist() == [2, 3, 4, 5]


def test_what_is_taken_back_is_forgotten_to_the_bit() -> None:
    state = torch.randn(64)
    memory, before = random_memory(700, 300), random_memory(700, 300).recall(state)
    extended = memory.growing(20)
    for token in range(20):
        extended.note(torch.randn(64), token)
    extended.forget(20)
    assert extended.written.count == 0
    expected = Memory(memory.read).recall(state)
    assert all(torch.equal(*pair) for pair in zip(extended.recall(state), expected, strict=True))
    assert all(torch.equal(*pair) for pair in zip(memory.recall(state), before, strict=True))


def test_a_long_text_is_read_from_where_it_is_remembered_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 1000)
    model, windows = lively_model(), list[int]()
    model.tokens.register_forward_pre_hook(lambda module, inputs: windows.append(1))
    text = invented(1800)
    memory = MemoryReader(model).remember([text])
    assert len(memory.read.states) == 1000
    assert memory.read.followers.tolist() == text[-1000:]
    assert len(windows) == pytest.approx(1000 / 8, abs=2)


def test_of_too_much_the_last_text_is_remembered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 50)
    memory = MemoryReader(lively_model()).remember([invented(90, 1), invented(30, 2), invented(20, 3)])
    expected = [*invented(90, 1)[-2:], *invented(30, 2)[1:], *invented(20, 3)[1:]]
    assert memory.read.followers.tolist() == expected


def test_a_text_is_read_in_parts_between_which_others_are() -> None:
    """As in a server: nothing of one reading is in the other, and no part is longer than a window."""
    model, texts = lively_model(block_size=600), [invented(1500, 1), invented(1300, 2)]
    lengths: list[int] = []
    model.tokens.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].numel()))
    reader = MemoryReader(model)
    together = [list(reader.read_parts([text])) for text in texts]
    crossed = list(zip_longest(*(MemoryReader(model).read_parts([text]) for text in texts)))
    for number, parts in enumerate(together):
        (memory,) = [part for part in parts if part]
        (found,) = [pair[number] for pair in crossed if pair[number]]
        assert torch.equal(memory.read.states, found.read.states)
    assert max(lengths) == module.READ_TOKENS


@pytest.mark.parametrize("texts", [[], [[]], [[3]], [[], [3]]])
def test_a_text_of_less_than_two_tokens_leaves_nothing_to_remember(texts: list[list[int]]) -> None:
    memory = MemoryReader(lively_model()).remember(texts)
    assert memory.read.count == 0


# -- states of the text alone -------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_each_place_has_half_a_window_before_it(family: str) -> None:
    model = drawn(FAMILIES[family])
    window, text = model.config.block_size, invented(70)
    memory = MemoryReader(model).remember([text])
    assert memory.read.followers.tolist() == text[1:]
    for place in range(69):
        start = max(0, -(-(place + 1 - window) // (window // 2))) * (window // 2)
        with torch.no_grad():
            state = model.hidden_states(torch.tensor([text[start : place + 1]]))[0, -1]
        torch.testing.assert_close(memory.read.states[place].float(), as_unit(state), atol=2e-3, rtol=0)
        assert start == 0 or place - start >= window // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_memory_is_the_same_however_the_text_came(family: str) -> None:
    """Written at once, or growing by any pieces over many requests, to the bit; only new windows are read."""
    model, text, rng = drawn(FAMILIES[family]), invented(150), random.Random(3)
    reader, whole = MemoryReader(model), MemoryReader(model).remember([text])
    for end in sorted(rng.sample(range(1, 150), 12)):
        reader.remember([text[:end]])
    windows: list[int] = []
    model.tokens.register_forward_pre_hook(lambda module, inputs: windows.append(1))
    grown = reader.remember([text])
    for one, other in zip(grown.read.newest(150), whole.read.newest(150), strict=True):
        assert torch.equal(one, other)
    assert len(windows) <= 3


def test_several_texts_are_remembered_each_by_itself() -> None:
    reader, notes, text = MemoryReader(lively_model()), invented(40, 1), invented(60, 2)
    both, alone = reader.remember([notes, text]), reader.remember([text])
    assert both.read.count == 39 + 59
    assert torch.equal(both.read.states[39:], alone.read.states)


def test_what_a_reader_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 5 * 8 * 16 * 2)
    reader = MemoryReader(lively_model())
    first = reader.remember([invented(200)])
    assert len(reader._kept) <= 5
    assert torch.equal(reader.remember([invented(200)]).read.states, first.read.states)


# -- writing with it ----------------------------------------------------------------------------


def asked(model: GPT, reader: MemoryReader, rng: random.Random) -> RunningSequence:
    """A request with any memory or none."""
    config = SampleConfig(
        temperature=rng.choice((0.0, 1.0)), top_p=1, max_new_tokens=rng.choice((1, 9, 40)),
        repetition_penalty=rng.choice((1.0, 1.2)), memory=rng.choice((0.0, 0.3)),
        memory_written=rng.choice((False, True)), seed=rng.randrange(1000),
    )  # fmt: skip
    text = invented(rng.choice((1, 5, 90)), rng.randrange(1000))
    one = RunningSequence(text[-16:], config, TokenConstraints(0), alternatives=3)
    (one.memory,) = reader.memories_for([text], config)
    one.whole = text  # type: ignore[attr-defined]
    return one


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_memory_too_a_seed_gives_the_same_alone_and_in_a_crowd(family: str, drawn_seed: int) -> None:
    model, rng = drawn(FAMILIES[family]), random.Random(drawn_seed)
    reader = MemoryReader(model)
    sequences = [asked(model, reader, rng) for _ in range(12)]
    crowd, coming = Engine(model, 4), list(sequences)
    while coming or crowd.is_busy:
        for _ in range(min(rng.randrange(3), len(coming))):
            crowd.add(coming.pop(0))
        crowd.step()
    for one in sequences:
        alone = RunningSequence(one.prompt_ids, one.config, one.rules, alternatives=3)
        (alone.memory,) = MemoryReader(model).memories_for([one.whole], one.config)  # type: ignore[attr-defined]
        engine = Engine(model, 4)
        engine.add(alone)
        while engine.is_busy:
            engine.step()
        assert alone.choices == one.choices


def test_a_name_from_before_the_window_becomes_likelier_where_it_began() -> None:
    model, ending = lively_model(), invented(16, 9)
    text = [*ending, 265, *invented(60), *ending]

    def chance(share: float) -> float:
        config = SampleConfig(temperature=0, max_new_tokens=1, memory=share)
        one = RunningSequence(text[-16:], config, TokenConstraints(-1), alternatives=V)
        (one.memory,) = MemoryReader(model).memories_for([text], config)
        engine = Engine(model, 1)
        engine.add(one)
        engine.step()
        return math.exp(dict(one.choices[0].top)[265])

    assert chance(0.3) > 10 * chance(0.0)


def test_what_is_written_is_remembered_only_if_asked() -> None:
    model = lively_model()
    for written in (False, True):
        config = SampleConfig(temperature=0, max_new_tokens=20, memory=0.3, memory_written=written)
        one = RunningSequence([260, 261, 262], config, TokenConstraints(-1))
        (one.memory,) = MemoryReader(model).memories_for([[260, 261, 262]], config)
        engine = Engine(model, 1)
        engine.add(one)
        while engine.is_busy:
            engine.step()
        assert one.memory is not None
        ids = one.past.ids
        followers = [*one.memory.read.followers.tolist(), *one.memory.written.newest(99).followers.tolist()]
        assert followers == (ids[1:] if written else [261, 262])


class Endless(CharTokenizer):
    """No text of it ends."""

    suppressed = (0,)


@pytest.mark.parametrize("written", [False, True])
def test_samples_share_a_prompt_and_never_each_others_writing(written: bool) -> None:
    tokenizer, model = Endless(TOKENIZER._characters), lively_model()
    config = SampleConfig(
        top_p=1, temperature=1, seed=4, max_new_tokens=30, memory=0.4, memory_written=written, num_samples=3
    )
    prompts = ["江湖夜雨十年灯" * 5, "桃李春风"]
    together = write_samples(model, tokenizer, prompts, config, say=len)
    alone = [one for prompt in prompts for one in write_samples(model, tokenizer, [prompt], config, say=len)]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    forgetful = write_samples(model, tokenizer, prompts, config.model_copy(update={"memory": 0.0}), say=len)
    assert [one.tokens for one in forgetful] != [one.tokens for one in together]


def test_what_is_banned_leaves_no_trace_in_what_is_remembered() -> None:
    """The memory of a text that took phrases back is that of its own tokens, in their order."""
    model, rng = lively_model(), random.Random(5)
    config = SampleConfig(
        temperature=1,
        top_p=1,
        max_new_tokens=40,
        memory=0.3,
        memory_written=True,
        banned=("江", "夜雨", "一"),
    )
    taken_back = 0
    for seed in range(5):
        one = RunningSequence(
            invented(12, seed), config.model_copy(update={"seed": seed}), TokenConstraints(-1)
        )
        (one.memory,) = MemoryReader(model).memories_for([one.prompt_ids], config)
        engine = TextEngine(model, TOKENIZER, 2)
        engine.add(one)
        while engine.is_busy:
            engine.step()
            if rng.random() < 0.2 and not one.ended and len(one.choices) > 3:
                engine.engine.take_back(one, len(one.choices) - 3)
                engine._texts[one].watch_again()
        taken_back += one.taken_back
        assert one.memory is not None
        assert one.memory.written.newest(99).followers.tolist() == one.past.ids[12:]
    assert taken_back > 5


def test_the_pinned_notes_are_remembered_beside_the_prompt() -> None:
    config = SampleConfig(pinned="桃李春", memory=0.3)
    prompt = encode_prompt(TOKENIZER, "江湖夜雨" * 9, config, 16, say=len)
    (memory,) = MemoryReader(lively_model()).memories_for(prompt.texts, config)
    assert memory is not None
    assert TOKENIZER.decode(memory.read.followers.tolist()) == ("江湖夜雨" * 9)[1:] + "李春"


def test_off_writes_what_was_written_before() -> None:
    model, config = lively_model(), SampleConfig(temperature=1, max_new_tokens=30, memory_written=True)
    assert write_samples(model, TOKENIZER, ["江湖"], config) == write_samples(
        model, TOKENIZER, ["江湖"], SampleConfig(temperature=1, max_new_tokens=30)
    )


# -- scoring with it ----------------------------------------------------------------------------


def test_a_text_that_repeats_itself_is_less_surprising_with_a_memory_of_it() -> None:
    model, ids = lively_model(), TOKENIZER.encode("江湖夜雨十年灯，桃李春风一杯酒。" * 6)
    plain = [one.logprob for one in score(model, ids, TOKENIZER.end_of_text)]

    def remembered(share: float) -> list[float]:
        memory = MemoryReader(model).remember([]).growing(len(ids))
        return [one.logprob for one in score(model, ids, TOKENIZER.end_of_text, memory=memory, share=share)]

    assert remembered(0.0) == plain
    assert remembered(0.3)[0] == plain[0]
    assert sum(remembered(0.3)[-20:]) > sum(plain[-20:]) + 20
