"""Texts: two to learn from, and strings that tokenizers trip over."""

import random
from collections.abc import Iterator
from functools import cache

from hypothesis import strategies as st

from yanmo.tokenizer import LibraryTokenizer
from yanmo.tokenizer.train import learn_bpe

ATOMS = (
    "萧炎", "斗气", "大喝一声", "，", "。", "：“", "”", "……", "——", "龘", "𠮷", "㐀", "👍", "👩‍👩‍👧", "🇨🇳",
    "a", "Z", "the ", " cat", "don't", "I'll", "'s", "'S", "0", "123", "１２３", "²", "Ⅳ", " ", "  ", "   ",
    "\n", "\n\n", "\r\n", "\r", "\t", "\u3000", "\u00a0", "\u2028", "\ufeff", "\u200b", "\x00", "\x1b", "\x7f",
    "é", "e\u0301", "が", "か\u3099", "ﬁ", "Å", "ǅ", "ß", "İ", "אב", "ไทย", "한국", "ー", "々",
    "<|endoftext|>", "<|im_start|>", "<0x0A>", "▁", "Ġ", "[SEP]", "[UNK]", "##a", "</s>", "<unk>", "<s>",
    "!", "?!", "...", "(a)", "=====", "_", "-", "http://x.cn/?q=1", "\ue000", "\ufffd", "\U0010ffff", "\u0378",
)  # fmt: skip
SCALARS = (*range(0xD800), *range(0xE000, 0x11000))
"""Characters of 16 bits and the first above them, without surrogates."""


def random_strings(count: int, seed: int) -> Iterator[str]:
    """``count`` strings of up to 24 atoms or arbitrary characters."""
    rng = random.Random(seed)
    for _ in range(count):
        length = rng.choice((1, 2, 3, 5, 8, 13, 24))
        yield "".join(
            rng.choice(ATOMS) if rng.random() < 0.9 else chr(rng.choice(SCALARS)) for _ in range(length)
        )


def any_text() -> st.SearchStrategy[str]:
    """Unicode scalar values, and what tokenizers trip over."""
    scalar = st.characters(exclude_categories=["Cs"])
    return st.lists(st.one_of(st.sampled_from(ATOMS), scalar), max_size=40).map("".join)


@cache
def lesson(characters: int = 20000, seed: int = 1) -> str:
    """A text with words that come back, in Chinese and a little English."""
    rng = random.Random(seed)
    words = [
        "江湖",
        "客栈",
        "老掌柜",
        "斗气",
        "萧炎",
        "一碗酒",
        "不知道",
        "他说",
        "什么",
        "夜雨",
        "春风",
        "的",
        "了",
        "是",
        "the",
        " inn",
        " 42",
    ]
    ends = ["，", "。", "。\n", "？”", "：“", "\n\n", "……", " "]
    parts: list[str] = []
    size = 0
    while size < characters:
        clause = "".join(rng.choice(words) for _ in range(rng.randrange(1, 6))) + rng.choice(ends)
        parts.append(clause)
        size += len(clause)
    return "".join(parts)[:characters]


@cache
def invented_text(characters: int, seed: int = 0) -> str:
    """Lines of a few words that follow each other with some regularity."""
    rng = random.Random(seed)
    words = ["春风", "夜雨", "江湖", "剑", "他说", "，", "。", "一碗酒", "不见", "山", "“走”", "\n"]
    text, size = [], 0
    while size < characters:
        start = rng.randrange(len(words))
        clause = "".join(words[(start + i * i) % len(words)] for i in range(rng.randrange(2, 6)))
        text.append(clause)
        size += len(clause)
    return "".join(text)[:characters]


@cache
def lesson_bpe(vocab_size: int) -> LibraryTokenizer:
    """A byte BPE learned from the lesson."""
    return learn_bpe([lesson()], vocab_size, ["<|endoftext|>"])
