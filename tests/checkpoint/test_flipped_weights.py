"""One flipped bit in the weights of a finished run: no command writes or measures with them."""

import random
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import RUN, Trained

COMMANDS = (
    ("evaluate",),
    ("generate", "-p", "江湖", "--max-new-tokens", "4", "--seed", "1"),
    ("export", "--to", "hf", "--out", "out"),
    ("export", "--to", "gguf", "--out", "out.gguf"),
    ("export", "--to", "onnx", "--out", "out"),
)
WEIGHTS = RUN / "model" / "model.safetensors"

pytestmark = pytest.mark.slow


def flip_and_ask(flips: int, seed: int) -> None:
    rng, whole = random.Random(seed), WEIGHTS.read_bytes()
    for number in range(flips):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        WEIGHTS.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        for command, *words in COMMANDS:
            done = here(command, str(RUN), *words)
            said = f"seed {seed}, flip {number}: bit {bit} of byte {at}: {command} {words}: {done.stderr}"
            assert done.returncode == 4, said
            assert WEIGHTS.name in done.stderr, said
            assert not done.stdout.strip(), said
            assert not list(Path().glob("out*")), said
    WEIGHTS.write_bytes(whole)


@pytest.mark.long
def test_five_flipped_weights_are_refused_by_every_command(trained: Trained, drawn_seed: int) -> None:
    trained(RUN)
    flip_and_ask(flips=5, seed=drawn_seed)


@pytest.mark.nightly
def test_forty_flipped_weights_are_refused_by_every_command(trained: Trained, drawn_seed: int) -> None:
    trained(RUN)
    flip_and_ask(flips=40, seed=drawn_seed + 1)


@pytest.mark.long
def test_the_weights_as_they_were_are_not_refused(trained: Trained) -> None:
    trained(RUN)
    for command, *words in COMMANDS[:3]:
        assert here(command, str(RUN), *words).returncode == 0
