"""report.html: what stands in it, of runs in any state."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.makers.console import here
from tests.makers.runs import RUN, TINY, DivergeAt, Trained, tiny_recipe
from yanmo.core.console import Console
from yanmo.core.errors import DivergedError
from yanmo.core.outputs import MARK
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train

HOSTILE = '"><script>alert(1)</script><img src=x onerror=y>\x00‮</pre>'
RUN_FOLDER = Path("run")
Row = dict[str, Any]


class Tags(HTMLParser):
    """Tags with their attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run(trained: Trained) -> Path:
    trained(RUN_FOLDER)
    return RUN_FOLDER


def reported(folder: Path = RUN_FOLDER) -> str:
    done = here("report", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / 'report.html'}\n"
    return (folder / "report.html").read_text(encoding="utf-8")


def estimate(value: float) -> Row:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def edit_rows(folder: Path, edit: Callable[[list[Row]], list[Row]]) -> None:
    rows = edit(read_metrics(folder))
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")


def edit_recipe(folder: Path, *pairs: tuple[str, str]) -> None:
    recipe = (folder / "recipe.toml").read_text(encoding="utf-8")
    for old, new in pairs:
        assert re.search(old, recipe, re.MULTILINE), old
        recipe = re.sub(old, lambda found, new=new: new, recipe, flags=re.MULTILINE)
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")


def outlines(page: str, kind: str) -> list[list[tuple[float, float]]]:
    """The points of every curve of a class."""
    found = [
        attrs.get("d") or "" for tag, attrs in Tags(page).seen if tag == "path" and attrs["class"] == kind
    ]
    return [
        [(float(x), float(y)) for x, y in (point.split() for point in outline[1:].split("L"))]
        for outline in found
        if "H" not in outline  # of the legend
    ]


# -- what stands in it ------------------------------------------------------------------------


def test_it_answers_is_it_good_is_it_copied_what_next_and_then_shows_how(run: Path) -> None:
    page = reported()
    asked = [
        "What it is",
        "Is it good?",
        "Is it copied?",
        "What next?",
        "The curve",
        "Health",
        "What it wrote",
        "Speed",
    ]
    places = [page.index(f">{title}<") for title in asked]
    assert places == sorted(places) and page.startswith(f"<!doctype html>\n{MARK}\n")
    rows = [row for row in read_metrics(run) if row["event"] == "eval"]
    best = min(rows, key=lambda row: row["val_loss"])
    assert f"{best['val_bits_per_char']:.3f} bits per character" in page and f"step {best['step']}" in page
    start = read_metrics(run)[0]
    assert f"unigram {start['unigram_bits_per_char']:.2f}" in page
    assert "12 steps" in page and "novel.txt" in page and "Nothing was found wrong" in page
    for command in (
        "yanmo generate run",
        "yanmo evaluate run --copies --writing --json",
        "yanmo train run/recipe.toml",
    ):
        assert command in page


def test_no_path_of_the_machine_and_no_text_but_samples_stands_in_it(trained: Trained) -> None:
    trained("runs/novel")
    edit_recipe(
        Path("runs/novel"),
        (r"^path = .*$", f'path = ["{Path("novel.txt").resolve()}"]'),
        (r"^# prompt =.*$|^prompt = .*$", 'prompt = "密语"'),
        (r"^pinned = .*$", 'pinned = "私事"'),
    )
    page = reported(Path("runs/novel"))
    assert str(Path.cwd()) not in page and not re.search(r"(?<![\w<.])/[a-z]+/", Tags(page).text)
    assert "密语" not in page and "私事" not in page
    assert "runs/novel/recipe.toml" in page and "yanmo train novel.txt" in page


def test_text_of_others_is_text(trained: Trained) -> None:
    folder = Path('run"><b id=x>')
    trained(folder)
    (folder / "samples" / "step-00000004.txt").write_text(HOSTILE, encoding="utf-8")
    health = {"event": "health", "step": HOSTILE, "name": HOSTILE, "sentence": HOSTILE, "hint": HOSTILE}
    edit_rows(folder, lambda rows: [*rows, {**health, "step": 4}])
    (folder / "copies.json").write_text(
        json.dumps({"copies": {"longest": {"here": {"span": HOSTILE}}, "samples": {"8": estimate(0.5)}}}),
        "utf-8",
    )
    tags = Tags(reported(folder))
    assert not {tag for tag, _ in tags.seen} & {"script", "img", "link", "iframe"}
    assert not any(name in attrs for _, attrs in tags.seen for name in ("src", "href", "onerror", "id"))
    assert "<script>alert(1)</script>" in tags.text  # and nothing is left out


def test_both_languages_stand_in_it_and_the_browser_shows_its_own(run: Path) -> None:
    tags = Tags(reported())
    switches = sum(tag == "switch" for tag, _ in tags.seen)
    chinese = [attrs for tag, attrs in tags.seen if tag == "foreignobject" and "systemlanguage" in attrs]
    assert len(chinese) == switches > 20
    for words in ("好不好", "是不是抄的", "接下来", "没见过的文本", "留出文本", "训练途中没有发现问题"):
        assert words in tags.text


def test_curves_lie_where_their_numbers_are(run: Path) -> None:
    points = [(row["step"], row["val_bits_per_char"]) for row in read_metrics(run) if row["event"] == "eval"]
    (drawn,) = outlines(reported(), "held-out")
    assert [x for x, _ in drawn] == pytest.approx([1000 * step / 12 for step, _ in points], abs=0.1)
    (_, y0), (_, y1), (_, y2) = drawn
    (_, v0), (_, v1), (_, v2) = points
    assert (y1 - y0) / (y2 - y0) == pytest.approx((v1 - v0) / (v2 - v0), rel=0.05)
    assert y0 < y2 if v0 > v2 else y0 > y2  # more bits stand higher


def test_the_weights_before_averaging_have_a_curve_of_their_own(run: Path) -> None:
    assert not outlines(reported(), "live")
    edit_rows(
        run,
        lambda rows: [
            {
                **row,
                "live_val_bits_per_char": row["val_bits_per_char"] + 1,
                "held_out_bits_per_char": row["val_bits_per_char"] + 0.5,
            }
            if row["event"] == "eval"
            else row
            for row in rows
        ],
    )
    (live,), (saved,) = outlines(page := reported(), "live"), outlines(page, "held-out")
    assert all(above < below for (_, above), (_, below) in zip(live, saved, strict=True))
    assert "the weights before averaging" in page
    assert "of which it read no part" in page and len(outlines(page, "unseen")) == 1


def test_what_the_copy_meter_and_health_said_stands_in_it(run: Path) -> None:
    copies = {
        "samples": {"8": estimate(0.31), "20": estimate(0.0425)},
        "held_out": {"8": estimate(0.12), "20": estimate(0.001)},
        "longest": {
            "here": {"before": "他说", "span": "风雪山神庙", "after": "。"},
            "there": {"before": "回目", "span": "风雪山神庙", "after": ""},
        },
        "extraction": {"training": {"exact": estimate(0.07)}, "held_out": {"exact": estimate(0.0)}},
    }
    writing = {
        "samples": {"distinct_4": estimate(0.8), "names": "x"},
        "held_out": {"distinct_4": estimate(0.9)},
    }
    found = {"copies": copies, "writing": writing}
    (run / "copies.json").write_text(json.dumps(found), encoding="utf-8")
    health = {
        "event": "health",
        "step": 8,
        "name": "spike",
        "sentence": "the loss jumped",
        "hint": "lower it",
    }
    edit_rows(run, lambda rows: [*rows, health, {"event": "health", "step": 9, "overflow": True}])
    page = reported()
    assert "4.2% of what it writes" in page and "of the held-out text 0.1%" in page
    assert (
        "31.0% (30.0–32.0)" in page.replace("\u2060", "") and "distinct 4" in page and "--copies" not in page
    )
    assert "他说<mark>风雪山神庙</mark>。" in page and "回目<mark>风雪山神庙</mark>" in page
    assert "with 7.0% of passages of its training text, and with 0.0% of held-out text" in page
    assert "the loss jumped" in page and "lower it" in page and "Nothing was found wrong" not in page
    assert "overflowed in 1 steps" in page


def test_a_copy_meter_that_cannot_be_read_counts_as_none(run: Path) -> None:
    for text in (
        "{",
        "[]",
        '{"copies": 3}',
        '{"copies": {"samples": {"8": "much", "13": {"value": 1}, "x": 1}}}',
    ):
        (run / "copies.json").write_text(text, encoding="utf-8")
        assert "yanmo evaluate run --copies --writing --json" in reported(), text


# -- runs in any state ------------------------------------------------------------------------


def test_an_unfinished_run_says_how_far_it_is_and_how_it_goes_on(run: Path) -> None:
    edit_rows(run, lambda rows: [row for row in rows if row.get("step", 0) <= 8 and row["event"] != "end"])
    page = reported()
    assert (
        "It is not finished: step 8 of 12." in page and '<pre class="command">yanmo train run</pre>' in page
    )


def test_a_run_before_its_first_step_has_a_report(run: Path) -> None:
    for keep in (1, 0):
        edit_rows(run, lambda rows, keep=keep: rows[:keep])
        page = reported()
        assert "Nothing was measured yet." in page and ">The curve<" not in page


def test_a_diverged_run_says_so_until_it_goes_on(trained: Trained, console: Console) -> None:
    recipe = tiny_recipe("novel.txt")
    with pytest.raises(DivergedError):
        train(recipe, RUN_FOLDER, console, take_step=DivergeAt(9, RUN_FOLDER, is_stubborn=True))
    page = reported()
    assert "It diverged and ended at step 10 of 12" in page and "a third of the rate" in page
    assert "taken back to step 8, and from there on with 0.5 of the rate" in page
    train(recipe, RUN_FOLDER, console)
    page = reported()
    assert "It diverged" not in page and "12 steps" in page and "taken back to step 8" in page


def test_a_text_learned_by_heart_is_said_with_where_to_stop(run: Path) -> None:
    bits = iter((4.0, 5.0, 6.0))
    edit_rows(
        run,
        lambda rows: [
            row if row["event"] != "eval" else {**row, "val_loss": (b := next(bits)), "val_bits_per_char": b}
            for row in rows
        ],
    )
    page = reported()
    assert "rose by 50.0% until step 12: it learned its text by heart" in page
    assert "train.max_steps=4 --out run-shorter" in page and "longer makes it worse" in page


def test_a_resumed_run_says_where_and_what_was_done_again(run: Path) -> None:
    edit_rows(
        run,
        lambda rows: [
            *rows[:-1], {"event": "resume", "step": 8}, {"event": "memory", "step": 9, "micro_batch_size": 2}, rows[-1]
        ],
    )  # fmt: skip
    (run / "metrics.superseded.jsonl").write_text('{"event": "train", "step": 9}\n' * 3, encoding="utf-8")
    page = reported()
    assert "Resumed at step 8." in page and "3 rows of steps that were done again" in page
    assert "Memory ran out at step 9" in page


def test_slow_stretches_are_named(run: Path) -> None:
    edit_rows(
        run,
        lambda rows: [
            {**row, "tokens_per_s": 100.0 if row["step"] in (6, 7) else 1000.0}
            if row["event"] == "train"
            else row
            for row in rows
        ],
    )
    page = reported()
    assert "1,000 tokens per second (median)." in page and "Less than half as fast from step 5 to 7." in page


def test_rows_of_other_versions_and_damaged_ones_are_passed_over(run: Path) -> None:
    odd = [
        {"event": "later", "step": 3, "value": {"a": [1]}},
        {
            "event": "train",
            "step": 5,
            "loss_hex": "0x1p0",
            "loss": "much",
            "tokens_per_s": None,
            "tokens": True,
        },
        {"event": "health", "step": 3},
        {"event": "health"},
        {"event": "start", "uniform_bits_per_char": "x"},
    ]
    edit_rows(run, lambda rows: [*odd, *rows])
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"event": "train", "step": 4, "loss": NaN}\n{"event"\n')
        file.write(
            '{"event": "train", "step": 5, "loss_hex": "0x1p0", "loss": 1e999, "tokens_per_s": 1e999}\n'
        )
    page = reported()
    assert "bits per character at its best" not in page and "The curve" in page  # it has no baselines


def test_a_run_of_an_earlier_version_has_a_report(run: Path) -> None:
    edit_recipe(run, (r"^seq_len_warmup", "short_windows"), (r"train\.seq_len_warmup", "train.short_windows"))
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    (run / "plan.json").write_text(json.dumps({"aims": plan["aims"]}), encoding="utf-8")
    corpus = json.loads((run / "corpus.json").read_text(encoding="utf-8"))
    kept = {key: corpus[key] for key in ("dtype", "vocab_size", "corpus", "tokenizer", "splits")}
    counts = {key: corpus["counts"][key] for key in ("documents_read", "documents_dropped")}
    (run / "corpus.json").write_text(json.dumps({**kept, "counts": counts}), encoding="utf-8")
    assert "12 steps" in reported()


def test_dropped_documents_stand_with_their_reasons_and_lossy_bits_with_a_word(run: Path) -> None:
    corpus = json.loads((run / "corpus.json").read_text(encoding="utf-8"))
    corpus["counts"]["documents_dropped"] = {"too short": 7}
    (run / "corpus.json").write_text(json.dumps(corpus), encoding="utf-8")
    edit_rows(run, lambda rows: [{**rows[0], "lossy": True}, *rows[1:]])
    page = reported()
    assert "dropped: too short" in page and "<td>7</td>" in page and "loses characters" in page


def test_a_preference_is_told_in_pairs(run: Path) -> None:
    edit_recipe(
        run,
        (r"^# preference =.*$", 'preference = "dpo"'),
        (r"^# method =.*$", 'method = "full"'),
        (r"^# init =.*$", f'init = "{Path.cwd().as_posix()}/private/base"'),
    )
    accuracy = iter((0.25, 0.5, 1.0))
    edit_rows(
        run,
        lambda rows: [
            row
            if row["event"] != "eval"
            else {**row, "reward_accuracy": next(accuracy), "base_bits_per_char": 5.0}
            for row in rows
        ],
    )
    page = reported()
    assert "prefers what was chosen in 100% of held-out pairs, 25% at the beginning" in page
    assert "weights of base and was taught by dpo" in page and "private" not in page
    assert not outlines(page, "training")  # nats of a pair are no bits per character


@pytest.mark.slow
def test_a_finetuned_run_says_what_it_forgot_and_how_to_talk_with_it(run: Path) -> None:
    talk = [
        {"messages": [{"role": "user", "content": f"{n}？"}, {"role": "assistant", "content": "春风。"}]}
        for n in range(40)
    ]
    lines = [json.dumps(line, ensure_ascii=False) + "\n" for line in talk]
    Path("talk.jsonl").write_text("".join(lines), encoding="utf-8")
    settings = [one for one in TINY if not one.startswith("model.")]
    done = here("finetune", "run", "talk.jsonl", "--out", "tuned", *settings)
    assert done.returncode == 0, done.stderr
    page = Path("tuned/report.html").read_text(encoding="utf-8")
    assert "The text of its base" in page and "yanmo chat tuned" in page and "taught by full" in page


# -- the doors --------------------------------------------------------------------------------


def test_training_writes_it_and_says_where_and_its_failure_fails_no_run(novel: Path) -> None:
    done = here("train", "novel.txt", *TINY)
    assert done.returncode == 0, done.stderr
    assert str(RUN / "report.html") in done.stderr.split("Next:")[1] and (RUN / "report.html").is_file()
    (RUN / "report.html").write_text("mine", encoding="utf-8")
    again = here("train", "novel.txt", *TINY)
    assert again.returncode == 0 and "warning: report.html was not written" in again.stderr
    assert (RUN / "report.html").read_text(encoding="utf-8") == "mine"
    assert here("report", str(RUN)).returncode == 2
    assert here("report", str(RUN), "--force").returncode == 0


def test_a_run_that_diverges_leaves_one(novel: Path) -> None:
    done = here(
        "train", "novel.txt", *TINY, "optim.name=adamw", "optim.learning_rate=1000000", "optim.weight_decay=1"
    )
    assert done.returncode == 5, done.stderr
    assert (RUN / "report.html").is_file()


def test_it_is_of_the_run_of_a_model_too_and_of_the_newest_without_a_name(trained: Trained) -> None:
    trained("runs/a")
    assert here("report", "runs/a/model").returncode == 0 and Path("runs/a/report.html").is_file()
    Path("runs/a/report.html").unlink()
    assert here("report").returncode == 0 and Path("runs/a/report.html").is_file()
    Path("other").mkdir()
    Path("other/config.json").write_text("{}", encoding="utf-8")
    done = here("report", "other")
    assert done.returncode == 2 and "belongs to no run" in done.stderr
