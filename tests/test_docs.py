"""What the pages say is true: their commands run, both languages say the same."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.makers.console import here, yanmo
from tests.makers.processes import python
from tests.makers.runs import TINY

ROOT = Path(__file__).parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


def test_both_readmes_have_the_same_commands_and_headings() -> None:
    assert commands(README) == commands(CHINESE)
    assert blocks(README, "python") == blocks(CHINESE, "python")
    levels = [
        [len(mark) for mark in re.findall(r"^(#+) ", page.read_text(encoding="utf-8"), re.MULTILINE)]
        for page in (README, CHINESE)
    ]
    assert levels[0] == levels[1]


def test_every_make_command_has_its_target() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = [
        c.split()[1] for page in (README, ROOT / "CONTRIBUTING.md") for c in commands(page) if c[:4] == "make"
    ]
    assert named and set(named) <= targets


@pytest.mark.slow
def test_the_readmes_commands_run(novel: Path) -> None:
    """Every yanmo command, made small, in order, each verb once in a process of its own; then the Python lines."""
    lines = [line for line in commands(README) if line.startswith("yanmo ")]
    assert len(lines) >= 3
    talk = [{"问": f"{n}", "答": "江湖"} for n in range(20)]
    rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in talk)
    Path("talk.jsonl").write_text("".join(rows), encoding="utf-8")
    seen = set()
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words += [*TINY, "train.max_steps=4", "train.eval_interval=2"]
        if words[0] == "finetune":
            words += ["train.max_steps=2", "train.precision=float32", "sample.max_new_tokens=4"]
        done = (here if words[0] in seen else yanmo)(*words)
        seen.add(words[0])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    for block in blocks(README, "python"):
        done = python("-c", block)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_quickstart_runs_with_a_text_of_ones_own(novel: Path) -> None:
    done = yanmo("quickstart", "novel.txt", *TINY, "train.max_steps=4")
    assert done.returncode == 0, done.stderr
    assert [f"── {n}/3 ──" in done.stdout for n in (1, 2, 3)] == [True] * 3
    assert "generate runs/novel" in done.stderr


@pytest.mark.parametrize(
    "page",
    [
        *sorted(p.name for p in ROOT.glob("*.md")),
        "docs/health.md",
        "docs/page.md",
        "docs/results.md",
        "docs/settings.md",
        "docs/scale.md",
    ],
)
def test_pages_name_no_path_of_a_machine_and_link_to_files_that_exist(page: str) -> None:
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
    assert "@@" not in text
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target


def test_where_is_names_words_that_stand_in_their_files() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| `([^`]+)` \| `(src/[^`]+\.py)` \|$", page, re.MULTILINE)
    assert len(rows) >= 20
    for word, file in rows:
        assert word in (ROOT / file).read_text(encoding="utf-8"), f"{word} is not in {file}"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_are_named_are_there(page: str) -> None:
    for name in re.findall(r"`((?:[\w.]+/)+\w+\.(?:py|md))`", (ROOT / page).read_text(encoding="utf-8")):
        assert (ROOT / name).exists() or (ROOT / "src/yanmo" / name).exists(), f"{page}: {name}"
