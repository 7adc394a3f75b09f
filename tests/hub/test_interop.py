"""The table of ``makers/interop.py``, cell by cell: taken over, written out, opened there and compared."""

import itertools
from pathlib import Path

import pytest
import torch

from tests.makers.interop import FAMILIES, SOURCES, TARGETS, VOCABULARIES, not_from, not_to
from tests.makers.models import (
    LETTERS,
    TOKENIZERS,
    NanoGPT,
    bpe_tokenizer,
    drawn,
    gpt2_chinese_folder,
    hugging_face_folder,
    meta_pickle,
    nanogpt_checkpoint,
    our_folder,
    small,
    vocab_txt,
)
from yanmo.checkpoint.folder import load_model_and_tokenizer
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError
from yanmo.hub.exports.exporter import export
from yanmo.hub.exports.verify import has_llama
from yanmo.hub.imports.importer import import_
from yanmo.settings.schema import TokenizerConfig

pytestmark = pytest.mark.slow

SHAPES = [*((family, "char") for family in FAMILIES), *(("gpt2", name) for name in VOCABULARIES[1:])]
"""Each family with one vocabulary, one family with each: what is done with weights does not look at a
vocabulary, nor the other way round."""
CAME = [
    (source, *shape)
    for source, shapes in [
        ("Hugging Face", SHAPES),
        *((source, itertools.product(FAMILIES, VOCABULARIES)) for source in SOURCES[2:]),
    ]
    for shape in shapes
    if not_from(source, *shape) is None
]
GOES = [(target, *shape) for target in TARGETS for shape in SHAPES if target != "onnx" or shape[1] == "char"]
"""A graph has no vocabulary in it."""


@pytest.mark.parametrize(("source", "family", "vocabulary"), CAME)
def test_each_source_is_taken_over(
    source: str, family: str, vocabulary: str, tmp_path: Path, console: Console
) -> None:
    tokenizer = TOKENIZERS[vocabulary]()
    config = TokenizerConfig()
    model = drawn(small(family, tokenizer))
    if source == "Hugging Face":
        place = hugging_face_folder(tmp_path / "theirs", model, tokenizer)
    elif source == "GPT2-Chinese":
        place = gpt2_chinese_folder(tmp_path / "theirs", model)
        config = TokenizerConfig(path=str(vocab_txt(tmp_path / "vocab.txt")))
    else:
        count = len(LETTERS) if vocabulary == "char" else bpe_tokenizer().vocab_size
        place = nanogpt_checkpoint(tmp_path / "theirs" / "ckpt.pt", NanoGPT(count, True))
        path = meta_pickle(tmp_path / "meta.pkl")
        if vocabulary == "bpe":
            path = tmp_path / "bpe"
            path.mkdir()
            tokenizer.save(path, 48)
        config = TokenizerConfig(path=str(path))
    found = import_(str(place), Path("taken"), config, console)
    assert found.proof is not None and found.proof.against.startswith("transformers")
    ours, again = load_model_and_tokenizer(Path("taken"))
    text = "他说：我们走"
    assert again.decode(again.encode(text)) == text
    if source != "nanoGPT":
        ids = torch.arange(20)[None]
        torch.testing.assert_close(ours.eval()(ids), model(ids), atol=1e-6, rtol=0)


def test_what_is_taken_over_is_what_a_run_writes(tmp_path: Path, console: Console) -> None:
    """So whatever leaves from a run leaves from an import as well: sources times targets."""
    tokenizer = TOKENIZERS["char"]()
    model = drawn(small("modern", tokenizer))
    source = our_folder(tmp_path / "ours", model, tokenizer)
    import_(str(source), Path("taken"), TokenizerConfig(), console)
    for file in sorted(source.iterdir()):
        assert file.read_bytes() == (Path("taken") / file.name).read_bytes(), file.name
    assert {f.name for f in Path("taken").iterdir()} == {f.name for f in source.iterdir()} | {"MANIFEST.json"}


@pytest.mark.parametrize(("target", "family", "vocabulary"), GOES)
def test_each_target_opens_it(
    target: str, family: str, vocabulary: str, tmp_path: Path, console: Console
) -> None:
    tokenizer = TOKENIZERS[vocabulary]()
    size = 72 if target == "onnx" else 48
    source = our_folder(tmp_path / "ours", drawn(small(family, tokenizer, block_size=size)), tokenizer)
    reason, precision = not_to(target, family, vocabulary), "f32" if target == "gguf" else None
    if reason is None:
        found = export(source, target, None, precision, True, console)  # type: ignore[arg-type]
        assert found.verdict is not None and not found.verdict.failed
        assert target != "onnx" or found.verdict.numbers["written"] == 64
    else:
        with pytest.raises(ConfigError, match=reason):
            export(source, target, None, precision, True, console)  # type: ignore[arg-type]


@pytest.mark.interop
@pytest.mark.parametrize("vocabulary", [v for v in VOCABULARIES if not_to("gguf", "gpt2", v) is None])
@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_reads_and_writes_the_same(
    family: str, vocabulary: str, tmp_path: Path, console: Console
) -> None:
    assert has_llama(), "make test-interop builds it"
    tokenizer = TOKENIZERS[vocabulary]()
    config = small(family, tokenizer, block_size=256, n_embd=64)
    source = our_folder(tmp_path / "ours", drawn(config), tokenizer)
    found = export(source, "gguf", None, "f32", True, console)
    assert found.verdict is not None and found.verdict.by.startswith("llama.cpp")
    assert found.verdict.numbers["written"] == 200
    assert found.verdict.numbers["agreement"] == 1.0


def test_the_page_shows_this_table() -> None:
    import importlib.util

    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("make_interop", root / "docs" / "make_interop.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (root / "docs" / "interop.md").read_text(encoding="utf-8")
