"""Small seeded models: as others leave them, one that has learned a few sentences, one that writes anything."""

import json
import pickle
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.checkpoint.folder import write_model
from yanmo.checkpoint.hf_config import to_config_json
from yanmo.checkpoint.hf_names import to_hugging_face
from yanmo.core.storage import write_json
from yanmo.hub.imports.proof import SENTENCES
from yanmo.model.config import GPTConfig
from yanmo.model.families import GPT2
from yanmo.model.gpt import GPT
from yanmo.model.lora import Adaptation, adapted_model, load_base, trained_tensors
from yanmo.model.moe import routers_of
from yanmo.settings.schema import FinetuneConfig
from yanmo.tokenizer import CharTokenizer, LibraryTokenizer, Tokenizer, WordPieceTokenizer
from yanmo.tokenizer.base import CHAT_TOKENS, END_OF_TEXT
from yanmo.tokenizer.char import count_characters
from yanmo.tokenizer.library import byte_letters
from yanmo.tokenizer.spec import bpe_model, tokenizer_json
from yanmo.tokenizer.splits import byte_level
from yanmo.tokenizer.wordpiece import Roles

LETTERS = sorted({*"".join(SENTENCES)})
ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*"".join(SENTENCES).lower()} - {" "})]
ENTRIES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]


def char_tokenizer() -> CharTokenizer:
    return CharTokenizer(LETTERS)


def bpe_tokenizer() -> LibraryTokenizer:
    letters = list(byte_letters())
    merges = ["t h", "th e", "Ġ the", "Ġ t", "æ Ī", "ä »", "ä» ¬"]
    vocab = {letter: number for number, letter in enumerate(letters)}
    for merge in merges:
        vocab.setdefault(merge.replace(" ", ""), len(vocab))
    end = len(vocab)
    spec = tokenizer_json(
        {END_OF_TEXT: end},
        bpe_model(vocab, merges),
        pre_tokenizer=byte_level(True),
        decoder=byte_level(True),
    )
    return LibraryTokenizer(spec, END_OF_TEXT)


def unigram_tokenizer() -> LibraryTokenizer:
    entries = [END_OF_TEXT, *(f"<0x{value:02X}>" for value in range(256)), *LETTERS, "我们", "the"]
    model = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [[entry, -float(number)] for number, entry in enumerate(entries)],
        "byte_fallback": True,
    }
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    return LibraryTokenizer(tokenizer_json({END_OF_TEXT: 0}, model, decoder=decoder), END_OF_TEXT)


def wordpiece_tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(ENTRIES, Roles("[SEP]", "[MASK]", "[CLS]"))


TOKENIZERS = {
    "char": char_tokenizer,
    "bpe": bpe_tokenizer,
    "unigram": unigram_tokenizer,
    "wordpiece": wordpiece_tokenizer,
}


def small(family: str, tokenizer: Tokenizer, **more: Any) -> GPTConfig:
    usual: dict[str, Any] = {
        "modern": {"n_kv_head": 2},
        "moe": {"n_kv_head": 2, "n_expert": 4, "n_expert_active": 2},
    }
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 48, **usual.get(family, {}), **more}
    return GPTConfig(tokenizer.vocab_size, family=family, **shape)  # type: ignore[arg-type]


@torch.no_grad()
def drawn(config: GPTConfig, seed: int = 0) -> GPT:
    """A model whose every weight matters: biases and norms are drawn too."""
    generator = torch.Generator().manual_seed(seed)
    model = GPT(config)
    model.initialise(seed)
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    for router in routers_of(model):
        router.bias.copy_(torch.randn(router.bias.shape, generator=generator) * 0.1)
    return model.eval()


def adapted(
    base: GPT,
    finetune: FinetuneConfig,
    tokens: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    seed: int = 5,
) -> GPT:
    """On ``base``, as it is before the first step."""
    here = torch.device("cpu")
    model = adapted_model(base.config, Adaptation(finetune, tokens, dtype), here)
    load_base(model, dict(base.state_dict()), here, seed)
    return model.train()


@torch.no_grad()
def disturbed(model: GPT) -> GPT:
    """As after some steps: everything trained has moved."""
    generator = torch.Generator().manual_seed(2)
    for tensor in trained_tensors(model).values():
        tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


@cache
def reader() -> GPT:
    """A small GPT-2 that has learned the sentences: how its weights are to be read can be told."""
    return taught("gpt2")


def taught(family: str, tokenizer: Tokenizer | None = None) -> GPT:
    tokenizer = tokenizer or char_tokenizer()
    model = GPT(small(family, tokenizer, n_embd=64, block_size=64))
    model.initialise(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(0)
    clauses = [c for s in SENTENCES for c in re.findall("[^，。：；！？,]+[，。：；！？,”」]*", s)]
    for _ in range(400):  # sentences, and their clauses in any order: what comes next depends on far back
        rows = []
        for _ in range(8):
            shuffled = "".join(rng.choices(clauses, k=12))
            text = 3 * (rng.choice(SENTENCES) if rng.random() < 0.5 else shuffled)
            rows.append(torch.from_numpy(tokenizer.encode(text)[rng.randrange(8) :][:65]))
        windows = torch.stack(rows)  # (8, 65)
        loss = model.loss(windows[:, :-1].contiguous(), windows[:, 1:].contiguous()) / 512
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval().requires_grad_(False)


# -- folders and files of others --------------------------------------------------------------


def hugging_face_folder(folder: Path, model: GPT, tokenizer: Tokenizer) -> Path:
    """What transformers saves of the same model: its own names, its own config.json."""
    import transformers

    from yanmo.checkpoint.hf_config import to_config_json

    config = transformers.AutoConfig.for_model(**to_config_json(model.config, tokenizer.end_of_text))
    kind = getattr(transformers, model.config.kind.architecture)
    tensors = to_hugging_face(model.config.kind, model.state_dict())
    theirs = kind.from_pretrained(None, config=config, state_dict=tensors)
    theirs.save_pretrained(folder)
    tokenizer.save(folder, model.config.block_size)
    return folder


def our_folder(folder: Path, model: GPT, tokenizer: Tokenizer, chat_template: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, model.config, model.state_dict(), tokenizer, chat_template)
    return folder


def gpt2_chinese_folder(folder: Path, model: GPT) -> Path:
    """pytorch_model.bin of torch before 1.6, with masks; n_ctx; the vocabulary is elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    config, tensors = model.config, to_hugging_face(GPT2, model.state_dict())
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    for layer in range(config.n_layer):
        T = config.block_size
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, T, T).tril()
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    values = {
        "n_ctx": config.block_size, "n_positions": config.block_size, "n_embd": config.n_embd,
        "n_head": config.n_head, "n_layer": config.n_layer, "vocab_size": config.vocab_size,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-5,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def vocab_txt(path: Path) -> Path:
    path.write_text("\n".join(ENTRIES), encoding="utf-8")
    return path


def meta_pickle(path: Path) -> Path:
    table = dict(enumerate(LETTERS))
    meta = {"vocab_size": len(LETTERS), "itos": table, "stoi": {c: i for i, c in table.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(meta))
    return path


class NanoGPT(nn.Module):
    """A second opinion: nanoGPT's arithmetic and names, written down anew from its description."""

    def __init__(self, vocab_size: int, bias: bool) -> None:
        super().__init__()
        self.arguments = {
            "n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 48, "bias": bias,
            "vocab_size": vocab_size, "dropout": 0.1,
        }  # fmt: skip
        generator = torch.Generator().manual_seed(0)
        shapes = {"transformer.wte.weight": (vocab_size, 32), "transformer.wpe.weight": (48, 32)}
        for layer in range(2):
            at = f"transformer.h.{layer}"
            linear = {
                "attn.c_attn": (96, 32),
                "attn.c_proj": (32, 32),
                "mlp.c_fc": (128, 32),
                "mlp.c_proj": (32, 128),
            }
            shapes |= {f"{at}.{name}.weight": shape for name, shape in linear.items()}
            shapes |= {f"{at}.{name}.weight": (32,) for name in ("ln_1", "ln_2")}
        shapes["transformer.ln_f.weight"] = (32,)
        if bias:
            shapes |= {
                name.replace("weight", "bias"): (shape[0],)
                for name, shape in shapes.items()
                if "wte" not in name and "wpe" not in name
            }
        self.w: dict[str, Tensor] = {n: torch.randn(s, generator=generator) * 0.3 for n, s in shapes.items()}

    def bias(self, name: str) -> Tensor | None:
        return self.w.get(f"{name}.bias")

    def forward(self, ids: Tensor) -> Tensor:
        w, (B, T) = self.w, ids.shape
        x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][:T]
        for layer in range(2):
            at = f"transformer.h.{layer}"
            y = F.layer_norm(x, (32,), w[f"{at}.ln_1.weight"], self.bias(f"{at}.ln_1"), 1e-5)
            q, k, v = F.linear(y, w[f"{at}.attn.c_attn.weight"], self.bias(f"{at}.attn.c_attn")).split(32, 2)
            q, k, v = (part.view(B, T, 4, 8).transpose(1, 2) for part in (q, k, v))
            scores = (q @ k.transpose(2, 3)) / 8**0.5
            scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
            y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, 32)
            x = x + F.linear(y, w[f"{at}.attn.c_proj.weight"], self.bias(f"{at}.attn.c_proj"))
            y = F.layer_norm(x, (32,), w[f"{at}.ln_2.weight"], self.bias(f"{at}.ln_2"), 1e-5)
            y = F.gelu(F.linear(y, w[f"{at}.mlp.c_fc.weight"], self.bias(f"{at}.mlp.c_fc")))
            x = x + F.linear(y, w[f"{at}.mlp.c_proj.weight"], self.bias(f"{at}.mlp.c_proj"))
        y = F.layer_norm(x, (32,), w["transformer.ln_f.weight"], self.bias("transformer.ln_f"), 1e-5)
        return y @ w["transformer.wte.weight"].t()


def nanogpt_checkpoint(path: Path, model: NanoGPT, dataset: str = "", prefix: str = "_orig_mod.") -> Path:
    """ckpt.pt, as train.py saves it after torch.compile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {**model.w, "lm_head.weight": model.w["transformer.wte.weight"]}
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    saved = {
        "model": {prefix + name: tensor for name, tensor in tensors.items()},
        "optimizer": optimizer.state_dict(),
        "model_args": model.arguments,
        "iter_num": 5000,
        "best_val_loss": torch.tensor(1.4697),
        "config": {"dataset": dataset, "out_dir": "out", "device": "cpu"},
    }
    torch.save(saved, path)
    return path


# -- models that write -----------------------------------------------------------------------


TOKENIZER = CharTokenizer.train(count_characters("江湖夜雨十年灯，桃李春风一杯酒。"))


def lively_model(block_size: int = 16, vocab_size: int = TOKENIZER.vocab_size) -> GPT:
    config = GPTConfig(vocab_size, n_layer=2, n_head=2, n_embd=16, block_size=block_size)
    model = GPT(config)
    model.initialise(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(15 if parameter.dim() >= 2 else 1)
    return model.eval()


# -- models that answer ----------------------------------------------------------------------


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def chat_tokenizer() -> LibraryTokenizer:
    """Bytes, and the two markers of dialogues."""
    spec = bpe_tokenizer().spec
    size = bpe_tokenizer().vocab_size
    like = spec["added_tokens"][0]
    markers = [like | {"id": size + number, "content": text} for number, text in enumerate(CHAT_TOKENS)]
    return LibraryTokenizer(spec | {"added_tokens": [like, *markers]}, END_OF_TEXT)


def talking_model(tokenizer: Tokenizer, block_size: int = 128) -> GPT:
    """Writes anything; every twelfth token or so ends its turn, and it would rather end the text."""
    model = lively_model(block_size, tokenizer.vocab_size)
    (end_of_turn,) = tokenizer.encode(CHAT_TOKENS[1], special=True)
    with torch.no_grad():
        model.norm.weight[0], model.norm.bias[0] = 0, 10  # the first channel is 10, whatever is read
        model.tokens.weight[:, 0] = 0
        model.tokens.weight[int(end_of_turn), 0] = 0.3
        model.tokens.weight[tokenizer.end_of_text, 0] = 10
    return model


def saved_model(folder: Path, config: GPTConfig) -> GPT:
    from safetensors.torch import save_file

    model = GPT(config)
    model.initialise(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
        for router in routers_of(model):
            router.bias.copy_(torch.randn(router.bias.shape) * 0.1)
    save_file(
        to_hugging_face(config.kind, model.state_dict()), folder / "model.safetensors", {"format": "pt"}
    )
    write_json(folder / "config.json", to_config_json(config, 0))
    return model.eval()
