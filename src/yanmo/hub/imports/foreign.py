"""A model of another tool → its config.json values, its tensors by Hugging Face's names, its vocabulary.

This only brings the files into one form. ``checkpoint.build_model`` and ``proof.py`` check whether they fit
together.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, cat

from yanmo.checkpoint.tensors import INDEX, ONE_FILE, load_weights
from yanmo.core.errors import CheckpointError, ConfigError
from yanmo.core.storage import MANIFEST, read_json, verify_folder
from yanmo.hub.imports.nanogpt import as_gpt2, bare_names
from yanmo.hub.imports.pickled import open_pickle
from yanmo.hub.imports.recognise import ImportSource
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import Tokenizer, kind_of, read_tokenizer
from yanmo.tokenizer.chat_template import read_chat_template
from yanmo.tokenizer.files import read_vocabulary
from yanmo.tokenizer.wordpiece import Roles

PICKLES = ("pytorch_model.bin", "model.bin")
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "encoder.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
)
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Masks and tables that old checkpoints keep beside the weights."""
MOST_PADDING = 1024
"""Rows beyond the vocabulary that trainers add to an embedding: multiples of 64 or 128 multiply faster."""
GPT2_CHINESE = Roles(newline="[SEP]", start="[MASK]", end="[CLS]")
BERT = Roles(start="[CLS]", end="[SEP]", digits_alone=False)
"""Tokens that begin and end a text: in GPT2-Chinese, and in models trained by BERT's rules (uer)."""


@dataclass(frozen=True)
class Foreign:
    """A model as it was published, in one form."""

    source: str
    values: dict[str, Any]
    """Those of config.json."""
    tensors: dict[str, Tensor]
    """By Hugging Face's names, in its layout."""
    tokenizer: Tokenizer
    chat_template: str | None = None
    notes: tuple[str, ...] = field(default=())
    """What was changed, and what a user should know."""


def read_foreign(source: ImportSource, config: TokenizerConfig) -> Foreign:
    """The model of a source.

    Raises:
        CheckpointError: a file is damaged, or vocabulary and weights do not belong together.
        ConfigError: no vocabulary is known.
    """
    return (_read_nanogpt if source.kind == "nanoGPT checkpoint" else _read_folder)(source, config)


def _read_folder(source: ImportSource, config: TokenizerConfig) -> Foreign:
    folder = source.path
    if (folder / MANIFEST).is_file():  # one of ours: checksums show whether a file was changed
        verify_folder(folder)
    try:
        values = read_json(folder / "config.json")
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"its config.json is not readable: {error}", where=str(folder)) from error
    values = {"model_type": "gpt2", **values}
    # old files of GPT-2 call the window n_ctx
    if values["model_type"] == "gpt2" and "n_ctx" in values:
        values.setdefault("n_positions", values["n_ctx"])
    pickle = next((folder / name for name in PICKLES if (folder / name).is_file()), None)
    # a pickle is opened only where there is nothing safer
    if (folder / ONE_FILE).is_file() or (folder / INDEX).is_file() or pickle is None:
        tensors = load_weights(folder)
    else:
        tensors = open_pickle(pickle).tensors
    # causal masks and tables that the model computes itself
    tensors = {name: t for name, t in bare_names(tensors).items() if not name.endswith(BUFFERS)}
    tokenizer, notes = _tokenizer_of(folder, values, config)
    return Foreign(folder.name, values, tensors, tokenizer, read_chat_template(folder), notes)


def _read_nanogpt(source: ImportSource, config: TokenizerConfig) -> Foreign:
    file = source.files[0]
    found = open_pickle(file)
    arguments = found.values.get("model_args")
    if not isinstance(arguments, dict):
        raise CheckpointError(
            "it has no model_args, so its shape is unknown",
            where=str(file),
            hint="give a ckpt.pt of nanoGPT, or a folder with config.json",
        )
    values, tensors = as_gpt2(found.tensors, arguments, str(file))
    tensors = {name: t for name, t in tensors.items() if not name.endswith(BUFFERS)}
    notes: tuple[str, ...] = ("GELU by erf, as nanoGPT computes it: `gelu` in config.json",)
    if arguments.get("bias") is False:
        notes += ("no biases: they become zeros, which gives the same function",)
    trained = found.values.get("config")
    dataset = trained.get("dataset") if isinstance(trained, dict) else None
    tokenizer = _named(config) or _beside(file, dataset, config)
    return Foreign(file.name, values, tensors, tokenizer, None, notes)


def _beside(file: Path, dataset: Any, config: TokenizerConfig) -> Tokenizer:
    """The vocabulary where nanoGPT keeps it: data/<dataset>/meta.pkl."""
    # beside the checkpoint; else in the clone that the run lay in, as out/ckpt.pt or deeper
    places = [file.parent / "meta.pkl"]
    # a plain name only: the pickle must not choose a path on this disk
    if isinstance(dataset, str) and Path(dataset).name == dataset:
        roots = [file.parent, *list(file.resolve().parents)[1:3]]
        places += [root / "data" / dataset / "meta.pkl" for root in roots]
    for place in places:
        if place.is_file():
            return read_tokenizer(place, config)
    raise ConfigError(
        "a ckpt.pt contains no vocabulary, and there is no meta.pkl in its folder"
        + (f" or in data/{dataset}" if isinstance(dataset, str) else ""),
        where=str(file),
        hint="give it: tokenizer.path=data/NAME/meta.pkl, or a folder with GPT-2's vocab.json and merges.txt",
    )


def _named(config: TokenizerConfig) -> Tokenizer | None:
    return read_tokenizer(Path(config.path), config) if config.path else None


def _tokenizer_of(
    folder: Path, values: dict[str, Any], config: TokenizerConfig
) -> tuple[Tokenizer, tuple[str, ...]]:
    """The vocabulary named, or the one in the folder; vocab.txt with the roles its models give entries."""
    path = Path(config.path) if config.path else folder
    if not path.exists():
        raise ConfigError(
            f"there is no {path}", "tokenizer.path", "give the vocabulary that it was trained with"
        )
    if not config.path and not any((folder / name).is_file() for name in VOCABULARIES):
        raise ConfigError(
            "the folder has no vocabulary",
            where=str(folder),
            hint="give the one that it was trained with: tokenizer.path=vocab.txt",
        )
    # a folder with a tokenizer.json beside its vocab.txt is read by the former: it says more
    is_vocab_txt = path.name == "vocab.txt" or not any((path / name).is_file() for name in VOCABULARIES[:3])
    # a vocab.txt does not say which entries begin and end a text: the user does, or the class name, or the
    # convention of GPT2-Chinese
    given = config.model_fields_set & {"newline_token", "start_token", "end_token"}
    if not (path.suffix == ".txt" or (is_vocab_txt and (path / "vocab.txt").is_file())) or given:
        return read_tokenizer(path, config), ()
    said = _tokenizer_config(path if path.is_dir() else path.parent)
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        if said.get(key) is False:
            raise CheckpointError(
                f"its vocabulary was used with {key}=false, which yanmo's wordpiece does not do",
                where=str(path),
                hint="give a tokenizer.json of it: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
            )
    name = str(said.get("tokenizer_class", values.get("tokenizer_class")))
    # models of uer name a BertTokenizer, those of GPT2-Chinese no class at all
    roles = BERT if name.startswith("Bert") else GPT2_CHINESE
    file = path if path.is_file() else path / "vocab.txt"
    tokenizer = read_vocabulary(file, roles)
    note = f"texts begin with {roles.start} and end with {roles.end}"
    note += f", {roles.newline} is a line end" if roles.newline else ""
    return tokenizer, (
        f"{note}; if it was trained differently, set tokenizer.start_token, end_token and newline_token",
    )


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """The values of tokenizer_config.json; none where it is missing or torn."""
    try:
        said = read_json(folder / "tokenizer_config.json")
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def fit_vocabulary(foreign: Foreign) -> Foreign:
    """Make the embedding as long as the vocabulary, as in our models.

    Rows without a token (padding) are cut. nanoGPT's vocabularies of characters have no token for other
    characters and no end-of-text: ours have, so these get rows, the mean of the others.

    Raises:
        CheckpointError: rows and tokens do not belong together.
    """
    table = next((t for name, t in foreign.tensors.items() if _is_by_token(name)), None)
    if table is None or table.dim() != 2:
        raise CheckpointError("the weights have no token embedding", where=foreign.source)
    rows, tokens = len(table), foreign.tokenizer.vocab_size
    # said of both files before anything is fitted, or a cut would hide it
    if rows != foreign.values.get("vocab_size"):
        raise CheckpointError(
            f"the weights have {rows:,} tokens, config.json says {foreign.values.get('vocab_size')}",
            where=foreign.source,
            hint="the weights and config.json are from different models",
        )
    # only these two are known habits; any other difference means that the wrong vocabulary was named
    kind = kind_of(foreign.tokenizer)
    if kind == "char" and foreign.tokenizer.end_of_text == rows < tokens:
        note = f"{tokens - rows} rows were added, each the mean of the others: 256 bytes and end-of-text"
    elif rows == tokens:
        return foreign
    elif kind != "wordpiece" and 0 < rows - tokens <= MOST_PADDING and rows % 8 == 0:
        note = f"{rows - tokens} padding rows of the embedding were removed"
    else:
        raise CheckpointError(
            f"the weights have {rows:,} tokens, the vocabulary has {tokens:,}",
            where=foreign.source,
            hint="give the vocabulary that the model was trained with: tokenizer.path=…",
        )
    fitted = {
        name: _with_rows(tensor, tokens) if _is_by_token(name) and tensor.dim() == 2 else tensor
        for name, tensor in foreign.tensors.items()
    }
    values = {**foreign.values, "vocab_size": tokens}
    return replace(foreign, values=values, tensors=fitted, notes=(*foreign.notes, note))


def _with_rows(table: Tensor, count: int) -> Tensor:
    """The first rows of a table, or all and the mean of them as often as it takes."""
    # the mean: tokens that were never trained are then neither likely nor impossible
    more = table.mean(0, keepdim=True).expand(max(count - len(table), 0), -1)
    return cat([table[:count], more])


def _is_by_token(name: str) -> bool:
    """Whether a tensor has a row for each token."""
    return name.endswith(("wte.weight", "embed_tokens.weight", "lm_head.weight"))
