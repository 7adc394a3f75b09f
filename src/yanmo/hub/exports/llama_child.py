"""llama.cpp in a process of its own: ``python -m yanmo.hub.exports.llama_child``, which answers in JSON.

In: the path of a .gguf, a text to tokenise, a prompt to continue greedily, and rows of tokens with their
logits in .npy files. A separate process, since llama.cpp may abort on a bad file and prints to stderr.
"""

import json
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Answer one question."""
    asked = json.load(sys.stdin)
    sys.stdout.write(json.dumps(answer(**asked)) + "\n")


def answer(path: str, text: str, prompt: list[int], count: int, rows: str, logits: str) -> dict[str, Any]:
    """Tokens of the text, the continuation, and how the logits of the rows compare."""
    import llama_cpp
    from llama_cpp import llama_cpp as library

    make_parameters = library.llama_model_default_params

    def plain_parameters() -> Any:
        """Without repacking weights for AMX: for small matrices that path aborts the process."""
        parameters = make_parameters()
        parameters.use_extra_bufts = False
        return parameters

    library.llama_model_default_params = plain_parameters
    ids, expected = np.load(rows), np.load(logits)  # (R, T), (R, T, V)
    model: Any = llama_cpp.Llama(
        path, n_ctx=ids.shape[1], verbose=True, logits_all=True, type_k=0, type_v=0, flash_attn=False
    )  # type 0 is float32, for the KV cache: its default, float16, would hide small differences
    tokens = model.tokenize(text.encode("utf-8"), add_bos=False, special=False)
    text_again = model.detokenize(tokens).decode("utf-8", "replace")
    largest, agree = 0.0, 0
    for row, theirs in zip(ids.tolist(), expected, strict=True):
        model.reset()
        model.eval(row)
        found = np.array(model.scores[: len(row)])
        largest = max(largest, float(np.abs(found - theirs).max()))
        agree += int((found.argmax(-1) == theirs.argmax(-1)).sum())
    model.reset()
    model.eval(prompt)
    written = []
    for _ in range(count):
        written.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(written[-1:])
    return {
        "version": llama_cpp.__version__,
        "tokens": tokens,
        "text": text_again,
        "written": written,
        "difference": largest,
        "agreement": agree / ids.size,
    }


if __name__ == "__main__":
    main()
