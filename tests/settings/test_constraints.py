"""A resolved recipe as the base of a new run: decisions that rest on what is typed now are open again."""

from pathlib import Path
from typing import Any

import pytest

from yanmo.core.errors import ConfigError
from yanmo.settings.constraints import GROUNDS
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
from yanmo.settings.schema import FREE_ON_RESUME, SECTIONS, SHAPE_KEYS, Recipe

SHAPE = {"model.n_kv_head": 4, "model.head_dim": 64, "model.n_inner": 704, "model.rope_theta": 1e4}
PASS = {
    "train.precision": "bfloat16",
    "train.attention": "sdpa",
    "train.matmul": "torch",
    "train.micro_batch_size": 8,
}
LENGTH = {
    "train.eval_interval": 200,
    "train.checkpoint_interval": 200,
    "optim.warmup_steps": 100,
    "model.dropout": 0.0,
    "train.compile": False,
}
RATES = {"optim.learning_rate": 6e-3, "optim.min_lr": 6e-4}
KIND = {"tokenizer.kind": "char", "sample.prompt": "江湖"}
REST = {
    "train.device": "cpu",
    "train.threads": 2,
    "train.minutes": 10.0,
    "data.packing": "offset",
    "data.val_fraction": 0.01,
    "optim.name": "muon",
    "train.seq_len_warmup": 0.4,
}
ALL: dict[str, Any] = SHAPE | PASS | LENGTH | RATES | KIND | REST


OF_A_PASS = [
    "model.n_layer=8", "model.n_embd=512", "model.block_size=64", "model.dropout=0.2", "corpus.path=['b.txt']",
    "tokenizer.vocab_size=5000", "data.document_mask=true", "train.batch_size=20", "train.device=cuda",
    "train.threads=1", "train.deterministic=true", "train.precision=float32", "train.attention=matmul",
    "train.matmul=onednn", "train.micro_batch_size=2",
]  # fmt: skip
OF_A_LENGTH = [
    *OF_A_PASS, "train.max_steps=1000", "train.epochs=2", "train.minutes=60", "optim.name=adamw",
    "data.val_fraction=0.1", "data.stride=4",
]  # fmt: skip
PAIRS = {
    **{key: ["model.family=moe", "model.n_embd=512", "model.init=x"] for key in SHAPE},
    "data.stride": ["model.block_size=64"],
    "data.packing": ["data.stride=4"],
    "optim.name": ["model.init=x"],
    "optim.learning_rate": ["optim.name=adamw", "model.n_embd=512", "model.init=x"],
    "optim.min_lr": ["optim.learning_rate=0.1"],
    "tokenizer.kind": ["corpus.path=['b.txt']", "tokenizer.path=b", "model.init=x"],
    "tokenizer.path": ["tokenizer.kind=bpe", "model.init=x"],
    "data.val_fraction": ["corpus.path=['b.txt']"],
    **dict.fromkeys(PASS, OF_A_PASS),
    "train.compile": OF_A_LENGTH,
    "train.minutes": ["train.max_steps=1000", "train.epochs=2"],
    "train.eval_interval": [*OF_A_LENGTH, "train.compile=true"],
    "train.checkpoint_interval": [*OF_A_LENGTH, "train.compile=true", "train.eval_interval=7"],
    "optim.warmup_steps": [*OF_A_LENGTH, "train.compile=true"],
    "model.dropout": [*OF_A_LENGTH, "train.compile=true"],
    "sample.prompt": [
        "corpus.path=['b.txt']", "tokenizer.vocab_size=5000", "data.val_fraction=0.1", "model.block_size=64"
    ],
    "train.seq_len_warmup": ["optim.name=adamw", "model.init=x", "model.block_size=64"],
}  # fmt: skip
"""Each decision, and settings that open it by themselves."""


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
    ("typed", "expected"),
    [
        ("model.n_layer=8", {*SHAPE, *PASS, *LENGTH}),
        ("model.n_embd=1024", {*SHAPE, *PASS, *LENGTH, *RATES}),
        ("model.block_size=99", {*SHAPE, *PASS, *LENGTH, "sample.prompt", "train.seq_len_warmup"}),
        ("model.n_kv_head=2", {*SHAPE, *PASS, *LENGTH} - {"model.n_kv_head"}),
        ("model.init=x", {*SHAPE, *PASS, *LENGTH, *RATES, *KIND, "optim.name", "train.seq_len_warmup"}),
        ("model.dropout=0.2", {*PASS, *LENGTH} - {"model.dropout"}),
        ("optim.name=adamw", {*PASS, *LENGTH, *RATES, "train.seq_len_warmup"}),
        ("optim.learning_rate=1e-4", {"optim.min_lr"}),
        ("train.batch_size=20", {*PASS, *LENGTH}),
        ("train.device=cuda", {*PASS, *LENGTH}),
        ("train.threads=1", {*PASS, *LENGTH}),
        ("train.deterministic=true", {*PASS, *LENGTH}),
        ("data.document_mask=true", {*PASS, *LENGTH}),
        ("train.precision=float32", {*PASS, *LENGTH} - {"train.precision"}),
        ("train.attention=matmul", {*PASS, *LENGTH} - {"train.attention"}),
        ("train.matmul=onednn", {*PASS, *LENGTH} - {"train.matmul"}),
        ("train.micro_batch_size=4", {*PASS, *LENGTH} - {"train.micro_batch_size"}),
        ("train.compile=true", {*PASS, *LENGTH} - {"train.compile"}),
        ("train.max_steps=40", {*PASS, *LENGTH, "train.minutes"}),
        ("train.epochs=2", {*PASS, *LENGTH, "train.minutes"}),
        ("train.minutes=60", {*PASS, *LENGTH}),
        ("train.eval_interval=7", {"train.checkpoint_interval"}),
        ("corpus.path=['b.txt']", {*KIND, *PASS, *LENGTH, "data.val_fraction"}),
        ("corpus.split_chapters=true", {*KIND, *PASS, *LENGTH, "data.val_fraction"}),
        ("tokenizer.path=vocab.txt", {*KIND, *PASS, *LENGTH}),
        ("tokenizer.kind=bpe", {*PASS, *LENGTH, "sample.prompt"}),
        ("tokenizer.vocab_size=5000", {*PASS, *LENGTH, "sample.prompt"}),
        ("data.val_fraction=0.1", {*PASS, *LENGTH, "sample.prompt"}),
        ("data.stride=8", {*PASS, *LENGTH, "data.packing"}),
        ("data.packing=stride", {*PASS, *LENGTH}),
        ("optim.schedule=wsd", set()),
        ("train.seed=1", set()),
        ("train.checkpoint_interval=7", set()),
    ],
)
def test_what_rests_on_a_changed_setting_is_open_again(typed: str, expected: set[str]) -> None:
    assert opened(made(), typed) == expected


@pytest.mark.parametrize(
    ("name", "typed"),
    [(name, typed) for name, all_typed in PAIRS.items() for typed in all_typed if name not in typed],
)
def test_each_ground_opens_what_rests_on_it(name: str, typed: str) -> None:
    """In a recipe of which nothing else was decided."""
    path = made(train__micro_batch_size=4, data__packing="stride", data__stride=8, tokenizer__path="a")
    recipe = load_recipe(path)
    path.write_text(to_toml(recipe.model_copy(update={"decided": (name,)})), encoding="utf-8")
    assert opened(path, typed) == {name}


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
    typed = ("optim.learning_rate=0.004", "train.micro_batch_size=2", "optim.warmup_steps=7")
    gone = opened(made(*typed), "optim.name=adamw", "model.n_embd=512", "train.batch_size=20")
    assert not {*RATES, "train.micro_batch_size", "optim.warmup_steps"} & gone
    assert {"train.precision", "train.seq_len_warmup"} <= gone
    path = made()
    path.write_text(to_toml(load_recipe(path, ["optim.learning_rate=0.006"])), encoding="utf-8")
    assert "optim.learning_rate" not in opened(path, "optim.name=adamw")


def test_several_settings_and_one_that_is_typed_itself() -> None:
    pinned = ("optim.learning_rate=0.006", "train.compile=false")  # both as they are
    short = "train.seq_len_warmup"
    moved = {*PASS, *LENGTH, short}
    assert opened(made(), "optim.name=adamw", *pinned) == moved - {"train.compile"}
    assert opened(made(), "optim.name=adamw", "optim.learning_rate=1e-3") == moved | {"optim.min_lr"}


def test_a_longer_run_that_may_want_dropout_is_measured_anew_unless_dropout_is_settled() -> None:
    """torch's attention is fast without dropout, and holds every weight with it."""
    assert "train.attention" in opened(made(), "train.minutes=60")
    assert not set(PASS) & opened(made("model.dropout=0"), "train.minutes=60")


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
    assert changed == ['optim.name: "muon" in the run, "adamw" asked']


def test_every_decision_has_its_grounds() -> None:
    left_open = {name for name, _ in settings() if get(Recipe(), name) is None}
    never_decided = {"data.workers", "model.init", "train.max_steps", "train.epochs"}
    assert set(GROUNDS) == left_open - never_decided | {f"model.{key}" for key in SHAPE_KEYS}
    known = {name for name, _ in settings()} | {f"{section}." for section in SECTIONS}
    assert {ground for grounds in GROUNDS.values() for ground in grounds} <= known
