"""The verbs that write: `generate` prints samples, `chat` opens a console."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yanmo.cli.options import Device, Json, Precision, Run, Seed, Verify, with_sampler
from yanmo.core.errors import ConfigError

if TYPE_CHECKING:
    from yanmo.generate.text import Sample
    from yanmo.generate.writer import Writer
    from yanmo.settings.schema import SampleConfig


@with_sampler
def generate(
    sampler: dict[str, Any],
    run: Run = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "-p", "--prompt", help=r"What to continue (repeat for more); - is standard input, \n a line end."
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="A file with one prompt per line, in any encoding that corpora may have."),
    ] = None,
    special: Annotated[
        bool, typer.Option("--special", help="Read [CLS] and similar text in a prompt as special tokens.")
    ] = False,
    num_samples: Annotated[int | None, typer.Option(help="Number of continuations of each prompt.")] = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    verify: Verify = True,
    save: Annotated[
        Path | None, typer.Option(help="A folder for 001.txt, 002.txt, … and a list of them, samples.json.")
    ] = None,
    as_json: Json = False,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="JSON with each token and its log probability.")
    ] = False,
) -> None:
    """Write: continue a prompt with a trained model. Defaults come from the run's [sample] settings."""
    from yanmo.core.outputs import require_folder
    from yanmo.generate.text import listed_samples, save_samples, write_samples

    if prompt and prompts is not None:
        raise ConfigError("there are two sources of prompts", "--prompt and --prompts", "give only one")
    given = as_settings(sampler) | {"num_samples": num_samples}
    lines = as_typed(read_prompts(prompts)) if prompts else given_prompts(prompt)
    if save:  # said before anything is written, not after
        require_folder(save, "--save")
        listed_samples(save)
    writer, config = open_writer(run, given, seed, device, precision, verify)
    asked = lines or [config.prompt or ""]
    if as_json or logprobs:
        rules = writer.text_rules(config)
        samples = write_samples(writer.model, writer.tokenizer, asked, config, special, note, rules)
        print_samples(samples, writer.folder, config, logprobs)
    else:
        samples = stream_to_stdout(writer, asked, config, special)
    if save:
        paths = save_samples(save, samples, config, writer.folder, writer.model)
        note(saved(paths, len(samples)))


@with_sampler
def chat(
    sampler: dict[str, Any],
    run: Run = None,
    system: Annotated[
        str | None, typer.Option(help="What holds for the whole dialogue, such as 你是哈姆莱特。")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Continue text, also with a model that was taught to answer.")
    ] = False,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    verify: Verify = True,
) -> None:
    """A console: a model that was taught dialogues answers, and any other continues what is typed."""
    from yanmo.generate.chat import chat_with
    from yanmo.generate.terminal import open_console

    writer, config = open_writer(run, as_settings(sampler), seed, device, precision, verify)
    (asked,) = as_typed([system] if system else None) or [""]
    console = chat_with(writer, config, asked, only_text=text)
    note(console.welcome)
    open_console(console)


# -- what they share ---------------------------------------------------------------------------


def write_to_stdout(run: Path, given: dict[str, Any]) -> None:
    """Load RUN and write one prompt."""
    from yanmo.generate.engine import set_threads
    from yanmo.generate.writer import load

    writer = load(run)
    set_threads([writer.model])
    config = writer.config(**given)
    stream_to_stdout(writer, [config.prompt or ""], config)


def open_writer(
    run: Path | None,
    given: dict[str, Any],
    seed: int | None,
    device: str | None,
    precision: str | None,
    verify: bool,
) -> "tuple[Writer, SampleConfig]":
    """What writing needs; how it will be done is said, with a seed that can be named to have it again."""
    from yanmo.generate.engine import describe, drawn_seed, set_threads
    from yanmo.generate.writer import load

    given = given | {"seed": drawn_seed() if seed is None else seed}
    writer = load(run, device, precision, verify)
    set_threads([writer.model])
    config = writer.config(**given)
    note(describe(config, writer.model))
    if seed is None and config.temperature > 0:
        note(f"new seed: --seed {config.seed} writes the same text again")
    return writer, config


def note(text: str) -> None:
    """Say a line beside the result."""
    print(text, file=sys.stderr)


def as_typed(texts: list[str] | None) -> list[str] | None:
    """Texts of the command line, where no line end can be typed in every shell; None for none."""
    from yanmo.generate.sampling import typed

    read = [typed(text) for text in texts or ()]
    for said in dict.fromkeys(said for _, said in read if said):
        note(said)
    return [text for text, _ in read] or None


def as_settings(sampler: dict[str, Any]) -> dict[str, Any]:
    """Settings of [sample] as they were given as options."""
    lists = {name: as_typed(value) for name, value in sampler.items() if isinstance(value, list)}
    texts = {
        name: (as_typed([value]) or [""])[0] for name, value in sampler.items() if isinstance(value, str)
    }
    return sampler | lists | texts


def given_prompts(prompts: list[str] | None) -> list[str] | None:
    """The prompts of `-p`, in their order, of which one may be standard input."""
    from yanmo.text.read.sources import STDIN

    if not prompts or STDIN not in prompts:
        return as_typed(prompts)
    piped = decoded(sys.stdin.buffer.read(), "standard input").removesuffix("\n")
    return [piped if text == STDIN else (as_typed([text]) or [""])[0] for text in prompts]


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not blank."""
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "give a text file with one prompt per line"
        raise ConfigError(f"the prompts cannot be read: {error.strerror}", str(path), hint) from error
    prompts = [line for line in decoded(data, str(path)).split("\n") if line.strip()]
    if not prompts:
        raise ConfigError("there is no prompt in the file", str(path), "write one prompt on each line")
    return prompts


def decoded(data: bytes, where: str) -> str:
    """Prompts read as corpora are: any of their encodings, one kind of line end, no control characters."""
    from yanmo.text.read.encodings import decode, remove_controls, unify_line_ends

    try:
        text, removed = remove_controls(unify_line_ends(decode(data)[0])[0])
    except ValueError as error:
        hint = "give a text file, best in UTF-8"
        raise ConfigError(f"the prompts cannot be read: {error}", where, hint) from error
    if removed:
        note(f"{removed:,} control characters removed from {where}")
    return text


def saved(files: list[Path], samples: int) -> str:
    """What became of samples that were to be saved."""
    same = samples - len(files)
    known = [f"{same} of {samples} samples existed already" if samples > 1 else "the sample existed already"]
    new = [f"{files[0]}" + (f" to {files[-1].name}" if files[1:] else "")] if files else []
    return "saved: " + "; ".join(new + (known if same else []))


def stream_to_stdout(
    writer: "Writer", prompts: list[str], config: "SampleConfig", special: bool = False
) -> "list[Sample]":
    """Print each sample behind its prompt: the first as it comes, further ones after it."""
    from yanmo.generate.text import in_order, write_pieces

    samples: list[Sample] = []
    total, begun = len(prompts) * config.num_samples, False
    rules = writer.text_rules(config)
    pieces = write_pieces(writer.model, writer.tokenizer, prompts, config, special, note, rules)
    try:
        for piece in in_order(pieces):
            if not begun:
                print(heading(len(samples) + 1, total) + prompts[piece.prompt], end="")
            begun = not piece.sample
            print(piece.text, end="\n" if piece.sample else "", flush=True)
            if piece.sample:
                samples.append(piece.sample)
    except KeyboardInterrupt:
        print(flush=True)  # what is said next begins a line
        raise
    return samples


def print_samples(samples: "list[Sample]", folder: Path, config: "SampleConfig", logprobs: bool) -> None:
    """Print samples as JSON."""
    from dataclasses import asdict

    hidden = () if logprobs else ("tokens", "logprobs")
    found = [{k: v for k, v in asdict(sample).items() if k not in hidden} for sample in samples]
    sampler = config.model_dump(exclude={"prompt"})
    print(json.dumps({"model": str(folder), "sampler": sampler, "samples": found}, ensure_ascii=False))


def heading(number: int, of: int) -> str:
    """A line above a sample where there are several."""
    return f"── {number}/{of} ──\n" if of > 1 else ""
