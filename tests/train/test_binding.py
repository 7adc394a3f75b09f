"""A recipe and a plan that were changed by hand train no other model behind anybody's back."""

import io
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.makers.runs import RUN, StopAt, Trained, losses, tiny_recipe, weights
from yanmo.checkpoint.folder import Progress, load_training, newest_first, step_of
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, Stopped
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.train import metrics as metrics_module
from yanmo.train import resume
from yanmo.train import run as run_module
from yanmo.train.binding import bound_keys
from yanmo.train.metrics import METRICS, SUPERSEDED, read_metrics
from yanmo.train.trainer import train


def stopped(*more: str) -> None:
    with pytest.raises(Stopped):
        train(tiny_recipe("novel.txt", more=more), RUN, Console(io.StringIO()), take_step=StopAt(9))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stopped") / "run"


@pytest.fixture
def stopped_run(novel: Path, kept: Path) -> None:
    """A run that was stopped after ten steps: trained once, and copied from then on."""
    if kept.exists():
        shutil.copytree(kept, RUN, symlinks=True)
    else:
        stopped()
        shutil.copytree(RUN, kept, symlinks=True)


def edit(name: str, pattern: str, by: str) -> None:
    path = RUN / name
    before = path.read_text(encoding="utf-8")
    after = re.sub(pattern, by, before, count=1, flags=re.MULTILINE)
    assert after != before
    path.write_text(after, encoding="utf-8")


def again() -> Recipe:
    """The same command, which names the recipe of the run."""
    return load_recipe(RUN / "recipe.toml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", "0.03"),
        ("warmup_steps", "3"),
        ("dropout", "0.2"),
        ("rope_theta", "20000.0"),
        ("weight_decay", "0.2"),
        ("seed", "1338"),
        ("seq_len_warmup", "0.1"),
        ("n_layer", "3"),
        ("block_size", "15"),
    ],
)
def test_a_changed_digit_of_the_recipe_is_named(
    console: Console, stopped_run: None, key: str, value: str
) -> None:
    edit("recipe.toml", rf"^{key} = [^ ]+", f"{key} = {value}")
    with pytest.raises(CheckpointError, match=rf"\.{key}={value}.*step-00000010") as caught:
        train(again(), RUN, console)
    assert "recipe.toml" in caught.value.where


@pytest.mark.parametrize(
    ("name", "pattern", "by"),
    [
        ("plan.json", '"horizon": 12', '"horizon": 92'),
        ("plan.json", '"progress": 0.0', '"progress": 0.5'),
        ("plan.json", '"from_step"', '"from"'),
        ("plan.json", r"^\{", "[" * 100_000),
        ("recipe.toml", "^max_steps = 12", "max_steps = 92"),
        ("recipe.toml", "^n_layer = 2", "n_layer = two"),
        ("recipe.toml", "^n_head = 2", "n_head = 3"),
        ("corpus.json", '"corpus": "', '"corpus": "0'),
        ("corpus.json", '"splits"', '"split"'),
        ("corpus.json", '"vocab_size": ', '"vocab_size": -'),
    ],
)
def test_a_record_that_somebody_changed_is_an_error_that_names_it(
    console: Console, stopped_run: None, name: str, pattern: str, by: str
) -> None:
    asked = again()
    edit(name, pattern, by)
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        train(asked, RUN, console)
    assert name in str(caught.value)


def test_a_plan_without_a_seal_is_bound_by_the_checkpoint_and_the_limit(
    novel: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped("train.minutes=90")
    plan = storage.read_json(RUN / "plan.json")
    del plan["check"]
    plan["aims"][0]["progress"] = 0.25
    storage.write_json(RUN / "plan.json", plan)
    with pytest.raises(CheckpointError, match="other aims up to step 10"):
        train(again(), RUN, console)
    storage.write_json(RUN / "plan.json", {"aims": [{"from_step": 0, "progress": 0.0, "horizon": 13}]})
    with pytest.raises(CheckpointError, match="ends at step 13, but recipe.toml allows 12"):
        train(again(), RUN, console)


def test_states_and_plans_of_before_are_read(
    novel: Path, trained: Trained, console: Console, stopped_run: None
) -> None:
    trained("whole")
    for folder in newest_first(RUN):
        path = folder / "training" / "state.json"
        state = storage.read_json(path)
        storage.write_json(path, {key: state[key] for key in ("schema", "progress", "environment")})
        manifest = storage.read_json(folder / storage.MANIFEST)
        about = {"bytes": path.stat().st_size, "sha256": storage.sha256_of(path)}
        manifest["files"]["training/state.json"] = about
        storage.write_json(folder / storage.MANIFEST, manifest)
        assert load_training(folder)[0].step == step_of(folder)
    storage.write_json(RUN / "plan.json", {"aims": storage.read_json(RUN / "plan.json")["aims"]})
    train(again(), RUN, console)
    assert (losses(RUN), weights(RUN)) == (losses(Path("whole")), weights(Path("whole")))


def test_another_shape_is_named_where_the_state_does_not_say(
    console: Console, stopped_run: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "require_bound", lambda *_: None)
    edit("recipe.toml", "^n_embd = 16", "n_embd = 32")
    with pytest.raises(CheckpointError, match="another shape"):
        train(again(), RUN, console)


def test_a_run_that_was_cut_off_while_it_was_made_longer_is_as_long_as_its_plan(
    novel: Path, trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(RUN)
    before = again()

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume, "to_toml", killed)
        train(tiny_recipe("novel.txt", more=("train.max_steps=16",)), RUN, console)
    assert again() == before
    assert train(before, RUN, console).progress.step == 16
    assert again().train.max_steps == 16


def test_what_is_free_is_not_bound() -> None:
    keys = set(bound_keys())
    assert {"optim.learning_rate", "model.dropout", "model.rope_theta", "train.seed", "train.device"} <= keys
    assert not keys & {"train.keep_last", "train.max_steps", "sample.seed", "data.workers", "corpus.path"}


# -- what a run keeps beside its checkpoints --------------------------------------------------


@pytest.mark.parametrize(
    "row", ["[]", "3", "null", '{"step": 2}', '{"event": "train", "step": "2"}', '{"event": "eval", "step": 4}',
            '{"event": "train", "step": NaN}', "[" * 100_000, '{"event": 3}',
            '{"event": "train", "stepx": 4, "loss_hex": "0x1p+2"}', '{"event": "train", "step": 4, "loss": 2.5}']
)  # fmt: skip
def test_a_damaged_row_moves_aside(novel: Path, trained: Trained, console: Console, row: str) -> None:
    trained(RUN)
    path = RUN / METRICS
    before = path.read_bytes()
    first, rest = before.split(b"\n", 1)
    path.write_bytes(b"\n".join([first, row.encode(), rest]))
    assert len(read_metrics(RUN)) == before.count(b"\n")
    train(again(), RUN, console)
    assert path.read_bytes() == before
    assert (RUN / SUPERSEDED).read_bytes() == row.encode() + b"\n"


def test_a_kill_behind_the_last_save_leaves_no_checkpoint_too_many(
    novel: Path, trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("train.keep_last=1",)
    trained("whole", *more)

    def killed(run: run_module.Run, progress: Progress, checkpoint: Path) -> None:
        if progress.step == 12:
            raise KeyboardInterrupt
        resume.point_to_best(run, progress, checkpoint)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("yanmo.train.trainer.point_to_best", killed)
        train(tiny_recipe(novel, more=more), RUN, console)
    train(tiny_recipe(novel, more=more), RUN, console)
    kept = [step_of(folder) for folder in newest_first(RUN)]
    assert kept == [step_of(folder) for folder in newest_first(Path("whole"))]


@pytest.mark.parametrize("failing", ["made", "adding", "closing"])
def test_tensorboard_warns_once_and_training_goes_on(
    novel: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    import torch.utils.tensorboard

    trained("whole")
    heard = io.StringIO()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    class Writer:
        __init__ = fail if failing == "made" else lambda self, *_, **__: None
        add_scalar = fail if failing == "adding" else lambda self, *_: None
        close = fail

    monkeypatch.setattr(torch.utils.tensorboard, "SummaryWriter", Writer)
    monkeypatch.setattr(metrics_module.importlib.util, "find_spec", lambda name: True)
    result = train(tiny_recipe(novel), RUN, Console(heard))
    assert heard.getvalue().count("TensorBoard files cannot be written") == 1
    assert result.progress.step == 12 and losses(RUN) == losses(Path("whole"))
    assert [json.loads(line)["event"] for line in (RUN / METRICS).read_text().splitlines()][-1] == "end"
