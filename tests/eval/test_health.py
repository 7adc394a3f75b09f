"""Each rule of health names its cause, and nothing is said of a run that goes well."""

import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.console import here
from tests.makers.logs import (
    KINDS,
    SPOILED,
    Fed,
    Frozen,
    in_order,
    repeated,
    shifted,
    sound_log,
    with_overflows,
)
from tests.makers.runs import RUN, OverflowAt, StopAt, Trained, tiny_recipe, without_times
from tests.makers.texts import invented_text
from tests.makers.work import assert_linear, calls
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, DataError, DivergedError, Stopped
from yanmo.eval.health import NAMES, Finding, Health, facts_of_sample, findings
from yanmo.eval.log import check_log
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import HealthRule
from yanmo.train.metrics import read_metrics
from yanmo.train.oom import TakeStep
from yanmo.train.step import training_step
from yanmo.train.trainer import train


def names(found: list[Finding]) -> list[str]:
    return [finding.name for finding in found]


# -- rules on rows ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_said_of_a_run_that_goes_well(kind: str) -> None:
    assert findings(sound_log(kind)) == []


@pytest.mark.parametrize("name", SPOILED)
def test_each_rule_names_its_cause_and_no_other_speaks(name: str) -> None:
    (found,) = findings(SPOILED[name]())
    assert found.name == name
    assert found.sentence and found.hint and "\n" not in found.said()
    assert found.said() == f"health: {name}: {found.sentence}; {found.hint}"


def test_every_rule_has_a_log_and_a_name_in_the_settings() -> None:
    assert {*SPOILED} == NAMES == {*get_args(HealthRule)}


@pytest.mark.parametrize("name", SPOILED)
def test_row_by_row_it_finds_the_same_at_the_same_steps(name: str) -> None:
    rows, health = SPOILED[name](), Health()
    found = [(row.get("step", 0), one) for row in rows for one in health.add(row)]
    assert [one for _, one in found] == findings(rows)
    assert all(step == one.step for step, one in found)


def test_what_is_ignored_is_not_said() -> None:
    health = Health(ignored=("dropout_too_high",))
    assert [one for row in SPOILED["dropout_too_high"]() for one in health.add(row)] == []


def test_a_symptom_is_not_said_where_its_cause_is() -> None:
    rows = [
        row | {"dropout": 0.9} if row["event"] == "start" else row for row in SPOILED["stuck_at_unigram"]()
    ]
    assert names(findings(rows)) == ["dropout_too_high"]


def test_overflows_are_read_as_earlier_versions_wrote_them() -> None:
    assert names(findings(with_overflows({"event": "health", "overflow": True}))) == ["float16_overflow"]


def test_a_loss_that_is_lost_is_said() -> None:
    found = findings([{"step": 3, "loss": math.nan}])
    assert [(one.name, one.step) for one in found] == [("diverged", 3)]


def test_a_run_that_went_back_is_said_to_have_diverged() -> None:
    row = {
        "event": "plan",
        "step": 40,
        "horizon": 900,
        "rate_factor": 0.5,
        "reason": "loss nan after step 57",
    }
    (found,) = findings([*sound_log()[:1], row])
    assert (found.name, found.step) == ("diverged", 40)
    assert found.sentence.startswith("loss nan after step 57: the run went back to step 40")


def test_overfitting_says_which_pass_was_the_last_that_helped() -> None:
    (found,) = findings(SPOILED["overfitting"]())
    assert "at step 500, in pass 2, " in found.sentence  # 500 steps of 16 windows, 6,250 a pass


def test_a_log_of_nothing_and_one_of_a_peer_say_nothing() -> None:
    peer = [{"step": step, "loss": 8.0 * 0.99**step} for step in range(300)]
    assert findings([]) == findings([{}]) == findings(peer) == []


def test_a_log_of_a_peer_that_diverges_is_said() -> None:
    peer = [{"step": step, "loss": 4.0 if step < 50 else 9.0} for step in range(100)]
    assert "diverged" in names(findings(peer))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
)
FIELDS = sorted(
    {key for log in (sound_log("experts"), SPOILED["frozen_layer"]()) for row in log for key in row}
)
EVENTS = st.sampled_from(
    ["start", "train", "eval", "experts", "overflow", "health", "plan", "sample", "x", None]
)


@given(
    st.lists(
        st.fixed_dictionaries({"event": EVENTS}, optional={key: VALUES for key in FIELDS if key != "event"})
    )
)
def test_no_row_whatever_it_holds_is_a_mistake_of_ours(rows: list[dict[str, Any]]) -> None:
    findings(rows)


def test_the_work_grows_with_the_rows_and_no_faster() -> None:
    def work(length: int) -> int:
        rows = [row for row in sound_log("experts") if row["event"] != "end"]
        return calls(findings, [rows[0], *(rows[1:] * length)])

    assert_linear(work, 1)


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("“" * 50, "commonest"),
        ("夜雨江湖客栈灯火" * 10, "repeated"),
        ("“春" * 12 + "风雨山水" * 6, "unbalanced"),
    ],
)
def test_the_facts_of_a_broken_sample_show_it(text: str, flaw: str) -> None:
    facts = facts_of_sample(text)
    rows = [{"event": "sample", "step": step, **facts} for step in (1, 2)]
    assert names(findings(rows)) == ["degenerate_samples"]
    assert facts[flaw] >= 0.3
    assert facts_of_sample("短") == {}


def test_a_sample_of_ordinary_text_is_none() -> None:
    rows = [{"event": "sample", "step": step, **facts_of_sample(invented_text(300, step))} for step in (1, 2)]
    assert findings(rows) == []


# -- a log as a file --------------------------------------------------------------------------


def put_log(rows: list[dict[str, Any]], path: Path = Path("metrics.jsonl")) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_log_is_checked_by_itself_without_its_run() -> None:
    path = put_log(SPOILED["shifted_targets"]())
    done = here("evaluate", str(path), "--health", "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["health"]
    assert set(found) == {"name", "step", "sentence", "hint"} and found["name"] == "shifted_targets"
    said = here("evaluate", str(path), "--health").stdout
    assert "health: shifted_targets: 3% of the targets" in said


def test_a_sound_run_is_said_to_be_sound(trained: Trained) -> None:
    trained(RUN)
    for named in (str(RUN), str(RUN / "model"), str(RUN / "metrics.jsonl")):
        done = here("evaluate", named, "--health", "--json")
        assert json.loads(done.stdout)["health"] == [], done.stdout
    assert "nothing is wrong" in here("evaluate", str(RUN), "--health").stdout


def test_lines_that_are_no_rows_are_counted() -> None:
    path = put_log([{"step": 1, "loss": 2.0}])
    path.write_bytes(path.read_bytes() + b"epoch 3\n[1, 2]\n\xff\n" + b"[" * 5000 + b"\n")
    assert (check_log(path).rows, check_log(path).unread) == (1, 4)


def test_what_is_no_log_is_refused() -> None:
    Path("empty").write_text("no row\n", encoding="utf-8")
    with pytest.raises(DataError, match="the log has no row"):
        check_log(Path("empty"))
    with pytest.raises(ConfigError, match="the log cannot be read"):
        check_log(Path("absent"))
    assert here("evaluate", "absent", "--health").returncode == 2
    done = here("evaluate", "empty", "--health", "--corpus", "x.txt")
    assert done.returncode == 2 and "--corpus" in done.stderr


# -- a run --------------------------------------------------------------------------------------

HARD = ("model.dropout=0.6", "train.max_steps=12")


def findings_of(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(folder) if row["event"] == "health"]


def test_a_run_says_a_finding_once_and_writes_it(novel: Path) -> None:
    heard = io.StringIO()
    train(tiny_recipe(novel, more=HARD), RUN, Console(heard))
    (row,) = findings_of(RUN)
    assert set(row) == {"event", "name", "step", "sentence", "hint"}
    assert heard.getvalue().count("health: dropout_too_high: dropout takes away 60%") == 1


def test_a_resumed_run_repeats_nothing_and_equals_one_that_never_stopped(novel: Path) -> None:
    heard, asked = io.StringIO(), tiny_recipe(novel, more=HARD)
    spoiled = Fed(shifted)
    train(asked, Path("whole"), Console(heard), take_step=spoiled)
    with pytest.raises(Stopped):
        train(asked, RUN, Console(heard), take_step=StopAt(5, take_step=spoiled))
    heard = io.StringIO()
    train(asked, RUN, Console(heard), take_step=spoiled)
    assert "health:" not in heard.getvalue()
    rows = [
        [row for row in without_times(folder) if row["event"] != "checkpoint"]
        for folder in (RUN, Path("whole"))
    ]
    assert rows[0] == rows[1]
    assert [row["name"] for row in findings_of(RUN)] == ["dropout_too_high", "shifted_targets"]


def test_a_finding_that_is_ignored_is_not_said_and_the_run_may_go_on_with_another_choice(novel: Path) -> None:
    heard, ignoring = io.StringIO(), (*HARD, "health.ignore=dropout_too_high")
    with pytest.raises(Stopped):
        train(tiny_recipe(novel, more=ignoring), RUN, Console(heard), take_step=StopAt(5))
    train(tiny_recipe(novel, more=(*HARD, "health.ignore=[]")), RUN, Console(heard))
    assert "health:" not in heard.getvalue() and findings_of(RUN) == []


def test_an_unknown_finding_is_refused_with_the_nearest(novel: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, ["health.ignore=['spyke']"])
    assert "did you mean 'spike'?" in caught.value.hint


# -- small runs that are spoiled ------------------------------------------------------------------

SMALL = (
    "model.n_embd=32",
    "model.block_size=32",
    "train.max_steps=60",
    "train.eval_interval=30",
    "train.log_interval=5",
)
Spoil = tuple[tuple[str, ...], TakeStep]
GARBLED = "\n".join(invented_text(3000, seed=2).encode("utf-8").decode("latin-1").splitlines())


def copied() -> str:
    """A text whose end, which is held out, stands in it before."""
    text = invented_text(20000, seed=3)
    return text[-4000:] + text


RUNS: dict[str, tuple[Callable[[], str], tuple[str, ...], TakeStep]] = {
    "rate_too_low": (lambda: invented_text(20000), ("optim.learning_rate=2e-5",), training_step),
    "rate_too_high": (lambda: invented_text(20000), ("optim.learning_rate=0.3",), training_step),
    "shifted_targets": (lambda: invented_text(20000), (), Fed(shifted)),
    "unshuffled": (lambda: invented_text(20000), (), Fed(in_order)),
    "repeated_batches": (lambda: invented_text(20000), (), Fed(repeated)),
    "leaked_validation": (copied, (), training_step),
    "damaged_text": (lambda: invented_text(3000) + GARBLED, (), training_step),
    "warmup_too_long": (lambda: invented_text(20000), ("optim.warmup_steps=50",), training_step),
    "dropout_too_high": (lambda: invented_text(20000), ("model.dropout=0.9",), training_step),
    "too_little_text": (lambda: invented_text(800), ("model.n_embd=128", "data.val_fraction=0.1"), training_step),
    "frozen_layer": (lambda: invented_text(20000), (), Frozen("blocks.1.mlp.down.weight")),
    "float16_overflow": (
        lambda: invented_text(20000), ("train.precision=float16",), OverflowAt({*range(20, 60, 3)})
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_spoiled_run_is_told_its_cause(name: str, novel: Path, console: Console) -> None:
    text, more, take_step = RUNS[name]
    novel.write_text(text(), encoding="utf-8")
    try:
        train(tiny_recipe(novel, more=(*SMALL, *more)), RUN, console, take_step=take_step)
    except DivergedError:
        assert name == "rate_too_high"
    assert [row["name"] for row in findings_of(RUN)][:1] == [name]


@pytest.mark.slow
def test_the_vocabulary_of_another_text_is_told(novel: Path, trained: Trained, console: Console) -> None:
    trained("first")
    Path("other.txt").write_text("明月松间照清泉石上流竹喧归浣女莲动下渔舟\n" * 60, encoding="utf-8")
    train(tiny_recipe("other.txt", more=(*SMALL, "tokenizer.path=first/model")), RUN, console)
    assert "wrong_vocabulary" in [row["name"] for row in findings_of(RUN)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [(), ("optim.name=adamw", "model.family=gpt2"), ("model.family=moe", "model.n_expert=4")]
)
def test_a_sound_run_is_left_alone(more: tuple[str, ...], novel: Path, console: Console) -> None:
    novel.write_text(invented_text(40000), encoding="utf-8")
    train(tiny_recipe(novel, more=(*SMALL, *more)), RUN, console)
    assert findings_of(RUN) == []
