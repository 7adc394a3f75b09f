import pytest
import torch

from yanmo.config import SampleConfig
from yanmo.errors import ConfigError
from yanmo.generate import generate, keep_top_k, keep_top_p, sample, write, write_all
from yanmo.model.gpt import GPT, GPTConfig
from yanmo.tokenizer import CharTokenizer
from yanmo.tokenizer.char import count_characters

TOKENIZER = CharTokenizer.train(count_characters("江湖夜雨十年灯，桃李春风一杯酒。"))


def lively_model(block_size: int = 16) -> GPT:
    config = GPTConfig(TOKENIZER.vocab_size, n_layer=2, n_head=2, n_embd=16, block_size=block_size)
    model = GPT(config)
    model.initialise(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(15 if parameter.dim() >= 2 else 1)
    return model.eval()


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert sample(logits, SampleConfig(temperature=0), generators(2)) == [1, 0]


def test_samples_follow_the_probabilities() -> None:
    logits = torch.tensor([[0.1, 0.2, 0.7]]).log()
    config = SampleConfig(temperature=1, top_p=1)
    generator = generators(1)
    drawn = torch.tensor([sample(logits, config, generator)[0] for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.03, rtol=0)


def test_temperature_sharpens() -> None:
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log()
    generator = generators(1)
    config = SampleConfig(temperature=0.25, top_p=1)
    drawn = [sample(logits, config, generator)[0] for _ in range(1000)]
    expected = 0.5**4 / (0.2**4 + 0.3**4 + 0.5**4)
    assert drawn.count(2) / 1000 == pytest.approx(expected, abs=0.05)


def test_top_k_keeps_the_k_likeliest() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    assert torch.isfinite(keep_top_k(logits, 2)).tolist() == [[False, True, True, False]]
    assert torch.equal(keep_top_k(logits, 0), logits)
    assert torch.equal(keep_top_k(logits, 9), logits)


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    logits = torch.tensor([[0.15, 0.5, 0.05, 0.3]]).log()
    assert torch.isfinite(keep_top_p(logits, 0.7)).tolist() == [[False, True, False, True]]
    assert torch.isfinite(keep_top_p(logits, 0.81)).tolist() == [[True, True, False, True]]
    assert torch.isfinite(keep_top_p(logits, 1e-9)).sum() == 1
    assert torch.equal(keep_top_p(logits, 1), logits)


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


def test_end_of_text_ends_a_sample_and_is_not_shown() -> None:
    class Ending(GPT):
        def forward(self, ids, cache=None):  # type: ignore[no-untyped-def]
            logits = torch.full((*ids.shape, TOKENIZER.vocab_size), -10.0)
            logits[0, :, 260] = 10.0
            if ids.size(0) > 1:
                logits[1, :, TOKENIZER.end_of_text] = 10.0
            if cache is not None:
                cache.length += ids.size(1)
            return logits

    model = Ending(lively_model().config).eval()
    config = SampleConfig(temperature=0, max_new_tokens=5, num_samples=2)
    character = TOKENIZER.decode([260])
    assert write_all(model, TOKENIZER, "", config) == [character * 5, ""]


def test_what_is_streamed_is_the_text() -> None:
    model = lively_model()
    config = SampleConfig(temperature=1.5, top_p=1, max_new_tokens=40, num_samples=2)
    streamed = ["", ""]
    for number, text in write(model, TOKENIZER, "夜雨", config):
        streamed[number] += text
    tokens = list(generate(model, TOKENIZER.encode("夜雨").tolist(), config, TOKENIZER.end_of_text))
    for number in range(2):
        ids = [row[number] for row in tokens if row[number] is not None]
        assert streamed[number] == TOKENIZER.decode(ids)  # type: ignore[arg-type]


def test_a_prompt_longer_than_the_window_is_a_clear_error() -> None:
    with pytest.raises(ConfigError) as caught:
        list(write(lively_model(), TOKENIZER, "江湖" * 9, SampleConfig()))
    assert caught.value.what == "the prompt has 18 tokens, the model looks back on 16"
    assert "at most 16" in caught.value.mend


def test_a_prompt_as_long_as_the_window_is_fine() -> None:
    config = SampleConfig(max_new_tokens=3, temperature=0)
    assert len(list(generate(lively_model(), [260] * 16, config, end_of_text=-1))) == 3
