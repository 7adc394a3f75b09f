import json
from pathlib import Path

import numpy as np
import pytest

from tests.makers.models import LETTERS, bpe_tokenizer, meta_pickle
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, DataError
from yanmo.core.storage import verify_folder
from yanmo.data.prepare import prepare
from yanmo.hub.imports.importer import Imported, import_
from yanmo.hub.imports.proof import SENTENCES
from yanmo.hub.imports.token_files import read_tokens
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import load_tokenizer

TEXT = "\n".join(SENTENCES) * 5


def nanogpt_data(folder: Path) -> Path:
    """What data/shakespeare_char/prepare.py leaves: nine tenths and one tenth of a text."""
    meta_pickle(folder / "meta.pkl")
    ids = np.array([LETTERS.index(c) if c in LETTERS else 0 for c in TEXT], dtype=np.uint16)
    cut = len(ids) * 9 // 10
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    return folder


def llm_c_data(path: Path, documents: list[str], magic: int = 20240520, dtype: type = np.uint16) -> Path:
    """A shard of llm.c: the token that ends a text stands before each."""
    tokenizer = bpe_tokenizer()
    ids = [n for d in documents for n in (tokenizer.end_of_text, *tokenizer.encode(d).tolist())]
    head = np.zeros(256, dtype=np.int32)
    head[:3] = magic, 1, len(ids)
    path.write_bytes(head.tobytes() + np.array(ids, dtype=dtype).tobytes())
    return path


@pytest.fixture
def vocabulary(tmp_path: Path) -> TokenizerConfig:
    (tmp_path / "bpe").mkdir()
    bpe_tokenizer().save(tmp_path / "bpe", 64)
    return TokenizerConfig(path=str(tmp_path / "bpe"))


def taken(source: Path, console: Console, config: TokenizerConfig | None = None) -> Imported:
    return import_(str(source), Path("taken"), config or TokenizerConfig(), console)


def texts() -> list[str]:
    lines = Path("taken/corpus.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line)["text"] for line in lines if line]


def test_nanogpts_tokens_become_their_text_and_the_same_tokens_again(
    tmp_path: Path, console: Console
) -> None:
    source = nanogpt_data(tmp_path / "data")
    found = taken(source, console)
    expected = "".join(c if c in LETTERS else LETTERS[0] for c in TEXT)
    assert texts() == [expected]  # train.bin and val.bin are one text that was cut
    assert found.values["differing"] == 0
    verify_folder(Path("taken"))
    recipe = load_recipe(None, ["corpus.path=['taken/corpus.jsonl']", "tokenizer.path='taken/tokenizer'"])
    prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, 16, console)
    assert (
        prepared.tokenizer.encode(expected).tolist()[:50] == read_tokens(source / "train.bin")[:50].tolist()
    )


@pytest.mark.parametrize(("magic", "dtype"), [(20240520, np.uint16), (20240801, np.uint32)])
def test_llm_c_shards_are_known_by_their_magic(
    magic: int, dtype: type, tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    path = llm_c_data(tmp_path / "fineweb_train_000001.bin", list(SENTENCES), magic, dtype)
    found = taken(path, console, vocabulary)
    assert texts() == list(SENTENCES)
    assert found.values["documents"] == len(SENTENCES)
    assert load_tokenizer(Path("taken/tokenizer")).vocab_size == bpe_tokenizer().vocab_size


def test_numpy_shards_are_read_without_pickles(
    tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    tokenizer = bpe_tokenizer()
    ids = [tokenizer.end_of_text, *tokenizer.encode(SENTENCES[3]).tolist()]
    np.save(tmp_path / "edu_train_000001.npy", np.array(ids, dtype=np.uint16))
    taken(tmp_path / "edu_train_000001.npy", console, vocabulary)
    assert texts() == [SENTENCES[3]]


def test_the_wrong_vocabulary_is_noticed(
    tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    path = tmp_path / "t.bin"
    np.array([300, 5], dtype=np.uint16).tofile(path)
    with pytest.raises(DataError, match="token 300 is outside the vocabulary of"):
        taken(path, console, vocabulary)
    np.array([0xE4, 5, 0xB8], dtype=np.uint16).tofile(path)  # tokens no text gives
    with pytest.raises(DataError, match="1 of 1 documents give other tokens when encoded again"):
        taken(path, console, vocabulary)
    assert not Path("taken").exists()


def test_files_without_a_vocabulary_ask_for_one(tmp_path: Path, console: Console) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.bin").write_bytes(b"\x01\x00")
    with pytest.raises(ConfigError, match="do not say what their numbers mean"):
        taken(tmp_path / "data", console)


@pytest.mark.parametrize("content", [b"", b"\x01", b"\x01\x02\x03"])
def test_half_tokens_are_refused(
    content: bytes, tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    (tmp_path / "t.bin").write_bytes(content)
    with pytest.raises(DataError, match="not a whole number of tokens"):
        taken(tmp_path / "t.bin", console, vocabulary)


@pytest.mark.parametrize("count", [-1, 5, 1 << 30])
def test_a_header_that_counts_wrong_is_refused(
    count: int, tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    path = llm_c_data(tmp_path / "t.bin", list(SENTENCES))
    data = bytearray(path.read_bytes())
    data[8:12] = np.int32(count).tobytes()
    path.write_bytes(data)
    with pytest.raises(DataError, match="its header says"):
        taken(path, console, vocabulary)


def test_a_nanogpt_config_becomes_a_recipe_that_says_what_it_left_out(
    tmp_path: Path, console: Console
) -> None:
    config = tmp_path / "train_shakespeare_char.py"
    config.write_text(
        "# train a miniature character-level model\n"
        "out_dir = 'out-shakespeare-char'\neval_interval = 250\nalways_save_checkpoint = False\n"
        "gradient_accumulation_steps = 1\nbatch_size = 64\nblock_size = 256\nn_layer = 6\nn_head = 6\n"
        "n_embd = 384\ndropout = 0.2\nlearning_rate = 1e-3\nmax_iters = 5000\nlr_decay_iters = 5000\n"
        "min_lr = 1e-4\nbeta2 = 0.99\nwarmup_iters = 100\n",
        encoding="utf-8",
    )
    found = taken(config, console)
    recipe = load_recipe(Path("taken/recipe.toml"), [])
    assert (recipe.model.n_layer, recipe.model.block_size, recipe.model.dropout) == (6, 256, 0.2)
    assert (recipe.model.family, recipe.model.gelu, recipe.optim.name) == ("gpt2", "erf", "adamw")
    assert (recipe.optim.learning_rate, recipe.optim.min_lr, recipe.optim.beta2) == (1e-3, 1e-4, 0.99)
    assert (recipe.train.batch_size, recipe.train.max_steps, recipe.optim.warmup_steps) == (64, 5000, 100)
    assert "not used by yanmo: always_save_checkpoint" in found.said


def test_a_rate_that_does_not_fall_has_no_warm_up(tmp_path: Path, console: Console) -> None:
    """nanoGPT's finetune_shakespeare.py."""
    config = tmp_path / "finetune.py"
    config.write_text("learning_rate = 3e-5\ndecay_lr = False\nmax_iters = 20\n", encoding="utf-8")
    taken(config, console)
    recipe = load_recipe(Path("taken/recipe.toml"), [])
    assert (recipe.optim.min_lr, recipe.optim.warmup_steps) == (3e-5, 0)


@pytest.mark.parametrize("ids", [[], [-1, 5]])
def test_no_tokens_and_negative_ones_are_refused(
    ids: list[int], tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    np.save(tmp_path / "t.npy", np.array(ids, dtype=np.int32))
    with pytest.raises(DataError):
        taken(tmp_path / "t.npy", console, vocabulary)


def test_an_array_larger_than_the_world_is_refused(
    tmp_path: Path, console: Console, vocabulary: TokenizerConfig
) -> None:
    np.save(tmp_path / "t.npy", np.arange(5, dtype=np.uint16))
    data = (tmp_path / "t.npy").read_bytes()
    head = data.replace(b"(5,), }" + b" " * 30, b"(" + b"9" * 30 + b",), }" + b" ")
    (tmp_path / "t.npy").write_bytes(head)
    with pytest.raises(DataError, match="not an array of tokens"):
        taken(tmp_path / "t.npy", console, vocabulary)


@pytest.mark.parametrize(
    "line", ["batch_size = None", "batch_size = 'x'", "max_iters = 0", "n_layer = " + "1+" * 5000 + "1"]
)
def test_a_config_of_nonsense_is_refused(line: str, tmp_path: Path, console: Console) -> None:
    (tmp_path / "c.py").write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError):
        taken(tmp_path / "c.py", console)
