import copy
import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.makers.models import TOKENIZERS, char_tokenizer, drawn, our_folder, reader, small
from tests.makers.runs import Trained
from yanmo.checkpoint.folder import write_model
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError
from yanmo.core.storage import read_json
from yanmo.hub.exports import verify
from yanmo.hub.exports.exporter import (
    Exported,
    ExportSource,
    Target,
    export,
    export_onnx,
    opened_again,
    write_export,
    write_onnx_configs,
)
from yanmo.hub.exports.ollama import modelfile_of
from yanmo.model.gpt import GPT
from yanmo.tokenizer.chat_template import ChatTemplate, with_chat

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return our_folder(tmp_path / "ours", reader(), char_tokenizer())


@pytest.fixture
def without_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)


def of_model(model: GPT) -> ExportSource:
    return ExportSource("ours", Path("ours"), model, char_tokenizer(), None)


def written(
    source: Path, to: str, console: Console, precision: str = "f32", out: str | None = None
) -> Exported:
    wanted = precision if to == "gguf" else None
    return export(source, to, Path(out) if out else None, wanted, True, console)  # type: ignore[arg-type]


def test_a_run_leaves_with_a_card_that_says_what_it_is(
    novel: Path, trained: Trained, console: Console
) -> None:
    run = trained("runs/novel", "sample.top_k=7")
    found = export(run.folder, "hf", None, None, True, console)
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


def test_the_exported_folder_is_imported_again_bit_for_bit(source: Path, console: Console) -> None:
    from yanmo.hub.imports.importer import import_
    from yanmo.settings.schema import TokenizerConfig

    found = written(source, "hf", console)
    import_(str(found.path), Path("again"), TokenizerConfig(), console)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (Path("again") / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16", "q8_0", "q5_0", "q4_0"])
def test_a_gguf_holds_the_weights_as_exactly_as_its_precision(
    precision: str, source: Path, console: Console, without_llama: None
) -> None:
    found = written(source, "gguf", console, precision)
    assert found.verdict is not None
    limit = {"f32": 0, "f16": 1e-3, "bf16": 5e-3, "q8_0": 1e-2, "q5_0": 0.1, "q4_0": 0.2}[precision]
    assert found.verdict.numbers["weights"] <= limit
    said = modelfile_of(found.path).read_text(encoding="utf-8")
    assert said.startswith(f"FROM ./{found.path.name}\n")
    assert "PARAMETER num_ctx 64" in said


def test_rows_of_no_multiple_of_32_stay_in_float16_and_are_named(
    tmp_path: Path, console: Console, without_llama: None
) -> None:
    tokenizer = char_tokenizer()
    config = small("modern", tokenizer, n_embd=64, n_inner=40)
    found = written(our_folder(tmp_path / "odd", drawn(config), tokenizer), "gguf", console, "q8_0")
    assert found.values["float16"] == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    assert "2 tensors stay in f16, because their row length is not a multiple of 32" in "\n".join(found.said)


def test_a_moe_in_gguf_has_keys_for_each_head_and_a_head_of_its_own(
    tmp_path: Path, console: Console, without_llama: None
) -> None:
    """llama.cpp's dots1 shares neither."""
    import gguf

    tokenizer = char_tokenizer()
    config = small("moe", tokenizer, n_head=4, n_kv_head=2, n_embd=64)
    found = written(our_folder(tmp_path / "moe", drawn(config), tokenizer), "gguf", console, "f32")
    reader = gguf.GGUFReader(found.path)
    assert reader.fields["dots1.attention.head_count_kv"].contents() == 4
    shapes = {tensor.name: tuple(tensor.shape) for tensor in reader.tensors}
    assert shapes["blk.0.attn_k.weight"] == shapes["blk.0.attn_q.weight"]
    assert "output.weight" in shapes


def test_gelu_by_erf_is_marked_as_another_in_gguf(
    tmp_path: Path, console: Console, without_llama: None
) -> None:
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "nano", drawn(small("gpt2", tokenizer, gelu="erf")), tokenizer)
    assert "llama.cpp computes GELU by tanh" in "\n".join(written(folder, "gguf", console).said)


@pytest.mark.parametrize("to", ["hf", "gguf", "onnx"])
def test_a_comparison_that_fails_deletes_nothing_and_says_the_numbers(
    to: Target, own_folder: Path, without_llama: None
) -> None:
    other = copy.deepcopy(reader()).requires_grad_(False)
    for block in other.blocks:
        block.attention.out.weight.mul_(1.5)  # type: ignore[union-attr, operator]
    there = Path("there")
    done = write_export(of_model(other), to, there, "f32")
    with pytest.raises(CheckpointError, match=r"logits differ by \d|weight is off by \d") as caught:
        opened_again(done, to, of_model(reader()), "f32")
    assert caught.value.exit_code == 4
    assert there.exists()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What --to onnx writes of the reader; made once, for it takes seconds."""
    folder = tmp_path_factory.mktemp("graphs")
    source = our_folder(folder / "ours", reader(), char_tokenizer())
    return export(source, "onnx", folder / "ours-onnx", None, False, Console(stream=io.StringIO())).path


def test_onnx_takes_rows_of_any_number_and_length_and_masks_padding(graphs: Path) -> None:
    import onnxruntime
    import torch

    from yanmo.hub.exports.onnx_file import GRAPH, cache_names

    session = onnxruntime.InferenceSession(str(graphs / GRAPH))
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


def test_onnx_is_the_folder_that_transformers_js_opens(source: Path, graphs: Path) -> None:
    import onnxruntime

    assert graphs.name == "ours-onnx"
    assert {file.relative_to(graphs).as_posix() for file in graphs.rglob("*") if file.is_file()} == {
        "MANIFEST.json", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "onnx/model.onnx", "onnx/model_quantized.onnx",
    }  # fmt: skip
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (graphs / name).read_bytes() == (source / name).read_bytes()
    assert read_json(graphs / "generation_config.json")["do_sample"] is True
    whole, rounded = (graphs / "onnx" / f"model{suffix}.onnx" for suffix in ("", "_quantized"))
    assert rounded.stat().st_size < whole.stat().st_size / 2
    one, other = (onnxruntime.InferenceSession(str(path)) for path in (whole, rounded))
    assert [e.name for e in one.get_inputs()] == [e.name for e in other.get_inputs()]
    assert [e.name for e in one.get_outputs()] == [e.name for e in other.get_outputs()]


def test_a_chat_template_stands_where_transformers_js_looks(source: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}“{{ m['content'] }}”\n{% endfor %}"
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    (out := tmp_path / "out").mkdir()
    write_onnx_configs(out, replace(of_model(reader()), folder=source))
    assert read_json(out / "tokenizer_config.json")["chat_template"] == template
    assert (out / "chat_template.jinja").read_text(encoding="utf-8") == template


def test_what_8_bits_cost_is_measured_and_said(graphs: Path) -> None:
    found = verify.verify_onnx(graphs, reader(), char_tokenizer())
    lost = found.numbers["lost_in_8_bits"]
    assert not found.failed
    assert 0 < lost < verify.LOST_IN_8_BITS
    assert f"differ by {lost:.4f} nats per token" in "\n".join(found.said)


@pytest.mark.parametrize("part", ["tokens.weight_scale", "tokens.weight_quantized", "_quantized"])
def test_8_bits_of_other_weights_are_noticed(part: str, graphs: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    folder = shutil.copytree(graphs, tmp_path / "spoiled")
    rounded = onnx.load(folder / "onnx/model_quantized.onnx")
    spoiled = [tensor for tensor in rounded.graph.initializer if tensor.name.endswith(part)]
    for tensor in spoiled:
        values = numpy_helper.to_array(tensor)
        other = values[..., ::-1].copy() if values.ndim else (values * 3 + 7).astype(values.dtype)
        tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    onnx.save(rounded, folder / "onnx/model_quantized.onnx")
    found = verify.verify_onnx(folder, reader(), char_tokenizer())
    assert spoiled and len(found.failed) == 1
    assert "in 8 bits its predictions differ by" in found.failed[0]


def test_weights_too_large_for_a_graph_lie_beside_it_where_transformers_js_looks(
    own_folder: Path,
) -> None:
    source = of_model(reader())
    found = opened_again(export_onnx(source, Path("out"), largest_file=0), "onnx", source, "f32")
    assert found.verdict is not None and not found.verdict.failed
    assert {file.name for file in (found.path / "onnx").iterdir()} == {
        "model.onnx", "model.onnx_data", "model_quantized.onnx", "model_quantized.onnx_data",
    }  # fmt: skip
    config = read_json(found.path / "config.json")
    assert config["transformers.js_config"] == {"use_external_data_format": True}


def test_a_model_that_transformers_js_does_not_know_is_said_to_be_for_onnxruntime(
    tmp_path: Path, console: Console
) -> None:
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "experts", drawn(small("moe", tokenizer)), tokenizer)
    said = export(folder, "onnx", None, None, False, console).said
    assert "transformers.js does not support Dots1ForCausalLM" in "\n".join(said)


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("to", ["hf", "onnx"])
def test_a_folder_that_is_there_is_not_replaced_not_even_by_force(
    to: str, is_forced: bool, source: Path, console: Console
) -> None:
    Path("there").mkdir()
    Path("there/mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="there already"):
        export(source, to, Path("there"), None, False, console, is_forced)  # type: ignore[arg-type]
    assert [file.name for file in Path("there").iterdir()] == ["mine.txt"]


def test_a_missing_library_is_said_before_anything_is_written(
    source: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="transformers is not installed") as caught:
        written(source, "hf", console)
    assert "--no-verify" in caught.value.hint
    assert not Path("exports").exists()


def test_nothing_is_overwritten(source: Path, console: Console) -> None:
    Path("there").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="there already"):
        written(source, "gguf", console, out="there")


def test_an_unknown_precision_names_llama_quantize(source: Path, console: Console) -> None:
    with pytest.raises(ConfigError, match="no precision 'q4_k_m'") as caught:
        written(source, "gguf", console, "q4_k_m")
    assert "llama-quantize" in caught.value.hint


def test_what_was_saved_opens_in_a_clean_process(source: Path, console: Console) -> None:
    found = written(source, "hf", console)
    config = json.loads((found.path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 and 5 know it


def test_what_a_run_samples_with_does_not_disturb_the_comparison(
    novel: Path, trained: Trained, console: Console
) -> None:
    settings = ("sample.repetition_penalty=1.3", "sample.no_repeat_ngram=3", "model.block_size=40")
    run = trained("runs/novel", *settings)
    found = export(run.folder, "hf", None, None, True, console)
    assert found.verdict is not None and not found.verdict.failed
    assert read_json(found.path / "generation_config.json")["repetition_penalty"] == 1.3


@pytest.mark.parametrize("to", ["hf", "onnx"])
def test_a_window_of_a_few_tokens_is_enough(to: str, tmp_path: Path, console: Console) -> None:
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "short", drawn(small("modern", tokenizer, block_size=4)), tokenizer)
    assert written(folder, to, console).verdict is not None


def test_a_file_that_its_library_cannot_open_ends_with_4(graphs: Path, tmp_path: Path) -> None:
    torn = shutil.copytree(graphs, tmp_path / "torn")
    (torn / "onnx/model_quantized.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match="could not be opened again") as caught:
        opened_again(Exported(torn, (), None), "onnx", of_model(reader()), "f32")
    assert caught.value.exit_code == 4


def test_a_modelfile_of_ones_own_is_not_overwritten(source: Path, console: Console) -> None:
    Path("novel.Modelfile").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="there already"):
        written(source, "gguf", console, out="novel.gguf")
    assert Path("novel.Modelfile").read_text(encoding="utf-8") == "mine"


def test_a_recipe_that_lies_about_gives_a_model_no_name(source: Path, console: Console) -> None:
    (source.parent / "recipe.toml").write_text("[train]\nseed = 1\n", encoding="utf-8")
    found = written(source, "hf", console)
    assert found.path == Path("exports/ours")
    assert "trained elsewhere" in (found.path / "README.md").read_text(encoding="utf-8")


def test_a_precision_is_for_gguf_only(source: Path, console: Console) -> None:
    with pytest.raises(ConfigError, match="--to onnx writes float32"):
        export(source, "onnx", None, "q8_0", True, console)


def test_a_template_goes_into_every_export_byte_for_byte_and_answers_end(
    tmp_path: Path, console: Console, without_llama: None
) -> None:
    import gguf

    for kind in ("char", "bpe"):
        tokenizer, template = with_chat(TOKENIZERS[kind](), None)
        end = ChatTemplate(template, tokenizer).end_of_turn
        model, folder = drawn(small("modern", tokenizer)), tmp_path / kind
        folder.mkdir()
        write_model(folder, model.config, model.state_dict(), tokenizer, template)
        found = export(folder, "gguf", tmp_path / f"{kind}.gguf", "f32", True, console)
        fields = gguf.GGUFReader(found.path).fields
        assert fields["tokenizer.chat_template"].contents() == template
        assert fields["tokenizer.ggml.eos_token_id"].contents() == end
        assert fields["tokenizer.ggml.bos_token_id"].contents() == tokenizer.end_of_text
        types = fields["tokenizer.ggml.token_type"].contents()
        assert {types[token] for token in tokenizer.suppressed} == {gguf.TokenType.CONTROL}
        file = found.path.with_name(f"{kind}.Modelfile").read_text(encoding="utf-8")
        assert "{{ .Content }}<|im_end|>" in file and 'PARAMETER stop "<|im_end|>"' in file
        out = export(folder, "hf", tmp_path / f"{kind}-hf", None, True, console).path
        assert (out / "chat_template.jinja").read_text(encoding="utf-8") == template
        said = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
        assert said["eos_token_id"] == [end, tokenizer.end_of_text]
        assert end not in said["suppress_tokens"]
