"""A model that was changed on the disk is not used without a word, and one that gives no numbers says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.models import char_tokenizer, drawn, small
from yanmo.checkpoint.folder import load_model, load_model_and_tokenizer, write_model
from yanmo.core import storage
from yanmo.core.errors import CheckpointError
from yanmo.model.gpt import GPT

ASKED: dict[str, tuple[str, ...]] = {
    "generate": ("--max-new-tokens", "4", "-p", "他"),
    "chat": (),
    "evaluate": ("--corpus", "novel.txt"),
    "export": ("--to", "gguf", "--out", "out.gguf"),
}


def some_model() -> GPT:
    return drawn(small("gpt2", char_tokenizer(), block_size=64))


def committed(model: GPT) -> Path:
    tokenizer = char_tokenizer()
    storage.commit_folder(
        Path("m"), lambda folder: write_model(folder, model.config, model.state_dict(), tokenizer)
    )
    return Path("m")


def flip(file: Path, bit: int = 0) -> None:
    raw = bytearray(file.read_bytes())
    raw[-1000] ^= 1 << bit
    file.write_bytes(raw)


def end_differently(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b" ")


def change_a_digit(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace(": 64", ": 63"), encoding="utf-8")


CHANGES: dict[str, Callable[[Path], None]] = {
    "model.safetensors": flip,
    "config.json": change_a_digit,
    "tokenizer.json": end_differently,
    "tokenizer_config.json": end_differently,
}


@pytest.mark.parametrize("verb", sorted(ASKED))
def test_one_flipped_bit_stops_every_verb_that_uses_a_model(verb: str, novel: Path) -> None:
    flip(committed(some_model()) / "model.safetensors")
    done = here(verb, "m", *ASKED[verb])
    assert done.returncode == 4
    assert "model.safetensors is damaged (sha256 differs)" in done.stderr
    assert "--no-verify" in done.stderr
    assert not Path("out.gguf").exists()


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_the_impatient_use_it_as_it_is(verb: str, novel: Path) -> None:
    flip(committed(some_model()) / "model.safetensors")
    assert here(verb, "m", *ASKED[verb], "--no-verify").returncode == 0


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_every_file_a_model_is_read_from_is_looked_at(name: str) -> None:
    folder = committed(some_model())
    load_model_and_tokenizer(folder)
    CHANGES[name](folder / name)
    with pytest.raises(CheckpointError, match=rf"{name} (is damaged|has [\d,]+ bytes)"):
        load_model(folder)


def test_weights_that_the_manifest_does_not_know_are_refused() -> None:
    folder = committed(some_model())
    manifest = storage.read_json(folder / storage.MANIFEST)
    del manifest["files"]["model.safetensors"]
    storage.write_json(folder / storage.MANIFEST, manifest)
    with pytest.raises(CheckpointError, match="not in its MANIFEST"):
        load_model(folder)
    assert load_model(folder, verify=False).config == some_model().config


def test_what_a_model_is_not_read_from_may_change_and_a_manifest_may_be_missing() -> None:
    folder = committed(some_model())
    end_differently(folder / "generation_config.json")
    (folder / "README.md").write_text("mine", encoding="utf-8")
    load_model(folder)
    (folder / storage.MANIFEST).unlink()
    end_differently(folder / "config.json")
    load_model(folder)


def test_a_loaded_model_is_in_eval_mode() -> None:
    folder = committed(drawn(small("gpt2", char_tokenizer(), dropout=0.5)))
    model, _ = load_model_and_tokenizer(folder)
    assert not any(part.training for part in (model, load_model(folder), *model.modules()))


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
@pytest.mark.parametrize("more", [(), ("--temperature", "0")], ids=["drawn", "greedy"])
def test_logits_that_are_not_finite_are_an_error_in_words(
    verb: str, more: tuple[str, ...], novel: Path
) -> None:
    model = drawn(small("gpt2", char_tokenizer()))
    model.norm.weight.data.mul_(1e38)
    model.tokens.weight.data.mul_(1e4)
    committed(model)
    done = here(verb, "m", *ASKED[verb], *(more if verb == "generate" else ()))
    assert done.returncode == 4
    assert "finite" in done.stderr
    assert "Traceback" not in done.stderr
