"""The texts of a run: what it learns, and what its base had learned.

In: a recipe. Out: text or dialogues made ready, told apart by looking at them; the text of the base, to
measure what is forgotten and to repeat some of it; and the batches of both.
"""

from pathlib import Path

from yanmo.checkpoint.folder import find_model_folder, load_shape, read_recipe, run_of
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, YanmoError
from yanmo.core.records import Manifest, read_record
from yanmo.data.batches import Batches, BatchSource
from yanmo.data.dialogues import prepare_dialogues
from yanmo.data.packed import MixedBatches
from yanmo.data.prepare import Prepared, prepare, recorded_shards
from yanmo.data.shards import ShardSet
from yanmo.settings.schema import CorpusConfig, DataConfig, Recipe, TokenizerConfig
from yanmo.text.read.dialogues import recognise
from yanmo.tokenizer import Tokenizer, load_tokenizer
from yanmo.tokenizer.chat_template import read_chat_template, with_chat


def prepare_texts(recipe: Recipe, console: Console) -> Prepared:
    """What a run learns, made ready.

    Raises:
        ConfigError: the vocabulary is not that of the weights to begin from.
        DataError: nothing can be used.
    """
    if recipe.finetune.method is None or recognise(recipe.corpus.path) == "text":
        found = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
        if recipe.model.init:
            require_same_vocabulary(found.tokenizer, base_folder(recipe))
        return found
    base = base_folder(recipe)
    tokenizer = load_tokenizer(base)
    require_same_vocabulary(tokenizer, base)
    known = tokenizer.vocab_size
    tokenizer, template = with_chat(tokenizer, read_chat_template(base))
    if tokenizer.vocab_size > known:
        console.print(f"the embedding gains {tokenizer.vocab_size - known} rows: the marks of a dialogue")
    fraction = recipe.data.val_fraction
    return prepare_dialogues(recipe.corpus, tokenizer, template, fraction, recipe.model.block_size, console)


def base_folder(recipe: Recipe) -> Path:
    """The folder of the weights that a run begins from."""
    assert recipe.model.init is not None
    return find_model_folder(Path(recipe.model.init))


def base_text(recipe: Recipe, console: Console) -> ShardSet | None:
    """The text that the base knows: ``finetune.keep``, or what its own run was trained on; None: not known.

    Raises:
        ConfigError: there is none, and ``finetune.replay`` needs it.
    """
    if recipe.finetune.method is None:
        return None
    base = base_folder(recipe)
    if recipe.finetune.keep is not None:
        corpus, vocabulary = CorpusConfig(path=(recipe.finetune.keep,)), TokenizerConfig(path=str(base))
        return prepare(corpus, vocabulary, DataConfig(), recipe.model.block_size, console).shards
    run, why = run_of(base), "the base is no run of yanmo's"
    try:
        if run is not None:
            return recorded_shards(read_recipe(run), read_record(run / "corpus.json", Manifest), console)
    except YanmoError as error:
        why = error.what
    hint = "name a text that it shall not forget: finetune.keep=TEXT"
    if recipe.finetune.replay:
        raise ConfigError(f"there is no text of the base to repeat: {why}", "finetune.replay", hint)
    console.warn(f"what the base forgets is not measured: {why}; {hint}")
    return None


def batches_of(recipe: Recipe, prepared: Prepared, base: ShardSet | None) -> BatchSource:
    """The training batches, with a share of the base's text where that is asked for."""
    train, data, block_size = recipe.train, recipe.data, recipe.model.block_size
    stride = data.stride if data.packing == "stride" else None
    own = prepared.batches(block_size, train.batch_size, train.seed, stride)
    if not recipe.finetune.replay or base is None:
        return own
    repeated = Batches(base.train, block_size, train.batch_size, train.seed)
    return MixedBatches(own, repeated, recipe.finetune.replay)


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
