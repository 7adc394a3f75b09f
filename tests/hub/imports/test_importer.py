import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.makers.models import (
    ENTRIES,
    LETTERS,
    NanoGPT,
    bpe_tokenizer,
    char_tokenizer,
    drawn,
    gpt2_chinese_folder,
    hugging_face_folder,
    meta_pickle,
    nanogpt_checkpoint,
    our_folder,
    reader,
    small,
    taught,
    vocab_txt,
    wordpiece_tokenizer,
)
from tests.makers.processes import python
from yanmo.checkpoint.folder import load_model, load_model_and_tokenizer
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError
from yanmo.generate.engine import generate
from yanmo.hub.imports.importer import Imported, import_
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig, TokenizerConfig
from yanmo.tokenizer import WordPieceTokenizer
from yanmo.tokenizer.wordpiece import Roles

pytestmark = pytest.mark.slow

SHAPES = [
    ("gpt2", {}),
    ("gpt2", {"n_layer": 3, "n_head": 2, "n_embd": 24, "block_size": 72}),
    ("gpt2", {"n_inner": 40, "gelu": "erf"}),
    ("modern", {}),
    ("modern", {"head_dim": 16, "tied_head": False, "rope_theta": 500.0, "block_size": 72}),
    ("moe", {"block_size": 72}),
]


def taken(source: Path | str, console: Console, out: str = "taken", **config: str) -> Imported:
    return import_(str(source), Path(out), TokenizerConfig(**config), console)  # type: ignore[arg-type]


def greedy(model: GPT, prompt: list[int], count: int) -> list[int]:
    config = SampleConfig(temperature=0, max_new_tokens=count)
    return [tokens[0] for tokens in generate(model.eval(), prompt, config, -1)]  # type: ignore[misc]


@pytest.mark.parametrize(("family", "more"), SHAPES)
def test_what_transformers_saved_computes_the_same_and_writes_the_same(
    family: str, more: dict[str, object], tmp_path: Path, console: Console
) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = char_tokenizer()
    source = hugging_face_folder(tmp_path / "theirs", drawn(small(family, tokenizer, **more)), tokenizer)
    found = taken(source, console)
    assert found.proof is not None and found.proof.difference is not None
    assert found.proof.difference <= 1e-5 * max(1, found.proof.largest)
    theirs = AutoModelForCausalLM.from_pretrained(source).eval()
    ours, _ = load_model_and_tokenizer(Path("taken"))
    ours.eval()
    size = ours.config.block_size
    ids = torch.randint(ours.config.vocab_size, (2, size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)
    written = theirs.generate(
        ids[:1, :8],
        attention_mask=torch.ones(1, 8, dtype=torch.long),
        max_new_tokens=size - 8,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert greedy(ours, ids[0, :8].tolist(), size - 8) == written[0, 8:].tolist()


def test_weights_in_several_files_are_one_model(tmp_path: Path, console: Console) -> None:
    tokenizer = char_tokenizer()
    model = drawn(small("modern", tokenizer))
    source = our_folder(tmp_path / "theirs", model, tokenizer)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, source / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    taken(source, console)
    ids = torch.arange(10)[None]
    assert torch.equal(load_model(Path("taken")).eval()(ids), model(ids))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_are_kept_as_they_were_stored(dtype: torch.dtype, tmp_path: Path, console: Console) -> None:
    tokenizer = char_tokenizer()
    source = our_folder(tmp_path / "theirs", drawn(small("modern", tokenizer)), tokenizer)
    file = source / "model.safetensors"
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(tensors, file)
    taken(source, console)
    found = load_file(Path("taken/model.safetensors"))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype and torch.equal(found[name], tensor)
    said = json.loads(Path("taken/config.json").read_text(encoding="utf-8"))["dtype"]
    assert f"torch.{said}" == str(dtype)


def test_gpt2_chinese_needs_its_vocabulary_and_counts_its_lines(tmp_path: Path, console: Console) -> None:
    model = drawn(small("gpt2", wordpiece_tokenizer()))
    source = gpt2_chinese_folder(tmp_path / "final_model", model)
    with pytest.raises(ConfigError, match="no vocabulary"):
        taken(source, console)
    short = tmp_path / "short.txt"
    short.write_text("\n".join(ENTRIES[:-3]), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=rf"have {len(ENTRIES)} tokens, the vocabulary has {len(ENTRIES) - 3}"
    ):
        taken(source, console, path=str(short))
    taken(source, console, path=str(vocab_txt(tmp_path / "vocab.txt")))
    ours, tokenizer = load_model_and_tokenizer(Path("taken"))
    ours.eval()
    ids = torch.randint(len(ENTRIES), (2, 20))
    assert torch.equal(ours(ids), model(ids))
    text = "他说：\n我们"
    assert tokenizer.decode(tokenizer.encode(text)) == text  # [SEP] is a line end there
    assert tokenizer.document_start == (ENTRIES.index("[MASK]"),)


def test_a_bert_vocabulary_keeps_numbers_whole_where_berts_rules_made_it(
    tmp_path: Path, console: Console
) -> None:
    model = drawn(small("gpt2", wordpiece_tokenizer()))
    source = gpt2_chinese_folder(tmp_path / "uer", model)
    vocab_txt(source / "vocab.txt")
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}', encoding="utf-8")
    taken(source, console)
    _, tokenizer = load_model_and_tokenizer(Path("taken"))
    assert isinstance(tokenizer, WordPieceTokenizer)
    assert tokenizer.document_start == (ENTRIES.index("[CLS]"),)
    alone = WordPieceTokenizer(ENTRIES, Roles(start="[CLS]"))
    assert len(tokenizer.encode("t12")) == 3 and len(alone.encode("t12")) == 3
    assert tokenizer.encode("t12").tolist()[1:] == [ENTRIES.index("##1"), ENTRIES.index("##2")]
    assert alone.encode("t12").tolist()[1:] != tokenizer.encode("t12").tolist()[1:]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", ""])
def test_nanogpt_keeps_its_gelu_and_gets_zero_biases(
    bias: bool, prefix: str, tmp_path: Path, console: Console
) -> None:
    theirs = NanoGPT(len(LETTERS), bias)
    file = nanogpt_checkpoint(tmp_path / "nano" / "out" / "ckpt.pt", theirs, "play", prefix)
    meta_pickle(tmp_path / "nano" / "data" / "play" / "meta.pkl")
    found = taken(file.parent if bias else file, console)
    ours, tokenizer = load_model_and_tokenizer(Path("taken"))
    ours.eval()
    assert ours.config.gelu == "erf"
    assert ours.config.vocab_size == tokenizer.vocab_size == len(LETTERS) + 257
    ids = torch.randint(len(LETTERS), (2, 48))
    torch.testing.assert_close(ours(ids)[..., : len(LETTERS)], theirs(ids), atol=2e-5, rtol=1e-5)
    assert tokenizer.encode(LETTERS[3]).tolist() == [3]
    assert any("zeros" in note for note in found.values["notes"]) is not bias
    assert json.loads(Path("taken/config.json").read_text(encoding="utf-8"))["activation_function"] == "gelu"


def test_nanogpt_without_a_vocabulary_says_what_to_name(tmp_path: Path, console: Console) -> None:
    file = nanogpt_checkpoint(tmp_path / "out" / "ckpt.pt", NanoGPT(len(LETTERS), True), "play")
    with pytest.raises(ConfigError, match=r"no meta.pkl in its folder or in data/play"):
        taken(file, console)


def test_rows_that_pad_an_embedding_are_cut(tmp_path: Path, console: Console) -> None:
    tokenizer = bpe_tokenizer()
    padded = replace(small("modern", tokenizer), vocab_size=(tokenizer.vocab_size // 64 + 1) * 64)
    model = drawn(padded)
    source = our_folder(tmp_path / "theirs", model, tokenizer)
    found = taken(source, console)
    ours, _ = load_model_and_tokenizer(Path("taken"))
    ours.eval()
    assert ours.config.vocab_size == tokenizer.vocab_size
    ids = torch.randint(tokenizer.vocab_size, (2, 20))
    torch.testing.assert_close(ours(ids), model(ids)[..., : tokenizer.vocab_size], atol=1e-6, rtol=0)
    assert any("padding rows" in note for note in found.values["notes"])


@pytest.mark.parametrize("heads", [1, 2])
def test_another_number_of_heads_is_caught_by_how_it_reads(
    heads: int, tmp_path: Path, console: Console
) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    taken(source, console, "right")
    change_config(source, n_head=heads)
    with pytest.raises(CheckpointError, match=rf"with n_head={heads} it reads .* with 4 heads at") as caught:
        taken(source, console)
    assert caught.value.exit_code == 4
    assert not Path("taken").exists()


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_a_square_matrix_that_was_not_transposed_is_caught(
    family: str, tmp_path: Path, console: Console
) -> None:
    model = reader() if family == "gpt2" else taught(family)
    source = our_folder(tmp_path / "theirs", model, char_tokenizer())
    tensors = load_file(source / "model.safetensors")
    square = {n: t for n, t in tensors.items() if t.dim() == 2 and t.size(0) == t.size(1)}
    assert square
    save_file({**tensors, **{n: t.t().contiguous() for n, t in square.items()}}, source / "model.safetensors")
    with pytest.raises(CheckpointError, match="with square matrices transposed at"):
        taken(source, console)


@pytest.mark.long
def test_gpt2_with_eight_heads_for_twelve_is_caught_and_the_right_one_trains_within_6_gb(
    tmp_path: Path, console: Console
) -> None:

    from yanmo.model.config import GPTConfig
    from yanmo.model.gpt import count_parameters
    from yanmo.tokenizer import CharTokenizer

    characters = [chr(code) for code in (*range(0x4E00, 0x9F00), *range(0x20000, 0x20000 + 50_000))]
    tokenizer = CharTokenizer(characters[:50_000])
    config = GPTConfig(tokenizer.vocab_size, 12, 12, 768, 1024)
    assert count_parameters(config) == 124_439_808
    model = GPT(config)
    model.initialise(0)
    source = hugging_face_folder(tmp_path / "gpt2", model, tokenizer)
    del model
    change_config(source, n_head=8)
    with pytest.raises(CheckpointError, match="says n_head=8; GPT-2 of 12 layers"):
        taken(source, console)
    change_config(source, n_head=12)
    Path("t.txt").write_text("".join(characters[:5000]), encoding="utf-8")
    import_and_train = (
        "import resource, runpy, sys\n"
        "def run(*words):\n"
        "    sys.argv = ['yanmo', *words]\n"
        "    try: runpy.run_module('yanmo', run_name='__main__')\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        f"run('import', {str(source)!r}, '--out', 'taken')\n"
        "run('train', 't.txt', 'model.init=taken', 'train.max_steps=1', 'train.batch_size=1', '--out', 'run',\n"
        "    'train.precision=float32', 'train.attention=matmul', 'train.matmul=torch', 'sample.max_new_tokens=1')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    said = python("-c", import_and_train, seconds=600)
    assert said.returncode == 0, said.stderr
    assert int(said.stdout.split()[-1]) < 6 << 20  # kilobytes


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda t: t | {"transformer.h.0.attn.adapter.weight": torch.zeros(2, 2)}, "do not belong to a gpt2"),
        (lambda t: {n: x for n, x in t.items() if "ln_f" not in n}, "the weights lack transformer.ln_f"),
        (lambda t: t | {"transformer.ln_f.bias": torch.full((64,), torch.nan)}, "not finite"),
        (
            lambda t: t | {"transformer.ln_f.bias": torch.zeros(64, dtype=torch.int64)},
            "cannot use as a weight",
        ),
        (lambda t: t | {"transformer.ln_f.bias": torch.zeros(65)}, r"has shape \(65,\)"),
        (
            lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1},
            "its LM head differs from its embedding",
        ),
        (
            lambda t: t | {"transformer.wte.weight": t["transformer.wte.weight"][:-9]},
            "tokens, config.json says",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    spoil: object, what: str, tmp_path: Path, console: Console
) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    tensors = spoil(load_file(source / "model.safetensors"))  # type: ignore[operator]
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=what):
        taken(source, console)


@pytest.mark.parametrize(
    "values",
    [
        {"n_layer": 10**9}, {"n_head": 0}, {"n_head": 5}, {"n_embd": "64"}, {"vocab_size": 1 << 40},
        {"n_positions": -1}, {"n_layer": True}, {"resid_pdrop": float("nan")}, {"n_layer": None},
        {"model_type": ["gpt2"]}, {"model_type": "llama"},
    ],
)  # fmt: skip
def test_a_config_that_no_model_has_is_refused_at_once(
    values: dict[str, object], tmp_path: Path, console: Console
) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    change_config(source, **values)
    with pytest.raises(CheckpointError):
        taken(source, console)


def test_the_folder_trains_on_with_its_own_vocabulary(novel: Path, tmp_path: Path, console: Console) -> None:
    from tests.makers.runs import TINY
    from yanmo.settings.recipe import load_recipe
    from yanmo.train.trainer import train

    theirs = NanoGPT(len(LETTERS), bias=False)
    file = nanogpt_checkpoint(tmp_path / "out" / "ckpt.pt", theirs)
    taken(file, console, path=str(meta_pickle(tmp_path / "meta.pkl")))
    settings = [s for s in TINY if not s.startswith("model.")]
    recipe = load_recipe(None, [f"corpus.path=['{novel}']", "model.init='taken'", *settings])
    result = train(recipe, Path("runs/on"), console)
    model, tokenizer = load_model_and_tokenizer(result.folder / "model")
    assert model.config.gelu == "erf" and tokenizer.vocab_size == len(LETTERS) + 257


def test_a_chat_template_is_carried_as_text(tmp_path: Path, console: Console) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    (source / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    taken(source, console)
    assert Path("taken/chat_template.jinja").read_text(encoding="utf-8") == "{{ messages }}"


def test_nothing_is_overwritten(tmp_path: Path, console: Console) -> None:
    Path("taken").mkdir()
    Path("taken/mine.txt").write_text("mine", encoding="utf-8")
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    with pytest.raises(ConfigError, match="there already"):
        taken(source, console)


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "somebody/kernel"}, {"_attn_implementation": "somebody/kernel"},
        {"num_labels": 1 << 40}, {"return_dict": False}, {"eos_token_id": "abc"}, {"cls": 1, "self": 2},
        {"initializer_range": "x"},
    ],
)  # fmt: skip
def test_keys_that_mean_nothing_here_never_reach_transformers(
    values: dict[str, object], tmp_path: Path, console: Console
) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    change_config(source, **values)
    assert taken(source, console).proof is not None


@pytest.mark.parametrize(
    "values",
    [
        {"quantization_config": {"quant_method": "gptq"}}, {"scale_attn_weights": False},
        {"tie_word_embeddings": "yes"}, {"embd_pdrop": "x"}, {"add_cross_attention": True},
    ],
)  # fmt: skip
def test_keys_that_mean_another_model_are_refused(
    values: dict[str, object], tmp_path: Path, console: Console
) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    change_config(source, **values)
    with pytest.raises(CheckpointError):
        taken(source, console)


@pytest.mark.parametrize(
    "values",
    [{"num_experts_per_tok": 9}, {"layer_types": 5}, {"max_window_layers": None}, {"max_window_layers": "x"}],
)
def test_experts_that_cannot_be_are_refused_without_a_traceback(
    values: dict[str, object], tmp_path: Path, console: Console
) -> None:
    tokenizer = char_tokenizer()
    source = our_folder(tmp_path / "theirs", drawn(small("moe", tokenizer)), tokenizer)
    change_config(source, sliding_window=128, **values)
    try:
        taken(source, console)
    except CheckpointError:
        return
    assert values["max_window_layers"] is None


def test_a_cased_vocabulary_is_refused_rather_than_lower_cased(tmp_path: Path, console: Console) -> None:
    source = gpt2_chinese_folder(tmp_path / "uer", drawn(small("gpt2", wordpiece_tokenizer())))
    vocab_txt(source / "vocab.txt")
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="do_lower_case=false"):
        taken(source, console)
    (source / "tokenizer_config.json").write_text("{", encoding="utf-8")
    taken(source, console)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "gpt2", "uer/gpt2-chinese-cluecorpussmall"])
def test_a_name_that_is_no_file_is_one_on_the_hub(name: str) -> None:
    from yanmo.hub.imports.recognise import recognise

    assert recognise(name).kind == "hub"


@pytest.mark.parametrize("name", ["ckpt.pt", "a/b.bin", "x.py", "../up/there", "a b"])
def test_a_name_that_is_a_file_is_not(name: str) -> None:
    from yanmo.hub.imports.recognise import recognise

    with pytest.raises(ConfigError, match="there is no"):
        recognise(name)


def test_the_current_folder_is_not_written_over(tmp_path: Path, console: Console) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    Path("empty").mkdir()
    import os

    os.chdir("empty")
    with pytest.raises(ConfigError, match="there already"):
        taken(source, console, ".")


def test_a_folder_of_ours_that_was_changed_is_noticed(tmp_path: Path, console: Console) -> None:
    source = our_folder(tmp_path / "theirs", drawn(small("gpt2", char_tokenizer())), char_tokenizer())
    taken(source, console)
    change_config(Path("taken"), n_head=8)
    with pytest.raises(CheckpointError, match=r"config.json (has|is damaged)"):
        taken("taken", console, "again")
