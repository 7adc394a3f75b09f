"""``yanmo inspect`` and ``yanmo clean``: what a corpus is, and what it becomes."""

import glob
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yanmo.cli.options import Force, Json
from yanmo.core.commands import install_command
from yanmo.core.console import counted, unguarded, visible
from yanmo.core.errors import ConfigError

if TYPE_CHECKING:
    from collections import Counter

    from yanmo.settings.schema import Cleaning
    from yanmo.text.clean.run import CleaningResult, SourceCounts
    from yanmo.text.inspect.report import Report

Arguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS… [clean.key=value…]",
        help="Files, folders, globs, or - for standard input; then settings of [corpus], [clean] and [dedup],"
        " such as clean.script=simplified.",
        show_default=False,
    ),
]
Processes = Annotated[int | None, typer.Option(min=1, help="Number of processes. [default: one per core]")]
SHOWN_FILES = 20
LOOKING = "looking for held-out text in the training text"
NAMES = {"\n": "line end", " ": "space", "\t": "tab", "　": "full-width space"}
COLOURS = {"same": "", "out": "red strike", "in": "green"}


def inspect(
    arguments: Arguments,
    vocab: Annotated[
        str | None, typer.Option(help="A vocabulary (as tokenizer.path): list the characters it lacks.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a web page with charts.")] = None,
    nproc: Processes = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Report what a corpus is, what is wrong with it, and what `yanmo clean` would change."""
    from yanmo.core import storage
    from yanmo.core.console import Console
    from yanmo.core.outputs import is_marked, require_file
    from yanmo.data.contamination import contamination
    from yanmo.text.inspect.page import page
    from yanmo.text.inspect.report import inspect as look

    config, console = _cleaning(arguments, "inspect"), Console()
    if html is not None:
        require_file(html, "--html", input_paths(config.corpus.path), is_marked, force)
    if importlib.util.find_spec("rensa") is None:
        console.print(f"near-duplicates are not detected: {install_command('clean')}")
        config = config.model_copy(update={"dedup": config.dedup.model_copy(update={"near": 0.0})})
    report = look(config, nproc, console)
    if report.documents:
        console.status(LOOKING)
        readable = tuple(file.location for file in report.files if not file.unreadable)
        report.overlap = contamination(config.corpus.model_copy(update={"path": readable})).share
        console.clear_status()
    if vocab is not None:
        report.lacking = lacking(vocab, report.characters_seen)
    if html is not None:
        storage.write_atomic(html, page(report, f"Corpus report: {', '.join(config.corpus.path)}"))
    if as_json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return
    print("\n".join(report_lines(report)))
    if html is not None:
        print(f"page       {html}")
    print("Next:", *(f"  {command}" for command in _next(arguments, report.proposal())), sep="\n")


def lacking(vocab: str, characters: "Counter[str]") -> dict[str, int]:
    """Characters that do not come back from a vocabulary, the most frequent first."""
    from yanmo.settings.schema import TokenizerConfig
    from yanmo.tokenizer import find_tokenizer

    tokenizer = find_tokenizer(TokenizerConfig(path=vocab))
    assert tokenizer is not None
    lost = {c: n for c, n in characters.most_common() if c not in tokenizer.decode(tokenizer.encode(c))}
    return {NAMES.get(c, c): n for c, n in lost.items()}


def report_lines(report: "Report") -> list[str]:
    """A report for people."""
    from yanmo.text.inspect.report import BINS

    def listed(values: Mapping[str, int], shown: int = 8) -> str:
        parts = [f"{name} {number:,}" for name, number in [*values.items()][:shown] if number]
        return ", ".join([*parts, "…"] if len(values) > shown else parts)

    bounds = [*(f"≤{bound:,}" for bound in BINS), "more"]
    found = [
        f"files      {len(report.files):,}, {report.bytes:,} bytes"
        + (f"; skipped: {listed(report.passed_over)}" if report.passed_over else "")
    ]
    for file in report.files[:SHOWN_FILES]:
        state = file.unreadable or f"{', '.join(file.encodings)}, {amount(file.documents, file.characters)}"
        lost = f"; dropped: {listed(file.dropped)}" if file.dropped else ""
        found.append(f"           {file.path}: {state}{lost}")
    if len(report.files) > SHOWN_FILES:
        found.append(f"           … {len(report.files) - SHOWN_FILES:,} more; --json and --html list them")
    different = len(report.characters_seen)
    found += [
        f"text       {amount(report.documents, report.characters)}, {different:,} different ones;"
        f" {counted(report.lines, 'line')}",
        f"tokens     {listed(report.tokens)}",
        f"lengths    {listed(dict(zip(bounds, report.lengths, strict=True)), 20)}; median {report.median:,},"
        f" longest {report.longest:,}",
    ]
    odd = {name: sum(values.values()) for name, values in report.odd_characters.items()}
    sections = {
        "found": report.forms,
        "scripts": report.scripts,
        "marks": report.punctuation,
        "unequal": report.unbalanced,
        "odd": odd,
        "lacking": report.lacking,
    }
    found += [f"{name:<10} {listed(values)}" for name, values in sections.items() if values]
    found += held_out(report.overlap)
    found += [
        f"would drop {counted(number, 'document')}: {reason}"
        for reason, number in report.dropped.most_common()
    ]
    for rule, number in report.changed.most_common():
        found.append(f"change     {counted(number, 'document')}: {rule}{less(report.removed[rule])}")
    found += [f"ad         {line}" for line in report.ads[:8]]
    found += [f"repeated   in {number:,} documents: {line}" for line, number in report.repeated_lines[:12]]
    found += [f"repeated   {number:,} times: {line}" for line, number in report.repeated_within[:12]]
    return found + [f"note       {note}" for note in report.notes.said()]


def _next(arguments: list[str], proposal: str) -> list[str]:
    named = shlex.join(arguments)
    plain = [f"yanmo clean {named} --explain", f"yanmo clean {named} --dedup"]
    return [*plain, f"yanmo clean {named} --dedup {shlex.quote(proposal)}"] if proposal else plain


def clean(
    arguments: Arguments,
    out: Annotated[
        Path | None,
        typer.Option(help="The .jsonl to write. [default: NAME.clean.jsonl or NAME.dialogues.jsonl]"),
    ] = None,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Drop duplicates and near-duplicates; remove repeated paragraphs.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights of the corpora in the mix, such as 3,1,1; no text is dropped, some is repeated."
        ),
    ] = None,
    dialogues: Annotated[
        bool,
        typer.Option("--dialogues", help="Make conversations of plays, one for each scene and character."),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every change as a diff, and write nothing.")
    ] = False,
    nproc: Processes = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Clean corpora: write one .jsonl, and a manifest that counts every document."""
    from yanmo.core.console import Console
    from yanmo.core.outputs import require_file
    from yanmo.data.contamination import contamination
    from yanmo.settings.schema import CorpusConfig
    from yanmo.text.clean.run import is_cleaned, manifest_path, run, write_manifest

    config = _cleaning(arguments, "clean")
    if explain:
        others = {"--dialogues": dialogues, "--dedup": dedup, "--weights": weights}
        _refuse_with_explain({**others, "--out": out, "--json": as_json})
        show_changes(config)
        return
    _refuse_together(arguments, dedup, weights, dialogues)
    kind = "dialogues" if dialogues else "clean"
    target = out or Path(f"{_name_of(config.corpus.path[0])}.{kind}.jsonl")
    _check_out(target)
    for file in (target, manifest_path(target)):
        require_file(file, "--out", input_paths(config.corpus.path), lambda _: is_cleaned(target), force)
    shares = _weights(weights, len(config.corpus.path))
    console = Console()
    result = run(config, target, console, shares, dedup, nproc, dialogues)
    if dedup:
        console.status(LOOKING)
        result.overlap = contamination(CorpusConfig(path=(str(target),))).share
        write_manifest(result)
        console.clear_status()
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False))
        return
    print("\n".join(lines(result)))
    print(f"manifest   {manifest_path(target)}")
    following = [f"finetune RUN {target}"] if dialogues else [f"inspect {target}", f"train {target}"]
    print("Next:", *(f"  yanmo {command}" for command in following), sep="\n")


def _refuse_together(arguments: list[str], dedup: bool, weights: str | None, dialogues: bool) -> None:
    """Options that do nothing beside, or without, each other."""
    if not dedup and (named := [word for word in arguments if word.startswith("dedup.")]):
        raise ConfigError(f"{named[0]} does nothing without --dedup", "yanmo clean", "add --dedup")
    if dialogues and (given := "--dedup" if dedup else "--weights" if weights else ""):
        raise ConfigError(f"{given} is for texts, --dialogues for plays", "yanmo clean", "use one of the two")


def lines(result: "CleaningResult") -> list[str]:
    """A result for people."""
    read = result.counts.documents_read
    found = [
        f"{result.out}",
        f"read       {counted(read, 'document')} of {counted(result.counts.files, 'file')}",
        f"kept       {amount(result.documents, result.characters)}, {result.bytes:,} bytes",
    ]
    for reason, number in (result.dropped + result.counts.documents_dropped).most_common():
        found.append(f"dropped    {counted(number, 'document')}: {reason}")
    found += result.drama.lines() if result.drama is not None else []
    for rule, number in result.changed.most_common():
        removed = result.removed[rule]
        found.append(f"changed    {counted(number, 'document')}: {rule}{less(removed)}")
    mix = sum(source.characters_in_the_mix for source in result.sources)

    def share(source: "SourceCounts") -> float:
        return source.characters_in_the_mix / max(mix, 1)

    for source in result.sources if len(result.sources) > 1 else []:
        mixed = (
            f", in the mix {source.characters_in_the_mix:,} ({share(source):.1%})" if result.weights else ""
        )
        found.append(f"source     {source.path}: {amount(source.documents, source.characters)}{mixed}")
    for source, weight in zip(result.sources, result.weights, strict=False):
        asked = weight / sum(result.weights)
        if abs(share(source) - asked) > asked / 10:
            found.append(f"warning    {source.path} has too little text for {asked:.1%} of the mix")
    found += held_out(result.overlap)
    unknown = sum(source.licences["not known"] for source in result.sources)
    if unknown:
        found.append(f"licence    of {counted(unknown, 'document')} not known")
    return found


def held_out(overlap: float | None) -> list[str]:
    """The line about held-out text in the training text, if that was looked for."""
    return (
        []
        if overlap is None
        else [f"held out   {overlap:.2%} of the held-out text would also be in the training text"]
    )


def amount(documents: int, characters: int) -> str:
    """So much text, in words."""
    return f"{counted(documents, 'document')}, {counted(characters, 'character')}"


def less(characters: int) -> str:
    """By how much a text grew shorter, as the rest of a line."""
    if not characters:
        return ""
    return f", {counted(abs(characters), 'character')} {'fewer' if characters > 0 else 'more'}"


def show_changes(config: "Cleaning") -> None:
    """Print every change: what goes in red, what comes in green; with marks where there is no terminal."""
    from rich.console import Console
    from rich.text import Text

    from yanmo.text.clean.explain import Change, explain

    console = Console(file=unguarded(sys.stdout), highlight=False, markup=False, emoji=False, soft_wrap=True)
    shown = visible if console.is_terminal else str
    number = 0

    def text_of(change: Change) -> Iterator[Text]:
        yield Text(shown(f"{change.document}:{change.line}  {change.rule}"), style="bold")
        if not change.parts:
            return
        line = Text("  ")
        for kind, part in change.parts:
            part = shown(part).replace("\n", "⏎\n  ")
            marked = (
                part
                if kind == "same" or console.is_terminal
                else {"out": f"[-{part}-]", "in": f"{{+{part}+}}"}[kind]
            )
            line.append(marked, style=COLOURS[kind])
        yield line

    for change in explain(config):
        number += 1
        for line in text_of(change):
            console.print(line)
    console.print(f"{counted(number, 'change')}; nothing was written")


def _cleaning(arguments: list[str], verb: str) -> "Cleaning":
    from yanmo.settings.recipe import load_cleaning, split_arguments

    paths, settings = split_arguments(arguments)
    if not paths:
        raise ConfigError("no corpus is named", f"yanmo {verb}", "name files, folders or globs")
    return load_cleaning(settings, paths)


def _refuse_with_explain(options: Mapping[str, object]) -> None:
    if given := [name for name, value in options.items() if value]:
        raise ConfigError(
            f"--explain only shows what the rules do and writes nothing; it cannot be used with {given[0]}",
            "yanmo clean",
            f"use one of the two (`yanmo inspect` reports what {given[0]} would drop)"
            if given[0] == "--dedup"
            else "use one of the two",
        )


def _name_of(path: str) -> str:
    """A file name for what comes of a corpus, on every system."""
    name = {"-": "stdin"}.get(path, Path(path).resolve().stem if "*" not in path else "corpus")
    return re.sub(r"[^\w.-]+", "-", name) or "corpus"


def _check_out(out: Path) -> None:
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out} is not a .jsonl", "--out", f"--out {out.with_suffix('.jsonl')}")


def input_paths(paths: Iterable[str]) -> list[Path]:
    """The files and folders that a corpus is read from; of a glob, the files it matches."""
    from yanmo.text.read.sources import STDIN, find_files

    found: list[Path] = []
    for path in paths:
        is_plain = Path(path).exists() or not glob.has_magic(path)
        found += [Path(path)] if is_plain else find_files(path).files
    return [path for path in found if str(path) != STDIN]


def _weights(text: str | None, sources: int) -> list[float]:
    if text is None:
        return []
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{text} is not a list of numbers", "--weights", "write them as 3,1,1") from error
    if len(found) != sources or not all(0 < weight < float("inf") for weight in found):
        raise ConfigError(
            f"{text}: {len(found)} weights for {sources} corpora",
            "--weights",
            "give one weight above 0 for each corpus",
        )
    return found
