"""A run from an empty folder to a model, interrupted in every way there is."""

import errno
import io
import json
import re
import signal
import time
from itertools import count
from pathlib import Path

import pytest
import torch

from tests.makers.runs import RUN, DivergeAt, StopAt, Trained, losses, tiny_recipe, weights, without_times
from tests.makers.texts import invented_text
from yanmo.checkpoint.folder import (
    find_model_folder,
    load_shape,
    load_training,
    newest_first,
    step_of,
)
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import BusyError, CheckpointError, ConfigError, DivergedError, Stopped, StorageError
from yanmo.data.batches import Batches
from yanmo.data.prepare import prepare
from yanmo.eval.assess import evaluate
from yanmo.train import trainer
from yanmo.train.binding import read_plan
from yanmo.train.metrics import read_metrics
from yanmo.train.step import StepResult, training_step
from yanmo.train.trainer import train


def test_a_run_leaves_what_the_design_promises(trained: Trained) -> None:
    result = trained(RUN)
    assert result.progress.step == 12
    for name in (
        "recipe.toml",
        "plan.json",
        "corpus.json",
        "metrics.jsonl",
        "samples",
        "checkpoints",
        "model",
    ):
        assert (RUN / name).exists(), name
    assert [step_of(folder) for folder in newest_first(RUN)][:2] == [12, 8]
    best = f"step-{result.progress.best_step:08d}"
    assert (RUN / "model").resolve().name == best
    assert not [p for p in RUN.rglob("*") if p.name.startswith(storage.TEMPORARY)]
    for folder in newest_first(RUN):
        storage.verify_folder(folder)
    assert (RUN / "samples" / "step-00000012.txt").read_text(encoding="utf-8").strip()


def test_metrics_are_complete_rows(trained: Trained) -> None:
    trained(RUN)
    rows = read_metrics(RUN)
    events = [row["event"] for row in rows]
    assert events[0] == "start" and events[-1] == "end"
    assert rows[0]["schema"] == 1
    assert rows[0]["uniform_bits_per_char"] > rows[0]["unigram_bits_per_char"] > 0
    steps = [row for row in rows if row["event"] == "train"]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert set(steps[0]) == {
        "event", "step", "loss", "loss_hex", "lr", "grad_norm", "tokens", "tokens_per_s", "elapsed_s",
        "batch", "aligned", "spread", "data_wait", "update_least", "update_median", "update_most",
    }  # fmt: skip
    assert float.fromhex(steps[0]["loss_hex"]) == steps[0]["loss"]
    evaluations = [row for row in rows if row["event"] == "eval"]
    assert [row["step"] for row in evaluations] == [4, 8, 12]
    assert set(evaluations[0]) == {
        "event",
        "step",
        "val_loss",
        "val_bits_per_char",
        "val_perplexity",
    }


def test_the_loss_falls(trained: Trained) -> None:
    result = trained(RUN, "train.max_steps=60", "train.eval_interval=60")
    assert result.progress.val_bits_per_char is not None
    assert result.progress.val_bits_per_char < result.lines.uniform - 1


@pytest.mark.parametrize(
    ("precision", "attention", "optimizer"),
    [  # each two of them meet
        ("float32", "sdpa", "adamw"),
        ("float32", "matmul", "muon"),
        ("bfloat16", "sdpa", "muon"),
        ("bfloat16", "matmul", "adamw"),
    ],
)
def test_resume_equals_never_stopped(
    novel: Path,
    trained: Trained,
    console: Console,
    precision: str,
    attention: str,
    optimizer: str,
) -> None:
    more = (f"train.precision={precision}", f"train.attention={attention}", f"optim.name={optimizer}")
    more += ("train.seq_len_warmup=0.5", "model.dropout=0.1")
    trained("whole", *more)
    for step in (0, 5, 8):
        with pytest.raises(Stopped) as caught:
            train(tiny_recipe(novel, more=more), Path("stopped"), console, take_step=StopAt(step))
        assert caught.value.exit_code == 143
        assert step_of(next(newest_first(Path("stopped")))) == step + 1
    train(tiny_recipe(novel, more=more), Path("stopped"), console)
    assert losses(Path("stopped")) == losses(Path("whole"))
    assert weights(Path("stopped")) == weights(Path("whole"))
    evaluations = [
        [row["val_loss"] for row in read_metrics(Path(run)) if row["event"] == "eval"]
        for run in ("whole", "stopped")
    ]
    assert evaluations[0] == evaluations[1]


def test_ctrl_c_is_answered_with_130(novel: Path, console: Console) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped) as caught:
        train(tiny_recipe(novel), RUN, console, take_step=StopAt(3, signal.SIGINT))
    assert caught.value.exit_code == 130
    assert "the same command resumes" in caught.value.hint
    assert signal.getsignal(signal.SIGINT) is before


def test_the_same_command_on_a_finished_run_prints_its_result(
    novel: Path, trained: Trained, console: Console
) -> None:
    first = trained(RUN)
    metrics = (RUN / "metrics.jsonl").read_bytes()
    again = train(tiny_recipe(novel), RUN, console, take_step=lambda *_: pytest.fail("trained again"))
    assert again.progress == first.progress
    assert (RUN / "metrics.jsonl").read_bytes() == metrics


def test_what_a_crash_after_the_last_save_left_undone_is_done(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained(RUN)
    metrics, model = (RUN / "metrics.jsonl").read_bytes(), (RUN / "model").resolve()
    (RUN / "model").unlink()
    (RUN / "metrics.jsonl").write_bytes(b"".join(metrics.splitlines(keepends=True)[:-1]))
    train(tiny_recipe(novel), RUN, console)
    assert (RUN / "metrics.jsonl").read_bytes() == metrics
    assert (RUN / "model").resolve() == model


def test_another_recipe_is_refused_with_its_changed_keys(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained(RUN, "optim.learning_rate=0.001")
    with pytest.raises(ConfigError) as caught:
        train(tiny_recipe(novel, more=("model.n_layer=1", "optim.learning_rate=0.5")), RUN, console)
    assert "model.n_layer: 2 in the run, 1 requested" in caught.value.what
    assert "optim.learning_rate: 0.001 in the run, 0.5 requested" in caught.value.what
    assert "--out" in caught.value.hint


def test_a_corpus_that_changed_is_refused(novel: Path, console: Console) -> None:
    with pytest.raises(Stopped):
        train(tiny_recipe(novel), RUN, console, take_step=StopAt(4))
    novel.write_text(invented_text(6000, seed=1), encoding="utf-8")
    with pytest.raises(ConfigError, match="the corpus is not the one that this run was made with"):
        train(tiny_recipe(novel), RUN, console)


def test_a_folder_in_use_is_refused(novel: Path, console: Console) -> None:
    with storage.file_lock(RUN / "run.lock"), pytest.raises(BusyError, match="in use by process"):
        train(tiny_recipe(novel), RUN, console)


def test_a_folder_that_is_no_run_is_refused(novel: Path, console: Console, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder is not a run: it contains"):
        train(tiny_recipe(novel), tmp_path, console)


@pytest.mark.parametrize("damaged", ["model.safetensors", "training/state.safetensors", "MANIFEST.json"])
def test_a_damaged_newest_checkpoint_is_passed_over_loudly(
    novel: Path, trained: Trained, damaged: str
) -> None:
    heard = io.StringIO()
    trained("whole")
    with pytest.raises(Stopped):
        train(tiny_recipe(novel), RUN, Console(io.StringIO()), take_step=StopAt(9))
    newest = next(newest_first(RUN))
    path = newest / damaged
    path.write_bytes(path.read_bytes()[:-7])
    train(tiny_recipe(novel), RUN, Console(heard))
    assert f"{newest.name} is skipped: " in heard.getvalue()
    assert Path(damaged).name in heard.getvalue()
    assert losses(RUN) == losses(Path("whole"))
    assert weights(RUN) == weights(Path("whole"))


def test_when_no_checkpoint_is_whole_the_run_says_so(novel: Path, console: Console) -> None:
    with pytest.raises(Stopped):
        train(tiny_recipe(novel), RUN, console, take_step=StopAt(5))
    for folder in newest_first(RUN):
        (folder / "MANIFEST.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint is intact"):
        train(tiny_recipe(novel), RUN, console)


def test_a_full_disk_ends_the_run_and_earlier_checkpoints_stay_whole(
    novel: Path, trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained("whole")
    real, saves = storage.sync_file, 0

    def failing(path: Path) -> None:
        nonlocal saves
        saves += path.name == "state.safetensors"
        if saves == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "sync_file", failing)
        with pytest.raises(StorageError, match="saving step-00000008 failed: No space left") as caught:
            train(tiny_recipe(novel), RUN, console)
    assert caught.value.exit_code == 74
    assert [step_of(folder) for folder in newest_first(RUN)] == [4]
    storage.verify_folder(next(newest_first(RUN)))
    train(tiny_recipe(novel), RUN, console)
    assert losses(RUN) == losses(Path("whole"))
    assert weights(RUN) == weights(Path("whole"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_run_stops_and_saves_nothing_of_it(novel: Path, console: Console, value: float) -> None:
    def diverging(model, optimizer, batches, step, *rest):  # type: ignore[no-untyped-def]
        if step == 6:
            return StepResult(value, 1.0, False)
        return training_step(model, optimizer, batches, step, *rest)

    with pytest.raises(DivergedError) as caught:
        train(tiny_recipe(novel), RUN, console, take_step=diverging)
    assert caught.value.exit_code == 5
    slow = read_plan(RUN).slowdowns
    assert [(segment.from_step, segment.rate_factor) for segment in slow] == [(4, 0.5)]
    assert caught.value.what == f"loss {value}, gradient norm 1.0 after step 6"
    assert "step-00000004" in caught.value.where
    assert [step_of(folder) for folder in newest_first(RUN)] == [4]


@pytest.mark.parametrize(("step", "back_to"), [(6, 4), (2, 0)])
def test_a_loss_that_is_not_finite_takes_the_run_back_once(
    novel: Path, console: Console, step: int, back_to: int
) -> None:
    recipe = tiny_recipe(novel)
    result = train(recipe, RUN, console, take_step=DivergeAt(step, RUN))
    assert result.progress.step == result.total_steps
    plan = read_plan(RUN)
    assert [(s.from_step, s.rate_factor) for s in plan.slowdowns] == [(back_to, 0.5)]
    assert plan.slowdowns[0].reason == f"loss nan, gradient norm 1.0 after step {step}"
    # each step has one row, and from there on half the rate
    full = train(recipe, Path("whole"), console)
    assert full.total_steps == result.total_steps
    rates, usual = (
        {row["step"]: row["lr"] for row in read_metrics(run) if row["event"] == "train"}
        for run in (RUN, Path("whole"))
    )
    assert list(rates) == list(usual)
    expected = {step: rate * (0.5 if step > back_to else 1) for step, rate in usual.items()}
    assert rates == pytest.approx(expected)
    said = [row for row in read_metrics(RUN) if "rate_factor" in row]
    assert [(row["step"], row["rate_factor"]) for row in said] == [(back_to, 0.5)]
    assert losses(RUN) != losses(Path("whole"))


def test_a_text_that_is_held_out_is_measured_at_each_evaluation(novel: Path, console: Console) -> None:
    Path("unseen.txt").write_text(invented_text(600, seed=9), encoding="utf-8")
    train(tiny_recipe(novel, more=("data.held_out=['unseen.txt']",)), RUN, console)
    rows = [row for row in read_metrics(RUN) if row["event"] == "eval"]
    assert all(row["held_out_bits_per_char"] > 0 for row in rows)
    window = load_shape(find_model_folder(RUN)).block_size
    found = evaluate(str(RUN), "unseen.txt", stride=window).evaluation.bits_per_char
    best = min(rows, key=lambda row: row["val_loss"])
    assert best["held_out_bits_per_char"] == pytest.approx(found, rel=1e-4)
    Path("unseen.txt").write_text("别的。", encoding="utf-8")
    with pytest.raises(ConfigError, match="not the one that this run was made with"):
        train(tiny_recipe(novel), RUN, console)


def test_a_longer_run_stays_as_slow_as_it_was_made(novel: Path, console: Console) -> None:
    train(tiny_recipe(novel), RUN, console, take_step=DivergeAt(6, RUN))
    longer = tiny_recipe(novel, more=("train.max_steps=16",))
    assert train(longer, RUN, console, take_step=DivergeAt(6, RUN)).total_steps == 16
    assert "rate_factor" in (RUN / "plan.json").read_text("utf-8")


def test_a_weight_that_is_not_finite_is_never_saved(novel: Path, console: Console) -> None:
    def poisoning(model, optimizer, batches, step, *rest):  # type: ignore[no-untyped-def]
        result = training_step(model, optimizer, batches, step, *rest)
        if step == 5:
            with torch.no_grad():
                model.model.norm.weight[0] = float("nan")
        return StepResult(1.0, 1.0, True) if step > 5 else result

    with pytest.raises(DivergedError, match="validation loss nan after step 8"):
        train(tiny_recipe(novel), RUN, console, take_step=poisoning)
    assert [step_of(folder) for folder in newest_first(RUN)] == [4]


def test_an_optimizer_value_that_is_not_finite_is_never_saved(novel: Path, console: Console) -> None:
    def poisoning(model, optimizer, batches, step, *rest):  # type: ignore[no-untyped-def]
        result = training_step(model, optimizer, batches, step, *rest)
        optimizer.parts[-1].state[model.model.norm.weight]["exp_avg"][0] = float("inf") if step == 7 else 0.0
        return result

    with pytest.raises(DivergedError, match=r"norm\.weight/exp_avg is not finite after step 8"):
        train(tiny_recipe(novel), RUN, console, take_step=poisoning)
    assert [step_of(folder) for folder in newest_first(RUN)] == [4]


def test_old_checkpoints_go_and_the_best_stays(
    novel: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([5.0, 3.0, 4.0, 4.5, 4.6, 4.7])
    real = trainer.measure_now
    monkeypatch.setattr(trainer, "measure_now", lambda *a: trainer.replace(real(*a), loss=next(values)))
    more = (
        "train.max_steps=12",
        "train.eval_interval=2",
        "train.checkpoint_interval=2",
        "train.keep_last=2",
    )
    result = train(tiny_recipe(novel, more=more), RUN, console)
    assert [step_of(folder) for folder in newest_first(RUN)] == [12, 10, 4]
    assert result.progress.best_step == 4
    assert (RUN / "model").resolve().name == "step-00000004"


def test_free_settings_may_change_on_resume(novel: Path, console: Console) -> None:
    with pytest.raises(Stopped):
        train(tiny_recipe(novel), RUN, console, take_step=StopAt(5))
    train(tiny_recipe(novel, more=("train.eval_interval=3", "train.log_interval=2")), RUN, console)
    assert [row["step"] for row in read_metrics(RUN) if row["event"] == "eval"] == [4, 9, 12]


def test_the_time_of_a_resumed_run_goes_on_where_it_stopped(novel: Path, console: Console) -> None:
    """The pause between does not count, and what was trained before it does."""
    with pytest.raises(Stopped):
        train(tiny_recipe(novel), RUN, console, take_step=StopAt(5), clock=count(0, 10).__next__)
    before = max(row["elapsed_s"] for row in read_metrics(RUN) if row["event"] == "train")
    train(tiny_recipe(novel), RUN, console, clock=count(1e6, 10).__next__)
    elapsed = [row["elapsed_s"] for row in read_metrics(RUN) if row["event"] == "train"]
    assert elapsed == sorted(elapsed) and before >= 50 < elapsed[6] - 50
    assert elapsed[-1] < 1000


def test_the_live_line_comes_by_time_where_steps_are_slow(novel: Path) -> None:
    said, ticks = io.StringIO(), count(0, 20).__next__
    console = Console(said, clock=ticks)
    train(tiny_recipe(novel, more=("train.log_interval=12",)), RUN, console, clock=ticks)
    assert [row["step"] for row in read_metrics(RUN) if row["event"] == "train"] == [1, 12]
    shown = re.findall(r"^step (\d+)/12 .* tokens/s", said.getvalue(), re.MULTILINE)
    assert len(shown) > 3 and shown[-1] == "12"


def test_a_run_of_minutes_follows_its_recorded_plan(novel: Path, console: Console) -> None:
    """After a restart the aims recorded before it are kept, so the same steps have the same rates."""
    more = (
        "train.minutes=0.2",
        "optim.learning_rate=0.001",
        "train.max_steps=40",
        "train.eval_interval=5",
        "train.checkpoint_interval=20",
    )
    done = 0

    def take_step(*arguments):  # type: ignore[no-untyped-def]
        nonlocal done
        done += 1
        return training_step(*arguments)

    def clock() -> float:
        return time.monotonic() + 3 * (done // 5)  # five steps seem to take three seconds longer

    said = io.StringIO()
    train(tiny_recipe(novel, more=more), RUN, Console(said), take_step=take_step, clock=clock)
    plan = read_plan(RUN)
    assert len(plan.segments) > 1
    assert (first := plan.segments[1]).total_steps < plan.segments[0].total_steps
    assert f"slower than measured: {first.total_steps} steps in place of 40" in said.getvalue()
    before = losses(RUN), weights(RUN)
    rows = without_times(RUN)
    for folder in list(newest_first(RUN)):  # as if killed before the first checkpoint
        storage.remove_folder(folder)
    train(tiny_recipe(novel, more=more), RUN, console)
    assert (losses(RUN), weights(RUN)) == before
    assert without_times(RUN) == rows
    assert read_plan(RUN) == plan
    rates = [row["lr"] for row in read_metrics(RUN) if row["event"] == "train"]
    assert rates[-1] == pytest.approx(1e-4, rel=0.2)


def test_a_resolved_recipe_can_be_run_again(trained: Trained, console: Console) -> None:
    from yanmo.settings.recipe import load_recipe

    trained(RUN)
    train(load_recipe(RUN / "recipe.toml"), Path("again"), console)
    assert losses(Path("again")) == losses(RUN)
    assert weights(Path("again")) == weights(RUN)


def test_a_resolved_recipe_with_another_seed_is_the_same_but_for_it(
    trained: Trained, console: Console
) -> None:
    """What follows by rule is derived again, and comes out as it was; nothing is measured again."""
    from yanmo.settings.recipe import load_recipe

    trained(RUN)
    train(load_recipe(RUN / "recipe.toml", ["train.seed=2"]), Path("again"), console)
    made, again = load_recipe(RUN / "recipe.toml"), load_recipe(Path("again/recipe.toml"))
    assert set(again.decided) == set(made.decided)
    assert again.model_copy(update={"train": made.train, "decided": (), "started_in": ()}) == made.model_copy(
        update={"decided": (), "started_in": ()}
    )
    assert again.train == made.train.model_copy(update={"seed": 2})


@pytest.mark.slow
def test_a_resolved_recipe_with_another_setting_is_decided_anew(trained: Trained, console: Console) -> None:
    """In a new run; the same recipe in the old folder makes that one longer, with its decisions."""
    from yanmo.settings.recipe import load_recipe

    trained(RUN)
    made = load_recipe(RUN / "recipe.toml")
    assert (made.optim.learning_rate, made.optim.warmup_steps) == (0.024, 0)
    train(
        load_recipe(RUN / "recipe.toml", ["optim.name=adamw", "train.max_steps=40"]), Path("other"), console
    )
    other = load_recipe(Path("other/recipe.toml"))
    assert (other.optim.learning_rate, other.optim.min_lr) == (0.004, 0.0004)
    assert (other.optim.warmup_steps, other.train.eval_interval) == (2, 4)
    assert set(made.decided) - set(other.decided) == {"optim.name"}
    train(load_recipe(RUN / "recipe.toml", ["train.max_steps=40"]), RUN, console)
    longer = load_recipe(RUN / "recipe.toml")
    assert longer == made.model_copy(update={"train": made.train.model_copy(update={"max_steps": 40})})


def test_progress_survives_its_checkpoint(novel: Path, console: Console) -> None:
    recipe = tiny_recipe(novel)
    result = train(recipe, RUN, console)
    progress, tensors, environment = load_training(next(newest_first(RUN)))
    assert progress == result.progress
    prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, 16, console)
    batches = Batches(prepared.shards.train, 16, 8, recipe.train.seed)
    assert progress.tokens == sum(batches.targets_in(step) for step in range(12))
    assert tensors and environment["torch"] == torch.__version__


def test_a_checkpoint_of_another_schema_is_refused(trained: Trained) -> None:
    trained(RUN)
    path = next(newest_first(RUN)) / "training" / "state.json"
    storage.write_json(path, storage.read_json(path) | {"schema": 99})
    with pytest.raises(CheckpointError, match="schema 99, this version of yanmo reads 1"):
        load_training(path.parents[1])


def test_of_a_prompt_longer_than_the_window_the_samples_continue_the_end_and_that_is_said_once(
    novel: Path, trained: Trained
) -> None:
    shown = io.StringIO()
    train(tiny_recipe(novel, more=(f"sample.prompt={'江湖' * 10}",)), RUN, Console(shown))
    assert shown.getvalue().count("the prompt has 20 tokens; the model only reads the last 16") == 1
    samples = [path.read_text(encoding="utf-8") for path in (RUN / "samples").iterdir()]
    assert samples and all(sample.startswith("江湖" * 10) for sample in samples)
    trained("narrow", "model.block_size=4")


def test_a_prompt_that_is_no_text_leaves_nothing_behind(novel: Path, console: Console) -> None:
    broken = tiny_recipe(novel, more=("sample.prompt=江湖\udc80",))
    for _ in range(2):  # with no run, and with one
        with pytest.raises(ConfigError, match="half a character"):
            train(broken, RUN, console)
        train(tiny_recipe(novel), RUN, console)
    assert "江湖\\u" not in (RUN / "recipe.toml").read_text(encoding="utf-8")


def test_a_warm_up_longer_than_a_run_of_minutes_is_refused(novel: Path, console: Console) -> None:
    with pytest.raises(ConfigError, match="warmup_steps=10000000 is not less than about"):
        more = ("train.minutes=0.01", "optim.warmup_steps=10000000", "train.max_steps=20000000")
        train(tiny_recipe(novel, more=more), RUN, console)


@pytest.mark.parametrize("name", ["plan.json", "corpus.json"])
def test_a_run_without_its_records_says_so(
    novel: Path, trained: Trained, console: Console, name: str
) -> None:
    trained(RUN)
    (RUN / name).write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"{name} is missing or damaged"):
        train(tiny_recipe(novel), RUN, console)


def test_checkpoints_passed_over_do_not_push_whole_ones_out(novel: Path, console: Console) -> None:
    with pytest.raises(Stopped):
        train(tiny_recipe(novel, more=("train.keep_last=1",)), RUN, console, take_step=StopAt(9))
    newest = next(newest_first(RUN))
    (newest / "model.safetensors").write_bytes(b"")
    (RUN / "checkpoints" / "step-00000004 copy").mkdir()  # somebody's own
    with pytest.raises(Stopped):
        train(tiny_recipe(novel, more=("train.keep_last=1",)), RUN, console, take_step=StopAt(8))
    assert step_of(next(newest_first(RUN))) == 9
    for folder in newest_first(RUN):
        storage.verify_folder(folder)


def test_run_names_lead_to_a_model_folder(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="there is no run yet"):
        find_model_folder(None)
    trained(RUN)
    best = (RUN / "model").resolve()
    assert find_model_folder(None) == find_model_folder(RUN) == find_model_folder(RUN / "model") == best
    checkpoint = next(newest_first(RUN))
    assert find_model_folder(checkpoint) == checkpoint.resolve()
    with pytest.raises(ConfigError, match="there is no such folder: nowhere"):
        find_model_folder(Path("nowhere"))


def test_every_json_in_a_run_is_json(trained: Trained) -> None:
    trained(RUN)
    for path in RUN.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
