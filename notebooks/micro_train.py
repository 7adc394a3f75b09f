"""从零训练一个小 GPT，反向传播全部手写：只用标准库，十来秒把十行字背下来。

    python notebooks/micro_train.py [随机种子]

micro.py 是怎样用一个模型，这里是怎样得到一个模型。训练只有四步，反复做：向前算出损失；向后算出每个参数
该往哪边动（梯度）；用 Adam 动一小步；看看背下来没有。向后的每一行都是向前那一行的导数，名字前面加一个
d：dx 是“损失对 x 的导数”。形状写在行尾：T 是一行的字数，C 是宽度，V 是字表大小。
"""

import math
import operator
import random
import sys
import time

LINES = [
    "灯下研墨慢慢写", "窗外细雨落山前", "一只白猫走过桥", "桥边小店卖热茶", "客人说起远方事",
    "少年听完不作声", "第二天他背起包", "沿着河水向东去", "春天回来的时候", "墨已磨好纸已铺",
]  # fmt: skip
END = "\n"
C, HEADS, INNER = 32, 2, 64  # 宽度，注意力头数，MLP 的内宽
LAYERS = 1
RATE, BETA_1, BETA_2, TINY = 0.01, 0.9, 0.99, 1e-8  # Adam
EPSILON = 1e-5

Vector = list[float]
Matrix = list[Vector]

# ---- 一、小工具：每个都有向前和向后 ----------------------------------------------------------------


def dot(a: Vector, b: Vector) -> float:
    """内积。"""
    return sum(map(operator.mul, a, b))


def times(weight: Matrix, x: Vector) -> Vector:
    """y = W x。"""
    return [dot(row, x) for row in weight]


def times_back(weight: Matrix, grad: Matrix, x: Vector, dy: Vector) -> Vector:
    """dW += dy xᵀ，返回 dx = Wᵀ dy。"""
    dx = [0.0] * len(x)
    for row, drow, d in zip(weight, grad, dy):
        if d:
            drow[:] = [g + d * value for g, value in zip(drow, x)]
            dx = [a + d * w for a, w in zip(dx, row)]
    return dx


def norm(x: Vector) -> Vector:
    """RMSNorm：除以均方根。y = x r，r = 1/√(mean(x²) + ε)。"""
    r = 1 / math.sqrt(dot(x, x) / len(x) + EPSILON)
    return [value * r for value in x]


def norm_back(x: Vector, dy: Vector) -> Vector:
    """dx = r (dy - y · mean(dy · y))：沿着 x 自己的方向动，输出不变，所以那一份要减掉。"""
    r = 1 / math.sqrt(dot(x, x) / len(x) + EPSILON)
    y = [value * r for value in x]
    along = dot(dy, y) / len(x)
    return [r * (d - value * along) for d, value in zip(dy, y)]


def softmax(scores: Vector) -> Vector:
    """分数 → 概率。"""
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def add(a: Vector, b: Vector) -> Vector:
    """对应相加。"""
    return [x + y for x, y in zip(a, b)]


# ---- 二、模型 -----------------------------------------------------------------------------------


def new_parameters(letters: int, length: int, chance: random.Random) -> dict[str, Matrix]:
    """随机的小数：名字 → 矩阵。"""

    def matrix(rows: int, columns: int, spread: float) -> Matrix:
        return [[chance.gauss(0, spread) for _ in range(columns)] for _ in range(rows)]

    found = {"letters": matrix(letters, C, 0.1), "places": matrix(length, C, 0.1)}
    for layer in range(LAYERS):
        for name in ("query", "key", "value", "out"):
            found[f"{name}{layer}"] = matrix(C, C, C**-0.5)
        found[f"up{layer}"], found[f"down{layer}"] = matrix(INNER, C, C**-0.5), matrix(C, INNER, INNER**-0.5)
    return found


def zeros_like(parameters: dict[str, Matrix]) -> dict[str, Matrix]:
    """形状一样的零。"""
    return {name: [[0.0] * len(row) for row in matrix] for name, matrix in parameters.items()}


def attention(q: Matrix, k: Matrix, v: Matrix) -> tuple[Matrix, list[list[Vector]]]:
    """每个位置把以前的值按相似度混起来。返回混好的 (T, C)，和各头各位置的权重。"""
    mixed, kept, width = [], [], C // HEADS
    for t in range(len(q)):
        row, weights = [], []
        for head in range(HEADS):
            part = slice(head * width, (head + 1) * width)
            w = softmax([dot(q[t][part], k[s][part]) / math.sqrt(width) for s in range(t + 1)])
            row += [dot(w, [v[s][c] for s in range(t + 1)]) for c in range(part.start, part.stop)]
            weights.append(w)
        mixed.append(row)
        kept.append(weights)
    return mixed, kept


def attention_back(
    q: Matrix, k: Matrix, v: Matrix, kept: list, dmixed: Matrix
) -> tuple[Matrix, Matrix, Matrix]:
    """dq、dk、dv，各 (T, C)。"""
    width, T = C // HEADS, len(q)
    dq, dk, dv = ([[0.0] * C for _ in range(T)] for _ in range(3))
    for t in range(T):
        for head in range(HEADS):
            first = head * width
            w, d = kept[t][head], dmixed[t][first : first + width]
            dw = [dot(d, v[s][first : first + width]) for s in range(t + 1)]
            along = dot(w, dw)
            for s in range(t + 1):
                # softmax 的导数：w (dw - Σ w dw)；再除以 √width，因为分数除过
                dscore = w[s] * (dw[s] - along) / math.sqrt(width)
                for c in range(width):
                    dq[t][first + c] += dscore * k[s][first + c]
                    dk[s][first + c] += dscore * q[t][first + c]
                    dv[s][first + c] += w[s] * d[c]
    return dq, dk, dv


def block(p: dict[str, Matrix], layer: int, x: Matrix) -> tuple[Matrix, tuple]:
    """一个 Transformer 块，(T, C) → (T, C)；第二个返回值是向后时要用的中间结果。"""
    a = [norm(row) for row in x]
    q, k, v = ([times(p[f"{name}{layer}"], row) for row in a] for name in ("query", "key", "value"))
    mixed, kept = attention(q, k, v)
    y = [add(row, times(p[f"out{layer}"], m)) for row, m in zip(x, mixed)]
    b = [norm(row) for row in y]
    h = [[max(value, 0.0) for value in times(p[f"up{layer}"], row)] for row in b]  # ReLU，(T, INNER)
    z = [add(row, times(p[f"down{layer}"], inner)) for row, inner in zip(y, h)]
    return z, (x, a, q, k, v, mixed, kept, y, b, h)


def block_back(p: dict[str, Matrix], g: dict[str, Matrix], layer: int, saved: tuple, dz: Matrix) -> Matrix:
    """倒着走一遍：dz → dx，路上把每个矩阵的梯度加进 g。"""
    x, a, q, k, v, mixed, kept, y, b, h = saved
    names = {name: f"{name}{layer}" for name in ("query", "key", "value", "out", "up", "down")}
    dy = []
    for t, d in enumerate(dz):
        dh = times_back(p[names["down"]], g[names["down"]], h[t], d)
        dh = [value if inner > 0 else 0.0 for value, inner in zip(dh, h[t])]  # ReLU 关着的，梯度过不去
        db = times_back(p[names["up"]], g[names["up"]], b[t], dh)
        dy.append(add(d, norm_back(y[t], db)))  # 残差：梯度直接过去一份
    dmixed = [times_back(p[names["out"]], g[names["out"]], m, d) for m, d in zip(mixed, dy)]
    dq, dk, dv = attention_back(q, k, v, kept, dmixed)
    dx = []
    for t, d in enumerate(dy):
        da = [0.0] * C
        for name, part in (("query", dq), ("key", dk), ("value", dv)):
            da = add(da, times_back(p[names[name]], g[names[name]], a[t], part[t]))
        dx.append(add(d, norm_back(x[t], da)))
    return dx


def forward(p: dict[str, Matrix], ids: list[int]) -> tuple[Matrix, list]:
    """一行字的分数 (T, V)，和向后要用的东西。"""
    x = [add(p["letters"][token], p["places"][t]) for t, token in enumerate(ids)]  # (T, C)
    saved = []
    for layer in range(LAYERS):
        x, kept = block(p, layer, x)
        saved.append(kept)
    y = [norm(row) for row in x]
    return [times(p["letters"], row) for row in y], [saved, x, y]


def loss_and_gradient(p: dict[str, Matrix], ids: list[int], targets: list[int]) -> tuple[float, dict]:
    """平均每个字的损失（-ln 概率），和所有参数的梯度。"""
    scores, (saved, x, y) = forward(p, ids)
    g, loss, dx = zeros_like(p), 0.0, []
    for t, target in enumerate(targets):
        chances = softmax(scores[t])
        loss -= math.log(chances[target]) / len(targets)
        # 交叉熵加 softmax 的导数最简单：概率减去正确答案
        d = [(chance - (token == target)) / len(targets) for token, chance in enumerate(chances)]
        dx.append(norm_back(x[t], times_back(p["letters"], g["letters"], y[t], d)))
    for layer in reversed(range(LAYERS)):
        dx = block_back(p, g, layer, saved[layer], dx)
    for t, token in enumerate(ids):
        g["letters"][token] = add(g["letters"][token], dx[t])
        g["places"][t] = add(g["places"][t], dx[t])
    return loss, g


# ---- 三、训练 -----------------------------------------------------------------------------------


def adam(p: dict, g: dict, first: dict, second: dict, step: int) -> None:
    """每个参数按自己的梯度动一小步：方向看最近的平均，步子按最近的大小调。"""
    for name, matrix in p.items():
        for row, grads, m, s in zip(matrix, g[name], first[name], second[name]):
            for i, grad in enumerate(grads):
                if not grad and not m[i]:
                    continue
                m[i] += (1 - BETA_1) * (grad - m[i])
                s[i] += (1 - BETA_2) * (grad * grad - s[i])
                size = math.sqrt(s[i] / (1 - BETA_2**step)) + TINY
                row[i] -= RATE * m[i] / (1 - BETA_1**step) / size


def recite(p: dict[str, Matrix], alphabet: list[str], opening: str) -> str:
    """从开头接着背，每次取分数最高的字，到行尾为止。"""
    ids, length = [alphabet.index(letter) for letter in END + opening], len(p["places"])
    while len(ids) < length:
        scores = forward(p, ids)[0][-1]
        ids.append(scores.index(max(scores)))
        if alphabet[ids[-1]] == END:
            break
    return "".join(alphabet[token] for token in ids).strip(END)


def train(seed: int = 1, say=print, most_steps: int = 2000) -> tuple[dict[str, Matrix], list[str], int]:
    """训练到十行全背下来；返回参数、字表和步数。"""
    alphabet = sorted(set("".join(LINES)) | {END})
    chance = random.Random(seed)
    p = new_parameters(len(alphabet), max(map(len, LINES)) + 1, chance)
    first, second, start = zeros_like(p), zeros_like(p), time.monotonic()
    mean = math.log(len(alphabet))
    for step in range(1, most_steps + 1):
        ids = [alphabet.index(letter) for letter in END + chance.choice(LINES) + END]
        loss, g = loss_and_gradient(p, ids[:-1], ids[1:])
        adam(p, g, first, second, step)
        mean += 0.05 * (loss - mean)
        if step % 50 == 0:
            known = sum(recite(p, alphabet, line[:2]) == line for line in LINES)
            say(f"第 {step} 步  损失 {mean:.3f}  背下 {known}/10 行  {time.monotonic() - start:.0f} 秒")
            if known == len(LINES):
                return p, alphabet, step
    raise SystemExit(f"{most_steps} 步还没有背下来")


def main() -> None:
    """命令行。"""
    p, alphabet, _ = train(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for line in LINES:
        print(f"{line[:2]} → {recite(p, alphabet, line[:2])}")


if __name__ == "__main__":
    main()
