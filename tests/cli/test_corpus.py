"""`yanmo inspect` and `yanmo clean` as a person meets them."""

import json
from pathlib import Path

import pytest

from yanmo.cli.app import app
from yanmo.core.errors import ConfigError
from yanmo.text.demo import stories

STORIES = [story.text for _, story in zip(range(20), stories.stories(), strict=False)]
AD = "wＷ w.xia oshuo9.ｎeｔ"


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        json.dumps({"text": text}, ensure_ascii=False) for text in [*STORIES, STORIES[0], f"{AD}\n他走了。"]
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def call(*arguments: str) -> None:
    """Run a verb in this process."""
    app(list(arguments), standalone_mode=False)


def test_clean_says_what_became_of_every_document(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("clean", "a.jsonl", "--dedup")
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a.clean.jsonl"
    assert "read       22 documents of 1 file" in said
    assert "dropped    1 document: a copy" in said
    assert any(line.startswith("changed    1 document: ads") for line in said)
    assert any(line.startswith("held out ") for line in said)
    assert "  yanmo train a.clean.jsonl" in said
    call("clean", "a.jsonl", "--dedup", "--json", "--nproc", "1")
    printed = json.loads(capsys.readouterr().out)
    written = json.loads((corpus.parent / "a.clean.manifest.json").read_text(encoding="utf-8"))
    assert printed == written and printed["documents"] == 21


def test_explain_marks_what_goes_and_writes_nothing(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("clean", "a.jsonl", "--explain")
    said = capsys.readouterr().out
    assert f"[-{AD}-]" in said and "1 change; nothing was written" in said
    assert [path.name for path in corpus.parent.iterdir()] == ["a.jsonl"]


def test_inspect_writes_a_page_and_names_what_a_vocabulary_lacks(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rare = min(STORIES[0].replace("\n", ""), key="".join(STORIES).count)
    characters = sorted(set("".join(STORIES)) - {rare, "\n"})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    Path("vocab.txt").write_text("\n".join(words), encoding="utf-8")
    call("inspect", "a.jsonl", "--vocab", "vocab.txt", "--html", "report.html", "--json")
    found = json.loads(capsys.readouterr().out)
    assert rare in found["lacking"] and found["dropped"] == {"a copy": 1}
    assert "<svg" in Path("report.html").read_text(encoding="utf-8")
    call("inspect", "a.jsonl")
    assert "would drop 1 document: a copy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what", "hint"),
    [
        (["--out", "b.txt"], "b.txt is not a .jsonl", "b.jsonl"),
        (["--out", "a.jsonl"], "would be replaced by what is made of it", "another name"),
        (["--weights", "1,2"], "2 weights for 1 corpora", "one weight above 0"),
        (["--weights", "x"], "not a list of numbers", "3,1,1"),
        (["--weights", "-1"], "1 weights", "above 0"),
        (["clean.adz=false"], "clean.adz", "clean.ads"),
        (["clean.width=half"], "clean.width", "full-width"),
        (["train.minutes=3"], "train.minutes", "yanmo train"),
    ],
)
def test_mistakes_are_answered_with_a_mend(corpus: Path, arguments: list[str], what: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        call("clean", "a.jsonl", *arguments)
    assert what in str(error.value) and hint in str(error.value)
    assert [path.name for path in corpus.parent.iterdir()] == ["a.jsonl"]


def test_settings_of_cleaning_given_to_train_are_answered(corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"clean\.ads") as error:
        call("train", "a.jsonl", "clean.ads=false")
    assert "yanmo clean" in str(error.value)


def test_clean_makes_dialogues_of_a_play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    speeches = [
        f"{name}：{story[n : n + 30]}" for story in STORIES for n, name in ((0, "客人"), (30, "船夫"))
    ]
    Path("play.txt").write_text("\n".join(speeches).replace("\n\n", ""), encoding="utf-8")
    call("clean", "play.txt", "--dialogues")
    said = capsys.readouterr().out
    assert said.endswith("Next:\n  yanmo finetune RUN play.dialogues.jsonl\n")
    assert said.startswith("play.dialogues.jsonl\n") and "\nroles      2: " in said
    assert "\ndialogues  2 with 39 answers, of 40 speeches in 1 scenes\n" in said
    for other in ("--dedup", "--explain", "--weights=1"):
        with pytest.raises(ConfigError, match="--dialogues"):
            call("clean", "play.txt", "--dialogues", other)
