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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yanmo.errors import ConfigError, YanmoError

if TYPE_CHECKING:
    from yanmo.config import Recipe, SampleConfig
    from yanmo.train.trainer import Result

app = typer.Typer(
    name="yanmo",
    help="yanmo 研墨: from raw Chinese text to a GPT-2 that writes.",
    epilog="Start with: yanmo quickstart, or yanmo train novel.txt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TEXT…|RECIPE] [section.key=value…]",
        help="Texts (.txt, .json, .jsonl, folders), or one recipe (.toml, or the bare name of one of ours)"
        " and texts for it; then any settings, such as train.minutes=30 model.n_layer=6."
        " `yanmo train TEXT --dry-run` prints them all.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


QUICKSTART_TOKENS = 300


def main() -> None:
    """Run the command line; a user's mistake is a message and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # Chinese text whatever the console's code page
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        app()
    except YanmoError as error:
        if os.environ.get("RANK", "0") == "0" or not error.is_shared:
            print(error, file=sys.stderr)
        leave(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; nothing is lost, the same command begins again", file=sys.stderr)
        leave(130)
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0)


def leave(code: int) -> None:
    """End the process; a rank at once, for threads of torch.distributed may hang Python's own end."""
    if "RANK" not in os.environ:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@app.command()
def quickstart(arguments: Settings = None) -> None:
    """Train for three minutes on the embedded demo corpus, or on TEXT, and show what the model writes."""
    from yanmo.config import load_recipe, recipe_path
    from yanmo.log import Voice
    from yanmo.train.trainer import train as train_run

    texts, settings = split_arguments(arguments or [])
    if texts:
        settings = [f"corpus.path={json.dumps(texts, ensure_ascii=False)}", *settings]
    recipe = load_recipe(recipe_path("demo"), settings)
    voice = Voice()
    result = train_run(recipe, default_folder(texts[0] if texts else "demo"), voice)
    voice.say(summary(result))
    prompts = demo_prompts() if not texts else [p for p in result.openings if p] or [""]
    for number, prompt in enumerate(prompts, start=1):
        print("\n" + heading(number, len(prompts)), end="")
        write_to_stdout(result.folder, {"prompt": prompt, "max_new_tokens": QUICKSTART_TOKENS})
    voice.say("\n" + next_commands(result, prompts[0]))


@app.command()
def train(
    arguments: Settings = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. [default: runs/NAME]")] = None,
    nproc: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that share each batch, one a device. [default: the devices named]"
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the recipe, every setting with its meaning, and stop.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model on TEXT, or as a RECIPE says. The same command again resumes; a greater
    train.max_steps, epochs or minutes goes on for longer."""
    from yanmo.config import to_toml
    from yanmo.log import Voice

    recipe, name = read_recipe(arguments or [])
    if dry_run:
        print(to_toml(recipe))
        return
    folder = out or default_folder(name)
    if "RANK" in os.environ:  # this is one of several processes
        from yanmo.train.launch import follow_launcher

        follow_launcher()
    elif (processes := nproc or devices_named(recipe, folder)) > 1:
        from yanmo.train.launch import launch

        script = ["-m", "yanmo"] if os.name == "nt" else sys.argv[:1]
        launch(processes, [*script, *sys.argv[1:]])
        return
    from yanmo.train.trainer import train as train_run

    voice = Voice(is_main=os.environ.get("RANK", "0") == "0")
    result = train_run(recipe, folder, voice)
    if not voice.is_main:
        return
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False))
    voice.say(summary(result))
    voice.say("\n" + next_commands(result, None))


@app.command()
def plan(
    arguments: Settings = None,
    as_json: Json = False,
) -> None:
    """Say what a run will be before it starts: size, passes, memory, disk, and what looks wrong."""
    from yanmo.log import Voice
    from yanmo.train.distributed import find_world
    from yanmo.train.plan import Text, describe, forecast
    from yanmo.train.run import prepare_run

    recipe, _ = read_recipe(arguments or [])
    world = find_world(recipe.train.device, recipe.train.batch_size)
    recipe, prepared, config = prepare_run(recipe, world, Voice())
    found = forecast(recipe, config, Text.of(prepared.shards), free_bytes=free_bytes())
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
        typer.Option(min=1, help="Tokens between windows; fewer: more context for each. [default: half]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a model: loss, perplexity, bits per character, beside the reference lines."""
    from yanmo.assess import assess
    from yanmo.log import Voice

    found = assess(run, tuple(corpus or ()), stride, Voice())
    print(json.dumps(found.as_json(), ensure_ascii=False) if as_json else "\n".join(found.lines()))


@app.command()
def generate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run, checkpoint or model folder. [default: the newest run]"),
    ] = None,
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="What to continue.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens to write.")] = None,
    num_samples: Annotated[int | None, typer.Option(help="How many continuations.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: always the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Among the k likeliest only; 0: all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Among this much probability; 1: all.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    as_json: Json = False,
) -> None:
    """Write: continue a prompt with a trained model. Defaults come from the run's [sample]."""
    given = {
        "prompt": prompt,
        "max_new_tokens": max_new_tokens,
        "num_samples": num_samples,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
    }
    write_to_stdout(run, {key: value for key, value in given.items() if value is not None}, as_json)


@app.command()
def env(as_json: Json = False) -> None:
    """Print what a bug report needs: versions, devices, folders."""
    from yanmo.environment import describe_environment

    found = describe_environment()
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        print("\n".join(f"{name:<20} {value}" for name, value in found.items()))


# -- what the verbs share ---------------------------------------------------------------------


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Positional arguments → (texts or recipe, settings). What exists as a file is never a setting."""
    texts = [a for a in arguments if "=" not in a or Path(a).exists()]
    settings = [a for a in arguments if a not in texts]
    return [text if ":" in text else Path(text).as_posix() for text in texts], settings


def read_recipe(arguments: list[str]) -> tuple["Recipe", str]:
    """The recipe that the arguments of `train` and `plan` mean, and the name its run folder gets."""
    from yanmo.config import load_recipe, recipe_path

    texts, settings = split_arguments(arguments)
    source = recipe_path(texts[0]) if texts and names_a_recipe(texts[0]) else None
    named = texts[1:] if source else texts
    if named:
        settings = [f"corpus.path={json.dumps(named, ensure_ascii=False)}", *settings]
    recipe = load_recipe(source, settings)
    if not recipe.corpus.path:
        raise ConfigError("no text is named", where="yanmo train", mend="yanmo train novel.txt")
    return recipe, texts[0] if texts else recipe.corpus.path[0]


def names_a_recipe(name: str) -> bool:
    """A .toml file, or a word that no file here is called."""
    return name.endswith(".toml") or not Path(name).exists()


def devices_named(recipe: "Recipe", folder: Path) -> int:
    """How many devices `train.device` names, in the recipe or in that of the run it resumes."""
    from yanmo.config import load_recipe

    recorded = folder / "recipe.toml"
    device = recipe.train.device
    if device is None and recorded.is_file():
        device = load_recipe(recorded).train.device
    return len((device or "").split(","))


def free_bytes() -> int:
    """Room on the disk of the current folder."""
    import shutil

    return shutil.disk_usage(".").free


def default_folder(name: str) -> Path:
    """``runs/<stem>``."""
    return Path("runs") / (Path(name.rpartition(":")[2]).stem or "run")


def write_to_stdout(run: Path | None, given: dict[str, Any], as_json: bool = False) -> None:
    """Load RUN and write: the first sample as it comes, further ones after it."""
    from yanmo.checkpoint import find_model_folder, load_model_and_tokenizer
    from yanmo.config import with_values
    from yanmo.generate import write, write_all

    folder = find_model_folder(run)
    recipe = with_values(recorded_recipe(folder), {f"sample.{k}": v for k, v in given.items()})
    config: SampleConfig = recipe.sample
    prompt = config.prompt or ""
    model, tokenizer = load_model_and_tokenizer(folder)
    model.eval()
    if as_json:
        samples = [prompt + text for text in write_all(model, tokenizer, prompt, config)]
        print(json.dumps({"model": str(folder), "prompt": prompt, "samples": samples}, ensure_ascii=False))
        return
    later = [""] * config.num_samples
    print(heading(1, config.num_samples) + prompt, end="", flush=True)
    for number, text in write(model, tokenizer, prompt, config):
        if number == 0:
            print(text, end="", flush=True)
        later[number] += text
    print()
    for number in range(1, config.num_samples):
        print(heading(number + 1, config.num_samples) + prompt + later[number])


def heading(number: int, of: int) -> str:
    """A line above a sample where there are several."""
    return f"── {number}/{of} ──\n" if of > 1 else ""


def recorded_recipe(model_folder: Path) -> "Recipe":
    """The recipe of the run that a model folder belongs to, or the defaults."""
    from yanmo.config import Recipe, load_recipe

    for folder in model_folder.parents[:2]:  # a checkpoint, or `model` where it is a copy
        if (folder / "recipe.toml").is_file():
            return load_recipe(folder / "recipe.toml")
    return Recipe()


def demo_prompts() -> list[str]:
    """Three openings of stories."""
    from yanmo.text.demo import PROMPTS

    return list(PROMPTS)


def summary(result: "Result") -> str:
    """Where a run stands, in one line."""
    from yanmo.log import span

    progress, lines = result.progress, result.lines
    best = progress.best_val_bits_per_char
    text = f"{result.folder}: {progress.step:,} steps in {span(progress.elapsed_s)}"
    if best is not None:
        text += f", best {best:.3f} bits per character at step {progress.best_step:,}"
    return text + f" (bigram line {lines.bigram:.2f})"


def next_commands(result: "Result", prompt: str | None) -> str:
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


def longer_setting(result: "Result") -> str:
    """Three times the length of a run, as a setting."""
    from yanmo.config import load_recipe

    train = load_recipe(result.folder / "recipe.toml").train
    if train.epochs is not None:
        return f"train.epochs={3 * train.epochs:g}"
    if train.max_steps is not None:
        return f"train.max_steps={3 * train.max_steps}"
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
