"""``yanmo scale plan``: a corpus too large for one machine becomes a pipeline for many."""

import json
import shlex
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError

if TYPE_CHECKING:
    from yanmo.settings.schema import Cleaning, Recipe

app = typer.Typer(
    name="scale",
    help="Clean and tokenise a corpus on many machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OURS = ("data.val_fraction",)
"""Of the sections of a recipe, beside [tokenizer]: what the shards depend on."""


@app.command()
def plan(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS… [section.key=value…]",
            help="Files, folders, globs; then settings of [corpus], [clean], [dedup] and [tokenizer],"
            " and data.val_fraction. tokenizer.path is required.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder for the plan and for all its results.")],
    executor: Annotated[
        Literal["local", "slurm", "ray"], typer.Option(help="The datatrove executor that runs the tasks.")
    ] = "local",
    tasks: Annotated[
        int | None, typer.Option(min=1, help="Parts of the corpus. [default: one per core]")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="slurm: the partition.")] = None,
    time: Annotated[
        str | None, typer.Option(help="slurm: the time limit of a job. [default: 24:00:00]")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output.")
    ] = False,
) -> None:
    """Write a datatrove pipeline that cleans, deduplicates and tokenises CORPUS on many machines.

    It does what `yanmo clean --dedup` and `yanmo prepare` do, but of several near-duplicates it may keep
    another one.
    """
    _require_datatrove()
    from yanmo.core import storage
    from yanmo.core.outputs import require_folder
    from yanmo.core.workers import cores
    from yanmo.scale.plan import costs, make_plan
    from yanmo.scale.script import script

    if executor != "slurm" and (partition or time):
        raise ConfigError("--partition and --time are for SLURM", f"--executor {executor}", "leave them out")
    if executor == "slurm" and not partition:
        raise ConfigError(
            "SLURM needs a partition", "--executor slurm", "--partition NAME (sinfo lists them)"
        )
    require_folder(out, "--out")
    cleaning, recipe = plan_settings(arguments)
    made, files = make_plan(cleaning, recipe, tasks or cores(), out)
    workers = cores() if executor == "local" else -1
    cost = costs(made, files)
    limit = time or ("24:00:00" if executor == "slurm" else "")
    clusters_gb = 2 + int(cost["memory"] * 1.5e-9)
    target = out / "pipeline.py"
    if is_new := not target.exists():
        storage.write_atomic(target, script(made, executor, workers, partition or "", limit, clusters_gb))
    if as_json:
        print(json.dumps({"plan": str(out), "script": str(target), **cost}, ensure_ascii=False))
        return
    print("\n".join([f"plan       {out / 'plan.toml'}", *_cost_lines(cost)]))
    print(f"script     {target}" + ("" if is_new else " existed already and is unchanged"))
    print(f"Next:\n  python {shlex.quote(str(target))}\n  yanmo train {shlex.quote(str(out / 'shards'))}")


def _cost_lines(cost: dict[str, Any]) -> list[str]:
    """What a plan takes, for people."""
    disk = ", ".join(f"{name} {size * 1e-9:,.3f} GB" for name, size in cost["disk"].items())
    characters = f"about {cost['characters']:,} characters"
    return [
        f"corpus     {cost['files']:,} files, {cost['bytes'] * 1e-9:,.3f} GB, {characters}",
        f"time       about {cost['core_hours']:,.2f} core-hours",
        f"disk       at most {disk}",
        f"memory     about {cost['memory'] * 1e-9:,.3f} GB for the stage clusters, which is one task",
    ]


def _require_datatrove() -> None:
    if find_spec("datatrove") is None:
        raise ConfigError("a plan needs datatrove", "yanmo scale", install_command("scale"))


def plan_settings(arguments: list[str]) -> "tuple[Cleaning, Recipe]":
    """What `yanmo clean` is told, and what `yanmo prepare`."""
    from yanmo.settings.recipe import load_cleaning, load_recipe, split_arguments
    from yanmo.settings.schema import Cleaning

    paths, settings = split_arguments(arguments)
    if not paths:
        raise ConfigError("no corpus is named", "yanmo scale plan", "name files, folders or globs")
    of_cleaning = [text for text in settings if text.partition(".")[0] in Cleaning.model_fields]
    others = [text for text in settings if text not in of_cleaning]
    _check_others(others)
    return load_cleaning(of_cleaning, paths), load_recipe(None, others)


def _check_others(settings: Iterable[str]) -> None:
    for name in (text.partition("=")[0] for text in settings):
        of_run = name.startswith(("data.", "model.", "optim.", "train.", "finetune.", "sample."))
        if of_run and name not in OURS:
            raise ConfigError(
                f"{name} changes nothing in a plan", "command line", f"give {name} to `yanmo train`"
            )
