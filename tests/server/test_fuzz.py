"""Strange values in every field: a sentence is the worst that comes of them."""

import json
import math
import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.makers.models import TOKENIZER, lively_model
from tests.makers.servers import CHAT, COMPLETIONS, RunningServer, served, serving
from yanmo.server.requests import CompletionRequest
from yanmo.settings.schema import SampleConfig

JSON = {"Content-Type": "application/json"}
FIELDS = sorted({
    *CompletionRequest.model_fields, *SampleConfig.model_fields, "max_tokens", "messages", "n_probs", "seed",
    "rep_pen", "dry_multiplier", "xtc_probability", "mirostat", "suffix", "user", "no_such_field", "\ud800",
})  # fmt: skip
SPECIAL: list[Any] = [
    math.nan, math.inf, -math.inf, -1, 0, 1, -0.0, 0.5, 2**31, 2**31 - 1, 2**53, 2**64, -(2**63), 10**400, 1e308, 1e-320,
    "1", "", "NaN", " ", "\0", "\ud800", "a\udfff", "江" * 3000, "😀\u200d\u202e", None, True, False,
    [], {}, [None], [[]], [[[]]], [""], ["江"], ["\ud800"], [1], [-1], [2**70], [1.5], [True], {"a": 1}, {"1": 1e9},
    {"1": "x"}, {"-1": 1}, {"type": "text"}, [{"role": "user", "content": "江"}], [{"role": 1}],
    [{"role": "user", "content": [{"type": "image"}]}], {"include_usage": "maybe"},
]  # fmt: skip
HUGE: list[Any] = [
    "江" * 350_000, ["江"] * 1_000_000, [1] * 1_000_000, [None] * 1_000_000, [[1]] * 300_000, "\ud800" * 100_000,
    dict.fromkeys(map(str, range(100_000)), 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving([served("char", lively_model(32), TOKENIZER)]) as running:
        yield running


def strange(rng: random.Random) -> Any:
    """A value that nobody would send, or somebody would."""
    if rng.random() < 0.5:
        return rng.choice(SPECIAL)
    if rng.random() < 0.3:
        return [strange(rng) for _ in range(rng.randrange(4))]
    if rng.random() < 0.3:
        return {str(strange(rng))[:20]: strange(rng) for _ in range(rng.randrange(3))}
    return rng.choice([
        rng.uniform(-1, 1) * 10 ** rng.randrange(-300, 300), rng.randrange(-(2**70), 2**70),
        "".join(chr(rng.randrange(sys.maxunicode + 1)) for _ in range(rng.randrange(30))),
    ])  # fmt: skip


def check(server: RunningServer, body: str) -> None:
    for path in (COMPLETIONS, CHAT):
        answer = server.client.post(path, content=body.encode("utf-8", "surrogatepass"), headers=JSON)
        shown = f"{path} {body[:300]} → {answer.status_code} {answer.text[:300]}"
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, shown
        if answer.status_code != 200:
            error = answer.json()["error"]
            assert isinstance(error["message"], str) and len(error["message"]) > 5, shown
            assert len(answer.content) < 10_000, shown


def try_field(server: RunningServer, field: str, values: list[Any]) -> None:
    for value in values:
        usual = {"prompt": "江湖", "max_tokens": 2, "messages": [{"role": "user", "content": "江"}]}
        check(server, json.dumps(usual | {field: value}))
    server.ask(prompt="江湖", max_tokens=2)
    server.waits_for(running=0)


@pytest.mark.parametrize("field", FIELDS, ids=ascii)
def test_a_strange_value_is_answered_in_a_sentence(
    server: RunningServer, field: str, drawn_seed: int
) -> None:
    rng = random.Random(f"{field!a} {drawn_seed}")
    try_field(server, field, [strange(rng) for _ in range(6)])


@pytest.mark.slow
@pytest.mark.parametrize("field", FIELDS, ids=ascii)
def test_400_strange_values_are_answered_in_a_sentence(
    server: RunningServer, field: str, drawn_seed: int
) -> None:
    rng = random.Random(f"{field!a} {drawn_seed + 1}")
    rest = 400 - len(SPECIAL) - len(HUGE)
    try_field(server, field, [*SPECIAL, *HUGE, *(strange(rng) for _ in range(rest))])


@pytest.mark.parametrize(
    "body",
    ["", "[", "null", "1", "[]", '"江"', "{", '{"prompt": NaN}', "[" * 100_000, '{"prompt":' * 100_000, "9" * 5000,
     '{"prompt": "' + "江" * 400_000 + '", "max_tokens": 1}', '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}",
     "\ufeff{}", '{"prompt": "\\ud800"}'],
    ids=lambda body: ascii(body[:12]),
)  # fmt: skip
def test_a_strange_body_is_answered_in_a_sentence(server: RunningServer, body: str) -> None:
    check(server, body)


@pytest.mark.parametrize(
    "path", ["/tokenize", "/detokenize", "/yanmo/outline", "/yanmo/choices", "/yanmo/copied"]
)
def test_other_routes_answer_in_sentences_too(server: RunningServer, path: str, drawn_seed: int) -> None:
    rng = random.Random(f"{path} {drawn_seed}")
    for _ in range(30):
        body = {
            field: strange(rng)
            for field in ("model", "prompt", "content", "tokens", "text", "chosen", "characters")
        }
        kept = {field: value for field, value in body.items() if rng.random() < 0.6 and field != "model"}
        answer = server.client.post(path, content=json.dumps(kept), headers=JSON)
        assert answer.status_code < 500, f"{path} {ascii(kept)[:300]} → {answer.text[:300]}"
