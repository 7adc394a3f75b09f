"""How long one waits: for ``yanmo --help``, and for the first character of a text, beside transformers.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds 3

All commands take turns, each in a process of its own; the first round warms the caches and is not counted. An
82M GPT-2 (10 layers, 768 wide, window 1024, vocabulary 13,317) with random weights writes one character after
one, from the same folder: by ``yanmo generate``, and by the few lines of AutoTokenizer, AutoModelForCausalLM
and ``generate`` that transformers' users write.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import turns

from yanmo.checkpoint.folder import write_model
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.tokenizer import CharTokenizer

VOCABULARY = 13_317
FIRST = 0x4E00
YANMO = [sys.executable, "-m", "yanmo"]
TRANSFORMERS = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(tokenizer.decode(model.generate(**tokenizer("一", return_tensors="pt"), max_new_tokens=1)[0]))
"""


def main() -> None:
    """All commands in turn; median and range of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=turns.ROUNDS)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as place:
        folder = str(model_folder(Path(place) / "model"))
        commands = {
            "bare python": [sys.executable, "-c", "pass"],
            "yanmo --help": [*YANMO, "--help"],
            "yanmo generate": [*YANMO, "generate", folder, "-p", "一", "--max-new-tokens", "1"],
            "transformers": [sys.executable, "-c", TRANSFORMERS, folder],
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for counts in [False] + [True] * rounds:
            for name, command in commands.items():
                found = seconds(command)
                took[name] += [found] if counts else []
    print("| command | seconds, median (range) |\n|---|---|")
    for name, values in took.items():
        print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")
    print(turns.save("startup", {"seconds": took}))


def model_folder(
    folder: Path, characters: int = VOCABULARY, shape: tuple[int, int, int, int] = (10, 12, 768, 1024)
) -> Path:
    """A model of random weights, as a run leaves it."""
    tokenizer = CharTokenizer([chr(FIRST + number) for number in range(characters)])
    config = GPTConfig(tokenizer.vocab_size, *shape)
    model = GPT(config)
    model.initialise(0)
    folder.mkdir()
    write_model(folder, config, model.state_dict(), tokenizer)
    return folder


def seconds(command: list[str]) -> float:
    """Wall time of a command."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
