"""Proof that an imported model computes what the original did, by transformers and by its own loss.

Names, transposes and activations are compared with transformers, which loads the same tensors independently.
That cannot find a wrong config.json: with another number of heads every shape still fits, and transformers
scrambles attention just as we do. But then the loss is higher than it could be. So the loss on a few
sentences is measured as config.json says, and in every other way that the shapes allow; if another way is
clearly better, the model is refused.
"""

import contextlib
import importlib.util
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from yanmo.core.commands import install_command
from yanmo.core.errors import CheckpointError
from yanmo.model.config import GPTConfig
from yanmo.model.families import FAMILIES, GPT2, Family
from yanmo.model.gpt import GPT
from yanmo.tokenizer import Tokenizer

SENTENCES = (
    "他说：“我们明天一早就走，你把东西收拾好，在门口等我。”她点了点头，没有说话，只是看着窗外的雨。",
    "他說：「我們明天一早就走，你把東西收拾好，在門口等我。」她點了點頭，沒有說話，只是看著窗外的雨。",
    "话说天下大势，分久必合，合久必分。那人听了大怒，喝道：“你是何人，敢来此处！”",
    "The old man said that he would go to the house near the river, and that nobody should wait for him.",
)
CLOSE = 1e-5
"""Logits are equal if they differ by less than this, or than this share of the largest one."""
CLEARLY = 0.05
"""Nats per token by which another reading must be better to be believed."""
SENSE = 0.7
"""Share of the loss of chance (ln V) that a sentence must stay below: else the loss says nothing at all."""
OPENAI = {(12, 768): 12, (24, 1024): 16, (36, 1280): 20, (48, 1600): 25, (6, 768): 12}
"""Heads of GPT-2 by layers and width (Radford et al. 2019), and of its distilled form."""
OPENAI_TOKENS = 50_257
MEANT = {
    *(key for kind in FAMILIES.values() for keys in (kind.constants, kind.same_keys) for key in keys),
    *(key for kind in FAMILIES.values() for key in kind.config_keys.values()),
    "model_type", "rope_parameters", "rope_scaling", "layer_types", "sliding_window",
}  # fmt: skip
"""Keys of a config.json that change the computation; only these reach transformers, as others would download
code."""
BATCH, LENGTH = 2, 64


@dataclass(frozen=True)
class Proof:
    """The comparisons and their results."""

    against: str
    difference: float | None
    """Largest difference between two logits; None if there was nothing to compare with."""
    largest: float
    """The largest logit."""
    nats: float
    """Loss per token on the sentence the model reads best."""
    readings: dict[str, float]
    """The same, with the weights read in other ways."""
    is_telling: bool
    """Whether a sentence is clearly likelier than chance, read in any way."""

    def lines(self) -> list[str]:
        """For people."""
        found = []
        if self.difference is not None:
            found.append(
                f"logits equal {self.against}: largest difference {self.difference:.1e}"
                f" (largest logit {self.largest:.1f})"
            )
        else:
            found.append(f"not compared with transformers: {self.against}")
        if not self.is_telling:
            return [
                *found,
                f"reads a sentence at {self.nats:.2f} nats per token, no better than chance: this check"
                " cannot find a wrong number of heads or a missing transpose",
            ]
        best = min(self.readings, key=self.readings.__getitem__, default=None)
        said = f"reads a sentence at {self.nats:.2f} nats per token"
        if best is not None:
            said += f"; the best of {len(self.readings)} other ways to read the weights, {best}, at"
            said += f" {self.readings[best]:.2f}"
        return [*found, said]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return vars(self)


def prove(
    model: GPT, values: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Tokenizer, where: str
) -> Proof:
    """Compare a model with the reference built of its maker's values and tensors, and with other readings.

    Raises:
        CheckpointError: they differ, or the model is clearly better read in another way.
    """
    model.eval()
    # rows were added or cut to fit the vocabulary; only those that both have can be compared
    common = min(model.config.vocab_size, values["vocab_size"])  # the rest was added or cut
    ids = probe_ids(model.config, common, tokenizer)
    with torch.no_grad():
        ours = model(ids)
        nats = reading(model, tokenizer)
        readings = dict(other_readings(model, tokenizer))
        against, theirs = reference_logits(model.config.kind, values, tensors, ids, where)
    largest = float(ours.abs().max())
    difference = None if theirs is None else float((ours[..., :common] - theirs[..., :common]).abs().max())
    # "not <=" and not ">": a difference that is no number is none that passes
    if difference is not None and not difference <= CLOSE * max(1.0, largest):
        raise CheckpointError(
            f"its logits differ from those of {against} by {difference:.2e}; the largest is {largest:.2f}",
            where=where,
            hint="the model was not written; please report this with its config.json",
        )
    refuse_better_readings(model.config, nats, readings, where)
    is_telling = min([nats, *readings.values()]) < SENSE * math.log(model.config.vocab_size)
    return Proof(against, difference, largest, nats, readings, is_telling)


def probe_ids(config: GPTConfig, common: int, tokenizer: Tokenizer) -> Tensor:
    """Tokens below ``common`` to compare logits on, (B, T): a sentence, the rest drawn at random."""
    generator = torch.Generator().manual_seed(0)
    T = min(LENGTH, config.block_size)
    ids = torch.randint(common, (BATCH, T), generator=generator)
    known = torch.from_numpy(tokenizer.encode(SENTENCES[0]))
    known = known[known < common][:T]
    ids[0, : len(known)] = known
    return ids


def reading(model: GPT, tokenizer: Tokenizer) -> float:
    """Nats per token on the sentence with the lowest loss: a model may know one language only."""
    found = []
    for sentence in SENTENCES:
        ids = torch.from_numpy(tokenizer.encode(sentence)[: model.config.block_size])[None]
        if ids.size(1) > 1:
            # the mean over tokens; a sentence of one token has nothing to predict
            found.append(float(model.loss(ids[:, :-1], ids[:, 1:])) / (ids.size(1) - 1))
    return min(found, default=float("nan"))


def other_readings(model: GPT, tokenizer: Tokenizer) -> Iterator[tuple[str, float]]:
    """The loss of the sentences with the weights read in the other ways that their shapes allow."""
    config = model.config
    if config.kind.attention == "full":
        # (C, C) projections are cut into any number of heads; sizes of a head beyond 8 to 256 do not occur
        for heads in range(1, config.n_embd // 8 + 1):
            # heads of 8 to 256 channels: nobody makes others
            if config.n_embd % heads == 0 and heads != config.n_head and config.n_embd // heads <= 256:
                with contextlib.ExitStack() as undo:
                    undo.callback(_cut_into, model, config.n_head)
                    _cut_into(model, heads)
                    yield f"{heads} heads" if heads > 1 else "1 head", reading(model, tokenizer)
    # a square matrix fits both ways, so no shape shows a transpose that was forgotten or done twice
    square = [name for name, p in model.named_parameters() if p.dim() == 2 and p.size(0) == p.size(1)]
    square = [name for name in square if "blocks" in name]
    if square:
        with contextlib.ExitStack() as undo:
            undo.callback(_transpose, model, square)
            _transpose(model, square)
            yield "square matrices transposed", reading(model, tokenizer)


def _cut_into(model: GPT, heads: int) -> None:
    """Cut queries, keys and values into another number of heads."""
    for block in model.blocks:
        attention: Any = block.attention
        attention.heads = attention.kv_heads = heads
        attention.head_dim = model.config.n_embd // heads


def _transpose(model: GPT, names: list[str]) -> None:
    for name in names:
        parameter = model.get_parameter(name)
        # a transpose that fits: of a square matrix no shape tells (out, in) from (in, out)
        parameter.data = parameter.data.t().contiguous()


def refuse_better_readings(config: GPTConfig, nats: float, readings: dict[str, float], where: str) -> None:
    """Refuse a model whose config.json scrambles it: another reading then has a clearly lower loss.

    Raises:
        CheckpointError: another reading is clearly better, or the shape is OpenAI's but not its heads.
    """
    sense = SENSE * math.log(config.vocab_size)
    # better than now by far, and better than chance: a model that knows no sentence says nothing
    better = {name: found for name, found in readings.items() if found < min(nats - CLEARLY, sense)}
    if better:
        best = min(better, key=better.__getitem__)
        raise CheckpointError(
            f"with n_head={config.n_head} it reads a sentence at {nats:.2f} nats per token, with {best} at"
            f" {better[best]:.2f}",
            where=where,
            hint="config.json or the layout of the weights is wrong: correct n_head, or transpose them",
        )
    # a model whose loss says nothing, but with the shape and vocabulary of OpenAI's: its heads are known
    usual = OPENAI.get((config.n_layer, config.n_embd)) if config.vocab_size == OPENAI_TOKENS else None
    as_usual = readings.get(f"{usual} heads", 0.0)
    if config.kind is GPT2 and usual not in (None, config.n_head) and nats > as_usual - CLEARLY:
        raise CheckpointError(
            f"config.json says n_head={config.n_head}; GPT-2 of {config.n_layer} layers, {config.n_embd}"
            f" wide, with OpenAI's vocabulary has {usual}",
            where=where,
            hint=f"set n_head to {usual} in its config.json; the shapes do not show the difference",
        )


# -- the reference ----------------------------------------------------------------------------


def reference_logits(
    family: Family, values: dict[str, Any], tensors: dict[str, Tensor], ids: Tensor, where: str
) -> tuple[str, Tensor | None]:
    """The name of the reference, and its logits (B, T, V) from the same values and tensors.

    Raises:
        CheckpointError: transformers lacks a tensor, or has one left over.
    """
    if importlib.util.find_spec("transformers") is None:
        return f"it is not installed ({install_command('hf')})", None
    with quiet_transformers() as transformers:
        try:
            # only keys that say what is computed: others could make transformers fetch code
            config = transformers.AutoConfig.for_model(**{k: v for k, v in values.items() if k in MEANT})
            kind = getattr(transformers, family.architecture)
            model, found = kind.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                output_loading_info=True,
                dtype=torch.float32,
                # float32 and plain attention: differences are then ours, not those of a fused kernel
                attn_implementation="eager",
            )
            logits: Tensor = model.eval()(ids).logits
        except Exception as error:  # whatever a strange config.json makes it raise
            raise CheckpointError(
                f"transformers cannot build it: {type(error).__name__}: {str(error)[:200]}",
                where=where,
                hint="download the folder again",
            ) from error
        left = sorted((*found["missing_keys"], *found["unexpected_keys"]))
        if left:
            raise CheckpointError(
                f"{len(left)} tensors are missing or unknown, such as {left[0]}",
                where=where,
                hint="is it a complete model of one of yanmo's families?",
            )
    return f"transformers {transformers.__version__}", logits


@contextlib.contextmanager
def quiet_transformers() -> Iterator[Any]:
    """transformers without progress bars and advice; it never goes online for what lies here."""
    # or it would ask the hub about a folder that lies here
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported, so before that
    import transformers

    console: Any = transformers.logging
    level = console.get_verbosity()
    try:
        console.set_verbosity_error()
        console.disable_progress_bar()
        yield transformers
    finally:
        console.set_verbosity(level)
        console.enable_progress_bar()
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
