import contextlib
import os
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yanmo.core import storage
from yanmo.core.errors import ConfigError
from yanmo.settings.places import shipped
from yanmo.settings.recipe import (
    decide,
    differences,
    get,
    load_cleaning,
    load_recipe,
    longer_setting,
    read_settings,
    recipe_meant,
    recipe_path,
    resumed,
    settings,
    split_arguments,
    to_toml,
    with_values,
)
from yanmo.settings.schema import Recipe
from yanmo.settings.spelling import PEER_HABITS, PEER_NAMES, slips_between


def test_every_setting_says_what_it_does() -> None:
    assert len(dict(settings())) > 30
    assert all(len(description) > 10 for _, description in settings())


def test_a_recipe_survives_writing_and_reading(tmp_path: Path) -> None:
    recipe = load_recipe(
        None, ['corpus.path=["小说 \\"1\\".txt"]', "train.max_steps=7", "sample.prompt=萧\x7f"]
    )
    recipe = decide(recipe, {"train.device": "cpu", "train.max_steps": 99})
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert tomllib.loads(to_toml(recipe))["decided"] == ["train.device"]


def test_only_open_settings_are_decided() -> None:
    recipe = decide(load_recipe(None, ["train.max_steps=5"]), {"train.max_steps": 9, "train.device": "cpu"})
    assert (recipe.train.max_steps, recipe.train.device) == (5, "cpu")


@pytest.mark.parametrize(
    ("override", "what", "hint"),
    [
        (
            "train.max_step=200",
            "unknown setting 'train.max_step'",
            "did you mean 'train.max_steps'?",
        ),
        ("optim.lr=1", "unknown setting 'optim.lr'", "in yanmo it is called optim.learning_rate"),
        ("n_ctx=512", "unknown setting 'n_ctx'", "in yanmo it is called model.block_size"),
        ("block_size=512", "unknown setting 'block_size'", "did you mean 'model.block_size'?"),
        ("trian.seed=1", "unknown setting 'trian.seed'", "did you mean 'train.seed'?"),
        (
            "model.n_layer=-1",
            "model.n_layer=-1: input should be greater than 0",
            "Transformer blocks",
        ),
        ("model.family=rnn", "model.family='rnn'", "GPT2LMHeadModel"),
        ("train.batch_size=many", "train.batch_size='many'", "Sequences per optimizer step"),
    ],
)
def test_a_wrong_setting_is_answered_with_the_right_one(override: str, what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, [override])
    assert what in caught.value.what
    assert hint in caught.value.hint


def test_a_command_names_its_own_settings_only() -> None:
    for override, hint in (
        ("clean.ad=1", "did you mean 'clean.ads'"),
        ("clean.lr=1", "corpus, clean, dedup;"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_cleaning([override])
        assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("sample.prompt=2024", "2024"),
        ('sample.prompt="2024"', "2024"),
        ("sample.prompt=true", "true"),
        ("sample.prompt=[江湖]", "[江湖]"),
        ("sample.stop=。", ("。",)),
        ("sample.stop=12", ("12",)),
        ('sample.stop=["。", "！"]', ("。", "！")),
        ("corpus.path=novel.txt", ("novel.txt",)),
        ("train.device=cpu", "cpu"),
        ("train.seed=2024", 2024),
    ],
)
def test_what_is_typed_for_a_text_is_text(override: str, value: object) -> None:
    assert get(load_recipe(None, [override]), override.partition("=")[0]) == value


def test_all_names_of_peers_lead_to_settings() -> None:
    assert set(PEER_NAMES.values()) <= set(dict(settings()))
    assert not set(PEER_HABITS) & {*PEER_NAMES, *(name.partition(".")[2] for name, _ in settings())}


@pytest.mark.parametrize(
    "names",
    [
        "out_dir eval_iters gradient_accumulation_steps max_iters lr_decay_iters wandb_log decay_lr dtype init_from",
        "raw epochs log_step fp16 gradient_accumulation max_grad_norm output_dir pretrained_model nsamples topk",
        "report_to bf16 per_device_train_batch_size save_total_limit adam_beta1 warmup_ratio eval_steps",
        "max_seq_len num_workers use_wandb accumulation_steps dim n_layers save_interval use_moe from_resume",
    ],
)
def test_names_of_other_tools_are_answered_in_one_line(names: str) -> None:
    """nanoGPT's, GPT2-Chinese's, transformers' and minimind's."""
    for name in names.split():
        for typed in (name, f"train.{name}", name.replace("_", "-")):
            if typed in dict(settings()):
                continue
            with pytest.raises(ConfigError, match="unknown setting") as caught:
                load_recipe(None, [f"{typed}=1"])
            hint = caught.value.hint
            wanted = PEER_NAMES.get(name) or PEER_HABITS.get(name) or f"did you mean 'train.{name}'?"
            assert hint.endswith(wanted) and "sections are" not in hint, typed


@pytest.mark.parametrize(
    "name", ["train.patience", "foo", "model.window", "optim.eps", "loss", "train.x" * 30, "a"]
)
def test_nothing_is_proposed_for_a_name_that_is_near_to_none(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, [f"{name}=1"])
    assert "did you mean" not in caught.value.hint
    assert len(caught.value.what) < 100


@pytest.mark.parametrize(
    ("one", "other", "slips"),
    [("seed", "seed", 0), ("sede", "seed", 1), ("", "seed", 4), ("seeed", "seed", 1), ("abcd", "badc", 2)],
)
def test_slips_are_letters_left_out_put_in_changed_or_swapped(one: str, other: str, slips: int) -> None:
    assert slips_between(one, other) == slips_between(other, one) == slips


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nanogpt-cpu", "nanogpt_cpu"),
        ("Doupo", "doupo"),
        ("duopo.toml", "doupo"),
        ("novel", None),
        ("x", None),
    ],
)
def test_a_misspelt_recipe_is_recognised(name: str, meant: str | None) -> None:
    assert recipe_meant(name) == meant


# -- what is hostile or strange ---------------------------------------------------------------


@pytest.mark.parametrize("value", ["山" * 86, "a" * 300, "x\0y", "\ud800", "/" * 5000, "=="])
def test_what_begins_as_a_setting_is_one_before_any_question_about_files(value: str) -> None:
    for name in ("sample.prompt", "clean.drop_lines", "corpus.path"):
        assert split_arguments([f"{name}={value}", "./a.txt"]) == (["a.txt"], [f"{name}={value}"])
    assert get(load_recipe(None, [f"sample.prompt={value}"]), "sample.prompt") == value


def test_a_file_called_like_a_setting_is_named_by_a_path(own_folder: Path) -> None:
    Path("train.seed=1").write_text("", encoding="utf-8")
    assert split_arguments(["train.seed=1", "./train.seed=1"])[1] == ["train.seed=1"]


@given(st.lists(st.text(st.characters(codec=None)), min_size=1), st.binary(min_size=1))
def test_every_text_and_every_path_survives_a_recipe(texts: list[str], raw: bytes) -> None:
    path = os.fsdecode(raw)
    values = {"corpus.path": [path, *texts], "sample.prompt": texts[0], "model.init": path}
    recipe = with_values(Recipe(), values)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.toml"
        storage.write_atomic(file, to_toml(recipe))
        assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    "text",
    [
        ".".join("a" * 48_000) + " = 1",
        "[" + " . ".join("a" * 48_000) + "]",
        "x = {" + ".".join(['"a"', "'b'"] * 5_000) + " = 1}",
        "x = " + "[" * 20_000,
        "x = " + "9" * 5_000,
        "train = 5",
        "optim = {name = {}}",
        "[[train]]\nseed = 1",
        "decided = 3",
        "x = " + "{a = " * 400 + "1" + "}" * 400,
    ],
)
def test_a_hostile_recipe_is_refused_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        load_recipe(tmp_path / "a.toml", ["train.seed=3"])
    with pytest.raises(ConfigError):
        load_recipe(None, [f"train.seed={text.partition('= ')[2]}", f"train.{text}"])


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "'" * 100_000, "a . " * 60, "“。” ...... " * 5_000, '"' * 99_999]
)
def test_what_only_looks_hostile_is_a_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(to_toml(load_recipe(None, [f"sample.prompt={text}"])), encoding="utf-8")
    assert load_recipe(path).sample.prompt == text


def test_a_file_of_settings_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for count, is_read in ((1 << 20, True), ((1 << 20) + 1, False)):
        path.write_text("#" * count, encoding="utf-8")
        if is_read:
            assert load_recipe(path) == Recipe()
        else:
            with pytest.raises(ConfigError, match="larger than 1 MB"):
                read_settings(Recipe, path)


def test_every_number_has_an_upper_limit() -> None:
    """So that none is too large for what is written in C or Rust."""
    for name, _ in settings():
        for value in ("1e308", str(1 << 70)):
            with contextlib.suppress(ConfigError):
                found = get(load_recipe(None, [f"{name}={value}"]), name)
                assert not isinstance(found, int | float), name


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (
            ["model.n_embd=100", "model.n_head=3"],
            "model.n_embd=100 is not a multiple of model.n_head=3",
        ),
        (
            ["optim.warmup_steps=50", "train.max_steps=50"],
            "optim.warmup_steps=50 is not less than",
        ),
        (
            ["train.batch_size=10", "train.micro_batch_size=4"],
            "train.micro_batch_size=4 does not divide",
        ),
        (["optim.min_lr=1.0", "optim.learning_rate=0.1"], "optim.min_lr=1.0 is above optim.learning_rate"),
    ],
)
def test_impossible_relations_are_refused_with_both_values(overrides: list[str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, overrides)
    assert caught.value.what.startswith(what)


def test_a_broken_recipe_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[train\nseed = 1", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert "bad.toml" in caught.value.where
    assert "line 1" in caught.value.where


def test_a_missing_recipe_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "none.toml")


def test_another_recipe_is_told_from_the_same_one() -> None:
    asked = load_recipe(None, ["train.max_steps=9"])
    made = decide(asked, {"train.device": "cpu", "train.eval_interval": 3})
    assert differences(asked, made) == []
    assert differences(made, made) == []
    assert differences(load_recipe(None, ["train.max_steps=9", "train.eval_interval=1"]), made) == []
    changed = differences(load_recipe(None, ["train.max_steps=9", "model.n_layer=5"]), made)
    assert changed == ["model.n_layer: 4 in the run, 5 requested"]
    assert differences(Recipe(), made) == []  # what is left out is as in the run
    assert differences(load_recipe(None, ["train.minutes=9"]), made) == [
        "train.minutes: left open in the run, 9.0 requested"
    ]


def test_free_settings_change_on_resume_and_others_stay() -> None:
    made = decide(load_recipe(None, ["train.keep_last=5"]), {"train.device": "cpu"})
    again = resumed(load_recipe(None, ["train.eval_interval=7"]), made)
    assert (again.train.eval_interval, again.train.keep_last, again.train.device) == (7, 5, "cpu")


def test_all_our_recipes_load() -> None:
    """Those of other tools are GPT-2s; the rest is what is best here."""
    tuned = {"chat_sft": "full", "drama": "full", "novel_lora": "lora"}
    for name, method in tuned.items():  # they need a base
        assert get(load_recipe(recipe_path(name), ["model.init=base"]), "finetune.method") == method
    families = {
        path.stem: get(load_recipe(recipe_path(path.stem)), "model.family")
        for path in shipped("recipes").glob("*.toml")
        if path.stem not in tuned
    }
    newer = {"demo": "modern", "modern_small": "modern", "mnbvc_230m": "modern", "moe_small": "moe"}
    older = ("doupo", "nanogpt_cpu", "prose", "shakespeare_char", "wiki_gpt2")
    assert families == newer | dict.fromkeys(older, "gpt2")


def test_docs_settings_lists_every_setting() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, description in settings():
        section, _, key = name.partition(".")
        assert f"## [{section}]" in page
        assert f"| `{key}` |" in page
        assert description.replace("|", "\\|") in page, name


@pytest.mark.parametrize(
    ("settings", "elapsed_s", "longer"),
    [
        (("train.minutes=20", "train.epochs=15"), 1197.0, "train.minutes=60"),
        (("train.minutes=20", "train.epochs=15"), 300.0, "train.epochs=45"),
        (("train.max_steps=12",), 1.0, "train.max_steps=36"),
        (("train.max_steps=100", "train.epochs=15"), 1.0, "train.max_steps=300"),
    ],
)
def test_a_longer_run_is_longer_in_what_ended_it(
    settings: tuple[str, ...], elapsed_s: float, longer: str
) -> None:
    assert longer_setting(load_recipe(None, settings).train, 100, elapsed_s) == longer
