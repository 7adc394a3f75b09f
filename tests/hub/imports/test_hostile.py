"""What comes from elsewhere is hostile until it is parsed: refused or reported, never run."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.makers.models import (
    LETTERS,
    NanoGPT,
    char_tokenizer,
    drawn,
    nanogpt_checkpoint,
    our_folder,
    reader,
    small,
)
from yanmo.checkpoint.folder import load_model
from yanmo.checkpoint.tensors import check_header, load_weights
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, DataError, StorageError, YanmoError
from yanmo.hub.imports.importer import import_
from yanmo.hub.imports.pickled import open_pickle
from yanmo.hub.imports.token_files import read_tokens
from yanmo.settings.schema import TokenizerConfig


class Bomb:
    """Makes a file when it is unpickled by a reader that runs what it reads."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


class Evaluated(Bomb):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("open('exploded', 'w')",)


def zipped(content: bytes) -> bytes:
    """A .pt whose data.pkl is ours."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
    return file.getvalue()


def deep(count: int) -> bytes:
    return b"\x80\x02" + b"(" * count + b"l" * count + b"."


def sparse_tensor() -> Any:
    """A few bytes that say they are a terabyte."""
    return torch.as_strided(torch.zeros(1), (1 << 20, 1 << 18), (0, 0))


BOMBS = {
    "os.system": pickle.dumps({"model": Bomb()}, protocol=2),
    "eval": pickle.dumps({"model": {"w": Evaluated()}}),
    "os.system, zipped": zipped(pickle.dumps({"model": Bomb()}, protocol=2)),
    "eval, zipped": zipped(pickle.dumps(Evaluated(), protocol=2)),
    "a class of its own": zipped(b"\x80\x02cyanmo.hub.fetch\nfetch_model\n(Vgpt2\ntR."),
    "deep": zipped(deep(200_000)),
    "cut short": pickle.dumps({"model": {}})[:5],
    "no pickle": b"\x00" * 100,
    "nothing": b"",
    "a zip of nothing": zipped(b""),
    "a path out": zipped(pickle.dumps({})).replace(b"archive/version", b"../../../versio"),
}


@pytest.fixture
def watched() -> Any:
    """Nothing in this process starts, connects or evaluates while it reads."""
    events: list[str] = []
    listening = [True]

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        asks_our_fork_server = event == "socket.connect" and isinstance(arguments[1], str)
        watched_for = event in ("os.system", "socket.connect", "pickle.find_class")
        if listening[0] and watched_for and not asks_our_fork_server:
            events.append(event)

    import sys

    sys.addaudithook(listen)
    yield events
    listening[0] = False
    assert events == []
    assert not Path("exploded").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_hostile_checkpoint_is_refused_and_nothing_runs(
    name: str, tmp_path: Path, console: Console, watched: list[str]
) -> None:
    path = tmp_path / "ckpt.pt"
    path.write_bytes(BOMBS[name])
    with pytest.raises(CheckpointError):
        import_(str(path), Path("taken"), TokenizerConfig(), console)
    assert not Path("taken").exists()


@pytest.mark.slow
def test_a_bomb_for_the_true_reader_is_refused_and_nothing_runs(
    tmp_path: Path, console: Console, watched: list[str], true_readers: None
) -> None:
    path = tmp_path / "ckpt.pt"
    path.write_bytes(BOMBS["os.system, zipped"])
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_(str(path), Path("taken"), TokenizerConfig(), console)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["os.system", "eval, zipped"])
def test_a_hostile_pytorch_model_bin_is_refused(
    name: str, tmp_path: Path, console: Console, watched: list[str]
) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(BOMBS[name])
    with pytest.raises(CheckpointError, match="cannot be read"):
        import_(str(source), Path("taken"), TokenizerConfig(), console)


def packed(path: Path, member: str = "", more: bytes = b"") -> Path:
    """A checkpoint of ours whose members are deflated; one of them has more in it than it should."""
    file = io.BytesIO()
    torch.save({"model": {"w": torch.ones(3)}}, file)
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            with target.open(name, "w") as stream:
                stream.write(source.read(name))
                for _ in range(200 if member and name.endswith(member) else 0):
                    stream.write(more)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("member", ["/data.pkl", "/data/0", "/version"])
def test_a_checkpoint_that_unpacks_to_far_more_than_it_is_is_not_opened(member: str, tmp_path: Path) -> None:
    path = packed(tmp_path / "ckpt.pt", member, b"N0" * (1 << 19))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match="bytes unpack to 20") as caught:
        open_pickle(path, seconds=60)
    assert caught.value.where == str(path)


@pytest.mark.slow
def test_a_checkpoint_that_names_one_member_many_times_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save({"model": {"w": torch.ones(1 << 20)}}, path)
    with zipfile.ZipFile(path, "a") as archive:  # 30 names for the same 4 MB
        archive.filelist += [m for m in archive.infolist() if m.file_size >= 1 << 22] * 30
        archive.writestr("archive/more", b"")
    with pytest.raises(CheckpointError, match="unpack to"):
        open_pickle(path, seconds=60)


@pytest.mark.slow
def test_a_checkpoint_that_was_only_packed_again_is_read(tmp_path: Path) -> None:
    assert open_pickle(packed(tmp_path / "ckpt.pt")).tensors["w"].tolist() == [1.0] * 3


@pytest.mark.slow
def test_a_tensor_of_a_terabyte_is_refused_by_a_limit_on_memory(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save({"model": {"w": sparse_tensor()}}, path)
    with pytest.raises(CheckpointError, match=r"asks for more than \d+ MB"):
        open_pickle(path)


@pytest.mark.slow
def test_a_reader_that_does_not_end_is_ended(tmp_path: Path) -> None:
    path = nanogpt_checkpoint(tmp_path / "ckpt.pt", NanoGPT(9, True))
    with pytest.raises(CheckpointError, match=r"took more than 0.01 s"):
        open_pickle(path, seconds=0.01)


@pytest.mark.slow
def test_a_refusal_says_what_was_asked_for_and_gives_no_bad_advice(tmp_path: Path) -> None:
    (tmp_path / "ckpt.pt").write_bytes(BOMBS["os.system, zipped"])
    with pytest.raises(CheckpointError) as caught:
        open_pickle(tmp_path / "ckpt.pt")
    assert "posix.system" in caught.value.what or "os.system" in caught.value.what
    assert "weights_only" not in caught.value.what


@pytest.mark.slow
def test_what_a_pickle_holds_beside_tensors_comes_back_as_plain_values(tmp_path: Path) -> None:
    found = open_pickle(nanogpt_checkpoint(tmp_path / "ckpt.pt", NanoGPT(9, True), "play"))
    assert found.values["model_args"]["bias"] is True
    assert found.values["config"]["dataset"] == "play"
    assert found.values["best_val_loss"] == pytest.approx(1.4697)
    assert "optimizer" not in found.values
    assert "_orig_mod.lm_head.weight" in found.tensors


@pytest.mark.slow
def test_a_hostile_meta_pickle_is_refused(tmp_path: Path, console: Console, watched: list[str]) -> None:
    path = nanogpt_checkpoint(tmp_path / "ckpt.pt", NanoGPT(len(LETTERS), True))
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"itos": Bomb()}))
    with pytest.raises(CheckpointError):
        import_(str(path), Path("taken"), TokenizerConfig(), console)


@pytest.mark.slow
def test_an_array_of_objects_is_no_list_of_tokens(
    tmp_path: Path, console: Console, watched: list[str]
) -> None:
    np.save(tmp_path / "tokens.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    config = TokenizerConfig(path=str(our_folder(tmp_path / "v", reader(), char_tokenizer())))
    with pytest.raises(DataError, match="not an array of tokens"):
        import_(str(tmp_path / "tokens.npy"), Path("taken"), config, console)


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(16)


NPY_HEADER = b"{'descr': '<u2', 'fortran_order': False, 'shape': (8,), }\n"
ARRAYS = {
    "a bracket nobody closes": npy(NPY_HEADER.replace(b")", b" ")),
    "a quote nobody closes": npy(NPY_HEADER.replace(b"'<u2'", b"'" * 3)),
    "lines pushed in and out": npy(b"  {'descr'\n :1}\n 1\n"),
    "a call": npy(b"print('exploded')\n"),
    "no dictionary": npy(b"[1]\n"),
    "a key that is a list": npy(b"{[]: 1}\n"),
    "a shape of a text": npy(NPY_HEADER.replace(b"(8,)", b"'8'")),
    "a type that is none": npy(NPY_HEADER.replace(b"'<u2'", b"{'u'}")),
    "a shape below nothing": npy(NPY_HEADER.replace(b"(8,)", b"(-8,)")),
    "a shape of a terabyte": npy(NPY_HEADER.replace(b"(8,)", b"(1099511627776,)")),
    "depth": npy(b"(" * 9000 + b"\n"),
    "a header that is cut off": npy(NPY_HEADER)[:30],
    "nothing behind its name": b"\x93NUMPY",
    "a version of its own": b"\x93NUMPY\x09\x09" + bytes(100),
    "a NUL": npy(NPY_HEADER.replace(b"8", b"\x00")),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_damaged_array_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    path.write_bytes(ARRAYS[name])
    with pytest.raises((DataError, StorageError)) as caught:
        read_tokens(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("line", "is_read"),
    [
        ("import os\nbatch_size = 12", True),
        ("__import__('os').system('touch exploded')", False),
        ("batch_size = __import__('os').system('touch exploded')", False),
        ("learning_rate = 9 ** 9 ** 9", False),
        ("n_layer = 10**400 * 2", False),
        ("for i in range(10**9): pass", False),
        ("wandb_run_name = 'x' + str(open('exploded', 'w'))", True),
        ("n_layer = " + "(" * 500 + "1" + ")" * 500, False),
        ("n_layer = 1 +", False),
        ("block_size = 5 * 8\nmax_iters = block_size * 100", True),
        ("n_layer = 0x" + "f" * 5000, False),
        ("learning_rate = 1e999", False),
        ("max_iters = -0x" + "f" * 5000, False),
        ("batch_size = 10**400", False),
        ("  n_layer = 3\n n_head = 4", False),
        ("n_layer = '''3", False),
        ("n_layer = (3,\n", False),
        ("n_layer = 3\x00", False),
        ("note = 0x" + "f" * 5000, True),
    ],
)
def test_a_config_is_parsed_and_never_run(
    line: str, is_read: bool, tmp_path: Path, console: Console, watched: list[str]
) -> None:
    path = tmp_path / "train.py"
    path.write_text(line, encoding="utf-8")
    if is_read:
        import_(str(path), Path("taken"), TokenizerConfig(), console)
        assert Path("taken/recipe.toml").exists()
    else:
        with pytest.raises(ConfigError):
            import_(str(path), Path("taken"), TokenizerConfig(), console)


# -- safetensors ------------------------------------------------------------------------------


def header(entries: dict[str, Any] | str, data: int = 8) -> bytes:
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return struct.pack("<Q", len(text)) + text + b"\x00" * data


def tensor(start: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS = {
    "overlapping": header({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, 12),
    "with a hole": header({"a": tensor(0, 4, [1]), "b": tensor(8, 12, [1])}, 12),
    "too large": header({"a": tensor(0, 1 << 40, [1 << 38])}),
    "of another size": header({"a": tensor(0, 8, [3])}),
    "of negative size": header({"a": tensor(0, 8, [-2])}),
    "with bytes left over": header({"a": tensor(0, 4, [1])}),
    "of no known dtype": header({"a": tensor(0, 8, [2], "F33")}),
    "twice": header('{"a": %s, "a": %s}' % ((json.dumps(tensor(0, 8, [2])),) * 2)),
    "of many dimensions": header({"a": tensor(0, 8, [3] * 100_000)}),
    "of long numbers": header({"a": tensor(0, 8, [10**4000, 10**4000])}),
    "of true": header({"a": tensor(0, 4, [True])}, 4),
    "longer than the file": struct.pack("<Q", 1 << 60) + b"{}",
    "no JSON": header("{"),
    "not a JSON object": header("[1]"),
    "deep": header("[" * 100_000),
    "empty": b"",
    "torn": b"\x01\x00",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(HEADERS[name])
    with pytest.raises(CheckpointError) as caught:
        load_weights(tmp_path)
    assert len(caught.value.what) < 400


def test_a_true_header_is_not(tmp_path: Path) -> None:
    save_file(
        {"a": torch.ones(3), "b": torch.ones(2, 2).half(), "c": torch.ones(())}, tmp_path / "x.safetensors"
    )
    check_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "x.bin", 5])
def test_an_index_names_files_beside_it_only(name: object, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": name}}), encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match="not a file in its folder|damaged"):
        load_weights(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s["model"]["vocab"].update(far=1 << 40),
        lambda s: s["model"]["vocab"].update(far=5000),
        lambda s: s["model"]["vocab"].update(low=-1),
        lambda s: s["model"]["vocab"].update(twice=3),
        lambda s: s.update(model=None),
    ],
)
def test_a_vocabulary_of_wrong_ids_is_refused(spoil: Any, tmp_path: Path, console: Console) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    spec = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    spoil(spec)
    (source / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    with pytest.raises(YanmoError) as caught:
        import_(str(source), Path("taken"), TokenizerConfig(), console)
    assert caught.value.exit_code == 4


@pytest.mark.slow
def test_a_key_that_asks_for_code_is_passed_over(tmp_path: Path, console: Console) -> None:
    source = our_folder(tmp_path / "theirs", reader(), char_tokenizer())
    (source / "evil.py").write_text("open('exploded', 'w')", encoding="utf-8")
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    values["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
    (source / "config.json").write_text(json.dumps(values), encoding="utf-8")
    import_(str(source), Path("taken"), TokenizerConfig(), console)
    assert not Path("exploded").exists()
    assert not (Path("taken") / "evil.py").exists()
    assert "auto_map" not in Path("taken/config.json").read_text(encoding="utf-8")


SHAPES = {
    "gpt2": {"n_embd": 64, "n_layer": 9, "n_positions": 5, "n_inner": 3, "vocab_size": 7},
    "modern": {"hidden_size": 48, "num_hidden_layers": 9, "num_key_value_heads": 1, "intermediate_size": 3},
    "moe": {"n_routed_experts": 9, "moe_intermediate_size": 3, "head_dim": 6, "first_k_dense_replace": 3},
}


@pytest.mark.parametrize(
    ("family", "key"), [(family, key) for family, keys in SHAPES.items() for key in keys]
)
def test_a_config_that_contradicts_the_weights_is_refused_by_name(
    family: str, key: str, tmp_path: Path
) -> None:
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "m", drawn(small(family, tokenizer)), tokenizer)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(values | {key: SHAPES[family][key]}), encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, verify=False)
    assert str(folder) in caught.value.where and caught.value.hint


@pytest.mark.parametrize("part", [0, 4, 8, 40, 200, -1, -4])
def test_damaged_weights_are_refused_or_numbers(part: int, tmp_path: Path) -> None:
    tokenizer = char_tokenizer()
    folder = our_folder(tmp_path / "m", drawn(small("gpt2", tokenizer)), tokenizer)
    whole = (folder / "model.safetensors").read_bytes()
    at = part % len(whole)
    for content in (
        whole[:at],
        whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :],
        whole[:at] + whole[at + 1 :],
        whole[:at] + b"\xff" + whole[at:],
    ):
        (folder / "model.safetensors").write_bytes(content)
        try:
            load_model(folder, verify=False)
        except CheckpointError as error:
            assert str(folder) in error.where
