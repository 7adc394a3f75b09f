"""LoRA beside PEFT: its library opens our adapters, and learns the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.makers.models import (
    adapted,
    bpe_tokenizer,
    disturbed,
    drawn,
    hugging_face_folder,
    our_folder,
    small,
)
from tests.makers.runs import RUN, losses, tiny_recipe
from tests.makers.texts import invented_text
from yanmo.checkpoint.adapter import write_adapter
from yanmo.checkpoint.folder import Progress, load_model, save_checkpoint
from yanmo.core.console import Console
from yanmo.core.storage import read_json
from yanmo.data.batches import Batches
from yanmo.model.config import GPTConfig
from yanmo.model.lora import trained_tensors
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import FinetuneConfig
from yanmo.tokenizer.base import chat_ids
from yanmo.tokenizer.train import learn_bpe, special_tokens
from yanmo.train.metrics import read_metrics
from yanmo.train.texts import prepare_texts
from yanmo.train.trainer import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("models"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),  # PEFT asks for it
]

TOKENS = (3, 7)
LORA = FinetuneConfig(method="lora", rank=4, alpha=12.0)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "modern": ("modern", {}),
    "untied": ("modern", {"tied_head": False}),
    "moe": ("moe", {}),
}


def opened_by_peft(base: Path | str, adapter: Path, **more: Any) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter, **more)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_opens_the_adapter_over_the_base_and_its_logits_are_ours(family: str, tmp_path: Path) -> None:
    name, more = FAMILIES[family]
    tokenizer = bpe_tokenizer()
    base = drawn(small(name, tokenizer, **more))
    folder = our_folder(tmp_path / "base", base, tokenizer)
    model = disturbed(adapted(base, LORA, TOKENS))
    found = save_checkpoint(tmp_path, Progress(), model, tokenizer, {}, {}, {}, base=folder.as_posix())
    ids = torch.randint(tokenizer.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    ids[:, 3:9:2] = torch.tensor([*TOKENS, TOKENS[0]])
    named = read_json(found / "adapter" / "adapter_config.json")["base_model_name_or_path"]
    with torch.no_grad():
        theirs = opened_by_peft(named, found / "adapter").eval()(ids).logits
        ours, before = load_model(found)(ids), base(ids)
    assert not torch.allclose(before, theirs, atol=0.1)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_twenty_steps_on_a_base_of_transformers_are_those_of_peft_and_torch(
    own_folder: Path, own_cache: Path, console: Console
) -> None:
    Path("novel.txt").write_text(invented_text(6000), encoding="utf-8")
    tokenizer = learn_bpe([invented_text(4000)], 400, special_tokens(chat=True, reserved=0))
    base = drawn(GPTConfig(tokenizer.vocab_size, 2, 2, 16, 16, family="modern"), seed=3)
    hugging_face_folder(Path("base"), base, tokenizer)
    more = ("model.init=base", "finetune.method=lora", "finetune.rank=4", "optim.learning_rate=3e-3",
            "train.max_steps=20", "optim.weight_decay=0.05")  # fmt: skip
    train(tiny_recipe("novel.txt", more=more), RUN, console)
    ours = [float.fromhex(loss) for _, loss in sorted(losses(RUN).items())]
    recipe = load_recipe(RUN / "recipe.toml")

    begun = adapted(base, recipe.finetune, chat_ids(tokenizer), seed=recipe.train.seed)
    write_adapter(Path("begun"), begun, "base")
    model = opened_by_peft("base", Path("begun"), is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(map(torch.numel, trained)) == sum(map(torch.numel, trained_tensors(begun).values()))
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.05)
    shards = prepare_texts(recipe, console).shards
    batches = Batches(shards.train, 16, recipe.train.batch_size, recipe.train.seed)
    theirs = []
    for row in read_metrics(RUN):
        if row["event"] == "train":
            batch = batches.at(row["step"] - 1)
            logits = model(torch.from_numpy(batch.inputs)).logits
            loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.param_groups[0]["lr"] = row["lr"]
            optimizer.step()
            theirs.append(float(loss.detach()))
    assert len(ours) == 20 and ours[-1] < ours[0] - 0.1
    assert ours == pytest.approx(theirs, abs=1e-4)
