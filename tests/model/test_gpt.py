import math
from dataclasses import replace

import pytest
import torch

from yanmo.model.cache import KVCache
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT, count_parameters
from yanmo.settings.schema import ModelConfig

SMALL = GPTConfig(vocab_size=50, n_layer=2, n_head=2, n_embd=16, block_size=12)
MODERN = replace(SMALL, family="modern", n_head=4, n_kv_head=2, head_dim=6, n_inner=0, rope_theta=100.0)
UNTIED = replace(MODERN, n_kv_head=4, tied_head=False)
MOE = replace(MODERN, family="moe", n_expert=6, n_expert_active=2, expert_inner=8, n_dense_layer=1)
KINDS = ["sdpa", "matmul"]
FAMILIES = pytest.mark.parametrize(
    "config", [SMALL, MODERN, UNTIED, MOE], ids=["gpt2", "modern", "untied", "moe"]
)


def small_model(kind: str = "sdpa", config: GPTConfig = SMALL) -> GPT:
    model = GPT(config)
    model.initialise(0)
    with torch.no_grad():  # larger weights, so that a mistake shows
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() >= 2 else 1)
    model.use_attention(kind)  # type: ignore[arg-type]
    return model.eval()


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ((13317, 10, 12, 768, 1024), 81_894_144),
        ((21128, 12, 12, 768, 1024), 102_068_736),
        ((50257, 12, 12, 768, 1024), 124_439_808),
        ((65, 6, 6, 384, 256), 10_770_816),
        ((322, 6, 6, 384, 256), 10_869_504),
    ],
)
def test_golden_parameter_counts(shape: tuple[int, ...], parameters: int) -> None:
    assert count_parameters(GPTConfig(*shape)) == parameters


@FAMILIES
def test_nothing_is_drawn_before_it_is_asked_for(config: GPTConfig) -> None:
    """What torch draws for a new layer would be thrown away, after seconds for a large model."""
    before = torch.random.get_rng_state()
    model = GPT(config)
    assert torch.equal(torch.random.get_rng_state(), before)
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Embedding))]
    assert layers and not any(layer.weight.any() for layer in layers)
    model.initialise(0)
    assert all(layer.weight.any() for layer in layers)


def test_the_shape_comes_from_recipe_and_tokenizer() -> None:
    assert GPTConfig.of(ModelConfig(n_layer=3), vocab_size=77).vocab_size == 77


@FAMILIES
@pytest.mark.parametrize("kind", KINDS)
def test_future_tokens_cannot_change_past_logits(kind: str, config: GPTConfig) -> None:
    model, ids = small_model(kind, config), torch.randint(50, (2, 12))
    before = model(ids)
    for place in range(1, 12):
        changed = ids.clone()
        changed[:, place:] = (changed[:, place:] + 1) % 50
        after = model(changed)
        # experts with other tokens beside them may round otherwise
        tolerance = 1e-6 if config.family == "moe" else 0.0
        torch.testing.assert_close(before[:, :place], after[:, :place], atol=tolerance, rtol=0)
        assert not torch.equal(before[:, place], after[:, place])


@FAMILIES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [[12], [1] * 12, [5, 7], [3, 1, 4, 4]])
def test_cached_equals_uncached(kind: str, cuts: list[int], config: GPTConfig) -> None:
    model, ids = small_model(kind, config), torch.randint(50, (3, 12))
    cache, parts = KVCache(config, 3, like=model.tokens.weight), []
    with torch.no_grad():
        for piece in ids.split(cuts, dim=1):
            parts.append(model(piece, cache.rows(range(3))))
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-5, rtol=1e-5)
    assert cache.lengths == [12] * 3


@FAMILIES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [[1] * 6, [2, 3, 1]])
def test_rows_of_different_lengths_are_those_rows_alone(
    kind: str, steps: list[int], config: GPTConfig
) -> None:
    model, ids, starts = small_model(kind, config), torch.randint(50, (3, 12)), [4, 1, 6]
    cache, rows = KVCache(config, 3, like=model.tokens.weight), torch.arange(3)[:, None]
    with torch.no_grad():
        for row, start in enumerate(starts):
            model(ids[row : row + 1, :start], cache.rows([row]))
        whole, places = model(ids), torch.tensor(starts)[:, None]
        for T in steps:
            at = places + torch.arange(T)  # (B, T)
            found = model(ids[rows, at], cache.rows(range(3)))
            torch.testing.assert_close(found, whole[rows, at], atol=1e-5, rtol=1e-5)
            places = places + T
    assert cache.lengths == [10, 7, 12]
    with pytest.raises(ValueError, match="13 tokens do not fit a window of 12"):
        model(ids[:, :1], cache.rows(range(3)))


@FAMILIES
def test_bfloat16_looks_back_in_float32_on_a_cpu(config: GPTConfig) -> None:
    exact, ids, starts = small_model("sdpa", config), torch.randint(50, (2, 12)), [4, 7]
    model = small_model("sdpa", config)
    model.load_state_dict(exact.state_dict())
    model.bfloat16()
    cache, rows = KVCache(config, 2, like=model.tokens.weight), torch.arange(2)[:, None]
    assert cache.keys.dtype == cache.values.dtype == torch.float32
    with torch.no_grad():
        for row, start in enumerate(starts):
            model(ids[row : row + 1, :start], cache.rows([row]))
        at = torch.tensor(starts)[:, None]
        found = model(ids[rows, at], cache.rows(range(2)))
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), exact(ids)[rows, at], atol=0.1, rtol=0.1)


def test_a_slot_is_copied_and_used_again() -> None:
    model, ids = small_model(), torch.randint(50, (4, 5))
    cache = KVCache(SMALL, 4, like=model.tokens.weight)
    with torch.no_grad():
        whole = model(ids)
        model(ids[:, :4], cache.rows(range(4)))
        cache.copy(3, 0)
        again = model(ids[[3, 3], 4:], cache.rows([0, 3]))
        torch.testing.assert_close(again, whole[[3, 3], 4:], atol=1e-5, rtol=1e-5)
        cache.lengths[1] = 0
        torch.testing.assert_close(model(ids[2:3], cache.rows([1])), whole[2:3], atol=1e-5, rtol=1e-5)
    assert cache.lengths == [5, 5, 4, 5]


@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rows_numbers_do_not_depend_on_the_rows_beside_it(config: GPTConfig, dtype: torch.dtype) -> None:
    """To the bit, in whichever row it is, also beside rows that are there for the shape only."""
    model = small_model("sdpa", config).to(dtype)
    with torch.no_grad():
        cache = KVCache(config, 4, like=model.tokens.weight)
        for slot, length in enumerate((5, 9, 2, 5)):
            model(torch.randint(50, (1, length)), cache.rows([slot]))
        cache.copy(0, 3)
        beside = model(torch.tensor([[7], [8], [9], [7]]), cache.rows([0, 1, 2, 3]))
        cache.lengths = [5, 9, 2, 5]
        alone = model(torch.tensor([[0], [7], [0], [0]]), cache.rows([None, 0, None, None]))
    assert torch.equal(beside[0], beside[3])
    assert torch.equal(beside[0], alone[1])
    assert cache.lengths == [6, 9, 2, 5]


@FAMILIES
@pytest.mark.parametrize("document_separator", [None, 7])
def test_both_kinds_of_attention_agree_and_so_do_their_gradients(
    config: GPTConfig, document_separator: int | None
) -> None:
    ids, gradients, losses = torch.randint(50, (2, 12)), [], []
    ids[:, 5] = 7
    for kind in KINDS:
        model = small_model(kind, config)
        model.document_separator = document_separator
        loss = model.loss(ids, ids)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))  # type: ignore[union-attr]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


@FAMILIES
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_separator_a_document_does_not_see_the_one_before(kind: str, config: GPTConfig) -> None:
    model, ids = small_model(kind, config), torch.randint(1, 50, (1, 12))
    ids[0, 4] = 0  # ends the first document
    changed = ids.clone()
    changed[0, :4] = changed[0, :4] % 49 + 1
    assert not torch.allclose(model(ids)[0, 5:], model(changed)[0, 5:], atol=1e-4)
    model.document_separator = 0
    torch.testing.assert_close(model(ids)[0, 5:], model(changed)[0, 5:])
    assert not torch.allclose(model(ids)[0, 4], model(changed)[0, 4], atol=1e-4)  # its end belongs to it


@FAMILIES
def test_an_untrained_model_is_uniform(config: GPTConfig) -> None:
    model = GPT(config)
    model.initialise(0)
    ids, targets = torch.randint(50, (2, 8, 12))
    assert float(model.loss(ids, targets).detach()) / ids.numel() == pytest.approx(math.log(50), abs=0.1)


def test_initialisation_is_gpt2s_and_follows_its_seed() -> None:
    config = GPTConfig(vocab_size=500, n_layer=8, n_head=2, n_embd=64, block_size=64)
    one, two, other = (GPT(config).requires_grad_(False) for _ in range(3))
    one.initialise(1)
    two.initialise(1)
    other.initialise(2)
    assert torch.equal(one.tokens.weight, two.tokens.weight)
    assert not torch.equal(one.tokens.weight, other.tokens.weight)
    assert float(one.tokens.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert float(one.blocks[0].mlp.up.weight.std()) == pytest.approx(0.02, rel=0.05)  # type: ignore[union-attr]
    scaled = 0.02 / math.sqrt(2 * 8)
    assert float(one.blocks[3].attention.out.weight.std()) == pytest.approx(scaled, rel=0.05)  # type: ignore[union-attr]
    assert float(one.blocks[0].norm_1.weight.mean()) == 1  # type: ignore[union-attr]


def test_projections_into_the_stream_may_begin_with_zeros() -> None:
    for config in (SMALL, MODERN, MOE):
        model = GPT(config)
        model.initialise(0, zero_projections=True)
        ids = torch.randint(50, (1, 12))
        expected = model.head(model.norm(model.tokens(ids)))
        if config.family == "gpt2":
            expected = model.head(model.norm(model.tokens(ids) + model.positions.weight))
        torch.testing.assert_close(model(ids), expected)


@FAMILIES
def test_dropout_acts_in_training_only(config: GPTConfig) -> None:
    config = replace(config, dropout=0.5)
    for kind in KINDS:
        model, ids = small_model(kind, config), torch.randint(50, (1, 12))
        assert torch.equal(model(ids), model(ids))
        model.train()
        assert not torch.equal(model(ids), model(ids))


def test_more_tokens_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="13 tokens do not fit a window of 12"):
        small_model()(torch.zeros(1, 13, dtype=torch.long))


def test_ignored_targets_count_for_nothing() -> None:
    model, ids = small_model(), torch.randint(50, (2, 12))
    targets = ids.clone()
    targets[1] = -1
    torch.testing.assert_close(model.loss(ids, targets), model.loss(ids[:1], ids[:1]))


@FAMILIES
def test_one_batch_overfits(config: GPTConfig) -> None:
    torch.manual_seed(0)
    model, ids = GPT(config), torch.randint(50, (2, 13))
    model.initialise(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = model.loss(ids[:, :-1], ids[:, 1:]) / 24
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.05
