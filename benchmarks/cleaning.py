"""How well ads are taken out of a text that has a hand-cleaned twin, and how fast it all is.

    python benchmarks/cleaning.py twin RAW CLEAN
    python benchmarks/cleaning.py judge CORPUS…
    python benchmarks/cleaning.py near TEXT
    python benchmarks/cleaning.py speed TEXT --copies 29

``twin`` cleans RAW and compares line by line with CLEAN, spaces apart: how many of the characters that the
hand took out are gone, and how many of those it left are lost. ``judge`` prints what documents are judged
by: the worst, the worst of a hundred, the median, and how many would be dropped. ``near`` changes single
characters in pieces of 3,000 and counts how many are still found to be copies. ``speed`` cleans so many
copies of a novel, each with a line of its own so that not all of them are duplicates, and gives MB/s and the
memory of all processes together.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from yanmo.core.console import Console
from yanmo.settings.recipe import load_cleaning
from yanmo.settings.schema import CorpusConfig, DedupConfig
from yanmo.text.clean.dedup import SHINGLE_CHARACTERS, DuplicateIndex, marks_of
from yanmo.text.clean.filters import JUDGED_FROM_CHARACTERS, Dropped, measure, quality
from yanmo.text.clean.run import run
from yanmo.text.read.documents import CorpusCounts, read_documents


def main() -> None:
    """One of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    which = parser.add_subparsers(dest="which", required=True)
    twin_of = which.add_parser("twin")
    twin_of.add_argument("raw", type=Path)
    twin_of.add_argument("clean", type=Path)
    which.add_parser("judge").add_argument("corpora", nargs="+")
    which.add_parser("near").add_argument("text", type=Path)
    speed_of = which.add_parser("speed")
    speed_of.add_argument("text", type=Path)
    speed_of.add_argument("--copies", type=int, default=29)
    speed_of.add_argument("settings", nargs="*", default=["dedup.near=0", "dedup.paragraphs=0"])
    asked = parser.parse_args()
    if asked.which == "twin":
        twin(asked.raw, asked.clean)
    elif asked.which == "judge":
        judge(asked.corpora)
    elif asked.which == "near":
        near(asked.text)
    else:
        speed(asked.text, asked.copies, asked.settings)


def twin(raw: Path, clean: Path) -> None:
    """Characters of ads that are gone, of text that is lost."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.jsonl"
        run(load_cleaning([], [str(raw)]), out, Console())
        before, wanted, ours = lines_of(raw), lines_of(clean), lines_of(out)
    ads, text = size(before - wanted), size(wanted)
    left, lost = size(ours - wanted), size(wanted - ours)
    print(f"ads   {ads:,} characters, gone {1 - left / ads:.2%}")
    print(f"text  {text:,} characters, lost {lost / text:.4%} ({lost})")


def judge(corpora: list[str]) -> None:
    """What the documents of each corpus with 100 characters and more are like."""
    print("| corpus | documents | letters | digits | common hanzi | compressed | dropped |")
    print("|---|---|---|---|---|---|---|")
    for path in corpora:
        corpus = CorpusConfig(path=(path,), split_chapters=True)
        texts = [document.text for document in read_documents(corpus, CorpusCounts())]
        dropped = sum(1 for text in texts if is_dropped(text))
        found = [one for one in map(measure, texts) if one.visible >= JUDGED_FROM_CHARACTERS]
        cells = []
        for name in ("letters", "digits", "common", "compressed"):
            values = sorted((getattr(one, name) for one in found), reverse=name == "digits")
            chosen = (values[0], values[len(values) // 100], values[len(values) // 2])
            cells.append(" / ".join(f"{value:.2f}" for value in chosen))
        print(f"| {Path(path).name} | {len(found):,} | {' | '.join(cells)} | {dropped} of {len(texts):,} |")


def is_dropped(text: str) -> bool:
    """Whether the rule ``quality`` would drop it."""
    try:
        quality(text)
    except Dropped:
        return True
    return False


def near(text: Path) -> None:
    """How many of 100 changed pieces are found, by how much they are like the original."""
    config, chance = DedupConfig(exact=False, paragraphs=0), random.Random(1)
    novel = next(read_documents(CorpusConfig(path=(str(text),)), CorpusCounts())).text
    pieces = [novel[number * 3000 : (number + 1) * 3000] for number in range(100)]
    print("| characters changed | Jaccard, mean | found of 100 |\n|---|---|---|")
    for rate in (0.005, 0.01, 0.02, 0.03, 0.05):
        seen, likeness, found = DuplicateIndex(config), 0.0, 0
        for piece in pieces:
            assert not seen.judge(marks_of(piece, config))
        for piece in pieces:
            changed = "".join(chance.choice("天地玄黄") if chance.random() < rate else c for c in piece)
            found += bool(seen.judge(marks_of(changed, config)))
            one, other = shingles(piece), shingles(changed)
            likeness += len(one & other) / len(one | other)
        print(f"| {rate:.1%} | {likeness / 100:.2f} | {found} |")


def shingles(text: str) -> set[str]:
    """Runs of five letters."""
    letters = "".join(text.split())
    return {letters[i : i + SHINGLE_CHARACTERS] for i in range(len(letters) - SHINGLE_CHARACTERS + 1)}


def lines_of(path: Path) -> Counter[str]:
    """How often each line stands there, without spaces."""
    texts = [document.text for document in read_documents(CorpusConfig(path=(str(path),)), CorpusCounts())]
    lines = ("".join(line.split()) for text in texts for line in text.split("\n"))
    return Counter(line for line in lines if line)


def size(lines: Counter[str]) -> int:
    """Characters in all."""
    return sum(len(line) * number for line, number in lines.items())


def speed(text: Path, copies: int, settings: list[str]) -> None:
    """MB/s and MB of memory of `yanmo clean --dedup` on copies of a text."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "copies.txt"
        content = text.read_bytes()
        with open(corpus, "wb") as file:
            for number in range(copies):
                file.write(f"第{number + 1}卷\n\n抄本第{number + 1}种。\n".encode() + content + b"\n")
        command = [
            sys.executable,
            "-m",
            "yanmo",
            "clean",
            str(corpus),
            "corpus.split_chapters=true",
            *settings,
        ]
        start = time.perf_counter()
        done = subprocess.Popen(
            [*command, "--dedup", "--out", f"{folder}/out.jsonl"], stdout=subprocess.PIPE, text=True
        )
        peak = [0]
        threading.Thread(target=watch, args=(done.pid, peak), daemon=True).start()
        said, _ = done.communicate()
        took = time.perf_counter() - start
        print(said)
        megabytes = corpus.stat().st_size / 1e6
        print(
            f"{megabytes:.0f} MB in {took:.1f} s: {megabytes / took:.1f} MB/s, {peak[0] / 1e6:.0f} MB at most"
        )


def watch(process: int, peak: list[int]) -> None:
    """Note the most memory that a process and its children have together."""
    while Path(f"/proc/{process}").exists():
        family = [process, *children(process)]
        peak[0] = max(peak[0], sum(memory(member) for member in family))
        time.sleep(0.1)


def children(process: int) -> list[int]:
    """The processes it started."""
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(child) for child in found] + [c for child in found for c in children(int(child))]


def memory(process: int) -> int:
    """Bytes of a process; of what several share, its part."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
