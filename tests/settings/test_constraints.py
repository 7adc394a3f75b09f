"""A resolved recipe as the base of a new run: which decisions are taken again."""

from pathlib import Path
from typing import Any

import pytest

from yanmo.core.errors import ConfigError
from yanmo.settings.constraints import MEASURED
from yanmo.settings.recipe import (
    decide,
    differences,
    get,
    lengthened,
    load_recipe,
    resumed,
    settings,
    to_toml,
)
from yanmo.settings.schema import FREE_ON_RESUME, Recipe

BY_RULE: dict[str, Any] = {
    "model.n_kv_head": 4,
    "model.head_dim": 64,
    "model.n_inner": 704,
    "model.rope_theta": 1e4,
    "optim.name": "muon",
    "optim.learning_rate": 6e-3,
    "optim.min_lr": 6e-4,
    "tokenizer.kind": "char",
    "data.packing": "offset",
    "data.val_fraction": 0.01,
    "train.minutes": 10.0,
    "train.checkpoint_interval": 200,
    "train.seq_len_warmup": 0.4,
    "sample.prompt": "江湖",
}
BY_MEASURING: dict[str, Any] = {
    "train.device": "cpu",
    "train.threads": 2,
    "train.precision": "bfloat16",
    "train.attention": "sdpa",
    "train.matmul": "torch",
    "train.micro_batch_size": 8,
    "train.compile": False,
    "model.dropout": 0.0,
    "optim.average": 0.0,
    "train.eval_interval": 200,
    "optim.warmup_steps": 100,
}
ALL = BY_RULE | BY_MEASURING


def made(*typed: str, **other: Any) -> Path:
    """The recipe.toml of a run for which so much was typed, and everything else decided."""
    decisions = ALL | {name.replace("__", "."): value for name, value in other.items()}
    recipe = decide(load_recipe(None, ["corpus.path=['a.txt']", *typed]), decisions)
    path = Path("recipe.toml")
    path.write_text(to_toml(recipe), encoding="utf-8")
    return path


def opened(path: Path, *typed: str) -> set[str]:
    """What is no decision any more in a new run with this typed, but for that itself; it is checked that
    it is open, and that nothing else changed."""
    old, new = load_recipe(path), load_recipe(path, typed)
    names = {setting.partition("=")[0] for setting in typed}
    gone = set(old.decided) - set(new.decided) - names
    for name, _ in settings():
        if name not in names:
            assert get(new, name) == get(Recipe() if name in gone else old, name), name
    assert set(new.decided) == set(old.decided) - gone - names
    return gone


@pytest.mark.parametrize(
    "typed",
    [
        "model.n_layer=8", "model.n_embd=1024", "model.block_size=99", "model.n_kv_head=2", "model.init=x",
        "model.dropout=0.2", "optim.name=adamw", "train.batch_size=20", "train.device=cuda", "train.threads=1",
        "train.deterministic=true", "data.document_mask=true", "train.precision=float32",
        "train.attention=matmul", "train.matmul=onednn", "train.micro_batch_size=4", "train.compile=true",
        "train.max_steps=40", "train.epochs=2", "train.minutes=60", "corpus.path=['b.txt']",
        "corpus.split_chapters=true", "tokenizer.path=vocab.txt", "tokenizer.kind=bpe",
        "tokenizer.vocab_size=5000", "data.val_fraction=0.1", "data.stride=8", "data.packing=stride",
    ],
)  # fmt: skip
def test_a_setting_that_changes_speed_or_length_opens_every_decision(typed: str) -> None:
    assert opened(made(), typed) == set(ALL) - {typed.partition("=")[0]}


@pytest.mark.parametrize(
    "typed",
    [
        "optim.learning_rate=1e-4", "optim.schedule=wsd", "train.seed=1", "train.eval_interval=7",
        "train.checkpoint_interval=7", "train.keep_last=3", "sample.temperature=0.5",
    ],
)  # fmt: skip
def test_any_other_setting_opens_only_what_follows_by_rule(typed: str) -> None:
    """Deriving that again costs nothing; measuring again would make another run of it."""
    assert opened(made(), typed) == set(BY_RULE) - {typed.partition("=")[0]}


@pytest.mark.parametrize(
    ("before", "typed", "expected"),
    [
        ("data.packing=stride", "model.block_size=64", "data.stride"),
        ("data.packing=stride", "data.packing=offset", "data.stride"),
        ("model.init=a", "model.init=b", "tokenizer.path"),
        ("model.init=a", "tokenizer.kind=bpe", "tokenizer.path"),
    ],
)
def test_what_only_some_runs_decide_is_open_again(before: str, typed: str, expected: str) -> None:
    path = made(before, data__stride=64 if "stride" in before else None, tokenizer__path="a")
    assert expected in opened(path, typed)


@pytest.mark.parametrize(
    ("typed", "decided"),
    [
        ("train.batch_size=20", {}),  # 8 does not divide it
        ("train.max_steps=100", {}),  # all of it warm-up
        ("model.block_size=99", {}),  # an odd window cannot be halved
        ("optim.learning_rate=1e-4", {}),  # below the old min_lr
        ("train.device=cuda", {"train__matmul": "onednn"}),
        ("data.stride=8", {}),  # means nothing with packing=offset
    ],
)
def test_old_decisions_do_not_make_a_new_setting_impossible(typed: str, decided: dict[str, Any]) -> None:
    path = made(**decided)
    load_recipe(path, [typed])
    path.write_text(path.read_text(encoding="utf-8").replace("decided = [", "decided = []  # ["), "utf-8")
    with pytest.raises(ConfigError):  # where somebody wrote them, they do
        load_recipe(path, [typed])


def test_the_same_value_opens_nothing() -> None:
    path = made("train.max_steps=1000", "model.init=a")
    recipe = load_recipe(path)
    for name, _ in settings():
        value = get(recipe, name)
        if value is not None and not isinstance(value, tuple):
            assert opened(path, f"{name}={str(value).lower() if value in (True, False) else value}") == set()
    assert opened(path, "corpus.path=['a.txt']", "train.minutes=10", "model.n_embd=256") == set()


def test_what_somebody_wrote_is_never_opened() -> None:
    """Neither what was typed for the first run, nor what is typed for a later one."""
    wrote = ("optim.learning_rate=0.004", "train.micro_batch_size=2", "optim.warmup_steps=7")
    gone = opened(made(*wrote), "optim.name=adamw", "model.n_embd=512", "train.batch_size=20")
    assert not {"optim.learning_rate", "train.micro_batch_size", "optim.warmup_steps"} & gone
    assert {"train.precision", "train.seq_len_warmup"} <= gone
    path = made()
    path.write_text(to_toml(load_recipe(path, ["optim.learning_rate=0.006"])), encoding="utf-8")
    assert "optim.learning_rate" not in opened(path, "optim.name=adamw")


@pytest.mark.parametrize("typed", ["train.minutes=20", "train.eval_interval=7", "sample.prompt=夜雨"])
def test_a_run_that_goes_on_keeps_its_decisions(typed: str) -> None:
    """The recipe of a run, asked for again in its own folder."""
    path = made("train.max_steps=1000")
    recorded, asked = load_recipe(path), load_recipe(path, [typed])
    name = typed.partition("=")[0]
    assert differences(asked, recorded) == []
    assert lengthened(asked, recorded) == ({name: 20} if name == "train.minutes" else {})
    again = resumed(asked, recorded)
    assert again.decided == recorded.decided
    free = name.startswith(FREE_ON_RESUME)
    assert all(get(again, other) == get(recorded, other) for other, _ in settings() if other != name)
    assert get(again, name) == get(asked if free else recorded, name)


def test_another_setting_in_the_folder_of_a_run_is_still_refused() -> None:
    path = made()
    changed = differences(load_recipe(path, ["optim.name=adamw"]), load_recipe(path))
    assert changed == ['optim.name: "muon" in the run, "adamw" requested']


def test_what_is_measured_is_a_setting_that_can_be_left_open() -> None:
    assert all(get(Recipe(), name) is None for name in MEASURED)
    assert set(MEASURED) == set(BY_MEASURING)
