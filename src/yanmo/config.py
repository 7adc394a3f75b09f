"""Every setting of yanmo, on one page.

A recipe is TOML with the sections below; any key is also set as ``section.key=value`` on the command
line. A key left out keeps the value shown here. ``None`` means "decided when the run folder is made":
the decision is written into the run's ``recipe.toml`` and not taken again (see ``train/decide.py``), unless
that file is the recipe of a new run with another setting that the decision rests on (``GROUNDS``).

In: TOML text and ``key=value`` strings. Out: a frozen :class:`Recipe`, or a :class:`ConfigError` that
names the key, the value and the mend. Reading and writing is all this file does; who uses a setting is
said by its section.
"""

import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from yanmo.errors import ConfigError

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=1 << 53)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


T = TypeVar("T", bound=Section)


class CorpusConfig(Section):
    """Where the text comes from (``text/documents.py``)."""

    path: tuple[str, ...] = ()
    """Files (.txt .json .jsonl .csv .tsv .html .epub .parquet; packed as .gz .zst .bz2 .xz .zip), folders and
    globs of them, `-` for standard input; `yanmo:demo` is the embedded demo corpus. The positional arguments
    of `yanmo train` set it."""
    text_field: str = "text"
    """Which field of a JSON object, or column of a table, is the text: `content`; `段落.内容` descends, and
    joins what it finds in a list by line ends; `title+content` joins fields."""
    encoding: str = "auto"
    """`auto` finds UTF-8, UTF-16, GB18030 and Big5, and believes what a page declares if it looks right; any
    name Python knows, such as `shift_jis`, is used as given."""
    split_chapters: bool = False
    """Let each chapter (a line 第N章, 回, 節 or 卷) be a document of its own."""


class CleanConfig(Section):
    """What `yanmo clean` changes, and what it drops (``text/clean/``)."""

    mojibake: bool = True
    """Repair text that was decoded wrongly: UTF-8 read as Latin-1 or as GBK."""
    markup: bool = True
    """Take out what is left of web pages: tags, comments, `&nbsp;` and its like."""
    controls: bool = True
    """Take out invisible characters; odd spaces and line ends become plain ones."""
    width: Literal["keep", "letters", "all"] = "letters"
    """`letters`: full-width letters and digits become ASCII. `all`: also half-width punctuation between
    hanzi becomes full-width."""
    ads: bool = True
    """Take out lines that advertise a site, however it is spelled, and the banners of book sites."""
    drop_lines: tuple[str, ...] = ()
    """Lines to take out wherever they stand, compared by their letters alone; `yanmo inspect` proposes
    some."""
    whitespace: bool = True
    """Take out spaces at line ends and runs of them; at most one blank line."""
    indentation: Literal["keep", "none", "two"] = "keep"
    """Of paragraphs: as it is, none, or two full-width spaces."""
    unwrap: bool = True
    """Join lines that were cut at a fixed width, in texts that look so."""
    repeated_lines: bool = True
    """Of a line of 10 characters three times in a row, or of 40 twice, keep one."""
    privacy: bool = True
    """Put [手机号], [身份证号] and [邮箱] in place of mobile numbers, identity numbers and e-mails."""
    script: Literal["keep", "simplified", "traditional"] = "keep"
    """Turn traditional into simplified characters or back (opencc)."""
    languages: tuple[Literal["zh", "latin", "ja", "ko", "ru", "other"], ...] = ("zh", "latin")
    """Documents and paragraphs mostly in another language are dropped: `latin` is English and all that
    is written like it, `ru` all in Cyrillic letters."""
    quality: bool = True
    """Drop documents that are mostly symbols, mostly digits, garbled, or one thing over and over."""


class DedupConfig(Section):
    """What `yanmo clean --dedup` takes for the same (``text/dedup.py``)."""

    exact: bool = True
    """Drop a document that is an earlier one, whatever its spaces and case."""
    near: Share = 0.8
    """Drop a document that shares so much of its runs of five characters with an earlier one (Jaccard);
    0: none is."""
    paragraphs: NonNegativeInt = 40
    """Take out paragraphs of so many characters and more that an earlier document has; 0: none."""
    against: tuple[str, ...] = ()
    """Texts that must not be in the corpus, such as a test set: documents that are one of them, near one,
    or hold some 75 characters in a row of one, are dropped."""


class TokenizerConfig(Section):
    """How text becomes tokens (``tokenizer/``)."""

    kind: Literal["char", "bpe", "unigram", "wordpiece"] | None = None
    """`char`: one token for each character of the corpus, bytes for all others. `bpe`: byte pairs merged
    by frequency, as GPT-2's. `unigram`: pieces by probability, bytes for unknown characters. These three
    are learned from the corpus and lose nothing. `wordpiece`: a BERT vocab.txt, split as GPT2-Chinese
    does. Decided: what path leads to; without a path `char`, from 20 MB of text on `bpe`."""
    path: str | None = None
    """A vocabulary somebody made: tokenizer.json, vocab.txt, encoder.json with vocab.bpe, *.tiktoken,
    *.model, meta.pkl, or a folder with one of them. Decided, when model.init is given: that folder."""
    vocab_size: NonNegativeInt = 0
    """Upper limit of a vocabulary that is learned. 0: 32,000 for `bpe` and `unigram`, none for `char`;
    the rarest characters beyond a limit are written as bytes."""
    sample_mb: PositiveInt = 50
    """Text that `bpe` and `unigram` are learned from, in MB, taken evenly from all over the corpus; a
    smaller corpus is used whole. It bounds the memory: docs/tokenizers.md has figures."""
    chat_tokens: bool = False
    """Learn with `<|im_start|>` and `<|im_end|>`, for a model that is to be taught dialogues later."""
    reserved_tokens: NonNegativeInt = 0
    """Learn with so many unused tokens `<|reserved_0|>`… for purposes found later."""
    newline_token: str = ""
    """`wordpiece`: the entry of vocab.txt that stands for a line end, such as `[SEP]`; without one,
    line ends are lost."""
    start_token: str = ""
    """`wordpiece`: the entry put before every document, such as `[MASK]`."""
    end_token: str = ""
    """`wordpiece`: the entry put behind every document, `[SEP]` if none is named; `[CLS]` in
    GPT2-Chinese."""


class DataConfig(Section):
    """How documents become training and validation tokens (``data/``)."""

    val_fraction: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of the characters held out for validation. Decided: 100,000 characters, but at least
    0.5% and at most 5% of the text."""
    packing: Literal["offset", "stride"] | None = None
    """`offset`: an epoch reads every token once, in windows that begin elsewhere each epoch. `stride`:
    windows begin every `stride` tokens and overlap. Decided: `stride` if that is given, else `offset`."""
    stride: PositiveInt | None = None
    """Tokens from the beginning of one window to the next. Decided, when packing is `stride`: half of
    model.block_size."""
    document_mask: bool = False
    """Let attention stay within a document, where a window holds several."""
    workers: PositiveInt | None = None
    """Processes that turn text into tokens; the result does not depend on it. Left out: one for each
    core."""


class ModelConfig(Section):
    """The shape of the model (``model/shape.py``). The vocabulary's size comes from the tokenizer."""

    family: Literal["gpt2", "modern", "moe"] = "modern"
    """`gpt2`: opens as `GPT2LMHeadModel` everywhere. `modern`: rotary positions, RMSNorm, gated MLP;
    opens as `Qwen3ForCausalLM`. `moe`: the same with experts, of which each token goes through a few; opens
    as `Dots1ForCausalLM`."""
    n_layer: PositiveInt = 4
    """Transformer blocks."""
    n_head: PositiveInt = 4
    """Attention heads; must divide n_embd, unless head_dim is given."""
    n_kv_head: PositiveInt | None = None
    """Heads of keys and values, each shared by n_head / n_kv_head queries: fewer make the cache smaller in
    writing. Not in `gpt2`. Decided: n_head."""
    head_dim: PositiveInt | None = None
    """Width of a head, an even number. Not in `gpt2`. Decided: n_embd / n_head."""
    n_embd: PositiveInt = 256
    """Width of the residual stream."""
    n_inner: PositiveInt | None = None
    """Inner width of an MLP. Decided: 4 n_embd in `gpt2`, 8/3 n_embd rounded up to a multiple of 32 in the
    others, whose MLP has three matrices instead of two."""
    block_size: PositiveInt = 128
    """Tokens the model can look back on (the context window)."""
    tied_head: bool = True
    """Let the output head share the embedding's weights; `gpt2` always does."""
    rope_theta: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """Base of the rotary positions: raise it when a model is taught a longer window. Not in `gpt2`.
    Decided: 10,000."""
    gelu: Literal["tanh", "erf"] | None = None
    """`gpt2`: how GELU is computed: `tanh`, OpenAI's approximation, or `erf`, the function itself, as nanoGPT
    has it. Decided: `tanh`, or what the weights of model.init were trained with."""
    n_expert: Annotated[int, Field(ge=2)] | None = None
    """`moe`: experts a layer can choose from. Decided: 16."""
    n_expert_active: PositiveInt | None = None
    """`moe`: how many of them a token goes through. Decided: 3."""
    n_expert_shared: PositiveInt | None = None
    """`moe`: experts that every token goes through. Decided: 1."""
    expert_inner: PositiveInt | None = None
    """`moe`: inner width of one expert. Decided: so that a token goes through about as many weights as in
    one MLP of n_inner."""
    expert_scaling: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """`moe`: the sum of the weights of a token's experts. Decided: 1."""
    n_dense_layer: NonNegativeInt | None = None
    """`moe`: how many layers, the first ones, have one MLP instead of experts. Decided: 1."""
    zero_projections: bool = False
    """Begin with zeros where attention and MLP add to the stream, instead of small random numbers."""
    dropout: Share | None = None
    """Share of activations dropped in training, which keeps a text from being learned by heart. Decided:
    0.1 for a run of six passes over the text or more, else 0."""
    init: str | None = None
    """Begin from the weights in a folder: a run, a checkpoint, or any Hugging Face folder of our families
    whose tokenizer has as many ids as the model. The shape comes from there too; of `modern` and `moe`,
    block_size and rope_theta may be others."""


class OptimConfig(Section):
    """The optimizer and its learning rate (``train/optim.py``, ``train/schedule.py``)."""

    name: Literal["adamw", "muon"] | None = None
    """`adamw`, or `muon` for the matrices of the blocks with `adamw` for the rest, which learns more
    from each step. Decided: `muon`; `adamw` when model.init is given."""
    learning_rate: Rate | None = None
    """The peak, reached after the warm-up. Decided: 0.006 for `muon`, 0.001 for `adamw`, times the root
    of 256 / model.n_embd."""
    min_lr: Rate | None = None
    """Where the schedule ends. Decided: a tenth of learning_rate."""
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    """How the rate falls after the warm-up: along a cosine, a line, or (`wsd`) not at all until the
    last fifth of the run and then along a line."""
    warmup_steps: NonNegativeInt | None = None
    """Steps of linear warm-up. Decided: a twentieth of the run, at most 200."""
    momentum: Share = 0.95
    """Muon's momentum."""
    weight_decay: Rate = 0.1
    """Decay of matrices and embeddings; norms and biases are never decayed."""
    beta1: Share = 0.9
    """AdamW's first momentum."""
    beta2: Share = 0.99
    """AdamW's second momentum."""
    grad_clip: Rate = 1.0
    """Largest norm of the whole gradient; 0 does not clip."""


class TrainConfig(Section):
    """The run: how long, on what, and what it keeps (``train/``)."""

    seed: Seed = 1337
    """Everything random in a run follows from it."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`; `cuda:0,1` trains on both. Decided: the first accelerator there
    is, else `cpu`."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Arithmetic of the forward and backward pass (autocast); weights are float32 always. `float16`
    scales the loss, for GPUs without bfloat16. Decided: the faster of float32 and bfloat16, measured."""
    compile: bool | None = None
    """Let torch.compile fuse the model: half a minute of preparation or more, then faster steps. Needs a
    C++ compiler on a CPU. Decided: in a run of half an hour or more (on a GPU, two minutes), whether it is
    faster by a twentieth, measured; else not."""
    attention: Literal["sdpa", "matmul"] | None = None
    """torch's fused attention, or matrix products in blocks (`model/fused.py`). Decided: measured."""
    matmul: Literal["torch", "onednn"] | None = None
    """Which library multiplies float32 matrices on a CPU. `onednn` is faster on AMD, but rounds to
    bfloat16 where the CPU has AMX; it is only tried where it does not. Decided: measured."""
    threads: PositiveInt | None = None
    """CPU threads. Decided: what torch chooses, the physical cores."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms: needed for bit-identical resume on a GPU. On a CPU
    runs are bit-identical without it."""
    batch_size: PositiveInt = 16
    """Sequences per optimizer step, over all ranks."""
    short_windows: Share | None = None
    """Share of a run in which windows are read in halves, each without what stands before it: what is close
    together is learned first. Decided: 0.4 with Muon from scratch, where a window has an even number of
    tokens and 64 or more; else 0."""
    micro_batch_size: PositiveInt | None = None
    """Sequences per forward pass; must divide batch_size. Decided: on a CPU the fastest of about
    1,024, 2,048 and 4,096 tokens, measured, or the first of them for a large model; elsewhere about 16,384
    tokens."""
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer steps; the first of max_steps, epochs and minutes that is reached
    ends the run. A larger value of any of them later lengthens it."""
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Stop after reading all windows so many times."""
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Stop after so much training time. Decided, when max_steps and epochs are not given either: 10."""
    log_interval: PositiveInt = 10
    """Steps between two lines of the log."""
    eval_interval: PositiveInt | None = None
    """Steps between two evaluations, each with a sample. Decided: a tenth of the run."""
    checkpoint_interval: PositiveInt | None = None
    """Steps between two checkpoints. Decided: eval_interval."""
    keep_last: PositiveInt = 2
    """How many of the newest checkpoints are kept, beside the best."""
    save_every_epoch: bool = False
    """Keep a checkpoint of every epoch (epochs/1, epochs/2, …) and the last one (final)."""


class SampleConfig(Section):
    """How the model writes (``generate.py``): at each evaluation, and as defaults of `yanmo generate`."""

    prompt: str | None = None
    """What the samples continue. Decided: the opening of the validation text."""
    max_new_tokens: PositiveInt = 200
    """Tokens to write; the end-of-text token ends a sample earlier."""
    num_samples: PositiveInt = 1
    """Samples of one prompt."""
    temperature: Rate = 0.8
    """Below 1 safer, above 1 wilder; 0 always takes the likeliest token (greedy)."""
    top_k: NonNegativeInt = 0
    """Choose among the k likeliest tokens only; 0: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Choose among the likeliest tokens that together have this probability; 1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Choose among tokens at least this share as likely as the likeliest; 0: all."""
    repetition_penalty: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0
    """Make tokens that stand in the window already less likely; 1: no, 1.1 to 1.3 is usual."""
    no_repeat_ngram: NonNegativeInt = 0
    """Never write the same n tokens in a row twice; 0: no such rule."""
    banned: tuple[str, ...] = ()
    """Texts that are never written."""
    stop: tuple[str, ...] = ()
    """Texts that end a sample; they are not part of it."""
    seed: Seed = 0
    """Same seed, same text (on the same machine)."""


class Recipe(Section):
    """All settings of a run."""

    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    sample: SampleConfig = SampleConfig()
    decided: tuple[str, ...] = ()
    """Keys that were not asked for but decided when the run folder was made."""


class Cleaning(Section):
    """All settings of `yanmo clean`: not of a run, for what it makes is a corpus."""

    corpus: CorpusConfig = CorpusConfig()
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()


SECTIONS = tuple(name for name in Recipe.model_fields if name != "decided")

FREE_ON_RESUME = (
    "train.log_interval",
    "train.eval_interval",
    "train.checkpoint_interval",
    "train.keep_last",
    "train.save_every_epoch",
    "data.workers",
    "sample.",
)
"""Keys, and a whole section, that may change when a run goes on."""

USUAL_EXPERTS = {"n_expert": 16, "n_expert_active": 3, "n_expert_shared": 1, "expert_scaling": 1.0}
EXPERT_KEYS = (*USUAL_EXPERTS, "expert_inner", "n_dense_layer")
"""Keys of [model] that only `moe` has."""

SHAPE_KEYS = ("family", "n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "n_inner", "block_size",
              "tied_head", "rope_theta", "gelu", *EXPERT_KEYS)  # fmt: skip
"""Keys of [model] that are the model's shape."""

MICRO_BATCH = "train.micro_batch_size"
"""Out of memory halves it and records it as decided, whatever was asked."""

LENGTHS = ("train.max_steps", "train.epochs", "train.minutes")
"""Keys that may grow: the run goes on for longer."""

_SHAPE = tuple(f"model.{key}" for key in SHAPE_KEYS)
_MEASURED = ("train.precision", "train.attention", "train.matmul", MICRO_BATCH)
_PASS = (*_SHAPE, "model.dropout", "corpus.", "tokenizer.", "data.document_mask", "train.batch_size",
         "train.device", "train.threads", "train.deterministic", *_MEASURED)  # fmt: skip
"""What the time and memory of a pass rest on; the text through its vocabulary."""
_STEPS = (*_PASS, *LENGTHS, "optim.name", "data.val_fraction", "data.packing", "data.stride")
"""What the number of steps rests on: text and length, and speed where the clock ends a run."""

GROUNDS: dict[str, tuple[str, ...]] = {
    "tokenizer.path": ("model.init", "tokenizer.kind"),
    **dict.fromkeys(_SHAPE, (*_SHAPE, "model.init")),
    "train.device": (),
    "train.threads": (),
    "data.packing": ("data.stride",),
    "data.stride": ("data.packing", "model.block_size"),
    "optim.name": ("model.init",),
    "optim.learning_rate": ("optim.name", "model.n_embd", "model.init"),
    "tokenizer.kind": ("corpus.", "tokenizer.path", "model.init"),
    "data.val_fraction": ("corpus.",),
    **dict.fromkeys(_MEASURED, _PASS),
    "train.compile": _STEPS,
    "train.minutes": ("train.max_steps", "train.epochs"),
    "train.eval_interval": (*_STEPS, "train.compile"),
    "train.checkpoint_interval": (*_STEPS, "train.compile", "train.eval_interval"),
    "optim.warmup_steps": (*_STEPS, "train.compile"),
    "optim.min_lr": ("optim.learning_rate",),
    "sample.prompt": ("corpus.", "tokenizer.", "data.val_fraction", "model.block_size"),
    "model.dropout": (*_STEPS, "train.compile"),
    "train.short_windows": ("optim.name", "model.init", "model.block_size"),
}
"""Every decision and what it rests on, keys and whole sections, in the order in which ``train/run.py`` takes
them: a later decision rests on an earlier one, an earlier one only on what is typed."""

PEER_NAMES = {
    "n_ctx": "model.block_size",
    "n_positions": "model.block_size",
    "context_len": "model.block_size",
    "context_length": "model.block_size",
    "max_length": "model.block_size",
    "seq_len": "model.block_size",
    "emb_dim": "model.n_embd",
    "hidden_size": "model.n_embd",
    "d_model": "model.n_embd",
    "num_layers": "model.n_layer",
    "num_hidden_layers": "model.n_layer",
    "n_layers": "model.n_layer",
    "depth": "model.n_layer",
    "n_heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "num_kv_heads": "model.n_kv_head",
    "n_kv_heads": "model.n_kv_head",
    "intermediate_size": "model.n_inner",
    "tie_word_embeddings": "model.tied_head",
    "num_experts": "model.n_expert",
    "n_routed_experts": "model.n_expert",
    "num_experts_per_tok": "model.n_expert_active",
    "n_shared_experts": "model.n_expert_shared",
    "moe_intermediate_size": "model.expert_inner",
    "drop_rate": "model.dropout",
    "lr": "optim.learning_rate",
    "wd": "optim.weight_decay",
    "warmup_iters": "optim.warmup_steps",
    "num_warmup_steps": "optim.warmup_steps",
    "max_grad_norm": "optim.grad_clip",
    "max_iters": "train.max_steps",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "lr_scheduler_type": "optim.schedule",
    "init_from": "model.init",
    "pretrained_model": "model.init",
    "vocab": "tokenizer.path",
    "vocab_file": "tokenizer.path",
    "tokenizer_path": "tokenizer.path",
    "raw_data_path": "corpus.path",
    "no_repeat_ngram_size": "sample.no_repeat_ngram",
    "bad_words": "sample.banned",
    "stop_strings": "sample.stop",
    "context_size": "model.block_size",
    "max_train_steps": "train.max_steps",
    "num_train_steps": "train.max_steps",
    "per_device_train_batch_size": "train.micro_batch_size",
    "save_interval": "train.checkpoint_interval",
    "save_steps": "train.checkpoint_interval",
    "eval_steps": "train.eval_interval",
    "log_step": "train.log_interval",
    "logging_steps": "train.log_interval",
    "dtype": "train.precision",
    "length": "sample.max_new_tokens",
    "nsamples": "sample.num_samples",
    "topk": "sample.top_k",
    "topp": "sample.top_p",
    "prefix": "sample.prompt",
    "start": "sample.prompt",
}
"""Names people know from other tools, and ours."""


# -- reading ----------------------------------------------------------------------------------


def load_recipe(source: Path | None, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in ``source`` (None: all defaults) with ``section.key=value`` overrides.

    Raises:
        ConfigError: unknown key, value of the wrong kind, or settings that contradict each other.
    """
    values = _read_toml(source) if source else {}
    resolved = _validate(Recipe, values, str(source)) if values.get("decided") else None
    typed = set()
    for override in overrides:
        section, key, value = _parse_override(override)
        values.setdefault(section, {})[key] = value
        typed.add(f"{section}.{key}")
    recipe = _validate(Recipe, values, str(source), typed)
    if resolved is not None:
        changed = {name for name in typed if get(recipe, name) != get(resolved, name)}
        _forget(values, typed, reopened(set(resolved.decided) - typed, changed))
        recipe = _validate(Recipe, values, str(source), typed)
    check_relations(recipe)
    return recipe


def load_cleaning(overrides: Iterable[str] = (), paths: Iterable[str] = ()) -> Cleaning:
    """The settings of `yanmo clean` with ``section.key=value`` overrides, for these paths.

    Raises:
        ConfigError: unknown key, or value of the wrong kind.
    """
    values: dict[str, Any] = {"corpus": {"path": list(paths)}}
    typed = set()
    for override in overrides:
        section, key, value = _parse_override(override, tuple(Cleaning.model_fields))
        values.setdefault(section, {})[key] = value
        typed.add(f"{section}.{key}")
    return _validate(Cleaning, values, "command line", typed)


def read_settings(kind: type[T], path: Path) -> T:
    """The settings in a TOML file whose sections are the fields of ``kind``.

    Raises:
        ConfigError: the file cannot be read, an unknown key, or a value of the wrong kind.
    """
    return _validate(kind, _read_toml(path), str(path))


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Positional arguments → (texts or recipe, settings). What exists as a file is never a setting."""
    texts = [a for a in arguments if "=" not in a or Path(a).exists()]
    settings = [a for a in arguments if a not in texts]
    return [text if ":" in text else Path(text).as_posix() for text in texts], settings


def recipe_path(name: str) -> Path | None:
    """The file a recipe's name means: a path ending in .toml, or the bare name of a recipe of ours."""
    if name.endswith(".toml"):
        return Path(name)
    folder = recipes_folder() / f"{name}.toml"
    return folder if folder.is_file() and name.isidentifier() else None


def recipes_folder() -> Path:
    """Where our own recipes lie: in the package, or at the root of a clone."""
    here = Path(__file__).resolve().parent
    installed = here / "recipes"
    return installed if installed.is_dir() else here.parents[1] / "recipes"


def check_relations(recipe: Recipe) -> None:
    """Refuse settings that are fine alone and impossible together.

    Raises:
        ConfigError: with both values.
    """
    model, optim, train, data = recipe.model, recipe.optim, recipe.train, recipe.data
    if model.n_embd % model.n_head and (model.family == "gpt2" or not model.head_dim):
        raise ConfigError(
            f"model.n_embd={model.n_embd} cannot be shared out among model.n_head={model.n_head} heads",
            where="[model]",
            mend=f"choose n_embd as a multiple of {model.n_head}, or another n_head",
        )
    if model.init is None:  # else the shape comes with the weights
        _check_family(model)
    elif model.zero_projections:
        raise ConfigError(
            "model.zero_projections=true would do away with the weights to begin from",
            where=f"model.init={model.init}",
            mend="leave one of them out",
        )
    _check_step(train, model)
    if optim.warmup_steps and train.max_steps and optim.warmup_steps >= train.max_steps:
        raise ConfigError(
            f"optim.warmup_steps={optim.warmup_steps} leaves nothing of train.max_steps={train.max_steps}",
            where="[optim]",
            mend="choose fewer warm-up steps, or leave them out",
        )
    if data.stride and data.packing == "offset":
        raise ConfigError(
            f"data.stride={data.stride} means nothing with data.packing=offset",
            where="[data]",
            mend="leave packing out, or stride",
        )
    if data.stride and data.stride > model.block_size:
        raise ConfigError(
            f"data.stride={data.stride} is larger than model.block_size={model.block_size}:"
            " the text between two windows would never be read",
            where="[data]",
            mend=f"choose at most {model.block_size}",
        )
    if optim.min_lr is not None and optim.learning_rate is not None and optim.min_lr > optim.learning_rate:
        raise ConfigError(
            f"optim.min_lr={optim.min_lr} is above optim.learning_rate={optim.learning_rate}",
            where="[optim]",
            mend="lower min_lr, or leave it out",
        )


def _check_step(train: TrainConfig, model: ModelConfig) -> None:
    """How a step is computed."""
    if train.matmul == "onednn" and (train.device or "cpu") != "cpu":
        raise ConfigError(
            f"train.matmul=onednn is a way of a CPU, and train.device={train.device}",
            where="[train]",
            mend="leave matmul out",
        )
    if train.short_windows and model.block_size % 2:
        raise ConfigError(
            f"train.short_windows={train.short_windows} halves model.block_size={model.block_size}",
            where="[train]",
            mend="choose an even block_size, or short_windows=0",
        )
    if train.micro_batch_size and train.batch_size % train.micro_batch_size:
        raise ConfigError(
            f"train.micro_batch_size={train.micro_batch_size} does not divide"
            f" train.batch_size={train.batch_size}",
            where="[train]",
            mend="choose a divisor, or leave micro_batch_size out",
        )


def reopened(decided: Collection[str], changed: Collection[str]) -> set[str]:
    """Those decisions that rest on what has changed, or on another of them that does."""
    again: set[str] = set()
    for name, grounds in GROUNDS.items():
        moved = {*changed, *again}
        if name in decided and any(other in grounds or _section_of(other) in grounds for other in moved):
            again.add(name)
    return again


def _section_of(name: str) -> str:
    """``"train.minutes"`` -> ``"train."``"""
    return name.partition(".")[0] + "."


def _forget(values: dict[str, Any], typed: Collection[str], again: Collection[str]) -> None:
    """Take the decisions ``again`` out of a resolved recipe; what is typed is no decision any more."""
    for name in again:
        section, _, key = name.partition(".")
        values.get(section, {}).pop(key, None)
    values["decided"] = [name for name in values["decided"] if name not in typed and name not in again]


def _check_family(model: ModelConfig) -> None:
    """Refuse what a family does not have."""
    fixed = {"n_kv_head": model.n_head, "head_dim": model.n_embd // model.n_head, "tied_head": True}
    missing: dict[str, Any] = {"rope_theta": None, **fixed} if model.family == "gpt2" else {"gelu": None}
    if model.family != "moe":
        missing |= dict.fromkeys(EXPERT_KEYS)
    for key, usual in missing.items():
        value = getattr(model, key)
        if value not in (None, usual):
            family = "moe" if key in EXPERT_KEYS else "gpt2" if key == "gelu" else "modern"
            raise ConfigError(
                f"model.{key}={value} means nothing in a {model.family} model",
                where="[model]",
                mend=f"leave {key} out, or choose model.family={family}",
            )
    if model.n_head % (model.n_kv_head or 1):
        raise ConfigError(
            f"model.n_head={model.n_head} queries cannot be shared out among"
            f" model.n_kv_head={model.n_kv_head}",
            where="[model]",
            mend="choose a divisor of n_head",
        )
    head_dim = model.head_dim or fixed["head_dim"]
    if model.family != "gpt2" and head_dim % 2:
        raise ConfigError(
            f"a head of {head_dim} channels cannot be turned in pairs",
            where="[model]",
            mend="choose an even model.head_dim",
        )
    active = model.n_expert_active or USUAL_EXPERTS["n_expert_active"]
    count = model.n_expert or USUAL_EXPERTS["n_expert"]
    if active > count:
        raise ConfigError(
            f"model.n_expert_active={active} is more than model.n_expert={count}",
            where="[model]",
            mend="choose fewer active experts, or more",
        )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            "the recipe cannot be read", where=f"{path}: {error.strerror}", mend="check its path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the recipe is not valid TOML", where=f"{path}: {error}", mend="mend that line"
        ) from error


def _parse_override(text: str, sections: Collection[str] = ()) -> tuple[str, str, Any]:
    """``"train.max_steps=200"`` -> ``("train", "max_steps", 200)``; an unquoted word is a string."""
    name, _, value = text.partition("=")
    section, dot, key = name.partition(".")
    sections = sections or SECTIONS
    if not dot or section not in sections:
        raise ConfigError(
            f"unknown setting '{name}'",
            where="command line",
            mend=_elsewhere(section, sections)
            or _suggest(name)
            or f"settings are written section.key=value; {_sections(sections)}",
        )
    try:
        return section, key, tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return section, key, value


def _elsewhere(section: str, sections: Collection[str]) -> str:
    """Which command has this section, if this one has not."""
    if section in Cleaning.model_fields and section not in sections:
        return f"[{section}] belongs to `yanmo clean`: clean first, and train on what it writes"
    if section in SECTIONS and section not in sections:
        return f"[{section}] belongs to `yanmo train`; here {_sections(sections)}"
    return ""


def _validate(kind: type[T], values: dict[str, Any], where: str, typed: Collection[str] = ()) -> T:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"][:2])
        where = "command line" if name in typed else where
        if problem["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown setting '{name}'", where=where, mend=_suggest(name) or _sections()
            ) from error
        raise ConfigError(
            f"{name}={problem['input']!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}",
            where=where,
            mend=_describe(name) or _sections(),
        ) from error


def _suggest(name: str) -> str:
    """ "did you mean" for a name that is not ours, or an empty string."""
    key = name.rpartition(".")[2]
    known = dict(settings(Cleaning)) | dict(settings())
    if key in PEER_NAMES:
        return f"in yanmo it is called {PEER_NAMES[key]}"
    same = [full for full in known if full.partition(".")[2] == key]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        by_key = {full.partition(".")[2]: full for full in known}
        near = [by_key[match] for match in difflib.get_close_matches(key, by_key, n=1, cutoff=0.6)]
    return f"did you mean '{near[0]}'?" if near else ""


def _describe(name: str) -> str:
    description = (dict(settings(Cleaning)) | dict(settings())).get(name)
    return f"{name}: {description}" if description else ""


def _sections(sections: Collection[str] = ()) -> str:
    return f"the sections are {', '.join(sections or SECTIONS)}; docs/settings.md lists every key"


# -- listing, comparing, writing --------------------------------------------------------------


def settings(kind: type[Section] = Recipe) -> Iterator[tuple[str, str]]:
    """Every setting as (``section.key``, what it says about itself), in order."""
    for section, values in kind():
        if not isinstance(values, Section):
            continue
        fields = type(values).model_fields
        for key, field in fields.items():
            yield f"{section}.{key}", " ".join((field.description or "").split())


def get(recipe: Recipe, name: str) -> Any:
    """The value of ``section.key``."""
    section, _, key = name.partition(".")
    return getattr(getattr(recipe, section), key)


def with_values(recipe: Recipe, values: dict[str, Any], where: str = "options") -> Recipe:
    """The recipe with some ``section.key`` replaced.

    Raises:
        ConfigError: a value of the wrong kind.
    """
    plain = recipe.model_dump()
    for name, value in values.items():
        section, _, key = name.partition(".")
        plain[section][key] = value
    return _validate(Recipe, plain, where)


def decide(recipe: Recipe, decisions: dict[str, Any]) -> Recipe:
    """The recipe with those of ``decisions`` filled in that nobody asked for, and recorded as decided."""
    taken = {name: v for name, v in decisions.items() if get(recipe, name) is None and v is not None}
    decided = with_values(recipe, taken, "decisions")
    return decided.model_copy(update={"decided": (*recipe.decided, *taken)})


def differences(asked: Recipe, recorded: Recipe) -> list[str]:
    """Keys in which ``asked`` is another recipe than the one a run was made with, with both values.

    Not among them: what may change on resume, a longer run, and what was decided for lack of an answer.
    """
    changed, given = [], given_keys(asked)
    for name, _ in settings():
        ours, theirs = get(asked, name), get(recorded, name)
        if ours == theirs or name.startswith(FREE_ON_RESUME) or name in lengthened(asked, recorded):
            continue
        if name in recorded.decided and (ours is None or name not in given or name == MICRO_BATCH):
            continue
        changed.append(f"{name}: {_toml(theirs)} in the run, {_toml(ours)} asked")
    return changed


def lengthened(asked: Recipe, recorded: Recipe) -> dict[str, Any]:
    """The lengths that are asked to be larger than recorded."""
    return {
        name: get(asked, name)
        for name in LENGTHS
        if get(asked, name) is not None and get(recorded, name) is not None
        and get(asked, name) > get(recorded, name)
    }  # fmt: skip


def given_keys(recipe: Recipe) -> set[str]:
    """The keys somebody wrote down, in a file or on the command line."""
    return {f"{section}.{key}" for section in SECTIONS for key in getattr(recipe, section).model_fields_set}


def resumed(asked: Recipe, recorded: Recipe) -> Recipe:
    """The recorded recipe with those free keys that were asked for now."""
    free = [name for name in given_keys(asked) if name.startswith(FREE_ON_RESUME)]
    return with_values(recorded, {n: get(asked, n) for n in free if get(asked, n) is not None}, "resume")


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML that says of each key what it does, and that can be run again."""
    lines = ["# A yanmo recipe: run it again with `yanmo train THIS_FILE --out FOLDER`.", ""]
    if recipe.decided:
        lines += [
            "# Keys nobody asked for, decided by measurement or rule when the run was made:",
            f"decided = {_toml(recipe.decided)}",
            "",
        ]
    for section in SECTIONS:
        lines += section_toml(section, getattr(recipe, section))
    return "\n".join(lines)


def section_toml(name: str, section: Section) -> list[str]:
    """A section's lines of TOML, and an empty one."""
    lines = [f"[{name}]"]
    for key, value in section:
        comment = " ".join((type(section).model_fields[key].description or "").split())
        assignment = f"{key} =" if value is None else f"{key} = {_toml(value)}"
        lines.append(f"# {assignment}  # {comment}" if value is None else f"{assignment}  # {comment}")
    return [*lines, ""]


def _toml(value: Any) -> str:
    """A value in TOML (JSON's strings, numbers and lists are TOML's too)."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
