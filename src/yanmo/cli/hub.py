"""``yanmo import`` and ``yanmo export``: come with what you have, leave with what others open."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from yanmo.cli.options import Json
from yanmo.core.errors import ConfigError


def import_(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC [tokenizer.key=value…]",
            help="A Hugging Face or GPT2-Chinese folder, nanoGPT's ckpt.pt, .bin tokens or config .py,"
            " llm.c's tokens, or the name of a model on the hub; tokenizer.path=… if the vocabulary is"
            " elsewhere.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="The folder to write. [default: models/NAME]")] = None,
    as_json: Json = False,
) -> None:
    """Import a model, tokens or settings of another tool, and verify that the model computes the same."""
    from yanmo.core.console import Console
    from yanmo.hub.imports.importer import import_ as take_over
    from yanmo.settings.recipe import load_recipe, split_arguments

    names, settings = split_arguments(arguments)
    if len(names) != 1:
        raise ConfigError(f"{len(names)} sources are named", "yanmo import", "name one")
    if outside := [setting for setting in settings if not setting.startswith("tokenizer.")]:
        raise ConfigError(
            f"{outside[0]} is not a setting of the tokenizer", "yanmo import", "set tokenizer.* only"
        )
    config = load_recipe(None, settings).tokenizer
    path = Path(names[0]).resolve()
    name = path.stem if path.is_file() and path.name != "ckpt.pt" else path.name
    name = path.parent.name if path.name == "ckpt.pt" else name
    found = take_over(names[0], out or Path("models") / name, config, Console())
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
        return
    print("\n".join([f"{found.folder}", *(f"  {line}" for line in found.said)]))
    print("Next:", *(f"  yanmo {command}" for command in found.next), sep="\n")


def export(
    run: Annotated[
        Path | None, typer.Argument(help="Run, checkpoint or model folder. [default: the newest run]")
    ] = None,
    to: Annotated[
        Literal["hf", "gguf", "onnx"],
        typer.Option(
            help="hf: a folder for transformers and vLLM; gguf: a file for llama.cpp and Ollama; onnx: a"
            " folder for transformers.js and onnxruntime."
        ),
    ] = "hf",
    out: Annotated[
        Path | None, typer.Option(help="The file (gguf) or folder (hf, onnx). [default: in exports/]")
    ] = None,
    precision: Annotated[
        Literal["f32", "f16", "bf16", "q8_0", "q5_0", "q4_0"] | None,
        typer.Option(
            help="Precision of the weights in a GGUF file; fewer bits write a little worse. [default: f16]"
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(help="Verify the model's checksums, open the result with its own library, and compare."),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file (gguf).")] = False,
    as_json: Json = False,
) -> None:
    """Write a model for other tools, open it there, and compare the results."""
    from yanmo.core.console import Console
    from yanmo.hub.exports.exporter import export as write

    found = write(run, to, out, precision, verify, Console(), force)
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        print("\n".join([f"{found.path}", *(f"  {line}" for line in found.said)]))
