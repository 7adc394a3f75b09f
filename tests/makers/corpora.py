"""A corpus of several files: copies, near copies, repeated paragraphs, ads, texts that are dropped."""

import json
import random
from pathlib import Path

WORDS = [
    "春风",
    "夜雨",
    "江湖",
    "长剑",
    "他说",
    "我们",
    "一碗酒",
    "不见",
    "山上",
    "走了",
    "今天",
    "老人",
    "孩子",
    "看见",
    "月光",
    "河水",
    "很久",
    "以后",
    "村里",
    "大家",
    "都",
    "没有",
    "回来",
    "只是",
    "这样",
    "的",
    "了",
    "在",
    "一个",
    "时候",
    "心里",
    "想起",
    "当年",
    "城外",
    "那座",
    "小桥",
    "边",
    "笑着",
    "点头",
    "说道",
    "天下",
    "英雄",
    "不过",
    "如此",
]
AD = "请收藏本站：www.biquge123.com 手机版阅读网址"


def some_text(rng: random.Random) -> str:
    def sentence() -> str:
        return "".join(rng.choice(WORDS) for _ in range(rng.randrange(6, 16))) + rng.choice("，。！")

    return "\n".join(
        "".join(sentence() for _ in range(rng.randrange(2, 6))) for _ in range(rng.randrange(2, 8))
    )


def texts_of(rng: random.Random, count: int) -> list[str]:
    texts = [some_text(rng)]
    while len(texts) < count:
        kind, earlier = rng.random(), rng.choice(texts)
        if kind < 0.15:
            texts.append(earlier)
        elif kind < 0.45:  # near: some characters are others
            letters = list(earlier)
            for _ in range(max(len(letters) // rng.choice([25, 40, 60, 200]), 1)):
                letters[rng.randrange(len(letters))] = rng.choice("天地人和风云山水")
            texts.append("".join(letters))
        elif kind < 0.55:
            texts.append(some_text(rng) + "\n" + rng.choice(earlier.split("\n")))
        elif kind < 0.6:
            texts.append("!!!!????" * 30)
        elif kind < 0.7:
            texts.append(some_text(rng) + f"\n{AD}\n" + some_text(rng))
        else:
            texts.append(some_text(rng))
    return texts


def write_corpus(folder: Path, seed: int, count: int = 120) -> Path:
    """Three .jsonl files and a folder of .txt files between them."""
    texts = texts_of(random.Random(seed), count)
    (folder / "b").mkdir(parents=True)
    for number, name in enumerate(("a", "c", "d")):
        rows = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[number::4])
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    for number, text in enumerate(texts[3::4]):
        (folder / "b" / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    return folder
