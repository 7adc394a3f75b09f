"""Tokenizers measured: encoding speed, memory of learning, characters per token.

    python benchmarks/vocabularies.py encode $CORPORA/serial/novel_dev.txt
    python benchmarks/vocabularies.py learn $CORPORA/serial $CORPORA/prose --megabytes 100
    python benchmarks/vocabularies.py quality $CORPORA/general $CORPORA/prose \\
        --assets $CORPORA/tokenizer_assets
    python benchmarks/vocabularies.py equal $CORPORA/tokenizer_assets $CORPORA/general $CORPORA/prose

Ratios are between runs that take turns. Each subcommand prints rows of a Markdown table; ``encode`` writes
its rounds to ``benchmarks/results/encode.json`` too.
"""

import argparse
import hashlib
import io
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import turns

from yanmo.core.console import Console
from yanmo.data.prepare import prepare
from yanmo.data.survey import learn_tokenizer
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig
from yanmo.text.read.chapters import split_chapters
from yanmo.text.read.documents import read_documents
from yanmo.tokenizer import load_tokenizer, read_tokenizer
from yanmo.tokenizer.train import learner_for, peak_memory

QUIET = Console(stream=io.StringIO())
ROUNDS = 7


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# -- encode -----------------------------------------------------------------------------------


def encode(text: Path) -> None:
    """A file to shards by yanmo, next to the same vocabulary called chapter by chapter in transformers."""
    from transformers import AutoTokenizer

    size = text.stat().st_size / 1e6
    documents = split_chapters(next(iter(read_documents(CorpusConfig(path=(str(text),))))).text)
    print(f"{text.name}: {size:.1f} MB, {len(documents):,} chapters, {ROUNDS} rounds, in turns\n")
    print("| vocabulary | transformers, a chapter at a time | yanmo, file to shards | ratio |")
    print("|---|---|---|---|")
    took = {}
    for kind, vocab_size in (("char", 0), ("bpe", 32_000)):
        config = TokenizerConfig(kind=kind, vocab_size=vocab_size)
        corpus = CorpusConfig(path=(str(text),))
        with tempfile.TemporaryDirectory() as folder:
            os.environ["YANMO_CACHE"] = folder
            learn_tokenizer(corpus, config, QUIET).save(Path(folder), 1 << 30)
            theirs = AutoTokenizer.from_pretrained(folder)
            made = TokenizerConfig(path=folder)
            prepare(
                corpus, made, DataConfig(), 128, QUIET
            )  # the survey is there; what is timed is tokenising
            pairs = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                for document in documents:
                    theirs(document)["input_ids"]
                middle = time.perf_counter()
                shutil.rmtree(f"{folder}/shards")
                prepare(corpus, made, DataConfig(), 128, QUIET)
                pairs.append((middle - start, time.perf_counter() - middle))
        took[kind] = [{"transformers": theirs_s, "yanmo": ours_s} for theirs_s, ours_s in pairs]
        ratios = [a / b for a, b in pairs]
        slow, fast = (statistics.median(size / pair[side] for pair in pairs) for side in (0, 1))
        spread = f"{min(ratios):.1f} – {max(ratios):.1f}"
        print(f"| {kind} | {slow:.2f} MB/s | {fast:.1f} MB/s | {statistics.median(ratios):.1f} ({spread}) |")
    reading = [seconds(lambda: hashlib.sha256(text.read_bytes()).hexdigest()) for _ in range(ROUNDS)]
    print(f"\nreading the file and its sha256 alone: {size / statistics.median(reading):.0f} MB/s")
    about = {"text": text.name, "megabytes": size, "chapters": len(documents)}
    print(turns.save("encode", about | {"seconds": took, "reading_seconds": reading}))


# -- learn ------------------------------------------------------------------------------------


def learn(folders: list[Path], megabytes: int, sample_mb: int | None) -> None:
    """Time and memory of learning from a corpus of a given size, each in a process of its own."""
    print("| kind | corpus | sample | time | memory at most |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        write_corpus(corpus, folders, megabytes * 1_000_000)
        for kind in ("bpe", "unigram"):
            settings = [kind, str(corpus), str(sample_mb or TokenizerConfig().sample_mb)]
            done = subprocess.run(
                [sys.executable, __file__, "learn-one", *settings],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            print(done.stdout, end="", flush=True)


def learn_one(kind: str, corpus: Path, sample_mb: int) -> None:
    learner = learner_for(TokenizerConfig(sample_mb=sample_mb, vocab_size=32_000), kind)
    start = time.perf_counter()
    with open(corpus, encoding="utf-8") as file:
        while text := file.read(1 << 20):
            learner.add(text)
    learner.learn()
    took = time.perf_counter() - start
    size = corpus.stat().st_size / 1e6
    print(f"| {kind} | {size:.0f} MB | {sample_mb} MB | {took:.0f} s | {peak_memory() >> 20:,} MB |")


def write_corpus(target: Path, folders: list[Path], size: int) -> None:
    """The lines in another order, again and again; from the second time on each run of hanzi is turned, so
    that its words are new (a harder text to learn from than a natural one)."""
    lines = [line for folder in folders for text in texts_in(folder) for line in text.split("\n")]
    rng, turn, written = random.Random(1), 0, 0
    with open(target, "w", encoding="utf-8") as file:
        while True:
            rng.shuffle(lines)
            for line in lines:
                turned = re.sub(r"[\u4e00-\u9fff]+", partial(turn_by, turn), line) + "\n"
                file.write(turned)
                written += len(turned.encode())
                if written >= size:
                    return
            turn += 1


def turn_by(places: int, run: re.Match[str]) -> str:
    at = places % len(run[0])
    return run[0][at:] + run[0][:at]


def texts_in(folder: Path) -> Iterator[str]:
    for document in read_documents(CorpusConfig(path=(str(folder),))):
        yield document.text


# -- quality ----------------------------------------------------------------------------------


def quality(folders: list[Path], assets: Path | None) -> None:
    """Characters per token on a tenth of the paragraphs, learned on the others."""
    kept: dict[str, list[str]] = {}
    lesson: list[str] = []
    for folder in folders:
        kept[folder.name] = []
        for text in texts_in(folder):
            for line in text.split("\n"):
                held_out = hashlib.sha256(line.encode()).digest()[0] < 26
                (kept[folder.name] if held_out else lesson).append(line)
    found: dict[str, Callable[[str], int]] = {}
    for kind in ("bpe", "unigram"):
        learner = learner_for(TokenizerConfig(vocab_size=32_000), kind)
        learner.add("\n".join(lesson))
        tokenizer = learner.learn()
        found[f"yanmo {kind}, {tokenizer.vocab_size:,}"] = lambda text, t=tokenizer: len(t.encode(text))
        print(f"learned {kind}", file=sys.stderr)
    for kind in ("bpe", "unigram"):
        model = sentencepiece_model(lesson, kind)
        found[f"sentencepiece {kind}, {model.get_piece_size():,}"] = lambda text, m=model: len(m.encode(text))
        print(f"learned sentencepiece {kind}", file=sys.stderr)
    for path in sorted(assets.iterdir()) if assets else []:
        if path.suffix != ".bpe":
            imported = read_tokenizer(path, TokenizerConfig())
            found[f"{path.name}, {imported.vocab_size:,}"] = lambda text, t=imported: len(t.encode(text))
    print("| vocabulary | " + " | ".join(kept) + " |\n|---|" + "---|" * len(kept))
    for name, count in found.items():
        row = [sum(map(len, lines)) / sum(count(line) for line in lines if line) for lines in kept.values()]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


def sentencepiece_model(lesson: list[str], kind: str):  # type: ignore[no-untyped-def]
    """SentencePiece's own way: identity normalisation, byte fallback, the rest its defaults."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in lesson if line), model_writer=model, model_type=kind,
        vocab_size=32_000, character_coverage=0.9995, byte_fallback=True, normalization_rule_name="identity",
        num_threads=2, minloglevel=2, max_sentence_length=1 << 20,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


# -- equal ------------------------------------------------------------------------------------


def equal(assets: Path, folders: list[Path], count: int) -> None:
    """Ids of imported files next to those of the library they are made for."""
    import tiktoken
    import tokenizers

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.makers.texts import random_strings

    texts = [line for folder in folders for text in texts_in(folder) for line in (text[:200_000],)]
    texts += list(random_strings(count, seed=11))
    from tiktoken.load import load_tiktoken_bpe

    from yanmo.tokenizer.files import TIKTOKEN_FILES

    print(
        f"{len(texts):,} texts, {sum(map(len, texts)):,} characters, {count:,} of the texts random strings\n"
    )
    print("| file | original library | differing |\n|---|---|---|")
    for path in sorted(assets.iterdir()):
        if path.suffix == ".tiktoken":
            ranks = load_tiktoken_bpe(str(path))
            rule, specials = TIKTOKEN_FILES[len(ranks)]
            theirs = tiktoken.Encoding(
                path.stem, pat_str=rule, mergeable_ranks=ranks, special_tokens=specials
            )
            library, name = theirs.encode_ordinary, "tiktoken"
        elif path.name.endswith("encoder.json"):
            merges = path.with_name(path.name.replace("encoder.json", "vocab.bpe"))
            own = tokenizers.ByteLevelBPETokenizer(str(path), str(merges))
            library, name = (lambda text, t=own: t.encode(text).ids), "tokenizers"
        elif path.name.endswith("tokenizer.json"):
            whole = tokenizers.Tokenizer.from_file(str(path))
            whole.encode_special_tokens = True
            library, name = (lambda text, t=whole: t.encode(text, add_special_tokens=False).ids), "tokenizers"
        else:
            continue
        ours = read_tokenizer(path, TokenizerConfig())
        with tempfile.TemporaryDirectory() as folder:
            ours.save(Path(folder), 1 << 30)
            again = load_tokenizer(Path(folder))
        differing = sum(again.encode(text).tolist() != library(text) for text in texts)
        print(f"| {path.name} | {name} | {differing} of {len(texts):,} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("encode").add_argument("text", type=Path)
    for name in ("learn", "quality"):
        commands.add_parser(name).add_argument("folders", type=Path, nargs="+")
    commands.choices["learn"].add_argument("--megabytes", type=int, default=100)
    commands.choices["learn"].add_argument("--sample-mb", type=int)
    commands.choices["quality"].add_argument("--assets", type=Path)
    one = commands.add_parser("learn-one")
    one.add_argument("kind")
    one.add_argument("corpus", type=Path)
    one.add_argument("sample_mb", type=int)
    same = commands.add_parser("equal")
    same.add_argument("assets", type=Path)
    same.add_argument("folders", type=Path, nargs="+")
    same.add_argument("--count", type=int, default=20_000)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command").replace("-", "_")
    {"encode": encode, "learn": learn, "learn_one": learn_one, "quality": quality, "equal": equal}[command](
        **arguments
    )


if __name__ == "__main__":
    main()
