import tomllib
from pathlib import Path

import pytest

from yanmo.config import Recipe
from yanmo.errors import ConfigError
from yanmo.recipe import (
    PEER_NAMES,
    decide,
    differences,
    get,
    load_cleaning,
    load_recipe,
    recipe_path,
    recipes_folder,
    resumed,
    settings,
    to_toml,
)


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
    ("override", "what", "mend"),
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
def test_a_wrong_setting_is_answered_with_the_right_one(override: str, what: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, [override])
    assert what in caught.value.what
    assert mend in caught.value.mend


def test_a_command_names_its_own_settings_only() -> None:
    for override, mend in (("clean.lr=1", "did you mean 'clean."), ("foo=1", "corpus, clean, dedup;")):
        with pytest.raises(ConfigError) as caught:
            load_cleaning([override])
        assert mend in caught.value.mend


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


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (
            ["model.n_embd=100", "model.n_head=3"],
            "model.n_embd=100 cannot be shared out among model.n_head=3",
        ),
        (
            ["optim.warmup_steps=50", "train.max_steps=50"],
            "optim.warmup_steps=50 leaves nothing of",
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
    assert changed == ["model.n_layer: 4 in the run, 5 asked"]
    forgotten = differences(Recipe(), made)
    assert forgotten and forgotten[0].startswith("train.max_steps: 9 in the run")


def test_free_settings_change_on_resume_and_others_stay() -> None:
    made = decide(load_recipe(None, ["train.keep_last=5"]), {"train.device": "cpu"})
    again = resumed(load_recipe(None, ["train.eval_interval=7"]), made)
    assert (again.train.eval_interval, again.train.keep_last, again.train.device) == (7, 5, "cpu")


def test_all_our_recipes_load() -> None:
    """Those of other tools are GPT-2s; the rest is what is best here."""
    families = {
        path.stem: get(load_recipe(recipe_path(path.stem)), "model.family")
        for path in recipes_folder().glob("*.toml")
    }
    newer = {"demo": "modern", "modern_small": "modern", "mnbvc_230m": "modern", "moe_small": "moe"}
    older = ("doupo", "nanogpt_cpu", "prose", "shakespeare_char", "wiki_gpt2")
    assert families == newer | dict.fromkeys(older, "gpt2")


def test_docs_settings_lists_every_setting() -> None:
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, description in settings():
        section, _, key = name.partition(".")
        assert f"## [{section}]" in page
        assert f"| `{key}` |" in page
        assert description.replace("|", "\\|") in page, name
