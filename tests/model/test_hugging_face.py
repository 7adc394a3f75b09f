"""A checkpoint folder is a Hugging Face folder: transformers opens it and computes the same."""

from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_recipe
from yanmo.checkpoint import load_model, load_model_and_tokenizer
from yanmo.errors import CheckpointError
from yanmo.log import Voice
from yanmo.model.gpt import GPT, GPTConfig
from yanmo.model.names import from_config_json, hugging_face_name, to_config_json
from yanmo.storage import read_json, write_json
from yanmo.train.trainer import train

SHAPES = [(50, 1, 1, 8, 8), (321, 2, 4, 32, 16), (1000, 3, 2, 64, 64)]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_loss_and_gradients_equal_transformers(shape: tuple[int, ...], tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    model = saved_model(tmp_path, GPTConfig(*shape))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids = torch.randint(shape[0], (2, shape[4]))
    output = theirs(ids, labels=ids)
    torch.testing.assert_close(model(ids), output.logits, atol=1e-5, rtol=0)
    loss = model.loss(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
    torch.testing.assert_close(loss, output.loss)
    loss.backward()
    output.loss.backward()
    gradients = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        name, transposed = hugging_face_name(name)
        expected = gradients[name].grad.t() if transposed else gradients[name].grad
        torch.testing.assert_close(parameter.grad, expected, atol=1e-6, rtol=1e-4)


def test_transformers_opens_our_checkpoint_and_writes_the_same(novel: Path, voice: Voice) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = train(tiny_recipe(novel, more=("model.block_size=32",)), Path("runs/novel"), voice)
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


def test_files_hold_float32_masters_under_the_known_names(novel: Path, voice: Voice) -> None:
    from safetensors.torch import load_file

    run = train(tiny_recipe(novel, more=("train.precision=bfloat16",)), Path("runs/novel"), voice)
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
        ("model_type", "qwen3", "model_type='qwen3'"),
        ("activation_function", "relu", "activation_function='relu'"),
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


def test_the_shape_survives_config_json() -> None:
    config = GPTConfig(321, 2, 4, 32, 16, dropout=0.1)
    assert from_config_json(to_config_json(config, 0), "here") == config


def saved_model(folder: Path, config: GPTConfig) -> GPT:
    from safetensors.torch import save_file

    from yanmo.model.names import to_hugging_face

    model = GPT(config)
    model.initialise(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    save_file(to_hugging_face(tensors), folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", to_config_json(config, 0))
    return model.eval()


def greedy(folder: Path, ids: list[int], count: int) -> list[int]:
    from yanmo.config import SampleConfig
    from yanmo.generate import generate

    model, tokenizer = load_model_and_tokenizer(folder)
    config = SampleConfig(temperature=0, max_new_tokens=count)
    new = [tokens[0] for tokens in generate(model.eval(), ids, config, tokenizer.end_of_text)]
    return ids + [token for token in new if token is not None]
