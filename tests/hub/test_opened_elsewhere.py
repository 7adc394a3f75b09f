"""What transformers makes of our folders where people use it: inputs, padding, dialogues."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.makers.models import TOKENIZERS, drawn, our_folder, small
from tests.makers.texts import invented_text
from yanmo.checkpoint.folder import write_model
from yanmo.core.console import Console
from yanmo.hub.exports.exporter import export
from yanmo.tokenizer.train import learn_bpe, special_tokens

pytestmark = pytest.mark.slow

KINDS = pytest.mark.parametrize("kind", sorted(TOKENIZERS))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [{"role": "user", "content": "山下的茶馆开了吗？"}]


def opened(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@KINDS
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_the_model_takes_all_that_its_tokenizer_gives(family: str, kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    model, cutter = opened(our_folder(tmp_path / "m", drawn(small(family, tokenizer)), tokenizer))
    inputs = cutter("他说：“我们明天一早就走", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask"}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(inputs["input_ids"]).logits)
        assert model.generate(**inputs, max_new_tokens=4, do_sample=False).size(1) > inputs["input_ids"].size(
            1
        )


@KINDS
def test_what_pads_is_no_token_of_any_text_and_does_not_end_one(kind: str, tmp_path: Path) -> None:
    tokenizer = TOKENIZERS[kind]()
    _, cutter = opened(our_folder(tmp_path / "m", drawn(small("gpt2", tokenizer)), tokenizer))
    if kind == "unigram":  # one whose byte pieces are found in text that spells them
        assert cutter.pad_token is None
        return
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)])) + cutter.pad_token
    assert cutter.pad_token_id not in {*tokenizer.encode(everything).tolist(), tokenizer.end_of_text}
    assert cutter.pad_token_id not in cutter(everything, add_special_tokens=False)["input_ids"]
    batch = cutter(["他", "他说：你好"], padding=True)
    assert len({len(row) for row in batch["input_ids"]}) == 1
    assert 0 in batch["attention_mask"][0]


@pytest.mark.parametrize("template", [None, CHATML], ids=["set later", "in the folder"])
def test_the_markup_of_a_dialogue_is_read_as_tokens(
    template: str | None, tmp_path: Path, console: Console
) -> None:
    tokenizer = learn_bpe([invented_text(4000)], 600, special_tokens(chat=True, reserved=1))
    model = drawn(small("modern", tokenizer))
    (tmp_path / "m").mkdir()
    write_model(tmp_path / "m", model.config, model.state_dict(), tokenizer, template)
    out = export(tmp_path / "m", "hf", tmp_path / "out", None, True, console).path
    for folder in (tmp_path / "m", out):
        _, cutter = opened(folder)
        cutter.chat_template = cutter.chat_template or CHATML
        said = cutter.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False)
        ids = cutter.apply_chat_template(TALK, add_generation_prompt=True, return_dict=True)["input_ids"]
        assert ids == tokenizer.encode(said, special=True).tolist()
        assert ids.count(1) == 2 and ids.count(2) == 1
        end = tokenizer.end_of_text if template is None else 2  # the end of a turn
        assert cutter("门" + cutter.eos_token)["input_ids"][-1] == end


def test_without_dialogues_text_that_looks_like_a_token_stays_text(tmp_path: Path) -> None:
    for kind in ("char", "bpe", "unigram"):
        tokenizer = TOKENIZERS[kind]()
        _, cutter = opened(our_folder(tmp_path / kind, drawn(small("gpt2", tokenizer)), tokenizer))
        text = "<|endoftext|>他<0xFF>ÿ"
        assert cutter(text)["input_ids"] == tokenizer.encode(text).tolist()
