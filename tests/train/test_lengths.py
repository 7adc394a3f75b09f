"""How long a run is: epochs, strides, and going on for longer."""

import json
from pathlib import Path

import pytest

from tests.makers.runs import RUN, StopAt, Trained, losses, tiny_recipe, weights
from tests.makers.texts import invented_text
from yanmo.checkpoint.folder import find_model_folder, newest_first, step_of
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, Stopped
from yanmo.settings.recipe import load_recipe
from yanmo.train.binding import read_plan
from yanmo.train.metrics import read_metrics
from yanmo.train.schedule import learning_rate_at
from yanmo.train.trainer import train


def plan_of(folder: Path) -> StepSchedule:
    return read_plan(folder)


@pytest.mark.slow
def test_epochs_and_strides_give_the_steps(trained: Trained) -> None:
    more = ("train.epochs=1.5", "data.stride=8", "train.max_steps=100000", "train.eval_interval=500")
    result = trained(RUN, *more)
    windows = -(-(len_of_train(RUN) - 17) // 8) + 1
    assert result.progress.step == -(-windows * 1.5 // 8)
    assert result.progress.tokens == result.progress.step * 8 * 16
    assert "data.packing" in load_recipe(RUN / "recipe.toml").decided


def len_of_train(folder: Path) -> int:
    manifest = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    return int(manifest["splits"]["train"]["tokens"])


def test_every_epoch_is_kept_and_the_last_is_final(tmp_path: Path, console: Console) -> None:
    path = tmp_path / "short.txt"
    path.write_text(invented_text(700), encoding="utf-8")
    more = ("train.max_steps=1000", "train.epochs=4", "train.save_every_epoch=true", "train.keep_last=1")
    train(tiny_recipe(path, more=more), RUN, console)
    epochs = [step_of((RUN / "epochs" / str(n)).resolve()) for n in (1, 2, 3, 4)]
    windows = -(-len_of_train(RUN) // 16)
    assert epochs == [-(-windows * n // 8) for n in (1, 2, 3, 4)]
    assert (RUN / "final").resolve() == (RUN / "epochs" / "4").resolve()
    for folder in (RUN / "epochs").iterdir():
        assert folder.is_symlink()
        storage.verify_folder(folder)
    best = find_model_folder(RUN)
    kept = {step_of(folder) for folder in newest_first(RUN)}
    assert kept == {*epochs, step_of(best)}


def test_epochs_that_are_no_longer_kept_do_not_take_back_those_that_were(
    tmp_path: Path, console: Console
) -> None:
    path = tmp_path / "short.txt"
    path.write_text(invented_text(700), encoding="utf-8")
    keep_one = ("train.max_steps=1000", "train.keep_last=1")
    train(tiny_recipe(path, more=(*keep_one, "train.epochs=2", "train.save_every_epoch=true")), RUN, console)
    kept = {link: link.resolve() for link in (RUN / "final", RUN / "epochs" / "1", RUN / "epochs" / "2")}
    result = train(
        tiny_recipe(path, more=(*keep_one, "train.epochs=4", "train.save_every_epoch=false")), RUN, console
    )
    assert result.progress.step > step_of(kept[RUN / "final"])
    assert {link: link.resolve() for link in kept} == kept
    for link in kept:
        storage.verify_folder(link)
    assert sorted(link.name for link in (RUN / "epochs").iterdir()) == ["1", "2"]


@pytest.mark.parametrize("setting", ["train.max_steps=24", "train.epochs=0.6"])
def test_a_finished_run_goes_on_when_its_length_is_raised(
    novel: Path, trained: Trained, console: Console, setting: str
) -> None:
    first = "train.max_steps=12" if "steps" in setting else "train.epochs=0.3"
    unlimited = ("train.max_steps=1000",) if "epochs" in setting else ()
    trained(RUN, *unlimited, first)
    before, end = losses(RUN), plan_of(RUN).total_steps
    result = train(tiny_recipe(novel, more=(*unlimited, setting)), RUN, console)
    total_steps = plan_of(RUN).total_steps
    assert result.progress.step == total_steps == pytest.approx(2 * end, abs=1)
    assert {step: losses(RUN)[step] for step in before} == before
    assert len(losses(RUN)) == total_steps
    assert [r["event"] for r in read_metrics(RUN)].count("end") == 1
    rates = [r["lr"] for r in read_metrics(RUN) if r["event"] == "train"]
    optim = load_recipe(RUN / "recipe.toml").optim
    shorter, longer = StepSchedule.first(end), StepSchedule.first(total_steps)
    assert rates[:end] == [learning_rate_at(step, shorter, optim) for step in range(end)]
    assert rates[end:] == [learning_rate_at(step, longer, optim) for step in range(end, total_steps)]
    assert load_recipe(RUN / "recipe.toml").train.max_steps == (1000 if unlimited else 24)


def test_a_longer_run_that_is_stopped_in_between_is_the_same_run(
    novel: Path, trained: Trained, console: Console
) -> None:
    longer = tiny_recipe(novel, more=("train.max_steps=24",))
    for folder in (Path("whole"), RUN):
        trained(folder)
    train(longer, Path("whole"), console)
    with pytest.raises(Stopped):
        train(longer, RUN, console, take_step=StopAt(17))
    train(longer, RUN, console)
    assert losses(RUN) == losses(Path("whole"))
    assert weights(RUN) == weights(Path("whole"))


def test_a_crash_between_plan_and_recipe_of_a_longer_run_is_survived(
    novel: Path, trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = tiny_recipe(novel, more=("train.max_steps=24",))
    for folder in (Path("whole"), RUN):
        trained(folder)
    train(longer, Path("whole"), console)

    def refuse(path: Path, data: bytes | str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        real = storage.write_json
        broken.setattr(
            storage, "write_json", lambda *a: (real(*a), broken.setattr(storage, "write_atomic", refuse))
        )
        train(longer, RUN, console)
    assert plan_of(RUN).total_steps == 24
    assert load_recipe(RUN / "recipe.toml").train.max_steps == 12
    train(longer, RUN, console)
    assert plan_of(RUN) == plan_of(Path("whole"))
    assert losses(RUN) == losses(Path("whole"))


def test_a_shorter_run_is_refused(novel: Path, trained: Trained, console: Console) -> None:
    trained(RUN)
    with pytest.raises(ConfigError, match="max_steps: 12 in the run, 8 requested"):
        train(tiny_recipe(novel, more=("train.max_steps=8",)), RUN, console)
