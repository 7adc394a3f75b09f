"""The command line: verbs → functions. Nothing heavy is imported before a verb runs.

Every setting of a recipe is given as ``section.key=value`` after the positional arguments; options are
for what is not in a recipe. Results go to standard output, everything else to standard error.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yanmo.cli.corpus import clean, inspect
from yanmo.cli.crawl import crawl
from yanmo.cli.evaluating import evaluate
from yanmo.cli.hub import export, import_
from yanmo.cli.options import Json, refuse_beside
from yanmo.cli.report import plot, report
from yanmo.cli.scale import app as scale_app
from yanmo.cli.serving import serve
from yanmo.cli.tokenizer import app as tokenizer_app
from yanmo.cli.words import Verb, unforeseen
from yanmo.cli.writing import chat, generate, heading, write_to_stdout
from yanmo.core.commands import as_command, command_name, short_path
from yanmo.core.console import guarded
from yanmo.core.errors import DivergedError, YanmoError
from yanmo.core.storage import free_bytes, is_file
from yanmo.settings.places import run_name

if TYPE_CHECKING:
    from yanmo.core.console import Console
    from yanmo.settings.schema import Recipe
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
app.command()(generate)
app.command()(chat)
app.command()(serve)
app.command()(evaluate)
app.command()(report)
app.command()(plot)

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
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that share each batch, one per device. [default: one for each device named]",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the recipe with every setting and its meaning, and stop.")
]
QUICKSTART_TOKENS = 300
INTERRUPTED = "stopped by Ctrl-C"
RESUMING = "saved files stay, and the same command resumes or starts again"
RESUMABLE = ("quickstart", "crawl", "clean", "prepare", "train", "finetune", "scale")


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
            resumes = sys.argv[1:] and sys.argv[1] in RESUMABLE
            print(f"{INTERRUPTED}; {RESUMING}" if resumes else INTERRUPTED, file=sys.stderr)
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
    write_report(result.folder, console)
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
    from yanmo.data.prepare import decide_vocabulary
    from yanmo.data.prepare import prepare as prepare_text
    from yanmo.settings.recipe import decide
    from yanmo.train.request import asked_recipe

    recipe, _ = asked_recipe(arguments or [])
    recipe, console = decide(recipe, decide_vocabulary(recipe.corpus, recipe.tokenizer)), Console()
    found = prepare_text(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        print("\n".join(found.lines()))


@app.command()
def train(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/NAME]")] = None,
    nproc: Processes = None,
    find_lr: Annotated[
        bool,
        typer.Option("--find-lr", help="Try rates for a minute, draw the loss, say which to take; no run."),
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a model on TEXT, or from a RECIPE. The same command, or the run folder alone, resumes the run.
    A larger train.max_steps, epochs or minutes extends it."""
    from yanmo.train.request import asked_recipe

    recipe, folder = asked_recipe(arguments or [], out, needs_text=not dry_run)
    if find_lr:
        refuse_beside("--find-lr", {"--out": out, "--nproc": nproc, "--dry-run": dry_run or None})
        sweep_rates(recipe, as_json)
        return
    train_or_resume(recipe, folder, nproc, dry_run, as_json)


def sweep_rates(recipe: "Recipe", as_json: bool) -> None:
    """Say which learning rate to take."""
    from yanmo.core.console import Console
    from yanmo.train.find_rate import curve_lines, find_rate

    found = find_rate(recipe, Console())
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        print("\n".join([*curve_lines(found), f"take optim.learning_rate={found.suggested:g}"]))


@app.command()
def finetune(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] BASE DATA… [section.key=value…]",
            help="A run, a checkpoint, a Hugging Face folder or hub name; then dialogues, preference pairs"
            " (.jsonl, .json, .csv, .parquet) or a text. Then any settings, such as finetune.method=lora.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/BASE-DATA]")] = None,
    nproc: Processes = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Teach a trained model: dialogues, a style, a preference. The same command, or the run folder alone,
    resumes."""
    from yanmo.core.console import Console
    from yanmo.hub.imports.base import find_base
    from yanmo.train.request import asked_finetuning

    console = Console(is_main=os.environ.get("RANK", "0") == "0")
    recipe, folder = asked_finetuning(arguments or [], out, lambda base: find_base(base, console))
    train_or_resume(recipe, folder, nproc, dry_run, as_json)


def train_or_resume(recipe: "Recipe", folder: Path, nproc: int | None, dry_run: bool, as_json: bool) -> None:
    """Train, in several processes where that is asked for, and say what came of it."""
    from yanmo.core.console import Console
    from yanmo.core.outputs import require_folder
    from yanmo.settings.recipe import to_toml

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
    try:
        result = train_run(recipe, folder, console)
    except DivergedError:
        if console.is_main:
            write_report(folder, console)
        raise
    if not console.is_main:
        return
    write_report(folder, console)
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


def write_report(folder: Path, console: "Console") -> None:
    """Write report.html into a run folder; whatever hinders that is said, for the run itself is whole."""
    from yanmo.report import page

    try:
        page.write_report(folder)
    except Exception as error:
        console.warn(f"report.html was not written: {error}")


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
    """Three commands that lead on, with real paths, and the page to read."""
    from yanmo.settings.recipe import load_recipe, longer_setting

    folder, yanmo = str(result.folder), command_name()
    write = ["generate", folder, "--num-samples", "3"] + (["-p", prompt] if prompt else [])
    if result.answers:
        write = ["chat", folder]
    train, progress = load_recipe(result.folder / "recipe.toml").train, result.progress
    setting = longer_setting(train, progress.step, progress.elapsed_s)
    longer = ["train", f"{folder}/recipe.toml", setting, "--out", folder]
    commands = [
        ("talk with it" if result.answers else "write more", [*yanmo, *write]),
        ("train longer", [*yanmo, *longer]),
        ("see the curves", [*board_command(), "--logdir", folder]),
    ]
    lines = [f"  {name:<15} {as_command(words)}" for name, words in commands]
    return "\n".join(["Next:", *lines, f"  {'read its report':<15} {result.folder / 'report.html'}"])


def board_command() -> list[str]:
    """TensorBoard beside yanmo."""
    beside = Path(sys.executable).with_name("tensorboard" + Path(sys.executable).suffix)
    return [short_path(str(beside))] if beside.exists() else ["tensorboard"]


ROAD = (
    *(
        "quickstart",
        "crawl",
        "inspect",
        "clean",
        "prepare",
        "plan",
        "train",
        "finetune",
        "evaluate",
        "report",
        "plot",
        "generate",
    ),
    *("chat", "serve", "import", "export", "env"),
)
"""The verbs as `--help` lists them: from text to text."""
app.registered_commands.sort(key=lambda verb: ROAD.index(verb.name or getattr(verb.callback, "__name__", "")))
for verb in (*app.registered_commands, *tokenizer_app.registered_commands, *scale_app.registered_commands):
    verb.cls = Verb
