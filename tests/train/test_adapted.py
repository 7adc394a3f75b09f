"""Runs that train a part of the weights of model.init."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.makers.processes import python
from tests.makers.ranks import loss_values, run
from tests.makers.runs import RUN, StopAt, Trained, losses, tiny_recipe, weights
from yanmo.checkpoint.folder import checkpoint_folder, find_model_folder, load_model
from yanmo.checkpoint.tensors import load_tensors
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, Stopped
from yanmo.core.storage import read_json
from yanmo.settings.recipe import load_recipe
from yanmo.tokenizer import load_tokenizer
from yanmo.tokenizer.base import chat_ids
from yanmo.train.trainer import train

FIRST = ("tokenizer.kind=bpe", "tokenizer.vocab_size=300", "tokenizer.chat_tokens=true")
LORA = ("model.init=first", "finetune.method=lora", "finetune.rank=4")
LAST = ("model.init=first", "finetune.method=last", "finetune.layers=1")


def state(folder: Path, step: int = 12) -> dict[str, torch.Tensor]:
    return load_tensors(checkpoint_folder(folder, step) / "training" / "state.safetensors")


@pytest.mark.parametrize("method", [LORA, LAST], ids=["lora", "last"])
def test_a_stopped_run_goes_on_bit_for_bit(
    method: tuple[str, ...], novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", *FIRST)
    asked = tiny_recipe(novel, more=(*method, "model.dropout=0.1"))
    train(asked, RUN, console)
    other = Path("stopped")
    with pytest.raises(Stopped):
        train(asked, other, console, StopAt(7))
    train(asked, other, console)
    assert losses(other) == losses(RUN) and weights(other) == weights(RUN)
    assert all(torch.equal(tensor, state(RUN)[name]) for name, tensor in state(other).items())


def test_what_is_frozen_stays_and_only_what_is_trained_is_kept_to_go_on(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", *FIRST)
    train(tiny_recipe(novel, more=LORA), RUN, console)
    base, now = (load_model(find_model_folder(folder)).state_dict() for folder in (Path("first"), RUN))
    changed = {name for name, tensor in base.items() if not torch.equal(tensor, now[name])}
    assert len(changed) == 2 * 7 + 1  # the matrices of two blocks, the embedding
    (rows,) = (base["tokens.weight"] != now["tokens.weight"]).any(1).nonzero(as_tuple=True)
    assert tuple(rows.tolist()) == chat_ids(load_tokenizer(find_model_folder(RUN)))
    for name in state(RUN):
        parameter, _, kind = name.partition("/")
        assert parameter.endswith(("lora_a", "lora_b")) or parameter == "token_rows.weight", name
        assert kind in ("live", "exp_avg", "exp_avg_sq", "step")
    assert (find_model_folder(RUN) / "adapter" / "adapter_model.safetensors").is_file()


def test_a_base_that_is_changed_or_gone_is_refused(novel: Path, trained: Trained, console: Console) -> None:
    trained("first", *FIRST)
    asked = tiny_recipe(novel, more=LORA)
    with pytest.raises(Stopped):
        train(asked, RUN, console, StopAt(5))
    base = find_model_folder(Path("first"))
    file = base / "model.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(ConfigError, match="have changed since the run was made"):
        train(asked, RUN, console)
    shutil.move("first", "elsewhere")
    with pytest.raises(ConfigError, match="weights that this run begins from are missing") as refused:
        train(load_recipe(RUN / "recipe.toml"), RUN, console)
    assert "model.init=first" in str(refused.value.where) and "put the folder back" in str(refused.value.hint)
    shutil.move("elsewhere", "first")
    file.write_bytes(kept)
    assert train(asked, RUN, console).progress.step == 12


def test_a_checkpoint_without_what_was_trained_is_refused(
    novel: Path, trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("first", *FIRST)
    asked = tiny_recipe(novel, more=LORA)
    with pytest.raises(Stopped):
        train(asked, RUN, console, StopAt(5))
    monkeypatch.setattr("yanmo.checkpoint.folder.LIVE", "alive")
    with pytest.raises(CheckpointError, match="the trained weights .* are missing"):
        train(asked, RUN, console)


def test_a_base_in_bfloat16_gives_checkpoints_in_bfloat16(
    novel: Path, trained: Trained, console: Console
) -> None:
    from safetensors.torch import save_file

    trained("first", *FIRST)
    shutil.copytree(find_model_folder(Path("first")), "base")
    shutil.rmtree("base/training")
    Path("base/MANIFEST.json").unlink()
    halves = {name: t.bfloat16() for name, t in load_tensors(Path("base/model.safetensors")).items()}
    save_file(halves, "base/model.safetensors", {"format": "pt"})
    train(tiny_recipe(novel, more=("model.init=base", *LORA[1:])), RUN, console)
    folder = find_model_folder(RUN)
    assert {t.dtype for t in load_tensors(folder / "model.safetensors").values()} == {torch.bfloat16}
    assert read_json(folder / "config.json")["dtype"] == "bfloat16"
    assert {t.dtype for name, t in state(RUN).items() if "/live" in name} == {torch.float32}
    adapter = load_tensors(folder / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("finetune.method=lora",), "finetune.method=lora needs weights to begin from"),
        (("finetune.method=full",), "finetune.method=full needs weights to begin from"),
        (
            ("model.init=first", "finetune.replay=0.1"),
            "finetune.replay=0.1 has no effect without finetune.method",
        ),
        (("model.init=first", "finetune.rank=4"), "finetune.rank=4 has no effect with finetune.method=full"),
        ((*LORA, "finetune.layers=1"), "finetune.layers=1 has no effect with finetune.method=lora"),
        ((*LAST[:2], "finetune.layers=3"), "finetune.layers=3, but the model has 2"),
        ((*LAST, "finetune.alpha=8"), "finetune.alpha=8.0 has no effect with finetune.method=last"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    more: tuple[str, ...], said: str, novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", *FIRST)
    with pytest.raises(ConfigError, match=said):
        train(tiny_recipe(novel, more=more), RUN, console)
    assert not RUN.exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", [LORA, LAST], ids=["lora", "last"])
def test_two_ranks_give_the_losses_of_one(method: tuple[str, ...], novel: Path, trained: Trained) -> None:
    trained("first", *FIRST)
    for ranks in (1, 2):
        done = run(ranks, f"ranks-{ranks}", *method, "optim.learning_rate=1e-2")
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
    assert loss_values("ranks-2") == pytest.approx(loss_values("ranks-1"), abs=1e-5)
    adapter = "model/adapter/adapter_model.safetensors"
    assert Path("ranks-2", adapter).exists() == Path("ranks-1", adapter).exists() == (method is LORA)


BASE = """
from pathlib import Path
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
from yanmo.tokenizer import CharTokenizer
torch.manual_seed(0)
config = Qwen3Config(
    vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
    num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, max_position_embeddings=40_960,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6}, bos_token_id=0, eos_token_id=0,
)
torch.set_default_dtype(torch.bfloat16)
Qwen3ForCausalLM(config).save_pretrained("base")
places = (chr(number) for number in range(0x3400, 0x110000) if not 0xD800 <= number < 0xE000)
CharTokenizer([next(places) for _ in range(151_936 - 257)]).save(Path("base"), 40_960)
"""
PEAK = """
import sys
from pathlib import Path
from yanmo.core.console import Console
from yanmo.settings.recipe import load_recipe
from yanmo.train.base import adaptation_of
from yanmo.train.forecast import forecast
from yanmo.train.run import text_size
from yanmo.train.texts import prepare_texts
from yanmo.model.config import GPTConfig
from yanmo.train.trainer import train
def peak():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
before = peak()
train(load_recipe(None, sys.argv[1:]), Path("run"), Console())
after = peak()
recipe = load_recipe(Path("run/recipe.toml"))
prepared = prepare_texts(recipe, Console())
config = GPTConfig.of(recipe.model, prepared.tokenizer.vocab_size)
adaptation = adaptation_of(recipe, prepared.tokenizer)
print(after - before, forecast(recipe, config, text_size(recipe, prepared), adaptation=adaptation).memory_bytes)
"""


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")
def test_a_base_of_600_million_parameters_trains_in_the_memory_that_plan_says(own_folder: Path) -> None:
    """Qwen3-0.6B's shape in bfloat16, random weights, LoRA, windows of 512: some steps and a checkpoint."""
    made = python("-c", BASE, seconds=600)
    assert made.returncode == 0, made.stderr
    Path("text.txt").write_text("".join(map(chr, range(0x4E00, 0x4E00 + 3000))), encoding="utf-8")
    asked = (
        "corpus.path=['text.txt']", "model.init=base", "finetune.method=lora", "model.block_size=512",
        "train.batch_size=1", "train.max_steps=2", "train.precision=float32", "train.attention=matmul",
        "train.matmul=torch", "train.compile=false", "train.keep_last=1", "sample.max_new_tokens=1",
        "train.device=cpu",
    )  # fmt: skip
    done = python("-c", PEAK, *asked, seconds=1800)
    assert done.returncode == 0, done.stderr
    measured, said = map(int, done.stdout.split()[-2:])
    assert 0.5 * said < measured < said, f"{measured:,} of {said:,} bytes"
