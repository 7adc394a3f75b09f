"""The command line: verbs → functions. Nothing heavy is imported before a verb runs.

Every setting of a recipe is given as ``section.key=value`` after the positional arguments; options are
for what is not in a recipe. Results go to standard output, everything else to standard error.
"""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yanmo.cli.corpus import clean, inspect
from yanmo.cli.crawl import crawl
from yanmo.cli.hub import export, import_
from yanmo.cli.scale import app as scale_app
from yanmo.cli.tokenizer import app as tokenizer_app
from yanmo.cli.words import Verb, unforeseen
from yanmo.core.console import guarded
from yanmo.core.errors import ConfigError, YanmoError
from yanmo.core.storage import free_bytes, is_file
from yanmo.settings.places import run_name

if TYPE_CHECKING:
    from yanmo.generate.text import Sample
    from yanmo.model.gpt import GPT
    from yanmo.settings.schema import Recipe, SampleConfig
    from yanmo.tokenizer import Tokenizer
    from yanmo.train.trainer import TrainResult

app = typer.Typer(
    name="yanmo",
    help="yanmo 研墨: from raw Chinese text to a GPT that writes.",
    epilog="Start with: yanmo quickstart, or yanmo train novel.txt",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(tokenizer_app)
app.add_typer(scale_app)
app.command()(inspect)
app.command()(clean)
app.command("import")(import_)
app.command()(export)
app.command()(crawl)

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT…|RECIPE] [section.key=value…]",
        help="Texts (.txt, .jsonl, .epub…, folders, - for standard input); or one recipe (.toml, or the name"
        " of a built-in one) and texts for it. Then any settings, such as train.minutes=30 model.n_layer=6;"
        " `yanmo train TEXT --dry-run` prints them all.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Run = Annotated[
    Path | None, typer.Argument(help="Run, checkpoint or model folder. [default: the newest run]")
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens to write.")]
Temperature = Annotated[
    float | None, typer.Option(help="Below 1 safer, above 1 wilder; 0: always the likeliest token.")
]
TopK = Annotated[int | None, typer.Option(help="Sample only from the k likeliest tokens; 0: all.")]
TopP = Annotated[
    float | None,
    typer.Option(help="Sample from the likeliest tokens that together have this probability; 1: all."),
]
MinP = Annotated[
    float | None,
    typer.Option(help="Sample from tokens with at least this fraction of the highest probability; 0: all."),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(help="Make tokens that are already in the window less likely; 1: off, 1.1: a little."),
]
NoRepeatNgram = Annotated[
    int | None, typer.Option(help="Never write the same n tokens in a row twice; 0: off.")
]
Ban = Annotated[list[str] | None, typer.Option(help="A text that is never written (repeat for more).")]
Stop = Annotated[
    list[str] | None,
    typer.Option(help=r"A text that ends a sample, itself left out (repeat for more); \n is a line end."),
]
Seed = Annotated[
    int | None, typer.Option(help="Same seed, same text. [default: a new one each time, printed]")
]
Device = Annotated[
    str | None, typer.Option(help="Device: cpu, cuda, cuda:1, mps. [default: a GPU, else cpu]")
]
Precision = Annotated[
    Literal["float32", "bfloat16"] | None,
    typer.Option(help="Precision. [default: bfloat16 on a GPU, and on a CPU where it is faster]"),
]
Verify = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Verify the model's checksums before using it.")
]

QUICKSTART_TOKENS = 300
INTERRUPTED = "stopped by Ctrl-C; saved files stay, and the same command resumes or starts again"


def main() -> None:
    """Run the command line; a user's mistake is a message and an exit code, never a traceback."""
    if "RANK" in os.environ:
        from yanmo.core.workers import follow_launcher

        follow_launcher()
    for stream in (sys.stdout, sys.stderr):  # Chinese text whatever the console's code page
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)
    try:
        app()
    except YanmoError as error:
        if os.environ.get("RANK", "0") == "0" or not error.is_shared:
            print(error, file=sys.stderr)
        leave(error.exit_code)
    except (OSError, ValueError) as error:
        print(unforeseen(error), file=sys.stderr)
        leave(unforeseen(error).exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if is_interrupt(end):
            print(INTERRUPTED, file=sys.stderr)
            leave(130)
        assert isinstance(end, SystemExit)
        leave(end.code if isinstance(end.code, int) else 0)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C is at the bottom of it: typer makes an exit of it, and says nothing."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def leave(code: int) -> None:
    """End the process; a rank at once, for threads of torch.distributed may hang Python's own end."""
    if "RANK" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say_version(asked: bool) -> None:
    """Print the version and leave."""
    if asked:
        from importlib.metadata import version

        print(f"yanmo {version('yanmo')}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[
        bool,
        typer.Option("--version", callback=say_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    """yanmo 研墨: from raw Chinese text to a GPT that writes."""


@app.command()
def quickstart(arguments: Settings = None) -> None:
    """Train for three minutes on the embedded demo corpus, or on TEXT, and show what the model writes."""
    from yanmo.core.console import Console
    from yanmo.settings.recipe import load_recipe, recipe_path, split_arguments
    from yanmo.train.trainer import train as train_run

    texts, settings = split_arguments(arguments or [])
    if texts:
        settings = [f"corpus.path={json.dumps(texts, ensure_ascii=False)}", *settings]
    recipe = load_recipe(recipe_path("demo"), settings)
    console = Console()
    result = train_run(recipe, Path("runs") / run_name(texts[0] if texts else "demo"), console)
    console.print(summary(result))
    prompts = demo_prompts() if not texts else [p for p in result.openings if p] or [""]
    for number, prompt in enumerate(prompts, start=1):
        print("\n" + heading(number, len(prompts)), end="")
        write_to_stdout(result.folder, {"prompt": prompt, "max_new_tokens": QUICKSTART_TOKENS})
    console.print("\n" + next_commands(result, prompts[0]))


@app.command()
def prepare(
    arguments: Settings = None,
    as_json: Json = False,
) -> None:
    """Turn TEXT into a tokenizer and token shards; `train` does this first. The same command resumes."""
    from yanmo.core.console import Console
    from yanmo.data.prepare import prepare as prepare_text
    from yanmo.train.request import asked_recipe

    recipe, _ = asked_recipe(arguments or [])
    console = Console()
    found = prepare_text(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        print("\n".join(found.lines()))


@app.command()
def train(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/NAME]")] = None,
    nproc: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that share each batch, one per device. [default: one for each device named]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the recipe with every setting and its meaning, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on TEXT, or from a RECIPE. The same command, or the run folder alone, resumes the run.
    A larger train.max_steps, epochs or minutes extends it."""
    from yanmo.core.console import Console
    from yanmo.core.outputs import require_folder
    from yanmo.settings.recipe import to_toml
    from yanmo.train.request import asked_recipe

    recipe, folder = asked_recipe(arguments or [], out, needs_text=not dry_run)
    if dry_run:
        print(to_toml(recipe))
        return
    require_folder(folder, "--out")
    is_rank = "RANK" in os.environ  # one of several processes
    if not is_rank and (processes := nproc or devices_named(recipe, folder)) > 1:
        from yanmo.parallel.launch import launch

        script = ["-m", "yanmo"] if os.name == "nt" else sys.argv[:1]
        launch(processes, [*script, *sys.argv[1:]])
        return
    from yanmo.train.trainer import train as train_run

    console = Console(is_main=os.environ.get("RANK", "0") == "0")
    result = train_run(recipe, folder, console)
    if not console.is_main:
        return
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False))
    console.print(summary(result))
    console.print("\n" + next_commands(result, None))


@app.command()
def plan(
    arguments: Settings = None,
    as_json: Json = False,
) -> None:
    """Describe a run before it starts: size, passes, time, memory, disk, and warnings.

    Some steps are timed; the run is not started.
    """
    from yanmo.core.console import Console
    from yanmo.train.forecast import describe
    from yanmo.train.request import asked_recipe
    from yanmo.train.run import plan_run

    recipe, _ = asked_recipe(arguments or [])
    with Console() as console:
        recipe, config, found = plan_run(recipe, console, free_bytes(Path()))
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        print("\n".join(describe(recipe, config, found)))


@app.command()
def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run, checkpoint or model folder. [default: the newest run]"),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="A text to measure on (repeat for more). [default: the run's held-out text]"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens from one window to the next; fewer give each token more context. [default: half]",
        ),
    ] = None,
    device: Device = None,
    verify: Verify = True,
    as_json: Json = False,
) -> None:
    """Measure a model: loss, perplexity and bits per character, with the n-gram baselines."""
    from yanmo.core.console import Console
    from yanmo.eval.assess import assess

    found = assess(run, tuple(corpus or ()), stride, Console(), device, verify)
    print(json.dumps(found.as_json(), ensure_ascii=False) if as_json else "\n".join(found.lines()))


@app.command()
def generate(
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
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    ban: Ban = None,
    stop: Stop = None,
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
    given = {
        "num_samples": num_samples, "max_new_tokens": max_new_tokens,
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "no_repeat_ngram": no_repeat_ngram,
        "banned": as_typed(ban), "stop": as_typed(stop),
    }  # fmt: skip
    lines = as_typed(read_prompts(prompts)) if prompts else given_prompts(prompt)
    if save:  # said before anything is written, not after
        require_folder(save, "--save")
        listed_samples(save)
    folder, model, tokenizer, config = open_writer(run, given, seed, device, precision, verify)
    asked = lines or [config.prompt or ""]
    if as_json or logprobs:
        samples = write_samples(model, tokenizer, asked, config, special, say=note)
        print_samples(samples, folder, config, logprobs)
    else:
        samples = stream_to_stdout(model, tokenizer, asked, config, special)
    if save:
        note(saved(save_samples(save, samples, config, folder, model), len(samples)))


@app.command()
def chat(
    run: Run = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    ban: Ban = None,
    stop: Stop = None,
    seed: Seed = None,
    device: Device = None,
    precision: Precision = None,
    verify: Verify = True,
) -> None:
    """A console: type some text, and the model continues it. It is not an assistant."""
    from yanmo.generate.chat import WELCOME, Chat, open_console

    given = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "min_p": min_p, "repetition_penalty": repetition_penalty, "no_repeat_ngram": no_repeat_ngram,
        "banned": as_typed(ban), "stop": as_typed(stop),
    }  # fmt: skip
    _, model, tokenizer, config = open_writer(run, given, seed, device, precision, verify)
    note(WELCOME)
    open_console(Chat(model, tokenizer, config))


@app.command()
def env(as_json: Json = False) -> None:
    """Print what a bug report needs: versions, devices, folders."""
    from yanmo.parallel.environment import describe_environment

    found = describe_environment()
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n".join(f"{name:<20} {value}" for name, value in found.items()))


# -- what the verbs share ---------------------------------------------------------------------


def devices_named(recipe: "Recipe", folder: Path) -> int:
    """How many devices `train.device` names, in the recipe or in that of the run it resumes."""
    from yanmo.settings.recipe import load_recipe

    recorded = folder / "recipe.toml"
    device = recipe.train.device
    if device is None and is_file(recorded):
        device = load_recipe(recorded).train.device
    return len((device or "").split(","))


def write_to_stdout(run: Path, given: dict[str, Any]) -> None:
    """Load RUN and write one prompt."""
    from yanmo.generate.writer import load

    writer = load(run)
    config = writer.config(**given)
    stream_to_stdout(writer.model, writer.tokenizer, [config.prompt or ""], config)


def open_writer(
    run: Path | None,
    given: dict[str, Any],
    seed: int | None,
    device: str | None,
    precision: str | None,
    verify: bool,
) -> "tuple[Path, GPT, Tokenizer, SampleConfig]":
    """What writing needs; how it will be done is said, with a seed that can be named to have it again."""
    from yanmo.generate.engine import describe, drawn_seed
    from yanmo.generate.writer import load

    given = given | {"seed": drawn_seed() if seed is None else seed}
    writer = load(run, device, precision, verify)
    config = writer.config(**given)
    note(describe(config, writer.model))
    if seed is None and config.temperature > 0:
        note(f"new seed: --seed {config.seed} writes the same text again")
    return writer.folder, writer.model, writer.tokenizer, config


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
    model: "GPT", tokenizer: "Tokenizer", prompts: list[str], config: "SampleConfig", special: bool = False
) -> "list[Sample]":
    """Print each sample behind its prompt: the first as it comes, further ones after it."""
    from yanmo.generate.text import in_order, write_pieces

    samples: list[Sample] = []
    total, begun = len(prompts) * config.num_samples, False
    for piece in in_order(write_pieces(model, tokenizer, prompts, config, special, say=note)):
        if not begun:
            print(heading(len(samples) + 1, total) + prompts[piece.prompt], end="")
        begun = not piece.sample
        print(piece.text, end="\n" if piece.sample else "", flush=True)
        if piece.sample:
            samples.append(piece.sample)
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


def demo_prompts() -> list[str]:
    """Three openings of stories."""
    from yanmo.text.demo.stories import PROMPTS

    return list(PROMPTS)


def summary(result: "TrainResult") -> str:
    """Where a run stands, in one line; one that counting beats, in another."""
    from yanmo.core.console import span

    progress, lines = result.progress, result.lines
    best = progress.best_val_bits_per_char
    text = f"{result.folder}: {progress.step:,} steps in {span(progress.elapsed_s)}"
    if best is not None:
        text += f", best {best:.3f} bits per character at step {progress.best_step:,}"
    text += f" (bigram line {lines.bigram:.2f})"
    expected = lines.expectation(best) if best is not None else ""
    return f"{text}\nexpect {expected}" if expected else text


def next_commands(result: "TrainResult", prompt: str | None) -> str:
    """Three commands that lead on, with real paths."""
    folder, yanmo = str(result.folder), command_name()
    write = ["generate", folder, "--num-samples", "3"] + (["-p", prompt] if prompt else [])
    longer = ["train", f"{folder}/recipe.toml", longer_setting(result), "--out", folder]
    commands = [
        ("write more", [*yanmo, *write]),
        ("train longer", [*yanmo, *longer]),
        ("see the curves", [*board_command(), "--logdir", folder]),
    ]
    return "Next:\n" + "\n".join(f"  {name:<15} {as_command(words)}" for name, words in commands)


def longer_setting(result: "TrainResult") -> str:
    """Three times the length of a run, as a setting."""
    from yanmo.settings.recipe import load_recipe

    train = load_recipe(result.folder / "recipe.toml").train
    if train.minutes is not None and result.progress.elapsed_s > 0.9 * 60 * train.minutes:
        return f"train.minutes={3 * train.minutes:g}"  # the clock ended it, whatever else was set
    if train.max_steps is not None and (train.epochs is None or result.progress.step >= train.max_steps):
        return f"train.max_steps={3 * train.max_steps}"
    if train.epochs is not None:
        return f"train.epochs={3 * train.epochs:g}"
    return f"train.minutes={3 * (train.minutes or 10):g}"


def command_name() -> list[str]:
    """How yanmo was called, so that printed commands can be pasted."""
    called = Path(sys.argv[0])
    if called.name != "yanmo":
        return [short_path(sys.executable), "-m", "yanmo"]
    on_path = any(Path(p) == called.parent for p in os.environ.get("PATH", "").split(os.pathsep))
    return ["yanmo"] if on_path else [short_path(str(called))]


def board_command() -> list[str]:
    """TensorBoard beside yanmo."""
    beside = Path(sys.executable).with_name("tensorboard" + Path(sys.executable).suffix)
    return [short_path(str(beside))] if beside.exists() else ["tensorboard"]


def short_path(path: str) -> str:
    """A path as seen from here, where that is possible and shorter."""
    try:
        return min(os.path.relpath(path), path, key=len)
    except ValueError:  # another drive
        return path


def as_command(words: list[str]) -> str:
    """Words as they are typed in this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


ROAD = (
    *("quickstart", "crawl", "inspect", "clean", "prepare", "plan", "train", "evaluate", "generate", "chat"),
    *("import", "export", "env"),
)
"""The verbs as `--help` lists them: from text to text."""
app.registered_commands.sort(key=lambda verb: ROAD.index(verb.name or getattr(verb.callback, "__name__", "")))
for verb in (*app.registered_commands, *tokenizer_app.registered_commands, *scale_app.registered_commands):
    verb.cls = Verb
