"""The verb `serve`: models for the page and for the clients of OpenAI's API."""

import os
import re
from dataclasses import replace
from pathlib import Path
from socket import AF_INET, AF_INET6, create_server, socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yanmo.cli.options import Device, Precision, Verify, with_sampler
from yanmo.cli.writing import as_settings, note
from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError
from yanmo.core.storage import disk_errors

if TYPE_CHECKING:
    from yanmo.server.served import ServedModel

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "YANMO_TOKEN"
ORIGIN = re.compile(r"https?://[^/?#@\s]+")


@with_sampler
def serve(
    sampler: dict[str, Any],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN…]", help="Runs, checkpoints or model folders. [default: the newest run]"
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="The address to listen on; any but this computer's own needs a token.")
    ] = "127.0.0.1",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A page of this origin may ask too (https://write.example.org; repeat for more)."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help=f"A file with the token that requests must bring; else ${TOKEN}.")
    ] = None,
    keep_choices: Annotated[
        Path | None, typer.Option(help="Append accepted beside rejected continuations to this file (.jsonl).")
    ] = None,
    device: Device = None,
    precision: Precision = None,
    verify: Verify = True,
) -> None:
    """Write in the browser, and serve the clients of OpenAI's API. Prompts are never logged.

    Settings of [sample] that are given here are those of requests that name none.
    """
    token = read_token(token_file)
    if host not in LOOPBACK and not token:
        raise ConfigError(
            f"whoever reaches {host} could write with this model",
            where="--host",
            hint=f"give a token: in the variable {TOKEN}, or by --token-file",
        )
    for origin in allow_origin or ():
        check_origin(origin)
    if keep_choices is not None:
        try_to_write(keep_choices)
    try:
        from yanmo.server.app import create_app
        from yanmo.server.process import answer
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", "serve", install_command("serve")) from error
    listening = listen(host, port)
    models = load_models(runs or [None], as_settings(sampler), device, precision, verify)
    app = create_app(models, token, allow_origin or (), keep_choices)

    def ready(address: str) -> None:
        print(address, flush=True)
        where = "" if host in address else f" at {host}, port {listening.getsockname()[1]},"
        note(f"serving {', '.join(model.name for model in models)}{where}; Ctrl-C ends it")

    def busy() -> int:
        return sum(model.thread.running + model.thread.waiting for model in models)

    if number := answer(app, listening, ready, note, busy):
        raise typer.Exit(128 + number)


def try_to_write(path: Path) -> None:
    """Say at once where choices cannot be kept, and not when somebody accepts a text."""
    with disk_errors("opening the file for choices", path.parent), open(path, "ab"):
        pass


def listen(host: str, port: int) -> socket:
    """The address, taken before a model is loaded.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family = AF_INET6 if ":" in host else AF_INET
        return create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            # Python puts the address behind the reason
            f"{host}, port {port} cannot be listened on: {str(error.strerror or error).partition(' (')[0]}",
            where="--port",
            hint="where another program has it, give another port; 0 is any that is free",
        ) from error


def check_origin(origin: str) -> None:
    """
    Raises:
        ConfigError: no browser would ever name its page so.
    """
    if not ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"{origin} is no origin",
            where="--allow-origin",
            hint="give scheme and host, with the port where there is one, and nothing more: https://write.example.org",
        )


def load_models(
    runs: list[Path] | list[None],
    settings: dict[str, Any],
    device: str | None,
    precision: str | None,
    verify: bool,
) -> "list[ServedModel]":
    """The models, each under the name of its run, with these settings in place of the run's own.

    Raises:
        ConfigError: two have the same name, or a setting cannot be meant so.
    """
    from yanmo.checkpoint.folder import find_model_folder, run_of
    from yanmo.generate.engine import set_threads
    from yanmo.generate.writer import load
    from yanmo.server.served import ServedModel

    models: dict[str, ServedModel] = {}
    for path in runs:
        folder = find_model_folder(path)
        run = run_of(folder)
        name = folder.name if run is None else run.name
        if run and path and path.resolve() != run:  # a checkpoint of a run
            name = f"{name}-{folder.name}"
        if name in models:
            hint = "give one of the folders another name"
            raise ConfigError(f"two models are named {name}", str(path), hint)
        note(f"loading {name}")
        writer = load(folder, device, precision, verify)
        writer = replace(writer, sample=writer.config(**settings))
        models[name] = ServedModel(name, writer, created=int(writer.folder.stat().st_mtime))
    set_threads(model.writer.model for model in models.values())
    return list(models.values())


def read_token(path: Path | None) -> str | None:
    """The token, from a file or the environment: arguments are seen by everybody.

    Raises:
        ConfigError: the file cannot be read, or is empty.
    """
    if path is None:
        return os.environ.get(TOKEN, "").strip() or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the token cannot be read: {error}", str(path), "give a text file") from error
    if not token:
        raise ConfigError("the file of the token is empty", str(path), "write a long random text into it")
    return token
