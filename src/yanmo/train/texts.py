"""The texts of a run: what it learns, and what its base had learned.

In: a recipe. Out: text or dialogues made ready, told apart by looking at them; the text of the base, to
measure what is forgotten and to repeat some of it; and the batches of both.
"""

from dataclasses import replace
from pathlib import Path

from yanmo.checkpoint.folder import load_shape, read_recipe, run_of
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, YanmoError
from yanmo.core.records import Manifest, read_record
from yanmo.data.batches import Batches, BatchSource, Floats
from yanmo.data.dialogues import prepare_dialogues
from yanmo.data.packed import MixedBatches, PackedBatches
from yanmo.data.pairs import PairBatches
from yanmo.data.prepare import prepare, recorded_shards
from yanmo.data.prepared import Prepared, Sides
from yanmo.data.shards import ShardSet
from yanmo.settings.schema import CorpusConfig, DataConfig, Recipe, TokenizerConfig
from yanmo.text.read.dialogues import Kind, recognise
from yanmo.tokenizer import Tokenizer, load_tokenizer
from yanmo.tokenizer.chat_template import ChatTemplate, read_chat_template, with_chat
from yanmo.train.base import base_folder


def kind_of_data(recipe: Recipe) -> Kind:
    """Whether a run learns a plain text, dialogues or pairs; what begins from nothing learns a text."""
    return "text" if recipe.finetune.method is None else recognise(recipe.corpus.path, recipe.corpus.encoding)


def prepare_texts(recipe: Recipe, console: Console) -> Prepared:
    """What a run learns, made ready.

    Raises:
        ConfigError: the vocabulary is not that of the weights to begin from.
        DataError: nothing can be used.
    """
    kind = kind_of_data(recipe)
    if recipe.finetune.preference is not None and kind != "pairs":
        raise ConfigError(
            f"finetune.preference={recipe.finetune.preference} learns from pairs, and the data is {kind}",
            where=", ".join(recipe.corpus.path),
            hint="give records with chosen and rejected, or leave preference out",
        )
    if kind == "text":
        return _prepare_text(recipe, console)
    refuse_settings_of_texts(recipe, kind)
    base = base_folder(recipe)
    tokenizer, template = load_tokenizer(base), read_chat_template(base)
    require_same_vocabulary(tokenizer, base)
    known = tokenizer.vocab_size
    if kind == "dialogues":
        tokenizer, template = with_chat(tokenizer, template)
    if tokenizer.vocab_size > known:
        console.print(f"the embedding gains {tokenizer.vocab_size - known} rows: the marks of a dialogue")
    chat = ChatTemplate(template, tokenizer) if template else None
    fraction = recipe.data.val_fraction
    block_size, are_pairs = recipe.model.block_size, kind == "pairs"
    return prepare_dialogues(recipe.corpus, tokenizer, chat, fraction, block_size, console, are_pairs)


def refuse_settings_of_texts(recipe: Recipe, kind: str) -> None:
    """Refuse settings that mean something for a plain text only.

    Raises:
        ConfigError: one of them is given, and the data is dialogues or pairs.
    """
    given: dict[str, object] = {
        "data.stride": recipe.data.stride,
        "data.held_out": recipe.data.held_out,
        "data.document_mask": recipe.data.document_mask,
        "train.seq_len_warmup": recipe.train.seq_len_warmup,
    }
    if kind == "pairs":
        given["finetune.replay"] = recipe.finetune.replay
    for name, value in given.items():
        if value:
            raise ConfigError(f"{name}={value} is for texts, and the data is {kind}", name, "leave it out")


def _prepare_text(recipe: Recipe, console: Console) -> Prepared:
    """A plain text; a base that has a chat template keeps it."""
    found = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    if recipe.model.init is None:
        return found
    base = base_folder(recipe)
    require_same_vocabulary(found.tokenizer, base)
    template = read_chat_template(base)
    return replace(found, chat=ChatTemplate(template, found.tokenizer)) if template else found


def base_text(recipe: Recipe, console: Console) -> ShardSet | None:
    """The text that the base knows: ``finetune.keep``, or what it was trained on; None: not known.

    Raises:
        ConfigError: there is none, and ``finetune.replay`` needs it.
    """
    if recipe.finetune.method is None:
        return None
    base = base_folder(recipe)
    if recipe.finetune.keep is not None:
        return _kept_text(recipe.finetune.keep, base, recipe, console)
    try:
        return _text_of(base, console)
    except YanmoError as error:
        why, hint = error.what, "name a text that it shall not forget: finetune.keep=TEXT"
    if recipe.finetune.replay:
        raise ConfigError(f"there is no text of the base to repeat: {why}", "finetune.replay", hint)
    console.warn(f"what the base forgets is not measured: {why}; {hint}")
    return None


def _text_of(base: Path, console: Console) -> ShardSet:
    """The text that a base was trained on; of one that learned dialogues, the text of its own base.

    Raises:
        YanmoError: it is not known, or not at hand.
    """
    run = run_of(base)
    if run is None:
        raise ConfigError("the base is no run of yanmo's", where=str(base))
    recipe, recorded = read_recipe(run), read_record(run / "corpus.json", Manifest)
    if recorded.splits.train.targets is None:
        return recorded_shards(recipe, recorded, console)
    its_base = base_folder(recipe)
    if recipe.finetune.keep is not None:
        return _kept_text(recipe.finetune.keep, its_base, recipe, console)
    return _text_of(its_base, console)


def _kept_text(path: str, base: Path, recipe: Recipe, console: Console) -> ShardSet:
    """A text by the vocabulary of a base: tokens that are added to it later come behind its ids."""
    corpus, vocabulary = CorpusConfig(path=(path,)), TokenizerConfig(path=str(base))
    return prepare(corpus, vocabulary, DataConfig(), recipe.model.block_size, console).shards


def batches_of(
    recipe: Recipe, prepared: Prepared, base: ShardSet | None, reference: Sides[Floats] | None
) -> BatchSource:
    """The training batches, with a share of the base's text where that is asked for.

    ``reference`` is what the base says of pairs.
    """
    train, data, block_size = recipe.train, recipe.data, recipe.model.block_size
    rows, seed = train.batch_size, train.seed
    if prepared.pairs is not None and reference is not None:
        return PairBatches(prepared.pairs.train, reference.train, rows, seed)
    stride = data.stride if data.packing == "stride" else None
    own: BatchSource = (
        Batches(prepared.shards.train, block_size, rows, seed, stride)
        if prepared.dialogues is None
        else PackedBatches(prepared.dialogues.train, rows, seed)
    )
    if not recipe.finetune.replay or base is None:
        return own
    return MixedBatches(own, Batches(base.train, block_size, rows, seed), recipe.finetune.replay)


def epoch_tokens(recipe: Recipe, prepared: Prepared) -> int:
    """Tokens that are read in an epoch, those of the base included."""
    own = prepared.epoch_tokens(recipe.model.block_size)
    return round(own / (1 - (recipe.finetune.replay or 0.0)))


def require_same_vocabulary(tokenizer: Tokenizer, weights: Path) -> None:
    """Refuse another vocabulary: weights know tokens by their ids, and other ids would make noise of them."""
    wrong = _difference(tokenizer, weights)
    if wrong is not None:
        raise ConfigError(
            wrong,
            where=f"model.init={weights}",
            hint="leave tokenizer.path out: the tokenizer comes with the weights",
        )


def _difference(tokenizer: Tokenizer, weights: Path) -> str | None:
    """How a vocabulary differs from the one of the weights; special tokens may have been renamed."""
    expected = load_shape(weights).vocab_size
    if tokenizer.vocab_size != expected:
        return f"the tokenizer has {tokenizer.vocab_size} ids, the weights know {expected}"
    theirs = load_tokenizer(weights) if (weights / "tokenizer.json").is_file() else tokenizer
    if theirs.fingerprint == tokenizer.fingerprint:
        return None
    for token in range(expected):
        now, then = tokenizer.decode([token]), theirs.decode([token])
        if now and then and now != then:  # a special token decodes to nothing
            return f"id {token} is {now!r} in the tokenizer, and the weights know it as {then!r}"
    return None
