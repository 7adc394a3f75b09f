"""A model as one GGUF file, for llama.cpp, Ollama and LM Studio.

The ``gguf`` package writes the file, names the tensors and quantises the weights; this module supplies the
architecture, its numbers and the vocabulary. llama.cpp splits text by rules that it knows by name, so only
vocabularies with such a rule can be exported:

    byte BPE     as it is, where its rule is one that llama.cpp knows
    characters   as a SentencePiece vocabulary of characters with bytes for the rest; llama.cpp writes U+2581
                 as a space, so a text's own U+2581 comes back as a space
    unigram      not: llama.cpp's has no bytes for what the vocabulary lacks
    wordpiece    not: llama.cpp cuts words otherwise and writes spaces between Chinese characters
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import gguf
import torch
from torch import Tensor

from yanmo.checkpoint.hf_names import hugging_face_name
from yanmo.core.errors import ConfigError
from yanmo.model.config import GPTConfig
from yanmo.model.families import Family
from yanmo.model.gpt import GPT
from yanmo.model.layers import RMSNorm
from yanmo.tokenizer import CharTokenizer, LibraryTokenizer, Tokenizer, kind_of
from yanmo.tokenizer.char import BYTES
from yanmo.tokenizer.library import token_texts
from yanmo.tokenizer.spec import SPACE
from yanmo.tokenizer.splits import CL100K, GPT2, O200K, QWEN2, split_rule

Precision = Literal["f32", "f16", "bf16", "q8_0", "q5_0", "q4_0"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TYPES: Any = gguf.GGMLQuantizationType
FILE_TYPES: Any = gguf.LlamaFileType
RULES = {GPT2: "gpt-2", QWEN2: "qwen2", CL100K: "llama-bpe", O200K: "gpt-4o"}
"""llama.cpp's names of the rules that split text into words (pre-tokenizers)."""
ALWAYS_FLOAT32 = ("position_embd.weight", "ffn_gate_inp.weight")
BLOCK = 32
"""Weights that share a scale in a quantised format; rows of other lengths stay in float16."""


@dataclass(frozen=True)
class Written:
    """How the weights were stored."""

    float16: tuple[str, ...]
    """Tensors that could not be quantised: the length of their rows is no multiple of 32."""
    remarks: tuple[str, ...]
    """Differences between this file and the model."""


class SavedChat(NamedTuple):
    """A chat template, and the id that ends an answer (None: end-of-text)."""

    template: str
    end_of_turn: int | None


def write_gguf(
    path: Path,
    model: GPT,
    tokenizer: Tokenizer,
    precision: Precision,
    name: str,
    chat: SavedChat | None = None,
) -> Written:
    """Write ``path``.

    Raises:
        ConfigError: llama.cpp has no such vocabulary.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, config.kind.gguf)
    writer.add_name(name)
    _add_shape(writer, config)
    remarks = _add_vocabulary(writer, tokenizer, chat)
    writer.add_file_type(_file_type(precision))
    if precision.startswith("q"):
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    names = gguf.get_tensor_name_map(architecture_of(config), config.n_layer)
    kept = []
    tensors = model.state_dict()
    if config.kind.stores_tied_head:  # it is one matrix here; this architecture wants it by name
        tensors.setdefault("lm_head.weight", model.head_weight)
    if config.n_kv_head < config.n_head and not config.kind.gguf_shares_keys:
        tensors = with_keys_of_their_own(tensors, config)
        said = f"keys and values are stored per head: llama.cpp's {config.kind.gguf} shares none"
        remarks = (*remarks, said)
    for ours, tensor in tensors.items():
        theirs = gguf_name(names, config.kind, ours)
        kind = _type_of(theirs, tensor, precision)
        if precision.startswith("q") and kind == TYPES.F16:
            kept.append(theirs)
        # numpy knows no bfloat16: rounded from float32
        data = gguf.quants.quantize(tensor.detach().float().cpu().numpy(), kind)
        writer.add_tensor(theirs, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if config.gelu == "erf":
        remarks = (*remarks, "llama.cpp computes GELU by tanh, this model was trained with erf")
    return Written(tuple(kept), remarks)


def with_keys_of_their_own(tensors: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
    """Shared keys and values repeated for each head: the same function, for architectures without sharing."""
    times = config.n_head // config.n_kv_head

    def spread(matrix: Tensor) -> Tensor:
        heads = torch.unflatten(matrix, 0, (config.n_kv_head, -1))  # (n_kv_head, D, C)
        return heads.repeat_interleave(times, 0).flatten(0, 1)

    shared = ("attention.k.weight", "attention.v.weight")
    return {name: spread(t) if name.endswith(shared) else t for name, t in tensors.items()}


def architecture_of(config: GPTConfig) -> Any:
    """The gguf package's constant for the architecture."""
    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == config.kind.gguf)


def gguf_name(names: Any, family: Family, ours: str) -> str:
    """GGUF's name of one of our parameters, found by Hugging Face's."""
    theirs = hugging_face_name(family, ours)[0].replace(".{e}", "")
    theirs = theirs.replace("e_score_correction_bias", "e_score_correction.bias")
    found = names.get_name(theirs, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise KeyError(theirs)
    return str(found)


def _type_of(name: str, tensor: Tensor, precision: Precision) -> Any:
    """Vectors stay exact; matrices are rounded where their rows allow it."""
    # norms, biases, positions and routers are small and sensitive
    if tensor.dim() < 2 or name in ALWAYS_FLOAT32 or name.endswith(ALWAYS_FLOAT32[1]):
        return TYPES.F32
    if precision.startswith("q") and tensor.size(-1) % BLOCK:
        return TYPES.F16
    return TYPES[precision.upper()]


def _file_type(precision: Precision) -> Any:
    return FILE_TYPES.ALL_F32 if precision == "f32" else FILE_TYPES[f"MOSTLY_{precision.upper()}"]


def _add_shape(writer: Any, config: GPTConfig) -> None:
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_head_count(config.n_head)
    if config.kind.norm == "layer":
        # GPT-2: all its other numbers follow from the width
        writer.add_layer_norm_eps(1e-5)
        return
    writer.add_head_count_kv(config.n_kv_head if config.kind.gguf_shares_keys else config.n_head)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(RMSNorm.EPSILON)
    if config.has("n_expert"):
        writer.add_expert_count(config.n_expert)
        writer.add_expert_used_count(config.n_expert_active)
        writer.add_expert_shared_count(config.n_expert_shared)
        writer.add_expert_feed_forward_length(config.expert_inner)
        writer.add_expert_weights_scale(config.expert_scaling)
        writer.add_expert_weights_norm(True)
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_leading_dense_block_count(config.n_dense_layer)


# -- the vocabulary ---------------------------------------------------------------------------


def why_not(tokenizer: Tokenizer) -> str | None:
    """Why a vocabulary cannot be expressed in GGUF; None if it can."""
    if isinstance(tokenizer, CharTokenizer):
        return None
    if isinstance(tokenizer, LibraryTokenizer) and tokenizer.kind == "bpe":
        if split_rule(tokenizer.spec) in RULES and tokenizer.spec.get("normalizer") is None:
            return None
        return "it splits text by a rule that llama.cpp does not support"
    return {
        "unigram": "llama.cpp's unigram has no bytes for what the vocabulary lacks",
        "wordpiece": "llama.cpp cuts words otherwise, and writes spaces between Chinese characters",
    }[kind_of(tokenizer)]


def _add_vocabulary(writer: Any, tokenizer: Tokenizer, chat: SavedChat | None) -> tuple[str, ...]:
    reason = why_not(tokenizer)
    if reason is not None:
        raise ConfigError(
            f"GGUF cannot hold a {kind_of(tokenizer)} vocabulary: {reason}",
            where="--to gguf",
            hint="train with tokenizer.kind=char or bpe, or export --to hf",
        )
    remarks: tuple[str, ...] = ()
    if isinstance(tokenizer, CharTokenizer):
        remarks = _add_characters(writer, tokenizer)
    elif isinstance(tokenizer, LibraryTokenizer):
        _add_byte_bpe(writer, tokenizer)
    # a text begins where another has ended, as in training
    writer.add_bos_token_id(tokenizer.end_of_text)
    end = tokenizer.end_of_text
    if chat is not None:
        writer.add_chat_template(chat.template)
        end = end if chat.end_of_turn is None else chat.end_of_turn
        writer.add_eot_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    return remarks


def _add_characters(writer: Any, tokenizer: CharTokenizer) -> tuple[str, ...]:
    """Characters as SentencePiece writes them: a space is U+2581, and so U+2581 itself has no token."""
    kinds = gguf.TokenType
    has_space = " " in tokenizer.entries
    renamed = {" ": SPACE, SPACE: "[U+2581]"} | ({} if has_space else {BYTES[ord(" ")]: SPACE})
    # a byte that stands for a character now is no byte token any more
    own = set(BYTES) - renamed.keys()
    texts, types = [], []
    for number, entry in enumerate(tokenizer.entries):
        is_control = number == tokenizer.end_of_text or number in tokenizer.suppressed
        is_byte = entry in own
        texts.append(renamed.get(entry, entry))
        types.append(kinds.CONTROL if is_control else kinds.BYTE if is_byte else kinds.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    # scores order merges; characters never merge, since no token is longer than one
    writer.add_token_scores([0.0] * len(texts))
    writer.add_token_types(types)
    writer.add_unk_token_id(tokenizer.end_of_text)
    writer.add_add_space_prefix(False)
    return ("llama.cpp reads and writes U+2581 (▁) as a space",)


def _add_byte_bpe(writer: Any, tokenizer: LibraryTokenizer) -> None:
    kinds = gguf.TokenType
    spec = tokenizer.spec
    special = {token["id"]: token.get("special", False) for token in spec.get("added_tokens", [])}
    texts, types = [], []
    for number, text in enumerate(token_texts(spec, "tokenizer.json")):
        # ids must have no gap: llama.cpp numbers tokens by their place in the list
        texts.append(f"[PAD{number}]" if text is None else text)
        kind = kinds.UNUSED if text is None else kinds.NORMAL
        if number in special:
            kind = kinds.CONTROL if special[number] else kinds.USER_DEFINED
        types.append(kind)
    # older files write a merge as one text, newer ones as a pair
    merges = [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(RULES[str(split_rule(spec))])
    writer.add_token_list(texts)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
