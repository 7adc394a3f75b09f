import json
from pathlib import Path

import numpy as np
import pytest

from tests.makers.models import char_tokenizer, drawn, our_folder, reader, small
from tests.makers.runs import Trained
from yanmo.errors import CheckpointError, ConfigError
from yanmo.hub import exporter, verify
from yanmo.hub.exporter import Exported, export
from yanmo.hub.gguf_file import modelfile_of
from yanmo.log import Voice
from yanmo.storage import read_json

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return our_folder(tmp_path / "ours", reader(), char_tokenizer())


def written(source: Path, to: str, voice: Voice, precision: str = "f32", out: str | None = None) -> Exported:
    wanted = precision if to == "gguf" else None
    return export(source, to, Path(out) if out else None, wanted, True, voice)  # type: ignore[arg-type]


def test_a_run_leaves_with_a_card_that_says_what_it_is(novel: Path, trained: Trained, voice: Voice) -> None:
    run = trained("runs/novel", "sample.top_k=7")
    found = export(run.folder, "hf", None, None, True, voice)
    assert found.path == Path("exports/novel")
    names = {file.name for file in found.path.iterdir()}
    assert names == {
        "README.md", "MANIFEST.json", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    card = (found.path / "README.md").read_text(encoding="utf-8")
    for word in (
        "library_name: transformers",
        "Qwen3ForCausalLM",
        "bits per character",
        "top_k = 7",
        "## What it writes",
    ):
        assert word in card
    assert str(Path.cwd()) not in card
    assert read_json(found.path / "generation_config.json")["top_k"] == 7


def test_the_exported_folder_is_imported_again_bit_for_bit(source: Path, voice: Voice) -> None:
    from yanmo.config import TokenizerConfig
    from yanmo.hub.importer import import_

    found = written(source, "hf", voice)
    import_(str(found.path), Path("again"), TokenizerConfig(), voice)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (Path("again") / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "q8_0", "q5_0", "q4_0"])
def test_a_gguf_holds_the_weights_as_exactly_as_its_precision(
    precision: str, source: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "has_llama", lambda: False)
    found = written(source, "gguf", voice, precision)
    assert found.verdict is not None
    limit = {"f32": 0, "f16": 1e-3, "bf16": 5e-3, "q8_0": 1e-2, "q5_0": 0.1, "q4_0": 0.2}[precision]
    assert found.verdict.numbers["weights"] <= limit
    said = modelfile_of(found.path).read_text(encoding="utf-8")
    assert said.startswith(f"FROM ./{found.path.name}\n")
    assert "PARAMETER num_ctx 64" in said


def test_rows_of_no_multiple_of_32_stay_in_float16_and_are_named(
    tmp_path: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "has_llama", lambda: False)
    tokenizer = char_tokenizer()
    config = small("modern", tokenizer, n_embd=64, n_inner=40)
    found = written(our_folder(tmp_path / "odd", drawn(config), tokenizer), "gguf", voice, "q8_0")
    assert found.values["float16"] == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    assert "2 tensors with rows of no multiple of 32 stay in f16" in "\n".join(found.said)


def test_gelu_by_erf_is_marked_as_another_in_gguf(
    tmp_path: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "has_llama", lambda: False)
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "nano", drawn(small("gpt2", tokenizer, gelu="erf")), tokenizer)
    assert "llama.cpp computes GELU by tanh" in "\n".join(written(folder, "gguf", voice).said)


@pytest.mark.parametrize("to", ["hf", "gguf", "onnx"])
def test_a_comparison_that_fails_deletes_nothing_and_says_the_numbers(
    to: str, source: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "has_llama", lambda: False)
    monkeypatch.setattr(exporter, "write_model", spoiled(exporter.write_model))
    import yanmo.hub.gguf_file
    import yanmo.hub.onnx_file

    monkeypatch.setattr(yanmo.hub.gguf_file, "write_gguf", spoiled_model(yanmo.hub.gguf_file.write_gguf))
    monkeypatch.setattr(yanmo.hub.onnx_file, "write_onnx", spoiled_model(yanmo.hub.onnx_file.write_onnx))
    with pytest.raises(CheckpointError, match=r"logits differ by \d|weight is off by \d") as caught:
        written(source, to, voice, out="there")
    assert caught.value.exit_code == 4
    assert Path("there").exists()


def spoiled(write: object) -> object:
    def spoil(folder: Path, config: object, weights: dict[str, object], *rest: object) -> None:
        weights = {n: t * 1.5 if n.endswith("out.weight") else t for n, t in weights.items()}  # type: ignore[operator]
        write(folder, config, weights, *rest)  # type: ignore[operator]

    return spoil


def spoiled_model(write: object) -> object:
    """The writer is given other weights than the model has."""

    def spoil(path: Path, model: object, *rest: object) -> object:
        import copy

        other = copy.deepcopy(model).requires_grad_(False)  # type: ignore[attr-defined]
        for block in other.blocks:  # type: ignore[attr-defined]
            block.attention.out.weight.mul_(1.5)
        return write(path, other, *rest)  # type: ignore[operator]

    return spoil


def test_onnx_takes_rows_of_any_number_and_length_and_masks_padding(source: Path, voice: Voice) -> None:
    import onnxruntime
    import torch

    from yanmo.hub.onnx_file import cache_names

    path = written(source, "onnx", voice).path
    session = onnxruntime.InferenceSession(str(path))
    model, config = reader(), reader().config
    names = cache_names(config.n_layer, "past_key_values")
    assert [entry.name for entry in session.get_inputs()] == [
        "input_ids",
        "attention_mask",
        "position_ids",
        *names,
    ]
    assert [e.name for e in session.get_outputs()] == ["logits", *cache_names(config.n_layer, "present")]
    ids = np.array([[5, 6, 7, 8], [0, 0, 9, 10]])
    mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1]])
    place = np.maximum(mask.cumsum(1) - 1, 0)
    past = {n: np.zeros((2, config.n_kv_head, 0, config.head_dim), np.float32) for n in names}
    logits = session.run(None, {"input_ids": ids, "attention_mask": mask, "position_ids": place, **past})[0]
    alone = model(torch.tensor([[9, 10]])).numpy()
    np.testing.assert_allclose(logits[1, 2:], alone[0], atol=1e-4)


def test_a_missing_library_is_said_before_anything_is_written(
    source: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="transformers is not installed") as caught:
        written(source, "hf", voice)
    assert "--no-verify" in caught.value.mend
    assert not Path("exports").exists()


def test_nothing_is_overwritten(source: Path, voice: Voice) -> None:
    Path("there").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="there already"):
        written(source, "gguf", voice, out="there")


def test_an_unknown_precision_names_llama_quantize(source: Path, voice: Voice) -> None:
    with pytest.raises(ConfigError, match="no precision 'q4_k_m'") as caught:
        written(source, "gguf", voice, "q4_k_m")
    assert "llama-quantize" in caught.value.mend


def test_what_was_saved_opens_in_a_clean_process(source: Path, voice: Voice) -> None:
    found = written(source, "hf", voice)
    config = json.loads((found.path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 and 5 know it


def test_what_a_run_samples_with_does_not_disturb_the_comparison(
    novel: Path, trained: Trained, voice: Voice
) -> None:
    settings = ("sample.repetition_penalty=1.3", "sample.no_repeat_ngram=3", "model.block_size=40")
    run = trained("runs/novel", *settings)
    found = export(run.folder, "hf", None, None, True, voice)
    assert found.verdict is not None and not found.verdict.failed
    assert read_json(found.path / "generation_config.json")["repetition_penalty"] == 1.3


@pytest.mark.parametrize("to", ["hf", "onnx"])
def test_a_window_of_a_few_tokens_is_enough(to: str, tmp_path: Path, voice: Voice) -> None:
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "short", drawn(small("modern", tokenizer, block_size=4)), tokenizer)
    assert written(folder, to, voice).verdict is not None


def test_a_file_that_its_library_cannot_open_ends_with_4(
    source: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yanmo.hub.onnx_file

    def torn(path: Path, model: object) -> None:
        path.write_bytes(b"no graph")

    monkeypatch.setattr(yanmo.hub.onnx_file, "write_onnx", torn)
    with pytest.raises(CheckpointError, match="could not be opened again"):
        written(source, "onnx", voice)


def test_a_modelfile_of_ones_own_is_not_overwritten(source: Path, voice: Voice) -> None:
    Path("novel.Modelfile").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="there already"):
        written(source, "gguf", voice, out="novel.gguf")
    assert Path("novel.Modelfile").read_text(encoding="utf-8") == "mine"


def test_a_recipe_that_lies_about_gives_a_model_no_name(source: Path, voice: Voice) -> None:
    (source.parent / "recipe.toml").write_text("[train]\nseed = 1\n", encoding="utf-8")
    found = written(source, "hf", voice)
    assert found.path == Path("exports/ours")
    assert "trained elsewhere" in (found.path / "README.md").read_text(encoding="utf-8")


def test_a_precision_is_for_gguf_only(source: Path, voice: Voice) -> None:
    with pytest.raises(ConfigError, match="--to onnx is written in float32"):
        export(source, "onnx", None, "q8_0", True, voice)
