"""一个文件里的 GPT-2：只用标准库，读 yanmo（或 Hugging Face）的 gpt2 模型文件夹，然后写字。

    python notebooks/micro.py 模型文件夹 "开头的几个字" [写多少个字] [随机种子]

从上往下读：先读文件，再切字，再算下一个字的分数，最后一个一个地写。数学部分就是 GPT-2 的全部，没有
省略；慢，是因为每一次乘法都由 Python 亲自来做。张量的形状写在行尾：T 是已有的字数，C 是宽度，V 是词表大小，
H 是注意力头数。
"""

import json
import math
import operator
import random
import struct
import sys
from array import array
from pathlib import Path

Vector = list[float]
Matrix = list[Vector]  # 一行一行地存

# ---- 一、读文件 ---------------------------------------------------------------------------------


def read_safetensors(path: Path) -> dict[str, tuple[list[int], array]]:
    """名字 → (形状, 所有的数)。格式很简单：8 个字节的长度，一段 JSON，然后是数。"""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    found = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        if about["dtype"] != "F32":
            raise SystemExit(
                f"{name} 的类型是 {about['dtype']}，这里只读 F32；可先用 yanmo export --to hf 转换"
            )
        start, end = about["data_offsets"]
        numbers = array("f", data[start:end])
        if sys.byteorder == "big":
            numbers.byteswap()  # 文件里总是小端序
        found[name] = (about["shape"], numbers)
    return found


class Model:
    """读进来的模型：形状、词表、权重。"""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if config["model_type"] != "gpt2":
            raise SystemExit(f"这是 {config['model_type']} 模型；micro.py 只认 gpt2（model.family=gpt2）")
        self.layers, self.heads = config["n_layer"], config["n_head"]  # L, H
        self.window, self.epsilon = config["n_positions"], config["layer_norm_epsilon"]
        self.gelu = gelu_erf if config["activation_function"] == "gelu" else gelu_tanh
        self.tokenizer = Tokenizer(json.loads((folder / "tokenizer.json").read_text("utf-8")))
        self._tensors = read_safetensors(folder / "model.safetensors")
        self.tokens = self.rows("wte.weight")  # (V, C)
        self.positions = self.rows("wpe.weight")  # (T, C)
        head = next((name for name in self._tensors if name.endswith("lm_head.weight")), None)
        self.head = self.rows("lm_head.weight") if head else self.tokens  # (V, C)，GPT-2 的输出头就是词表本身
        self.final = self.norm("ln_f")
        self.blocks = [self.block(f"h.{layer}.") for layer in range(self.layers)]

    def tensor(self, name: str) -> tuple[list[int], array]:
        """有的文件夹在名字前面写 transformer.，有的不写。"""
        return self._tensors.get(f"transformer.{name}") or self._tensors[name]

    def rows(self, name: str) -> Matrix:
        """一个矩阵，按行。"""
        (rows, columns), numbers = self.tensor(name)
        return [numbers[row * columns : (row + 1) * columns].tolist() for row in range(rows)]

    def norm(self, name: str) -> tuple[Vector, Vector]:
        """LayerNorm 的两个向量：乘的和加的。"""
        return self.tensor(f"{name}.weight")[1].tolist(), self.tensor(f"{name}.bias")[1].tolist()

    def linear(self, name: str) -> tuple[Matrix, Vector]:
        """一层线性变换。GPT-2 的文件里存的是 (输入, 输出)，转置以后每一行正好算出一个输出。"""
        columns = [list(column) for column in zip(*self.rows(f"{name}.weight"))]
        return columns, self.tensor(f"{name}.bias")[1].tolist()

    def block(self, name: str) -> dict:
        """一个 Transformer 块。"""
        return {
            "norm_1": self.norm(name + "ln_1"),
            "qkv": self.linear(name + "attn.c_attn"),  # C → 3C
            "out": self.linear(name + "attn.c_proj"),  # C → C
            "norm_2": self.norm(name + "ln_2"),
            "up": self.linear(name + "mlp.c_fc"),  # C → 4C
            "down": self.linear(name + "mlp.c_proj"),  # 4C → C
        }


class Tokenizer:
    """一个字一个编号；词表里没有的字写成 UTF-8 的几个字节。"""

    def __init__(self, spec: dict) -> None:
        model = spec["model"]
        if model.get("merges") or "<0x00>" not in model["vocab"]:
            raise SystemExit(
                "这个模型的词表不是一字一号的（tokenizer.kind=char），micro.py 不会合并；请用 yanmo generate"
            )
        self.ids = model["vocab"]
        self.texts = {number: token for token, number in self.ids.items()}
        self.end = self.ids["<|endoftext|>"]

    def encode(self, text: str) -> list[int]:
        """文字 → 编号。"""
        found = []
        for character in text:
            if character in self.ids:
                found.append(self.ids[character])
            else:
                found += [self.ids[f"<0x{byte:02X}>"] for byte in character.encode()]
        return found

    def decode(self, ids: list[int]) -> str:
        """编号 → 文字。字节要先拼起来，才是一个字。"""
        raw = b""
        for number in ids:
            token = self.texts[number]
            is_byte = len(token) == 6 and token.startswith("<0x")
            raw += bytes([int(token[3:5], 16)]) if is_byte else token.encode() if number != self.end else b""
        return raw.decode("utf-8", "replace")


# ---- 二、算下一个字 -----------------------------------------------------------------------------


def dot(a: Vector, b: Vector) -> float:
    """内积：对应的数相乘，再加起来。整个模型几乎只做这一件事。"""
    return sum(map(operator.mul, a, b))


def linear(x: Vector, layer: tuple[Matrix, Vector]) -> Vector:
    """y = W x + b。"""
    weight, bias = layer
    return [dot(row, x) + b for row, b in zip(weight, bias)]


def layer_norm(x: Vector, layer: tuple[Vector, Vector], epsilon: float) -> Vector:
    """减去平均，除以标准差，再按学到的比例放大、平移：数不会越算越大。"""
    mean = sum(x) / len(x)
    spread = 1 / math.sqrt(sum((value - mean) ** 2 for value in x) / len(x) + epsilon)
    return [(value - mean) * spread * w + b for value, w, b in zip(x, *layer)]


def gelu_tanh(x: float) -> float:
    """OpenAI 用的近似：大数照样通过，负数几乎归零。"""
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x: float) -> float:
    """不用近似的同一个函数。"""
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def softmax(scores: Vector) -> Vector:
    """分数 → 概率：都变成正数，加起来等于 1。先减最大值，指数才不会溢出。"""
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def attend(x: Vector, block: dict, heads: int, past: list) -> Vector:
    """注意力：这个字拿自己的“问”去比以前每个字的“键”，按相似的程度取它们的“值”。"""
    C = len(x)
    width = C // heads
    qkv = linear(x, block["qkv"])  # (3C,)
    past.append((qkv[C : 2 * C], qkv[2 * C :]))  # KV cache：以前的键和值不必重算
    mixed: Vector = []
    for head in range(heads):  # 每个头只看自己的那一段
        part = slice(head * width, (head + 1) * width)
        query = qkv[part]
        scores = [dot(query, key[part]) / math.sqrt(width) for key, _ in past]  # (T,)
        weights = softmax(scores)  # (T,)
        columns = zip(*(value[part] for _, value in past))
        mixed += [dot(weights, column) for column in columns]  # (C/H,)
    return linear(mixed, block["out"])


def next_scores(model: Model, token: int, pasts: list[list]) -> Vector:
    """读进一个字，给词表里每个字打分：下一个字是它的可能性有多大。"""
    place = len(pasts[0])
    x = [a + b for a, b in zip(model.tokens[token], model.positions[place])]  # (C,)：是什么字 + 在什么位置
    for block, past in zip(model.blocks, pasts):
        attended = attend(layer_norm(x, block["norm_1"], model.epsilon), block, model.heads, past)
        x = [a + b for a, b in zip(x, attended)]  # 残差：每一层只添一点，不重来
        inner = linear(layer_norm(x, block["norm_2"], model.epsilon), block["up"])  # (4C,)
        x = [a + b for a, b in zip(x, linear([model.gelu(value) for value in inner], block["down"]))]
    x = layer_norm(x, model.final, model.epsilon)
    return [dot(row, x) for row in model.head]  # (V,)


# ---- 三、写 -------------------------------------------------------------------------------------


def logits(model: Model, ids: list[int]) -> Matrix:
    """每个位置上的分数，(T, V)。"""
    pasts: list[list] = [[] for _ in range(model.layers)]
    return [next_scores(model, token, pasts) for token in ids]


def write(model: Model, prompt: str, count: int, seed: int, temperature: float = 0.8):
    """接着 prompt 一个字一个字地写；温度越低越稳，越高越野。"""
    chance = random.Random(seed)
    ids = model.tokenizer.encode(prompt)[-(model.window - 1) :] or [model.tokenizer.end]
    pasts: list[list] = [[] for _ in range(model.layers)]
    for token in ids[:-1]:
        next_scores(model, token, pasts)
    for _ in range(min(count, model.window - len(ids))):
        scores = next_scores(model, ids[-1], pasts)
        chances = softmax([score / temperature for score in scores])
        ids.append(chance.choices(range(len(chances)), chances)[0])
        if ids[-1] == model.tokenizer.end:
            return
        yield ids[-1]


def main() -> None:
    """命令行。"""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    model, prompt = Model(Path(sys.argv[1])), sys.argv[2]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 30)
    print(prompt, end="", flush=True)
    waiting: list[int] = []  # 一个生僻字有几个字节：凑齐了再显示
    for token in write(model, prompt, count, seed):
        waiting.append(token)
        text = model.tokenizer.decode(waiting)
        if not text.endswith("\ufffd") or len(waiting) == 4:
            print(text, end="", flush=True)
            waiting = []
    print(f"\n（种子 {seed}）")


if __name__ == "__main__":
    main()
