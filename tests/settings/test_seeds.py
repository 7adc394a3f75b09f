"""The pages about the seeds: their commands run, in order, in miniature; their numbers are right."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import TINY
from tests.makers.texts import invented_text
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import count_parameters
from yanmo.settings.recipe import load_recipe, recipe_path

pytestmark = pytest.mark.slow

PAGES = Path(__file__).parents[2] / "docs" / "seeds"
SMALL = (
    *TINY,
    "train.device=cpu",
    "train.epochs=1",
    "train.precision=float32",
    "data.stride=8",
    "optim.warmup_steps=2",
)
SEEDS = ("doupo", "prose", "shakespeare_char", "mnbvc_230m", "wiki_gpt2")


def table() -> list[tuple[str, str, str]]:
    """(seed, its command, ours) of every row that has a yanmo command."""
    text = (PAGES / "README.md").read_text(encoding="utf-8").partition("## Seed command")[2]
    rows = re.findall(r"^\| (\w+) \| (.*) \| `(yanmo .*)` \|$", text, re.MULTILINE)
    return [(seed, theirs, ours) for seed, theirs, ours in rows]


def make_files() -> None:
    """What the seeds' users have lying about: json lists, vocabularies, plays, sentences."""
    text = invented_text(3000)
    articles = [text[start : start + 500] for start in range(0, 3000, 500)]
    articles[1] = articles[1][:50] + "\x07\x1b" + articles[1][50:]  # as before clr_ctrl.py
    raw = json.dumps(articles, ensure_ascii=False).replace("\\u0007", "\x07").replace("\\u001b", "\x1b")
    talks = [
        [{"role": "user", "content": article[:9]}, {"role": "assistant", "content": article[9:18]}]
        for article in articles
    ]
    characters = sorted(set(text + "萧炎大喝一声怀揣着梦想起风了中国") - {"\n"})
    vocabulary = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters])
    files = {
        "data/train.json": raw,
        "data/eval.json": json.dumps(articles[:2]),
        "cache/vocab_small.txt": vocabulary,
        "vocab.txt": vocabulary + "\n",
        "titles.txt": "江湖\n夜雨\n",
        "prompts.txt": "怀揣着梦想\n起风了\n",
        "dataset/corpus/prose.json": json.dumps([{"text": article} for article in articles]),
        "dataset/corpus/prose2.json": "\n".join(json.dumps({"text": a[::-1]}) for a in articles),
        "input.txt": "ROMEO:\n" + text,
        "datasets/wikipedia/sentences.txt": text,
        "smoltalk.jsonl": "\n".join(json.dumps({"messages": turns, "source": "x"}) for turns in talks),
        "instruction-data.json": json.dumps(
            [{"instruction": a, "input": "", "output": a[:9]} for a in articles]
        ),
        "plays/play.txt": "".join(f"罗密欧：{n}。\n朱丽叶：是{n}。\n" for n in range(60)),
        "mnbvc/part1.jsonl": "\n".join(json.dumps({"text": article}) for article in articles),
    }
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")


@pytest.mark.parametrize("seed", SEEDS)
def test_each_seeds_commands_run_from_corpus_to_saved_samples(seed: str) -> None:
    make_files()
    commands = [ours for name, _, ours in table() if name == seed]
    assert len(commands) >= 2
    for line in commands:
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words += SMALL
        if words[0] == "finetune":
            words += [setting for setting in SMALL if not setting.startswith(("data.", "optim."))]
        if words[0] == "generate":
            words += ["--max-new-tokens", "12"]
        done = here(*words, typed="/len 5\n春风\n/more\n/bye\n")
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if "--save" in words:
            folder = Path(words[words.index("--save") + 1])
            samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
            assert len(list(folder.glob("0*.txt"))) == len(samples["samples"])
    assert any("--save" in line for line in commands)


def test_the_seeds_page_names_every_recipe_and_verb_it_needs() -> None:
    assert {seed for seed, _, _ in table()} == set(SEEDS)
    for seed in SEEDS:
        assert recipe_path(seed) is not None
        assert (PAGES / f"{seed}.md").is_file()


@pytest.mark.parametrize(
    ("seed", "vocabulary", "parameters"),
    [
        ("doupo", 13317, 81_894_144),
        ("doupo", 21128, 87_892_992),
        ("prose", 21128, 102_068_736),
        ("shakespeare_char", 65, 10_770_816),
        ("shakespeare_char", 322, 10_869_504),
        ("mnbvc_230m", 32000, 235_179_008),
        ("wiki_gpt2", 50257, 124_439_808),
        ("wiki_gpt2", 100277, 162_855_168),
    ],
)
def test_parameter_counts_are_the_pages(seed: str, vocabulary: int, parameters: int) -> None:
    recipe = load_recipe(recipe_path(seed))
    assert count_parameters(GPTConfig.of(recipe.model, vocabulary)) == parameters
    assert f"{parameters:,}" in (PAGES / f"{seed}.md").read_text(encoding="utf-8")


def test_the_seeds_settings_are_the_recipes() -> None:
    doupo, prose, drama, diary, wiki = (load_recipe(recipe_path(seed)) for seed in SEEDS)
    assert (doupo.train.epochs, doupo.train.batch_size, doupo.data.stride) == (15, 8, 512)
    assert (doupo.tokenizer.newline_token, doupo.tokenizer.start_token, doupo.tokenizer.end_token) == (
        "[SEP]", "[MASK]", "[CLS]",
    )  # fmt: skip
    assert prose.train.precision == "float16"
    assert (drama.model.dropout, drama.train.max_steps, drama.train.batch_size) == (0.2, 5000, 64)
    assert (drama.train.eval_interval, drama.train.log_interval) == (250, 10)
    assert (diary.model.family, diary.optim.warmup_steps, diary.optim.weight_decay) == ("modern", 1000, 0.1)
    assert (wiki.model.n_head, wiki.train.epochs, wiki.train.batch_size) == (12, 4, 8)


def test_shakespeares_printed_count_is_impossible() -> None:
    """Every tensor is a multiple of the width; 81.6 passes are not 15."""
    assert 10_738_229 % 384 != 0
    assert 10_770_816 % 384 == 0
    assert pytest.approx(81.6, abs=0.05) == 5000 * 64 * 256 / 1_003_854
