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
    """The field of a JSON object, or the column of a table, that holds the text: `content`; `段落.内容`
    descends, and joins the values in a list with newlines; `title+content` joins fields."""
    encoding: str = "auto"
    """`auto` finds UTF-8, UTF-16, GB18030 and Big5, and uses the encoding that a page declares if the text
    looks right; any name that Python knows, such as `shift_jis`, is used as given."""
    separator: str = ""
    """The mark between the texts of a file, such as `<|endoftext|>`: each text becomes a document."""
    split_chapters: bool = False
    """Make each chapter a document. A chapter starts at a line 第N章, 回, 節, 卷, 集, 部, 篇, 幕, 折 or 话,
    in any frame; at 楔子, 序章, 番外, 尾声, 终章 and similar words; at 卷一; at Chapter 1; at 1、 if a book
    numbers all its chapters this way."""


class CleanConfig(Section):
    """What `yanmo clean` changes, and what it drops (``text/clean/``)."""

    mojibake: bool = True
    """Repair text that was decoded wrongly: UTF-8, GBK or Big5 read as Latin-1 or Windows-1252, UTF-8 read
    as GBK, HZ, and `\\uXXXX` as text."""
    markup: bool = True
    """Remove the remains of web pages: tags, comments, `&nbsp;` and similar."""
    controls: bool = True
    """Remove invisible characters; odd spaces and line ends become plain ones."""
    radicals: bool = True
    """Replace characters that PDF readers produce by ordinary ones: Kangxi radicals, compatibility
    ideographs, ligatures, vertical punctuation."""
    spaces: bool = True
    """Remove spaces between hanzi, in texts where OCR or a word segmenter put them."""
    width: Literal["keep", "letters", "all"] = "letters"
    """`letters`: full-width letters and digits become ASCII. `all`: also half-width punctuation between
    hanzi becomes full-width."""
    ads: bool = True
    """Remove lines that advertise a site, however it is spelled, and the banners of book sites."""
    drop_lines: tuple[str, ...] = ()
    """Lines to remove everywhere, compared by their letters only; `yanmo inspect` proposes some."""
    whitespace: bool = True
    """Remove spaces at line ends, runs of spaces, and more than one blank line."""
    indentation: Literal["keep", "none", "two"] = "keep"
    """Paragraph indentation: unchanged, none, or two full-width spaces."""
    unwrap: bool = True
    """Join lines that were cut at a fixed width, in texts where all lines are."""
    repeated_lines: bool = True
    """Keep one of a line of 10 characters that is repeated three times in a row, or of 40 twice."""
    privacy: bool = True
    """Replace mobile numbers, identity numbers and e-mails by [手机号], [身份证号] and [邮箱]."""
    script: Literal["keep", "simplified", "traditional"] = "keep"
    """Convert to simplified or traditional characters (opencc); Taiwan's 看著 becomes 看着."""
    languages: tuple[Literal["zh", "latin", "ja", "ko", "ru", "other"], ...] = ("zh", "latin")
    """Languages to keep; documents and paragraphs mostly in another language are dropped. `latin` is English
    and everything else in Latin letters, `ru` everything in Cyrillic letters."""
    quality: bool = True
    """Drop documents that are mostly symbols, mostly digits, garbled, or one text over and over."""


class DedupConfig(Section):
    """What `yanmo clean --dedup` counts as a duplicate (``text/clean/dedup.py``)."""

    exact: bool = True
    """Drop a document that equals an earlier one, apart from spaces and case."""
    near: Share = 0.8
    """Drop a document that shares at least this fraction of its five-character runs with an earlier one
    (Jaccard similarity); 0 drops none."""
    paragraphs: CountOrNone = 40
    """Remove paragraphs of at least this many characters that an earlier document has; 0 removes none."""
    against: tuple[str, ...] = ()
    """Texts that must not be in the corpus, such as a test set. A document is dropped if it equals one of
    them, is near one, or shares about 75 characters in a row with one."""


class TokenizerConfig(Section):
    """How text becomes tokens (``tokenizer/``)."""

    kind: Literal["char", "bpe", "unigram", "wordpiece"] | None = None
    """`char`: one token for each character of the corpus, bytes for all others. `bpe`: byte pairs merged
    by frequency, as in GPT-2. `unigram`: pieces by probability, bytes for unknown characters. These three
    are learned from the corpus and are lossless. `wordpiece`: a BERT vocab.txt, split as in GPT2-Chinese.
    Decided: the kind of the vocabulary at `path`; without a path `char`, from 20 MB of text on `bpe`."""
    path: str | None = None
    """An existing vocabulary: tokenizer.json, vocab.txt, encoder.json with vocab.bpe, *.tiktoken, *.model,
    meta.pkl, or a folder with one of them. Decided, when model.init is given: that folder."""
    vocab_size: Vocabulary = 0
    """Largest size of a learned vocabulary. 0: 32,000 for `bpe` and `unigram`, no limit for `char`. If there
    is a limit, the rarest characters are written as bytes."""
    min_count: Count | None = None
    """`char`: characters that occur less often in the corpus are written as bytes, unless they make up more
    than a hundredth of it: so byte tokens are learned, and a name with a character that the corpus lacks
    costs less. Decided: 3."""
    sample_mb: Rows = 50
    """MB of text from which `bpe` and `unigram` are learned, sampled evenly from the whole corpus; a smaller
    corpus is used whole. It limits the memory: docs/tokenizers.md has figures."""
    chat_tokens: bool = False
    """Add `<|im_start|>` and `<|im_end|>` to the vocabulary, for a model that will learn dialogues later."""
    reserved_tokens: Vocabulary = 0
    """Add this many unused tokens `<|reserved_0|>`… to the vocabulary, for later use."""
    newline_token: str = ""
    """`wordpiece`: the entry of vocab.txt that means a line end, such as `[SEP]`, and no longer itself;
    without one, line ends are lost."""
    start_token: str = ""
    """`wordpiece`: the entry before every document, such as `[MASK]`."""
    end_token: str = ""
    """`wordpiece`: the entry after every document. Default: `[SEP]`, or `[CLS]` if `[SEP]` is the line end,
    as in GPT2-Chinese."""


class DataConfig(Section):
    """How documents become training and validation tokens (``data/``)."""

    val_fraction: Annotated[float, Field(gt=0, le=0.5)] | None = None
    """Share of the characters held out for validation. Decided: 100,000 characters, but at least
    0.5% and at most 5% of the text."""
    held_out: tuple[str, ...] = ()
    """Texts that are never trained on: what of the corpus equals one of them is left out, and at each
    evaluation all of them are measured beside the held-out part (`held_out_bits_per_char`). The end of a text
    whose beginning was read flatters a model; a play or a chapter that it never saw does not."""
    packing: Literal["offset", "stride"] | None = None
    """`offset`: an epoch reads every token once, in windows with a new offset in each epoch. `stride`:
    windows begin every `stride` tokens and overlap. Decided: `stride` if that is given, else `offset`."""
    stride: Window | None = None
    """Tokens from the start of one window to the start of the next. Decided, when packing is `stride`: half
    of model.block_size."""
    document_mask: bool = False
    """Limit attention to one document if a window holds several."""
    workers: Workers | None = None
    """Processes that tokenise; the result does not depend on their number. Default: one per core."""


FamilyName = Literal["gpt2", "modern", "moe"]


class ModelConfig(Section):
    """The shape of the model (``model/config.py``). The vocabulary's size comes from the tokenizer."""

    family: FamilyName = "modern"
    """`gpt2`: opens as `GPT2LMHeadModel`. `modern`: rotary positions (RoPE), RMSNorm, gated MLP; opens as
    `Qwen3ForCausalLM`. `moe`: the same with a mixture of experts; each token uses a few of them; opens as
    `Dots1ForCausalLM`."""
    n_layer: Layers = 4
    """Transformer blocks."""
    n_head: Heads = 4
    """Attention heads; must divide n_embd, unless head_dim is given."""
    n_kv_head: Heads | None = None
    """Heads of keys and values; n_head / n_kv_head queries share each (grouped-query attention). Fewer heads
    make the KV cache smaller. Not in `gpt2`. Decided: n_head."""
    head_dim: Width | None = None
    """Width of a head, an even number. Not in `gpt2`. Decided: n_embd / n_head."""
    n_embd: Width = 256
    """Width of the residual stream."""
    n_inner: Width | None = None
    """Inner width of an MLP. Decided: 4 n_embd in `gpt2`, 8/3 n_embd rounded up to a multiple of 32 in the
    others, whose MLP has three matrices instead of two."""
    block_size: Window = 128
    """Length of the context window in tokens."""
    tied_head: bool = True
    """Share the weights of the embedding and the LM head; `gpt2` always does."""
    rope_theta: Annotated[float, Field(gt=1, le=1e12)] | None = None
    """Base of the rotary positions: raise it to train a longer window. Not in `gpt2`. Decided: 10,000."""
    gelu: Literal["tanh", "erf"] | None = None
    """`gpt2`: how GELU is computed: `tanh`, OpenAI's approximation, or `erf`, the exact function, as in
    nanoGPT. Decided: `tanh`, or what the weights of model.init were trained with."""
    n_expert: Annotated[int, Field(ge=2, le=4096)] | None = None
    """`moe`: number of routed experts in a layer. Decided: 16."""
    n_expert_active: Experts | None = None
    """`moe`: how many of them each token uses. Decided: 3."""
    n_expert_shared: Experts | None = None
    """`moe`: experts that every token uses. Decided: 1."""
    expert_inner: Width | None = None
    """`moe`: inner width of one expert. Decided: so that a token uses about as many weights as in one MLP
    of n_inner."""
    expert_scaling: Annotated[float, Field(gt=0, le=1e3)] | None = None
    """`moe`: the sum of the weights of a token's experts. Decided: 1."""
    n_dense_layer: Annotated[int, Field(ge=0, le=1024)] | None = None
    """`moe`: number of first layers that have one MLP instead of experts. Decided: 1."""
    zero_projections: bool = False
    """Initialise the output projections of attention and MLP with zeros instead of small random numbers."""
    dropout: Share | None = None
    """Share of activations dropped in training, against overfitting. Decided: 0.1 for a run of six passes
    over the text or more that begins from weights, or learns by `adamw`, else 0."""
    init: str | None = None
    """Start from the weights in a folder: a run, a checkpoint, or any Hugging Face folder of yanmo's families
    whose tokenizer has as many ids as the model. The shape comes from that folder; only block_size and
    rope_theta may differ, in `modern` and `moe`."""


class OptimConfig(Section):
    """The optimizer and its learning rate (``train/optim.py``, ``train/schedule.py``)."""

    name: Literal["adamw", "muon"] | None = None
    """`adamw`; or `muon` for the matrices of the blocks and `adamw` for the rest, which learns more per step.
    Decided: `muon`; `adamw` when model.init is given."""
    learning_rate: Rate | None = None
    """The peak, reached after the warm-up. Decided: 0.006 for `muon`, 0.001 for `adamw`, times the root
    of 256 / model.n_embd; with `finetune.method=lora` 0.005 times 256 / model.n_embd."""
    min_lr: Rate | None = None
    """The rate at the end of the schedule. Decided: a tenth of learning_rate."""
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    """How the rate decays after the warm-up: `cosine`, `linear`, or `wsd` (constant until the last fifth of
    the run, then linear)."""
    warmup_steps: CountOrNone | None = None
    """Steps of linear warm-up. Decided: a twentieth of the run, at most 200."""
    momentum: Share = 0.95
    """Muon's momentum."""
    weight_decay: Rate | None = None
    """Weight decay of matrices and embeddings; norms and biases have none. Decided: 0.1; for `muon` from
    scratch in more than one pass over the text, so that what a step changes lives for a smaller part of the
    run the more passes it has, from 0.6 of it at one pass to 0.1 at six."""
    average: Share | None = None
    """The share of the run over which weights are averaged; the average is evaluated and saved. 0: none.
    Decided: 0.1 for `muon` from scratch in six passes over the text or more, else 0."""
    beta1: Share = 0.9
    """AdamW's decay rate of the first moment."""
    beta2: Share = 0.99
    """AdamW's decay rate of the second moment."""
    grad_clip: Rate = 1.0
    """Gradients are clipped to this global norm; 0 does not clip."""


class TrainConfig(Section):
    """The run: how long, on which device, and what it keeps (``train/``)."""

    seed: Seed = 1337
    """Seed of everything random in a run."""
    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `mps`; `cuda:0,1` trains on both. Decided: the first accelerator, else
    `cpu`."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the forward and backward pass (autocast); weights are always float32. `float16` scales
    the loss, for GPUs without bfloat16. Decided: the faster of float32 and bfloat16, measured."""
    compile: bool | None = None
    """Fuse the model with torch.compile: half a minute of compiling or more, then faster steps. Needs a C++
    compiler on a CPU. Decided: measured in a run of half an hour or more (on a GPU, two minutes), and used
    if it is faster by a twentieth; not used in shorter runs, nor in `moe`."""
    attention: Literal["sdpa", "matmul"] | None = None
    """`sdpa`: torch's fused attention; `matmul`: matrix products in blocks (`model/fused.py`). Decided:
    measured; with dropout on a CPU `matmul`, because torch keeps every attention weight in memory there."""
    matmul: Literal["torch", "onednn"] | None = None
    """Library for float32 matrix products on a CPU. `onednn` is faster on AMD, but rounds to bfloat16 if the
    CPU has AMX, and is then not tried. Decided: measured."""
    threads: Workers | None = None
    """CPU threads. Decided: torch's choice, the number of physical cores."""
    deterministic: bool = False
    """Use torch's deterministic algorithms: needed for bit-identical resume on a GPU. On a CPU runs are
    bit-identical without it."""
    batch_size: Rows = 16
    """Sequences per optimizer step, over all ranks."""
    seq_len_warmup: Share | None = None
    """Sequence-length warm-up: fraction of training that uses half-length sequences, because a model learns
    short-range patterns first (Li et al. 2022). Decided: 0.4 with Muon from scratch, if block_size is even
    and at least 64; else 0."""
    micro_batch_size: Rows | None = None
    """Sequences per forward pass; must divide batch_size. Decided: on a CPU the fastest of about 1,024,
    2,048 and 4,096 tokens, measured, or about 1,024 for a large model; elsewhere about 16,384 tokens."""
    max_steps: Count | None = None
    """Stop after this many optimizer steps. The run ends at the first of max_steps, epochs and minutes. To
    extend a finished run, raise one of them."""
    epochs: Length | None = None
    """Stop after this many passes over all windows."""
    minutes: Length | None = None
    """Stop after this many minutes of training. Decided, when max_steps and epochs are not given: 10."""
    log_interval: Count = 10
    """Steps between two lines of the log."""
    eval_interval: Count | None = None
    """Steps between two evaluations, each with a sample. Decided: a tenth of the run or more, so that
    evaluations, samples and checkpoints take about a tenth of its time."""
    checkpoint_interval: Count | None = None
    """Steps between two checkpoints. Decided: eval_interval."""
    keep_last: Count = 2
    """How many of the newest checkpoints are kept, in addition to the best."""
    save_every_epoch: bool = False
    """Keep a checkpoint of every epoch (epochs/1, epochs/2, …) and the last one (final)."""


class FinetuneConfig(Section):
    """Teaching a model that was trained before, the one in model.init: `yanmo finetune`."""

    method: Literal["full", "lora", "last"] | None = None
    """`full`: all weights. `lora`: all are frozen, and each matrix of the blocks learns a small correction,
    the product of two narrow matrices (Hu et al. 2021); routed experts learn none. `last`: the last blocks
    and the final norm. `lora` and `last` also train the embeddings of `<|im_start|>` and `<|im_end|>`, and
    need model.init. Default: `full`."""
    rank: Width | None = None
    """`lora`: inner width of a correction. Decided: 16."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """`lora`: a correction is multiplied by alpha / rank. Decided: 32 for every rank, so that the best
    learning rate hardly depends on the rank (Schulman et al. 2025, "LoRA Without Regret")."""
    layers: Layers | None = None
    """`last`: the number of last blocks that are trained. Decided: 2, or 1 if there is only one."""
    replay: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of the rows of each batch that are windows of the base's own text, against forgetting."""
    keep: str | None = None
    """A text that the model shall not forget: the loss on its held-out part is shown at each evaluation as
    base_bits_per_char, and `replay` repeats the rest. Without one it is the text that the base was trained
    on, if that is a run of yanmo's and its corpus is at hand."""
    preference: Literal["dpo", "dpo_norm"] | None = None
    """How pairs of what was chosen and what was rejected are learned: `dpo`, direct preference optimisation
    (Rafailov et al. 2023); `dpo_norm`, the same per token, for which long answers count no more than short
    ones. Decided, when the data is pairs: `dpo`."""
    beta: Annotated[float, Field(gt=0, le=1e3)] = 0.1
    """`dpo`: how closely the model stays at its base: the larger, the closer. `dpo_norm` usually takes a
    larger one, such as 5."""


class SampleConfig(Section):
    """How the model writes, at each evaluation and in `generate` (``generate/sampling.py``)."""

    prompt: str | None = None
    """The text that samples continue; if it is longer than the window, its end. Decided: the opening of the
    validation text."""
    pinned: str = ""
    """Notes such as names and places. They stand before the prompt, and stay at the beginning of the window
    when a long text moves on; at most half of it."""
    max_new_tokens: Window = 200
    """Tokens to write; the end-of-text token ends a sample earlier."""
    num_samples: Rows = 1
    """Samples of one prompt."""
    temperature: Rate = 0.8
    """Below 1 safer, above 1 wilder; 0 always takes the likeliest token (greedy)."""
    top_k: CountOrNone = 0
    """Sample only from the k likeliest tokens; 0: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Sample from the likeliest tokens that together have this probability; 1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Sample from tokens whose probability is at least this fraction of the highest; 0: all."""
    repetition_penalty: Annotated[float, Field(ge=1, le=1e3)] = 1.0
    """Make tokens that are already in the window less likely; 1: off, 1.1 to 1.3 is usual."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Lower the logit of a token by this for each time it was written, as OpenAI's API does; 0: off."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """Lower the logit of every token that was written by this, however often; 0: off."""
    penalty_window: CountOrNone = 0
    """Tokens that the three penalties look back on; 0: the model's whole window."""
    no_repeat_ngram: CountOrNone = 0
    """Never write the same n tokens in a row twice; 0: off."""
    banned: tuple[str, ...] = ()
    """Texts that the model never writes: when one is complete, it goes back to where that began and writes
    something else. A sample that had to go back 200 times ends before the next."""
    stop: tuple[str, ...] = ()
    """Texts that end a sample; they are not part of it."""
    stop_at: Literal["sentence", "paragraph", "chapter", "line"] | None = None
    """End a sample with the first sentence (closing quotes included), paragraph, chapter or line."""
    no_copy: CountOrNone = 0
    """Never write this many characters in a row as they stand in the training text; 0: off. A copy may begin
    in the prompt. It needs the run's shards or its corpus."""
    verse: Literal[0, 5, 7] = 0
    """Write a poem with lines of so many Chinese characters, and nothing else; 0: prose."""
    verse_lines: Annotated[int, Field(ge=1, le=100)] = 4
    """Lines of a poem: `，` ends odd ones, `。` even ones, and each pair stands on a line of its own."""
    acrostic: str = ""
    """The first characters of a poem's lines (藏头); lines that get none begin freely."""
    rhyme: bool = False
    """The even lines of a poem rhyme: their last characters have the same modern final, a medial i, u or ü
    aside, by pypinyin (extra `verse`). None of them comes twice."""
    min_new_tokens: CountOrNone = 0
    """Tokens before which no sample ends: neither end-of-text nor a stop counts."""
    memory: Share = 0.0
    """Share of each token's probability that comes from a memory of the whole prompt, also of what lies
    before the model's window: what followed places like this one (``generate/memory.py``); 0: off, 0.3 is
    good."""
    memory_written: bool = False
    """Remember what is written too, not the prompt alone."""
    seed: Seed = 0
    """Same seed, same text (on the same machine). It is used for a run's own samples; `generate` and `chat`
    draw a new seed each time and print it, unless `--seed` gives one."""


HealthRule = Literal[
    "first_loss", "stuck_at_unigram", "stuck_at_bigram", "rate_too_low", "rate_too_high", "warmup_too_long",
    "dropout_too_high", "spike", "diverged", "overfitting", "too_little_text", "leaked_validation",
    "repeated_batches", "unshuffled", "shifted_targets", "wrong_vocabulary", "damaged_text", "frozen_layer",
    "dead_experts", "float16_overflow", "data_wait", "slow_machine", "degenerate_samples",
]  # fmt: skip
"""What a run may find wrong with itself."""


class HealthConfig(Section):
    """What a run says about its own health (``eval/health.py``)."""

    ignore: tuple[HealthRule, ...] = ()
    """Findings not to be reported, such as `dropout_too_high`; docs/health.md lists them."""


class Recipe(Section):
    """All settings of a run."""

    corpus: CorpusConfig = CorpusConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    sample: SampleConfig = SampleConfig()
    health: HealthConfig = HealthConfig()
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
    "health.",
)
"""Keys, and whole sections, that may change when a run goes on."""

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
