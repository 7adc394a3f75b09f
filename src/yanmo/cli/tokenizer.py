"""``yanmo tokenizer``: learn a vocabulary, take over somebody else's, and judge them."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yanmo.cli.options import Json
from yanmo.core.console import unguarded, visible
from yanmo.core.errors import ConfigError, YanmoError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from yanmo.settings.schema import CorpusConfig
    from yanmo.tokenizer import Tokenizer

app = typer.Typer(
    name="tokenizer",
    help="Learn a vocabulary, import one of another tool, compare and inspect them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path | None, typer.Option(help="The folder for tokenizer.json. [default: tokenizers/NAME]")]
Corpus = Annotated[list[str] | None, typer.Option(help="A text to measure on (repeat for more).")]
Text = Annotated[
    str | None,
    typer.Option("--text", "-t", help="A sentence to show token by token. [default: one of the corpus]"),
]
Shape = Annotated[
    str, typer.Option(help="LAYERSxWIDTH of a GPT-2, for the embedding's share of its parameters.")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files; never an input.")]
Picture = Annotated[Path | None, typer.Option("--out", help="Also save the picture as an .svg file.")]

USUAL_SHAPE = "12x768"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@app.command()
def train(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT… [section.key=value…]",
            help="Texts, as for `yanmo train`; then settings such as tokenizer.sample_mb=200.",
            show_default=False,
        ),
    ],
    kind: Annotated[str, typer.Option(help="bpe, unigram or char.")] = "bpe",
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Largest size. [default: 32,000; char: all characters]")
    ] = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Learn a vocabulary from texts. The same texts and settings give the same file, bit for bit."""
    from yanmo.cli.corpus import input_paths
    from yanmo.core.console import Console
    from yanmo.core.outputs import require_folder
    from yanmo.data.prepare import decide_vocabulary
    from yanmo.data.survey import learn_tokenizer
    from yanmo.settings.recipe import decide, load_recipe, split_arguments

    texts, settings = split_arguments(arguments)
    if kind not in ("bpe", "unigram", "char"):
        raise ConfigError(f"cannot learn kind '{kind}'", "--kind", "bpe, unigram or char")
    if not texts:
        raise ConfigError("no text is named", "yanmo tokenizer train", "yanmo tokenizer train novel.txt")
    asked = [f"corpus.path={json.dumps(texts, ensure_ascii=False)}", f"tokenizer.kind={kind}", *settings]
    asked += [f"tokenizer.vocab_size={vocab_size}"] if vocab_size else []
    recipe = load_recipe(None, asked)
    recipe = decide(recipe, decide_vocabulary(recipe.corpus, recipe.tokenizer))
    folder = out or Path("tokenizers") / f"{Path(texts[0].rpartition(':')[2]).stem}-{kind}"
    require_folder(folder, "--out", input_paths(texts))
    learned = learn_tokenizer(recipe.corpus, recipe.tokenizer, Console())
    save(learned, folder, force)
    if (asked_for := recipe.tokenizer.vocab_size) > learned.vocab_size:
        why = "it has no more characters" if kind == "char" else "nothing else in it occurs often enough"
        print(f"{asked_for:,} tokens were asked for, the text gives {learned.vocab_size:,}: {why}")


@app.command("import")
def import_(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH [tokenizer.key=value…]",
            help="vocab.txt, tokenizer.json, encoder.json, *.tiktoken, *.model, meta.pkl, a folder with one"
            " of them, or the name of a repository on the hub.",
            show_default=False,
        ),
    ],
    out: Out = None,
    force: Force = False,
) -> None:
    """Convert a vocabulary of another tool to yanmo's tokenizer.json, with the same ids."""
    from yanmo.core.outputs import require_folder
    from yanmo.settings.recipe import load_recipe, split_arguments
    from yanmo.tokenizer import read_tokenizer
    from yanmo.tokenizer.hub import fetch

    paths, settings = split_arguments(arguments)
    if len(paths) != 1:
        raise ConfigError(f"{len(paths)} vocabularies are named", "yanmo tokenizer import", "name one")
    config = load_recipe(None, settings).tokenizer
    path = Path(paths[0])
    if not path.exists() and HUB_NAME.fullmatch(paths[0]):
        path = fetch(paths[0])
    folder = out or Path("tokenizers") / Path(paths[0]).stem
    require_folder(folder, "--out", [path])
    save(read_tokenizer(path, config), folder, force)


@app.command()
def compare(
    tokenizers: Annotated[list[str], typer.Argument(help="Vocabularies: files or folders.")],
    corpus: Corpus = None,
    text: Text = None,
    shape: Shape = USUAL_SHAPE,
    out: Picture = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare vocabularies on a text: characters per token, lost text, speed."""
    from yanmo.cli.corpus import input_paths
    from yanmo.core.outputs import is_marked, require_file
    from yanmo.tokenizer import kind_of
    from yanmo.tokenizer.compare import judge, telling_line
    from yanmo.tokenizer.show import bars, coloured, heading, losses, table

    layers, width = read_shape(shape)
    if out is not None:
        require_file(out, "--out", [*map(Path, tokenizers), *input_paths(corpus or ())], is_marked, force)
    found = [(short_name(name, tokenizers), open_tokenizer(name)) for name in tokenizers]
    texts = list(read_texts(corpus_of(corpus)))
    verdicts = [judge(name, kind_of(tokenizer), tokenizer, texts) for name, tokenizer in found]
    if as_json:
        print_json([verdict.as_json() for verdict in verdicts])
        return
    text = text if text is not None else telling_line(texts)
    parts: list[RenderableType] = [table(verdicts, layers, width), "", bars(verdicts), ""]
    for name, tokenizer in found:
        parts += [heading(name), coloured(tokenizer, text)]
    show([*parts, "", *losses(verdicts)], out)


@app.command()
def inspect(
    tokenizer: Annotated[str, typer.Argument(help="A vocabulary: file or folder.")],
    text: Annotated[
        str | None,
        typer.Argument(
            help="A sentence to show token by token. [default: one of --corpus, or a built-in one]"
        ),
    ] = None,
    corpus: Corpus = None,
    shape: Shape = USUAL_SHAPE,
    as_json: Json = False,
) -> None:
    """Inspect one vocabulary: its contents, the text it loses, how it splits characteristic words."""
    from yanmo.tokenizer import kind_of
    from yanmo.tokenizer.compare import holds, judge, telling_line, telling_words
    from yanmo.tokenizer.show import coloured, in_words, longest, losses, table, word_by_token

    layers, width = read_shape(shape)
    found = open_tokenizer(tokenizer)
    texts = list(read_texts(corpus_of(corpus))) if corpus else []
    words, text = telling_words(texts), text if text is not None else telling_line(texts)
    name, held = short_name(tokenizer, [tokenizer]), holds(found)
    verdict = judge(name, kind_of(found), found, texts or [*words, text])
    if as_json:
        print_json({**verdict.as_json(), "holds": held})
        return
    parts: list[RenderableType] = [f"{what:<24} {in_words(value)}" for what, value in held.items()]
    parts.append("")
    if corpus:
        parts += [table([verdict], layers, width), longest(verdict), ""]
    parts += [word_by_token(found, word) for word in words]
    show([*parts, "", coloured(found, text), "", *losses([verdict])], None)


# -- what they share --------------------------------------------------------------------------


def save(tokenizer: "Tokenizer", folder: Path, force: bool) -> None:
    """Write a tokenizer into a folder; over another one only by force.

    Raises:
        ConfigError: there is another one, or a file that would be replaced.
    """
    from yanmo.core.outputs import require_file
    from yanmo.core.storage import disk_errors
    from yanmo.tokenizer import kind_of, load_tokenizer

    def is_the_same(_: Path) -> bool:
        try:
            return load_tokenizer(folder).fingerprint == tokenizer.fingerprint
        except YanmoError:
            return False

    for name in ("tokenizer.json", "tokenizer_config.json"):
        require_file(folder / name, "--out", is_ours=is_the_same, force=force)
    with disk_errors("saving the tokenizer", folder):
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder, 1 << 30)
    losing = "lossless" if tokenizer.lossless else "can lose text: see `yanmo tokenizer inspect`"
    print(f"{folder}: {kind_of(tokenizer)}, {tokenizer.vocab_size:,} tokens, {losing}")
    print(f"use it:  yanmo train TEXT tokenizer.path={folder}")


def open_tokenizer(name: str) -> "Tokenizer":
    """The tokenizer in a file or folder, a run's included."""
    from yanmo.settings.schema import TokenizerConfig
    from yanmo.tokenizer import read_tokenizer

    path = Path(name)
    return read_tokenizer(
        path / "model" if (path / "model" / "tokenizer.json").is_file() else path, TokenizerConfig()
    )


def short_name(name: str, among: list[str]) -> str:
    """The last part of a path that tells it from the others."""
    stems = [Path(other).stem for other in among]
    return Path(name).stem if stems.count(Path(name).stem) == 1 else name


def corpus_of(paths: list[str] | None) -> "CorpusConfig":
    """The corpus that --corpus names."""
    from yanmo.settings.schema import CorpusConfig

    if not paths:
        raise ConfigError(
            "no text to measure on is named", "--corpus", "yanmo tokenizer compare A B --corpus novel.txt"
        )
    return CorpusConfig(path=tuple(paths))


def read_texts(corpus: "CorpusConfig") -> list[str]:
    """The texts of a corpus."""
    from yanmo.text.read.documents import read_documents

    return [document.text for document in read_documents(corpus)]


def read_shape(shape: str) -> tuple[int, int]:
    """``"12x768"`` -> (12, 768)."""
    layers, _, width = shape.partition("x")
    if not (layers.isdigit() and width.isdigit() and int(layers) and int(width)):
        raise ConfigError(f"'{shape}' is not a shape", "--shape", "LAYERSxWIDTH, such as 12x768")
    return int(layers), int(width)


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=1))


def show(parts: "list[RenderableType]", picture: Path | None) -> None:
    """Print renderables; as a picture too, if asked for."""
    from rich.console import Console

    from yanmo.core.outputs import MARK
    from yanmo.core.storage import write_atomic

    console = Console(file=unguarded(sys.stdout), record=picture is not None, highlight=False, emoji=False)
    for part in parts:
        console.print(visible(part) if isinstance(part, str) else part, markup=False)
    if picture is not None:
        write_atomic(picture, f"{MARK}\n{console.export_svg(title='yanmo tokenizer compare')}")
