import pytest
import torch
from torch import Tensor

from yanmo.core.errors import ConfigError
from yanmo.generate.sampling import (
    TokenConstraints,
    TokenHistory,
    apply_logits_processors,
    describe_sampler,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    mask_tokens,
    penalise_repeats,
    sample,
    uniform,
)
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import CharTokenizer
from yanmo.tokenizer.char import count_characters

TOKENIZER = CharTokenizer.train(count_characters("江湖夜雨十年灯，桃李春风一杯酒。"))
PLAIN = SampleConfig(temperature=1, top_p=1)


pytestmark = pytest.mark.xdist_group("models")  # transformers is loaded there


def numbers(count: int) -> list[float]:
    """Random numbers of as many places of one sample."""
    return [uniform(5, 0, position) for position in range(count)]


def random_logits(rows: int = 3, vocabulary: int = 30, seed: int = 0) -> Tensor:
    return 4 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def histories(rows: int, length: int, vocabulary: int, seed: int) -> Tensor:
    return torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(seed))


def with_rules(
    logits: Tensor, ids: Tensor, config: SampleConfig, rules: TokenConstraints, window: int = 99
) -> Tensor:
    return apply_logits_processors(
        logits, [TokenHistory(row, config.no_repeat_ngram) for row in ids.tolist()], config, rules, window
    )


# -- the same as transformers -------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [1.0, 1.3, 7.5])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, ids = random_logits(), histories(3, 12, 30, seed=1)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits)
    assert torch.equal(penalise_repeats(logits, ids.tolist(), penalty), expected)
    config = PLAIN.model_copy(update={"repetition_penalty": penalty})
    assert torch.equal(with_rules(logits, ids, config, TokenConstraints(0)), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_repeat_ngram_is_that_of_transformers(n: int) -> None:
    from transformers import NoRepeatNGramLogitsProcessor

    barred, config = 0, PLAIN.model_copy(update={"no_repeat_ngram": n})
    for length in (1, 2, 4, 40):
        logits, ids = random_logits(8, 6), histories(8, length, 3, seed=length)
        expected = NoRepeatNGramLogitsProcessor(n)(ids, logits)
        assert torch.equal(with_rules(logits, ids, config, TokenConstraints(0)), expected)
        barred += int(expected.isneginf().sum())
    assert barred > 0


def test_tokens_that_are_never_written_are_those_of_transformers() -> None:
    from transformers import NoBadWordsLogitsProcessor

    for length in (1, 2, 9):
        logits, ids = random_logits(20, 5), histories(20, length, 3, seed=length)
        expected = NoBadWordsLogitsProcessor([[3], [1]])(ids, logits)
        assert torch.equal(with_rules(logits, ids, PLAIN, TokenConstraints(0, never=(3, 1))), expected)
        assert int(expected.isneginf().sum()) == 40


def test_a_bias_is_added_to_the_logits_as_in_transformers() -> None:
    from transformers import SequenceBiasLogitsProcessor

    logits, ids = random_logits(20, 5), histories(20, 4, 3, seed=1)
    expected = SequenceBiasLogitsProcessor([[[3], 2.5], [[1], -100.0]])(ids, logits)
    rules = TokenConstraints(0, bias=((3, 2.5), (1, -100.0)))
    assert torch.allclose(with_rules(logits, ids, PLAIN, rules), expected)


@pytest.mark.parametrize("seed", range(4))
def test_top_k_top_p_and_min_p_are_those_of_transformers(seed: int) -> None:
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits, ids = random_logits(8, 50, seed), torch.zeros(8, 1)
    for k in (1, 7, 50, 80):
        assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(k)(ids, logits))
    for p in (0.01, 0.5, 0.9, 1.0):
        assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(p)(ids, logits))
    for p in (0.01, 0.2, 1.0):
        kept = keep_min_p(logits, p)
        assert torch.equal(kept, MinPLogitsWarper(p)(ids, logits))
        assert 8 <= int(kept.isfinite().sum()) < logits.numel()
    assert keep_min_p(logits, 0) is logits


# -- by itself ----------------------------------------------------------------------------------


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert sample(logits, SampleConfig(temperature=0), [0.5, 0.5]) == [1, 0]


def test_samples_follow_the_probabilities() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log()
    drawn = torch.tensor([sample(logits, PLAIN, [number])[0] for number in numbers(4000)])
    shares = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.03, rtol=0)


def test_random_numbers_are_uniform_and_follow_from_seed_sample_and_position() -> None:
    found = torch.tensor([uniform(seed, n, at) for seed in range(10) for n in range(10) for at in range(100)])
    assert len(found.unique()) == 10_000 and found.min() >= 0 and found.max() < 1
    counts = torch.histc(found, 20, 0, 1)
    assert ((counts - 500).abs() < 100).all()  # 4.5 standard deviations of 22
    assert abs(float(torch.corrcoef(torch.stack((found[:-1], found[1:])))[0, 1])) < 0.05
    assert uniform(3, 2, 1) == uniform(3, 2, 1) != uniform(3, 1, 2)


def test_temperature_sharpens() -> None:
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log()
    config = SampleConfig(temperature=0.25, top_p=1)
    drawn = [sample(logits, config, [number])[0] for number in numbers(1000)]
    expected = 0.5**4 / (0.2**4 + 0.3**4 + 0.5**4)
    assert drawn.count(2) / 1000 == pytest.approx(expected, abs=0.05)


def test_the_order_is_temperature_then_top_k_then_top_p_then_min_p() -> None:
    """At temperature 2, top-p 0.8 keeps both of the likeliest two; before the temperature it would keep one."""
    logits = torch.tensor([[0.8, 0.1, 0.06, 0.04]]).log()
    config = SampleConfig(temperature=2, top_k=2, top_p=0.8, min_p=0.3)
    assert {sample(logits, config, [number])[0] for number in numbers(200)} == {0, 1}
    config = config.model_copy(update={"min_p": 0.4})
    assert {sample(logits, config, [number])[0] for number in numbers(200)} == {0}
    config = SampleConfig(temperature=1, top_k=2, top_p=0.6)
    assert {
        sample(torch.tensor([[0.5, 0.3, 0.2]]).log(), config, [number])[0] for number in numbers(200)
    } == {0}


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    assert torch.isfinite(keep_top_p(logits, 0.7)).tolist() == [[False, True, False, True]]
    assert torch.isfinite(keep_top_p(logits, 0.81)).tolist() == [[True, True, False, True]]
    assert torch.isfinite(keep_top_p(logits, 1e-9)).sum() == 1
    assert torch.equal(keep_top_p(logits, 1), logits)


def test_the_penalty_looks_back_one_window_and_no_further() -> None:
    logits, ids = random_logits(1), torch.tensor([[5, 6, 7, 7]])
    changed = (
        with_rules(logits, ids, SampleConfig(repetition_penalty=2), TokenConstraints(0), window=3) != logits
    )
    assert changed.nonzero()[:, 1].tolist() == [6, 7]


def test_where_everything_is_barred_the_likeliest_stays() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 2.0, 3.0]])
    kept = mask_tokens(logits, [{0, 1, 2}, {2}])
    assert kept.isfinite().tolist() == [[False, True, False], [True, True, False]]
    config = PLAIN.model_copy(update={"no_repeat_ngram": 1})
    left = with_rules(logits[:1], torch.tensor([[0, 1, 2]]), config, TokenConstraints(0, never=(1,)))
    assert left.isfinite().tolist() == [[False, False, True]]  # what may never be written, still is not


def test_the_past_counts_as_it_grows() -> None:
    past = TokenHistory([1, 2, 3], n=2)
    assert past.repeats() == ()
    past.push(1)
    assert past.repeats() == {2}
    past.push(3)
    assert past.repeats() == {1}


@pytest.mark.parametrize("temperature", [1e-320, 1e-9, 1e6])
def test_extreme_settings_still_choose_a_token(temperature: float) -> None:
    logits = torch.tensor([[5.0, -5.0, 0.0, 5.5]])
    config = SampleConfig(temperature=temperature, repetition_penalty=1000, no_repeat_ngram=10**9)
    rules = TokenConstraints(0, never=(0,))
    token = sample(with_rules(logits, torch.tensor([[1, 2]]), config, rules), config, [0.3])[0]
    assert token == 3 if temperature < 1 else token in (1, 2, 3)


def test_rules_come_from_the_tokenizer_and_the_banned_texts() -> None:
    class Suppressing(CharTokenizer):
        suppressed = (7, 8)

    characters = "江湖夜雨"
    tokenizer = Suppressing(characters)
    rules = TokenConstraints.of(tokenizer, SampleConfig(banned=("江", "夜雨", "灯")))
    assert rules == TokenConstraints(0, never=(7, 8, 257))
    with pytest.raises(ConfigError, match="a banned text holds half a character"):
        TokenConstraints.of(tokenizer, SampleConfig(banned=("\udc80",)))


def test_the_sampler_is_described_with_everything_that_acts() -> None:
    line = describe_sampler(SampleConfig(prompt="江", top_k=8, stop=("。",), seed=3))
    assert "top_k=8" in line and "top_p=0.95" in line and "seed=3" in line and "stop=['。']" in line
    assert "seed=123456789" in describe_sampler(SampleConfig(seed=123456789))
    assert "江" not in line and "\n" not in line and "greedy" not in line
    assert "top_p, min_p and seed do nothing" in describe_sampler(SampleConfig(temperature=0))


def test_frequency_and_presence_penalties_are_openais() -> None:
    """For what was written, not for the prompt; within the window that is asked for."""
    logits = random_logits(1, 8)
    past = TokenHistory([1, 1, 2])
    for token in (3, 4, 4, 4, 5):
        past.push(token)
    config = PLAIN.model_copy(update={"frequency_penalty": 0.5, "presence_penalty": -0.25})
    found = apply_logits_processors(logits, [past], config, TokenConstraints(0), window=100)
    change = torch.tensor([0, 0, 0, -0.25, -1.25, -0.25, 0, 0])
    torch.testing.assert_close(found, logits + change)
    near = config.model_copy(update={"penalty_window": 2})
    found = apply_logits_processors(logits, [past], near, TokenConstraints(0), window=100)
    torch.testing.assert_close(found, logits + torch.tensor([0, 0, 0, 0, -0.25, -0.25, 0, 0]))


def test_the_repetition_penalty_looks_back_as_far_as_it_is_told() -> None:
    logits, past = torch.ones(1, 6), TokenHistory([1, 2, 3])
    config = PLAIN.model_copy(update={"repetition_penalty": 2.0, "penalty_window": 2})
    found = apply_logits_processors(logits, [past], config, TokenConstraints(0), window=100)
    assert found[0].tolist() == [1, 1, 0.5, 0.5, 1, 1]
