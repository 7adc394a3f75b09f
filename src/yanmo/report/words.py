"""What the figures of a run mean, in sentences: what it is, is it good, is it copied, what next.

In: a record and its figures. Out: sentences in English and Chinese.
"""

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

from yanmo.core.commands import as_command
from yanmo.core.console import counted, span
from yanmo.eval.baselines import NGramBaselines
from yanmo.eval.history import finite
from yanmo.report.figures import Figures
from yanmo.report.measured import copied, recalled
from yanmo.report.record import COPIES, RunRecord
from yanmo.settings.recipe import longer_setting
from yanmo.tokenizer.base import CHAT

UNITS = {"days": "天", "day": "天", "h": "小时", "min": "分", "s": "秒"}
LONG_SPAN = 20
"""Characters: a span that long, found in the training text, is a copy; shorter ones are common phrases."""
GAP = 0.5
"""Bits per character by which training text may be cheaper than held-out text before that is said."""


class Said(NamedTuple):
    """A sentence in both languages."""

    english: str
    chinese: str


def in_chinese(seconds: float) -> str:
    """A span of time: ``3 分 05 秒``."""
    return re.sub(r"[a-z]+", lambda unit: UNITS[unit[0]], span(seconds))


def file_name(path: str) -> str:
    """A path without what lies above it."""
    return path if path.startswith("yanmo:") else PurePath(path).name or path


# -- what it is -------------------------------------------------------------------------------


def what_it_is(record: RunRecord, found: Figures) -> Iterator[Said]:
    """Its shape, its text, how far it came."""
    model = record.recipe.model
    yield Said(
        f"A {model.family} model of {found.parameters:,} parameters: {counted(model.n_layer, 'layer')},"
        f" {model.n_embd} wide, a window of {model.block_size:,} tokens, a vocabulary of"
        f" {record.corpus.vocab_size:,}.",
        f"{model.family} 模型，{found.parameters:,} 个参数：{model.n_layer} 层，宽 {model.n_embd}，"
        f"窗口 {model.block_size:,} 个词元，词表 {record.corpus.vocab_size:,}。",
    )
    yield from _base(record)
    yield _read(record, found)
    yield from _state(found)


def _base(record: RunRecord) -> Iterator[Said]:
    init, tune = record.recipe.model.init, record.recipe.finetune
    if init is not None:
        how = tune.preference or tune.method or "full"
        yield Said(
            f"It began from the weights of {file_name(init)} and was taught by {how}.",
            f"从 {file_name(init)} 的权重开始，以 {how} 方式继续训练。",
        )


def _read(record: RunRecord, found: Figures) -> Said:
    train, files = record.corpus.splits.train, ", ".join(map(file_name, record.recipe.corpus.path))
    passes = f", {found.passes:.2g} passes" if found.passes else ""
    times = f"，{found.passes:.2g} 遍" if found.passes else ""
    took, spent = (
        (f" in {span(found.seconds)}", f"，用时 {in_chinese(found.seconds)}") if found.seconds else ("", "")
    )
    return Said(
        f"It read {files}: {counted(train.characters, 'character')}{passes},"
        f" {counted(found.step, 'step')}{took}.",
        f"训练文本是 {files}：{train.characters:,} 字{times}，{found.step:,} 步{spent}。",
    )


def _state(found: Figures) -> Iterator[Said]:
    at = f"step {found.step:,} of {found.planned:,}"
    if found.state == "unfinished":
        yield Said(f"It is not finished: {at}.", f"尚未完成：第 {found.step:,} 步，共 {found.planned:,} 步。")
    if found.state == "diverged":
        yield Said(
            f"It diverged and ended at {at}; the last checkpoint is sound.",
            f"训练发散，止于第 {found.step:,} 步（共 {found.planned:,} 步）；最后的检查点完好。",
        )


# -- is it good -------------------------------------------------------------------------------


def is_it_good(record: RunRecord, found: Figures) -> Iterator[Said]:
    """Held-out text beside the baselines; whether it learned by heart; what else was measured."""
    if found.best is None:
        yield Said("Nothing was measured yet.", "还没有评测过。")
        return
    step, bits = found.best
    is_pairs = record.recipe.finetune.preference is not None
    if record.lines is not None and is_pairs:
        yield Said(
            f"What was chosen costs it {bits:.3f} bits per character: {record.lines.describe_rank(bits)}.",
            f"被选中的文本每字 {bits:.3f} 比特：{_rank(record.lines, bits)}。",
        )
    elif record.lines is not None:
        yield Said(
            f"Text that it never saw costs it {bits:.3f} bits per character at its best, step {step:,.0f}:"
            f" {record.lines.describe_rank(bits)}.",
            f"没见过的文本，最好时（第 {step:,.0f} 步）每字 {bits:.3f} 比特：{_rank(record.lines, bits)}。",
        )
    if (unseen := dict(record.unseen).get(step)) is not None:
        yield Said(
            f"The texts of data.held_out, of which it read no part, cost it {unseen:.3f}.",
            f"data.held_out 的文本，一句也没读过，每字 {unseen:.3f} 比特。",
        )
    if any(row.get("lossy") for row in record.named("start")):
        yield Said(
            "Its vocabulary loses characters: these bits cannot be compared with others.",
            "词表会丢字：这些比特数不能与别的模型比较。",
        )
    if not is_pairs:
        yield from _after_best(found)
    yield from _taught(record)


def _rank(lines: NGramBaselines, bits: float) -> str:
    if lines.floor is not None and bits < lines.bigram:
        return f"比下限 {lines.floor:.2f} 高 {bits - lines.floor:.2f}"
    if bits < lines.bigram:
        return f"低于二元基线 {lines.bigram:.2f}"
    if bits < lines.unigram:
        return f"在一元基线 {lines.unigram:.2f} 与二元基线 {lines.bigram:.2f} 之间：还只知道哪些字常见"
    return f"高于一元基线 {lines.unigram:.2f}：连哪些字常见都还没学会"


def _after_best(found: Figures) -> Iterator[Said]:
    if found.best is None or found.last is None:
        return
    (_, bits), (end, _) = found.best, found.last
    if found.rise:
        yield Said(
            f"After that the held-out loss rose by {found.rise:.1%} until step {end:,.0f}: it learned its"
            " text by heart. The weights in model are the best ones.",
            f"此后到第 {end:,.0f} 步，留出文本的损失升了 {found.rise:.1%}：它在背书。"
            "model 里是最好的那一步。",
        )
    elif found.state == "finished":
        yield Said("It did not get worse after that.", "此后没有变差。")
    if found.training is not None and bits - found.training > GAP:
        yield Said(
            f"Its training text costs it {found.training:.3f} there, {bits - found.training:.2f} less: what"
            " it knows of that text alone.",
            f"那时训练文本每字 {found.training:.3f} 比特，少 {bits - found.training:.2f}：只对训练文本有用。",
        )


def _taught(record: RunRecord) -> Iterator[Said]:
    base = record.points("eval", "base_bits_per_char")
    if len(base) > 1:
        (_, before), (_, after) = base[0], base[-1]
        verb, word = ("partly forgotten", "忘了一些") if after > before else ("not forgotten", "没有忘")
        yield Said(
            f"The text of its base: {verb}, from {before:.3f} to {after:.3f} bits per character.",
            f"基座的文本{word}：从每字 {before:.3f} 比特到 {after:.3f} 比特。",
        )
    accuracy = record.points("eval", "reward_accuracy")
    if accuracy:
        (_, first), (_, last) = accuracy[0], accuracy[-1]
        yield Said(
            f"It prefers what was chosen in {last:.0%} of held-out pairs, {first:.0%} at the beginning.",
            f"留出的偏好对中，它偏向被选者的占 {last:.0%}（开始时 {first:.0%}）。",
        )
    stops = [finite(row.get("stop_rate")) for row in record.named("end")]
    if stops and stops[-1] is not None:
        yield Said(
            f"{stops[-1]:.0%} of its answers to held-out questions come to an end.",
            f"对留出的问题，{stops[-1]:.0%} 的回答会自己结束。",
        )


# -- is it copied -----------------------------------------------------------------------------


def is_it_copied(record: RunRecord) -> Iterator[Said]:
    """The copy meter's answer, or that there is none."""
    rows = copied(record)
    row = next((row for row in rows if int(row.name) >= LONG_SPAN), rows[-1] if rows else None)
    if row is None:
        yield Said("That was not measured yet. This command does:", "还没有测过。用这个命令测：")
        return
    control = f"; of the held-out text {row.held_out.value:.1%}" if row.held_out else ""
    beside = f"；留出的原文也有 {row.held_out.value:.1%}" if row.held_out else ""
    yield Said(
        f"{row.samples.value:.1%} of what it writes stands in its training text, in spans of {row.name}"
        f" characters or more{control}.",
        f"它写的字有 {row.samples.value:.1%} 在训练文本里连着 {row.name} 字以上原样出现{beside}。",
    )
    training, held_out = recalled(record)
    if training and held_out:
        yield Said(
            f"Given the beginning, it goes on word for word with {training.value:.1%} of passages of its"
            f" training text, and with {held_out.value:.1%} of held-out text.",
            f"给出开头，它能一字不差接下去的段落：训练文本 {training.value:.1%}，"
            f"留出文本 {held_out.value:.1%}。",
        )


# -- what next --------------------------------------------------------------------------------


def what_next(record: RunRecord, found: Figures) -> Said:
    """The one thing to do."""
    if found.state == "diverged":
        rate = record.recipe.optim.learning_rate or 0.0
        return Said(
            f"Begin again, in a new folder, with a third of the rate: optim.learning_rate={rate / 3:.2g}.",
            f"换一个文件夹，用三分之一的学习率重来：optim.learning_rate={rate / 3:.2g}。",
        )
    if found.state == "unfinished":
        return Said("Let it finish; it goes on where it stopped.", "让它跑完；它会从停下的地方继续。")
    if found.rise:
        return Said(
            "Training it longer makes it worse. More text helps most; else a run that ends where this one was"
            " best.",
            "再训练只会更差。最有用的是更多文本；否则让新的一次训练停在最好的那一步。",
        )
    if record.lines and found.best and found.best[1] >= record.lines.bigram:
        return Said(
            "Train it longer: it is not yet better than counting pairs of characters.",
            "继续训练：它还不如只数相邻字对的二元模型。",
        )
    if (found.passes or 0) < 1:
        return Said(
            "Train it longer: it has not read all of its text once.", "继续训练：文本还没有读完一遍。"
        )
    return Said(
        "Read what it writes; training it longer may still help.", "看看它写的；再训练或许还会好一些。"
    )


def next_commands(record: RunRecord, found: Figures) -> list[str]:
    """Three commands that lead on."""
    place, answers = record.place, (record.folder / "model" / CHAT).is_file()
    verb = "train" if record.recipe.finetune.method is None else "finetune"
    write = ["chat", place] if answers else ["generate", place, "--num-samples", "3"]
    longer = longer_setting(record.recipe.train, found.step, found.seconds or 0.0)
    on = ["train", f"{place}/recipe.toml", longer, "--out", place]
    if found.rise and found.best:
        on = [*on[:2], f"train.max_steps={found.best[0]:.0f}", "--out", f"{place}-shorter"]
    elif found.state != "finished":
        on = [verb, place]
    return [as_command(["yanmo", *words]) for words in (write, on, ["serve", place])]


def copies_command(record: RunRecord) -> str:
    """The command that fills the copy meter."""
    return (
        as_command(["yanmo", "evaluate", record.place, "--copies", "--writing", "--json"])
        + " > "
        + as_command([f"{record.place}/{COPIES}"])
    )
