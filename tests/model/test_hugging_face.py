"""A checkpoint folder is a Hugging Face folder: transformers opens it and computes the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.makers.models import saved_model
from tests.makers.runs import Trained
from yanmo.checkpoint.folder import load_model, load_model_and_tokenizer
from yanmo.checkpoint.hf_config import to_config_json
from yanmo.checkpoint.hf_names import to_hugging_face
from yanmo.core.errors import CheckpointError
from yanmo.core.storage import read_json, write_json
from yanmo.generate.engine import generate
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig

GPT2 = [GPTConfig(50, 1, 1, 8, 8), GPTConfig(321, 2, 4, 32, 16), GPTConfig(1000, 3, 2, 64, 64, n_inner=96)]
MODERN = [
    GPTConfig(*shape, family="modern", n_kv_head=kv_heads, **more)
    for shape, kv_heads, more in [
        ((50, 1, 1, 8, 8), 1, {}),
        ((321, 2, 4, 32, 16), 4, {"tied_head": False}),
        ((1000, 3, 4, 64, 64), 2, {}),
        ((77, 2, 6, 48, 300), 1, {"rope_theta": 1e6, "tied_head": False}),
        ((100, 2, 4, 32, 128), 2, {"head_dim": 16, "rope_theta": 500.0}),
        ((100, 4, 2, 24, 33), 2, {"n_inner": 40}),
    ]
]
MOE = [
    replace(config, family="moe", expert_inner=0, **more)
    for config, more in zip(
        MODERN,
        [
            {"n_expert": 2, "n_expert_active": 1, "n_expert_shared": 1, "n_dense_layer": 0},
            {"n_expert": 4, "n_expert_active": 2, "n_expert_shared": 2, "n_dense_layer": 1},
            {"n_expert": 16, "n_expert_active": 3, "n_expert_shared": 1, "n_dense_layer": 1},
            {"n_expert": 8, "n_expert_active": 8, "n_expert_shared": 1, "n_dense_layer": 0},
            {
                "n_expert": 5,
                "n_expert_active": 2,
                "n_expert_shared": 1,
                "expert_scaling": 2.5,
                "n_dense_layer": 1,
            },
            {"n_expert": 8, "n_expert_active": 1, "n_expert_shared": 3, "n_dense_layer": 3},
        ],
        strict=True,
    )
]


@pytest.mark.parametrize("config", [*GPT2, *MODERN, *MOE], ids=lambda config: config.family)
def test_logits_loss_and_gradients_equal_transformers(config: GPTConfig, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = saved_model(tmp_path, config)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == read_json(tmp_path / "config.json")["architectures"][0]
    ids = torch.randint(config.vocab_size, (2, config.block_size))
    output = theirs(ids, labels=ids)
    torch.testing.assert_close(model(ids), output.logits, atol=1e-5, rtol=0)
    loss = model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
    torch.testing.assert_close(loss, output.loss)
    loss.backward()
    output.loss.backward()
    ours = {name: p.grad for name, p in model.named_parameters()}
    found, expected = to_hugging_face(config.kind, ours), gradients_of(theirs)
    if config.tied_head:
        found.pop("lm_head.weight", None)  # the embedding's again
    assert set(found) == set(expected)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("config", [*MODERN, *MOE], ids=lambda config: config.family)
def test_transformers_writes_the_same_64_tokens(config: GPTConfig, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    config = replace(config, block_size=72)
    model = saved_model(tmp_path, config)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    prompt = torch.randint(1, config.vocab_size, (1, 8))  # transformers takes 0, its padding, out of a prompt
    written = theirs.generate(prompt, max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0)[
        0
    ].tolist()
    sampled = generate(model, prompt[0].tolist(), SampleConfig(temperature=0, max_new_tokens=64), -1)
    assert prompt[0].tolist() + [tokens[0] for tokens in sampled] == written


@pytest.mark.parametrize("config", [GPT2[1], *MODERN, *MOE], ids=lambda config: config.family)
def test_a_folder_that_is_opened_again_holds_the_same_model(config: GPTConfig, tmp_path: Path) -> None:
    model = saved_model(tmp_path, config)
    again = load_model(tmp_path)
    assert again.config == config
    states = model.state_dict(), again.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))
    assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Qwen3ForCausalLM", "Dots1ForCausalLM"])
def test_what_transformers_saves_is_opened(name: str, tmp_path: Path) -> None:
    import transformers

    config = {
        "GPT2LMHeadModel": GPT2[1], "Qwen3ForCausalLM": MODERN[4], "Dots1ForCausalLM": MOE[4]
    }[name]  # fmt: skip
    values = to_config_json(config, 0)
    theirs = getattr(transformers, name)(transformers.AutoConfig.for_model(**values)).eval()
    theirs.save_pretrained(tmp_path)
    ids = torch.randint(config.vocab_size, (2, config.block_size))
    torch.testing.assert_close(load_model(tmp_path).eval()(ids), theirs(ids).logits, atol=1e-5, rtol=0)


def test_transformers_opens_our_checkpoint_and_writes_the_same(novel: Path, trained: Trained) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = trained("runs/novel", "model.block_size=32", "model.family=gpt2")
    folder = (run.folder / "model").resolve()
    model, tokenizer = load_model_and_tokenizer(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    text = "春风不见江湖，他说："
    ids = tokenizer.encode(text).tolist()
    assert their_tokenizer(text)["input_ids"] == ids
    with torch.no_grad():
        logits = model.eval()(torch.tensor([ids]))
        torch.testing.assert_close(logits, theirs(torch.tensor([ids])).logits, atol=1e-5, rtol=0)
    written = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0].tolist()
    assert written == greedy(folder, ids, 20)


def test_files_hold_float32_masters_under_the_known_names(novel: Path, trained: Trained) -> None:
    from safetensors.torch import load_file

    run = trained("runs/novel", "train.precision=bfloat16", "model.family=gpt2")
    tensors = load_file(run.folder / "model" / "model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert tensors["transformer.h.0.attn.c_attn.weight"].shape == (16, 48)  # Conv1D: (in, out)
    assert "lm_head.weight" not in tensors
    assert len(tensors) == 2 + 2 + 12 * 2
    config = read_json(run.folder / "model" / "config.json")
    assert config["n_ctx"] == config["n_positions"] == 16
    assert config["eos_token_id"] == 0


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("n_layer", 5, "the weights lack transformer.h.1"),
        ("n_embd", 16, "has shape"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(key: str, value: object, what: str, tmp_path: Path) -> None:
    saved_model(tmp_path, GPTConfig(50, 1, 1, 8, 8))
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", config | {key: value})
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    assert what in caught.value.what


@pytest.mark.parametrize(("key", "value"), [("n_routed_experts", 7), ("moe_intermediate_size", 8)])
def test_experts_that_do_not_fit_are_refused(key: str, value: int, tmp_path: Path) -> None:
    saved_model(tmp_path, MOE[1])
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", config | {key: value})
    with pytest.raises(CheckpointError, match="router.weight has shape|experts.gate has shape"):
        load_model(tmp_path)


def gradients_of(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of a model of transformers, by the names on disk: it keeps all experts in two tensors."""
    found = {}
    for name, parameter in theirs.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        if name.endswith("experts.gate_up_proj"):
            for e, part in enumerate(gradient):
                for kind, matrix in zip(("gate", "up"), part.chunk(2), strict=True):
                    found[name.replace("gate_up_proj", f"{e}.{kind}_proj.weight")] = matrix
        elif name.endswith("experts.down_proj"):
            found |= {name.replace("down_proj", f"{e}.down_proj.weight"): g for e, g in enumerate(gradient)}
        else:
            found[name] = gradient
    return found


def greedy(folder: Path, ids: list[int], count: int) -> list[int]:
    model, tokenizer = load_model_and_tokenizer(folder)
    config = SampleConfig(temperature=0, max_new_tokens=count)
    new = [tokens[0] for tokens in generate(model.eval(), ids, config, tokenizer.end_of_text)]
    return ids + [token for token in new if token is not None]


def test_a_tied_head_is_stored_where_vllm_and_llama_cpp_tie_none() -> None:
    for config, is_stored in ((GPT2[0], False), (MODERN[0], False), (MOE[0], True)):
        stored = to_hugging_face(config.kind, GPT(config).state_dict())
        assert config.tied_head and ("lm_head.weight" in stored) == is_stored
