"""Every setting of yanmo, on one page.

A key left out keeps the value shown here. ``None`` means "decided when the run folder is made": the
decision is written into the run's ``recipe.toml`` and not taken again (see ``train/decide.py``), unless
that file is the recipe of a new run with another setting that the decision rests on (``constraints.py``).
How settings are read and written stands in ``recipe.py``; who uses one is said by its section.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(gt=0, lt=1 << 31)]
CountOrNone = Annotated[int, Field(ge=0, lt=1 << 31)]
"""0: none. Numbers have upper limits, so that none is too large for what is written in C or Rust."""
Workers = Annotated[int, Field(gt=0, le=1024)]
Layers = Annotated[int, Field(gt=0, le=1024)]
Heads = Annotated[int, Field(gt=0, le=4096)]
Width = Annotated[int, Field(gt=0, le=1 << 17)]
Experts = Annotated[int, Field(gt=0, le=4096)]
Rows = Annotated[int, Field(gt=0, le=1 << 20)]
Window = Annotated[int, Field(gt=0, le=1 << 20)]
MOST_TOKENS = 1 << 20
"""No vocabulary of a language model is larger; the libraries that learn them would ask for all memory."""
Vocabulary = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Length = Annotated[float, Field(gt=0, le=1e7)]
Rate = Annotated[float, Field(ge=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, lt=1 << 53)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


class CorpusConfig(Section):
    """Where the text comes from (``text/read/documents.py``)."""

    path: tuple[str, ...] = ()
    """Files (.txt .json .jsonl .csv .tsv .html .epub .docx .parquet; packed as .gz .zst .bz2 .xz .zip),
    folders and globs of them, `-` for standard input; `yanmo:demo` is the embedded demo corpus. The
    positional arguments of `yanmo train` set it."""
    text_field: str = "text"
    """Which field of a JSON object, or column of a table, is the text: `content`; `段落.内容` descends, and
    joins what it finds in a list by line ends; `title+content` joins fields."""
    encoding: str = "auto"
    """`auto` finds UTF-8, UTF-16, GB18030 and Big5, and believes what a page declares if it looks right; any
    name Python knows, such as `shift_jis`, is used as given."""
    separator: str = ""
    """What stands between the texts of a file, such as `<|endoftext|>`: each text is a document."""
    split_chapters: bool = False
    """Let each chapter be a document of its own: a line 第N章, 回, 節, 卷, 集, 部, 篇, 幕, 折 or 话, however
    it is framed; 楔子, 序章, 番外, 尾声, 终章 and their like; 卷一; Chapter 1; 1、 where a book numbers all
    its chapters so."""


class CleanConfig(Section):
    """What `yanmo clean` changes, and what it drops (``text/clean/``)."""

    mojibake: bool = True
    """Repair text that was decoded wrongly: UTF-8, GBK or Big5 read as Latin-1 or Windows-1252, UTF-8 read
    as GBK, HZ, and `\\uXXXX` typed out."""
    markup: bool = True
    """Take out what is left of web pages: tags, comments, `&nbsp;` and its like."""
    controls: bool = True
    """Take out invisible characters; odd spaces and line ends become plain ones."""
    radicals: bool = True
    """Put ordinary characters in place of those that PDF readers give for them: Kangxi radicals,
    compatibility ideographs, ligatures, marks of vertical columns."""
    spaces: bool = True
    """Take out the spaces between hanzi, in texts where OCR or a word segmenter put them."""
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
    """Turn traditional into simplified characters or back (opencc); Taiwan's 看著 becomes 看着."""
    languages: tuple[Literal["zh", "latin", "ja", "ko", "ru", "other"], ...] = ("zh", "latin")
    """Documents and paragraphs mostly in another language are dropped: `latin` is English and all that
    is written like it, `ru` all in Cyrillic letters."""
    quality: bool = True
    """Drop documents that are mostly symbols, mostly digits, garbled, or one thing over and over."""


class DedupConfig(Section):
    """What `yanmo clean --dedup` counts as a duplicate (``text/clean/dedup.py``)."""

    exact: bool = True
    """Drop a document that is an earlier one, whatever its spaces and case."""
    near: Share = 0.8
    """Drop a document that shares so much of its runs of five characters with an earlier one (Jaccard);
    0: none is."""
    paragraphs: CountOrNone = 40
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
    vocab_size: Vocabulary = 0
    """Upper limit of a vocabulary that is learned. 0: 32,000 for `bpe` and `unigram`, none for `char`;
    the rarest characters beyond a limit are written as bytes."""
    sample_mb: Rows = 50
    """Text that `bpe` and `unigram` are learned from, in MB, taken evenly from all over the corpus; a
    smaller corpus is used whole. It bounds the memory: docs/tokenizers.md has figures."""
    chat_tokens: bool = False
    """Learn with `<|im_start|>` and `<|im_end|>`, for a model that is to be taught dialogues later."""
    reserved_tokens: Vocabulary = 0
    """Learn with so many unused tokens `<|reserved_0|>`… for purposes found later."""
    newline_token: str = ""
    """`wordpiece`: the entry of vocab.txt that stands for a line end, such as `[SEP]`, and no longer for
    itself; without one, line ends are lost."""
    start_token: str = ""
    """`wordpiece`: the entry put before every document, such as `[MASK]`."""
    end_token: str = ""
    """`wordpiece`: the entry put behind every document. `[SEP]` if none is named, or, where that is a
    line end, `[CLS]`, as in GPT2-Chinese."""


class DataConfig(Section):
    """How documents become training and validation tokens (``data/``)."""

    val_fraction: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of the characters held out for validation. Decided: 100,000 characters, but at least
    0.5% and at most 5% of the text."""
    packing: Literal["offset", "stride"] | None = None
    """`offset`: an epoch reads every token once, in windows that begin elsewhere each epoch. `stride`:
    windows begin every `stride` tokens and overlap. Decided: `stride` if that is given, else `offset`."""
    stride: Window | None = None
    """Tokens from the beginning of one window to the next. Decided, when packing is `stride`: half of
    model.block_size."""
    document_mask: bool = False
    """Let attention stay within a document, where a window holds several."""
    workers: Workers | None = None
    """Processes that turn text into tokens; the result does not depend on it. Left out: one for each
    core."""


FamilyName = Literal["gpt2", "modern", "moe"]


class ModelConfig(Section):
    """The shape of the model (``model/config.py``). The vocabulary's size comes from the tokenizer."""

    family: FamilyName = "modern"
    """`gpt2`: opens as `GPT2LMHeadModel` everywhere. `modern`: rotary positions, RMSNorm, gated MLP;
    opens as `Qwen3ForCausalLM`. `moe`: the same with experts, of which each token goes through a few; opens
    as `Dots1ForCausalLM`."""
    n_layer: Layers = 4
    """Transformer blocks."""
    n_head: Heads = 4
    """Attention heads; must divide n_embd, unless head_dim is given."""
    n_kv_head: Heads | None = None
    """Heads of keys and values, each shared by n_head / n_kv_head queries: fewer make the cache smaller in
    writing. Not in `gpt2`. Decided: n_head."""
    head_dim: Width | None = None
    """Width of a head, an even number. Not in `gpt2`. Decided: n_embd / n_head."""
    n_embd: Width = 256
    """Width of the residual stream."""
    n_inner: Width | None = None
    """Inner width of an MLP. Decided: 4 n_embd in `gpt2`, 8/3 n_embd rounded up to a multiple of 32 in the
    others, whose MLP has three matrices instead of two."""
    block_size: Window = 128
    """Tokens the model can look back on (the context window)."""
    tied_head: bool = True
    """Let the output head share the embedding's weights; `gpt2` always does."""
    rope_theta: Annotated[float, Field(gt=1, le=1e12)] | None = None
    """Base of the rotary positions: raise it when a model is taught a longer window. Not in `gpt2`.
    Decided: 10,000."""
    gelu: Literal["tanh", "erf"] | None = None
    """`gpt2`: how GELU is computed: `tanh`, OpenAI's approximation, or `erf`, the function itself, as nanoGPT
    has it. Decided: `tanh`, or what the weights of model.init were trained with."""
    n_expert: Annotated[int, Field(ge=2, le=4096)] | None = None
    """`moe`: experts a layer can choose from. Decided: 16."""
    n_expert_active: Experts | None = None
    """`moe`: how many of them a token goes through. Decided: 3."""
    n_expert_shared: Experts | None = None
    """`moe`: experts that every token goes through. Decided: 1."""
    expert_inner: Width | None = None
    """`moe`: inner width of one expert. Decided: so that a token goes through about as many weights as in
    one MLP of n_inner."""
    expert_scaling: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """`moe`: the sum of the weights of a token's experts. Decided: 1."""
    n_dense_layer: Annotated[int, Field(ge=0, le=1024)] | None = None
    """`moe`: how many layers, the first ones, have one MLP instead of experts. Decided: 1."""
    zero_projections: bool = False
    """Begin with zeros where attention and MLP add to the stream, instead of small random numbers."""
    dropout: Share | None = None
    """Share of activations dropped in training, against overfitting a text that is read often. Decided:
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
    warmup_steps: CountOrNone | None = None
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
    faster by a twentieth, measured; else not, nor in `moe`."""
    attention: Literal["sdpa", "matmul"] | None = None
    """torch's fused attention, or matrix products in blocks (`model/fused.py`). Decided: measured; with
    dropout on a CPU `matmul`, since torch's keeps every weight there."""
    matmul: Literal["torch", "onednn"] | None = None
    """Which library multiplies float32 matrices on a CPU. `onednn` is faster on AMD, but rounds to
    bfloat16 where the CPU has AMX; it is only tried where it does not. Decided: measured."""
    threads: Workers | None = None
    """CPU threads. Decided: what torch chooses, the physical cores."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms: needed for bit-identical resume on a GPU. On a CPU
    runs are bit-identical without it."""
    batch_size: Rows = 16
    """Sequences per optimizer step, over all ranks."""
    seq_len_warmup: Share | None = None
    """Sequence-length warm-up: the share of a run whose windows are read in halves, each without what stands
    before it, since what is close together is learned first (Li et al. 2022). Decided: 0.4 with Muon from
    scratch, where a window has an even number of tokens and 64 or more; else 0."""
    micro_batch_size: Rows | None = None
    """Sequences per forward pass; must divide batch_size. Decided: on a CPU the fastest of about
    1,024, 2,048 and 4,096 tokens, measured, or the first of them for a large model; elsewhere about 16,384
    tokens."""
    max_steps: Count | None = None
    """Stop after so many optimizer steps; the first of max_steps, epochs and minutes that is reached
    ends the run. A larger value of any of them later lengthens it."""
    epochs: Length | None = None
    """Stop after reading all windows so many times."""
    minutes: Length | None = None
    """Stop after so much training time. Decided, when max_steps and epochs are not given either: 10."""
    log_interval: Count = 10
    """Steps between two lines of the log."""
    eval_interval: Count | None = None
    """Steps between two evaluations, each with a sample. Decided: a tenth of the run, or more, so that
    evaluations, samples and checkpoints take about a tenth of its time."""
    checkpoint_interval: Count | None = None
    """Steps between two checkpoints. Decided: eval_interval."""
    keep_last: Count = 2
    """How many of the newest checkpoints are kept, beside the best."""
    save_every_epoch: bool = False
    """Keep a checkpoint of every epoch (epochs/1, epochs/2, …) and the last one (final)."""


class SampleConfig(Section):
    """How the model writes (``generate/sampling.py``), at each evaluation, and as `generate` does."""

    prompt: str | None = None
    """What the samples continue; of a text longer than the window, its end. Decided: the opening of the
    validation text."""
    max_new_tokens: Window = 200
    """Tokens to write; the end-of-text token ends a sample earlier."""
    num_samples: Rows = 1
    """Samples of one prompt."""
    temperature: Rate = 0.8
    """Below 1 safer, above 1 wilder; 0 always takes the likeliest token (greedy)."""
    top_k: CountOrNone = 0
    """Choose among the k likeliest tokens only; 0: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Choose among the likeliest tokens that together have this probability; 1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Choose among tokens at least this share as likely as the likeliest; 0: all."""
    repetition_penalty: Annotated[float, Field(ge=1, le=1e3)] = 1.0
    """Make tokens that stand in the window already less likely; 1: no, 1.1 to 1.3 is usual."""
    no_repeat_ngram: CountOrNone = 0
    """Never write the same n tokens in a row twice; 0: no such rule."""
    banned: tuple[str, ...] = ()
    """Texts that are never written."""
    stop: tuple[str, ...] = ()
    """Texts that end a sample; they are not part of it."""
    seed: Seed = 0
    """Same seed, same text (on the same machine). A run's own samples have it; `generate` and `chat` draw
    another each time and say it, unless `--seed` names one."""


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
    started_in: tuple[str, ...] = ()
    """Folders that relative paths are found from; of a run, where it was started."""


class Cleaning(Section):
    """All settings of `yanmo clean`: not of a run, for what it makes is a corpus."""

    corpus: CorpusConfig = CorpusConfig()
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()


SECTIONS = tuple(name for name in Recipe.model_fields if name not in ("decided", "started_in"))

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
_ROTARY: tuple[FamilyName, ...] = ("modern", "moe")
OWN_KEYS: dict[str, tuple[FamilyName, ...]] = {
    "gelu": ("gpt2",),
    "rope_theta": _ROTARY,
    **dict.fromkeys(EXPERT_KEYS, ("moe",)),
}
"""Keys of [model] that only some families have."""
FREE_KEYS = dict.fromkeys(("n_kv_head", "head_dim", "tied_head"), _ROTARY)
"""Keys of [model] whose value is fixed in the other families."""

SHAPE_KEYS = ("family", "n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "n_inner", "block_size",
              "tied_head", "rope_theta", "gelu", *EXPERT_KEYS)  # fmt: skip
"""Keys of [model] that are the model's shape."""

MICRO_BATCH = "train.micro_batch_size"
"""Out of memory halves it and records it as decided, whatever was asked."""

LENGTHS = ("train.max_steps", "train.epochs", "train.minutes")
"""Keys that may grow: the run goes on for longer."""
