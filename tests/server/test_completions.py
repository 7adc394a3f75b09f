"""POST /v1/completions, asked as clients ask."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.makers.models import TOKENIZER, TOKENIZERS, lively_model
from tests.makers.servers import RunningServer, served, serving
from yanmo.generate.engine import RunningSequence, TokenChoice
from yanmo.generate.sampling import TokenConstraints
from yanmo.generate.score import score
from yanmo.generate.text import encode_prompt, write_all
from yanmo.generate.text_engine import TextEngine
from yanmo.server.answers import TokenEntry, as_json, legacy_logprobs
from yanmo.server.engine_thread import ROWS
from yanmo.settings.schema import SampleConfig

KINDS = list(TOKENIZERS)
WINDOW = 64
PROMPT = "江湖夜雨十年灯，"
LIVELY: dict[str, Any] = {"temperature": 1.3, "top_p": 1, "max_tokens": 24}
CHAR = served("char", lively_model(WINDOW), TOKENIZER)
"""The model of requests that name none."""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    others = [
        served(kind, lively_model(WINDOW, make().vocab_size), make())
        for kind, make in TOKENIZERS.items()
        if kind != "char"
    ]
    with serving([CHAR, *others]) as running:
        yield running


def joined(events: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """The pieces of one choice as one."""
    pieces = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    whole = {**pieces[-1], "text": "".join(piece["text"] for piece in pieces)}
    if whole["logprobs"]:
        whole["logprobs"] = {
            key: [one for piece in pieces for one in piece["logprobs"][key]] for key in whole["logprobs"]
        }
    return whole


def offline(name: str, server: RunningServer, prompt: str, config: SampleConfig) -> list[TokenChoice]:
    """What the engine with a server's rows writes when nobody else is there."""
    writer = server.models[name].writer
    engine = TextEngine(writer.model, writer.tokenizer, ROWS)
    read = encode_prompt(writer.tokenizer, prompt, config, WINDOW)
    row = RunningSequence(
        read.ids, config, TokenConstraints.of(writer.tokenizer, config), alternatives=5, pinned=read.pinned
    )
    engine.add(row)
    while engine.is_busy:
        engine.step()
    return row.choices


# -- prompts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_a_text_or_ids_and_there_may_be_several(server: RunningServer, kind: str) -> None:
    asked = {**LIVELY, "model": kind, "seed": 3}
    ids = [server.models[kind].writer.tokenizer.encode(prompt).tolist() for prompt in (PROMPT, "夜雨")]
    alone = [server.text(prompt=prompt, **asked) for prompt in (PROMPT, "夜雨")]
    assert [server.text(prompt=one, **asked) for one in ids] == alone
    for several in ([PROMPT, "夜雨"], ids):
        answer = server.ask(prompt=several, **asked)
        assert [choice["text"] for choice in answer["choices"]] == alone
        assert [choice["index"] for choice in answer["choices"]] == [0, 1]
        assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_a_prompt_may_be_empty_or_left_out(server: RunningServer) -> None:
    text = write_all(CHAR.writer.model, TOKENIZER, "", SampleConfig(max_new_tokens=9, temperature=0))[0]
    assert server.text(prompt="", max_tokens=9, temperature=0) == text
    assert server.text(max_tokens=9, temperature=0) == text


def test_of_too_long_a_prompt_the_end_is_continued_and_that_is_said(server: RunningServer) -> None:
    long = PROMPT * 20
    answer = server.ask(prompt=long, **LIVELY, seed=1)
    assert answer["yanmo"]["dropped_tokens"] == len(long) - WINDOW
    assert answer["usage"]["prompt_tokens"] == len(long)
    assert answer["choices"][0]["text"] == server.text(prompt=long[-WINDOW:], **LIVELY, seed=1)
    assert server.ask(prompt=PROMPT, **LIVELY)["yanmo"]["dropped_tokens"] == 0
    scored = server.ask(prompt=long, echo=True, logprobs=0, max_tokens=0)
    assert scored["yanmo"]["dropped_tokens"] == 0 and scored["choices"][0]["text"] == long


def test_what_is_pinned_stays_in_front_of_the_window(server: RunningServer) -> None:
    long, notes = PROMPT * 20, "桃李春风"
    answer = server.ask(prompt=long, pinned=notes, **LIVELY, seed=1)
    read = notes + long[-(WINDOW - len(notes)) :]
    assert answer["yanmo"]["dropped_tokens"] == len(long) - (WINDOW - len(notes))
    first = server.text(prompt=read, **LIVELY | {"max_tokens": 1}, seed=1)
    assert answer["choices"][0]["text"][0] == first
    assert server.post(prompt="", pinned="江" * WINDOW).json()["error"]["param"] == "pinned"


# -- texts ------------------------------------------------------------------------------------


def test_a_seed_writes_the_same_again_and_one_that_was_drawn_is_said(server: RunningServer) -> None:
    drawn = server.ask(prompt=PROMPT, **LIVELY)
    again = server.text(prompt=PROMPT, **LIVELY, seed=drawn["yanmo"]["seed"])
    assert again == drawn["choices"][0]["text"]
    assert server.text(prompt=PROMPT, **LIVELY, seed=drawn["yanmo"]["seed"] + 1) != again


def test_n_texts_are_the_samples_of_one_seed(server: RunningServer) -> None:
    answer = server.ask(prompt=PROMPT, **LIVELY, seed=5, n=ROWS)
    config = SampleConfig(temperature=1.3, top_p=1, max_new_tokens=24, seed=5, num_samples=ROWS)
    expected = write_all(CHAR.writer.model, TOKENIZER, PROMPT, config)
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert len(set(expected)) == ROWS
    assert answer["usage"]["completion_tokens"] <= 24 * ROWS


def test_the_best_of_several_are_those_that_the_model_finds_likeliest(server: RunningServer) -> None:
    asked = {**LIVELY, "prompt": [PROMPT, "夜雨"], "seed": 5}
    every = server.ask(**asked, n=6)["choices"]
    best = server.ask(**asked, n=2, best_of=6)["choices"]
    for prompt in (0, 1):
        by_worth = sorted(every[6 * prompt :][:6], key=lambda one: -one["yanmo"]["mean_logprob"])
        assert [one["text"] for one in best[2 * prompt :][:2]] == [one["text"] for one in by_worth[:2]]
    assert [one["index"] for one in best] == [0, 1, 2, 3]
    assert server.post(**asked, n=3, best_of=2).json()["error"]["param"] == "best_of"
    assert server.post(**asked, best_of=2, stream=True).json()["error"]["param"] == "best_of"


def test_too_many_texts_are_refused_at_once_and_not_as_if_others_were_in_the_way(
    server: RunningServer,
) -> None:
    answer = server.post(prompt=["江"] * 33, n=2, max_tokens=1)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_ends_before_a_stop_text(server: RunningServer, kind: str) -> None:
    asked = {**LIVELY, "model": kind, "prompt": PROMPT, "seed": 2, "logprobs": 1}
    whole = server.ask(**asked)["choices"][0]
    for start in (3, 7):
        stop = whole["text"][start : start + 2]
        assert stop
        for answer in (
            server.ask(**asked, stop=[stop])["choices"][0],
            joined(server.stream(**asked, stop=[stop])),
        ):
            assert answer["text"] == whole["text"][: whole["text"].index(stop)]
            assert answer["finish_reason"] == "stop"
            tokens = answer["logprobs"]["tokens"]
            assert tokens == whole["logprobs"]["tokens"][: len(tokens)]
            offsets = answer["logprobs"]["text_offset"]
            assert all(offset < len(PROMPT) + len(answer["text"]) for offset in offsets)
    assert server.text(**asked, stop=whole["text"][:1]) == ""


def test_a_text_is_as_long_as_asked_or_ends_itself(server: RunningServer) -> None:
    long = server.ask(
        prompt=PROMPT, max_tokens=3, temperature=0, logit_bias={str(TOKENIZER.end_of_text): -100}
    )
    assert long["choices"][0]["finish_reason"] == "length"
    assert long["usage"]["completion_tokens"] == 3
    ended = server.ask(prompt=PROMPT, logit_bias={str(TOKENIZER.end_of_text): 100}, temperature=0, logprobs=1)
    (choice,) = ended["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    assert choice["logprobs"]["tokens"] == ["<|endoftext|>"]


def test_a_biased_token_is_written(server: RunningServer) -> None:
    token = int(TOKENIZER.encode("酒")[0])
    assert server.text(prompt=PROMPT, temperature=0, max_tokens=5, logit_bias={str(token): 100}) == "酒" * 5
    unknown = server.post(prompt=PROMPT, logit_bias={"999999": 1})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (400, "logit_bias")


def test_what_is_banned_is_not_written_and_not_streamed(server: RunningServer) -> None:
    asked = {**LIVELY, "prompt": PROMPT, "seed": 2}
    phrase = server.text(**asked)[4:7]
    text = server.text(**asked, banned=[phrase])
    assert phrase not in text and len(text) > 10
    events = server.stream(**asked, banned=[phrase])
    assert joined(events)["text"] == text
    assert phrase not in "".join(event["choices"][0]["text"] for event in events)


def test_nothing_written_is_an_answer_too(server: RunningServer) -> None:
    for choices in (
        server.ask(prompt=PROMPT, max_tokens=0, n=2)["choices"],
        [c for event in server.stream(prompt=PROMPT, max_tokens=0, n=2) for c in event["choices"]],
    ):
        assert [(c["index"], c["text"], c["finish_reason"]) for c in choices] == [
            (0, "", "length"),
            (1, "", "length"),
        ]


# -- log probabilities ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_chosen_token_is_among_the_likeliest_with_the_very_same_number(
    server: RunningServer, kind: str
) -> None:
    for top in (1, 3, 20):
        asked = {**LIVELY, "model": kind, "prompt": PROMPT, "seed": 1, "logprobs": top, "echo": True}
        said = server.ask(**asked)["choices"][0]["logprobs"]
        assert len({len(column) for column in said.values()}) == 1
        rows = list(zip(said["tokens"], said["token_logprobs"], said["top_logprobs"], strict=True))
        assert rows[0][1:] == (None, None)
        for token, logprob, others in rows[1:]:
            assert others[token] == logprob <= 0
            assert top <= len(others) <= top + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_stands_where_its_text_begins(server: RunningServer, kind: str) -> None:
    """In code points, of the text that came; tokens that are parts of a character stand where it begins."""
    asked = {**LIVELY, "model": kind, "prompt": PROMPT, "seed": 4, "logprobs": 0, "max_tokens": 60}
    answer = server.ask(**asked, echo=True)["choices"][0]
    said, text = answer["logprobs"], answer["text"]
    places = list(zip(said["tokens"], said["text_offset"], strict=True))
    assert [offset for _, offset in places] == sorted(offset for _, offset in places)
    pending = 0
    for number, (token, offset) in enumerate(places):
        if not token.startswith(("bytes:", "<|", "[", "##")) and kind != "wordpiece":
            assert text[offset:].startswith(token), (number, token, text[offset : offset + 4])
        if token.startswith("bytes:"):
            pending += 1
            assert offset < len(text)
    assert (pending > 0) == (kind in ("bpe", "unigram"))
    written = server.ask(**asked)["choices"][0]
    assert written["logprobs"]["text_offset"][0] == len(PROMPT)
    first = server.ask(**asked | {"prompt": ""})["choices"][0]
    assert first["logprobs"]["text_offset"][0] == 0


def test_the_bytes_of_one_character_stand_together(server: RunningServer) -> None:
    answer = server.ask(model="bpe", prompt="a龘b", echo=True, max_tokens=0, logprobs=1)["choices"][0]
    said = answer["logprobs"]
    parts = [f"bytes:\\x{byte:02x}" for byte in "龘".encode()]
    assert said["tokens"] == ["a", *parts, "b"]
    assert said["text_offset"] == [0, 1, 1, 1, 2]
    assert answer["text"] == "a龘b"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [1, 8, WINDOW - 1, WINDOW, WINDOW + 1, 200])
def test_a_text_given_back_has_the_numbers_of_score(server: RunningServer, kind: str, length: int) -> None:
    """Whatever its length; with max_tokens 1 there is one entry more, which lm-eval drops."""
    writer = server.models[kind].writer
    ids = writer.tokenizer.encode(PROMPT * 30)[:length].tolist()
    expected = [one.logprob for one in score(writer.model, np.array(ids), writer.tokenizer.end_of_text)]
    for more in (0, 1):
        answer = server.ask(model=kind, prompt=ids, echo=True, max_tokens=more, logprobs=2, temperature=0)
        (choice,) = answer["choices"]
        said = choice["logprobs"]
        assert {len(column) for column in said.values()} == {length + more}
        assert said["token_logprobs"][0] is None and said["top_logprobs"][0] is None
        assert said["token_logprobs"][1:length] == expected[1:]
        assert choice["finish_reason"] == "length"
        assert answer["usage"] == {
            "prompt_tokens": length, "completion_tokens": more, "total_tokens": length + more,
        }  # fmt: skip


def test_the_end_of_text_before_a_text_is_its_null(server: RunningServer) -> None:
    """lm-eval puts it there itself."""
    end, ids = TOKENIZER.end_of_text, TOKENIZER.encode(PROMPT).tolist()
    asked: dict[str, Any] = {"echo": True, "logprobs": 1, "temperature": 0}
    said = server.ask(prompt=[end, *ids], max_tokens=0, **asked)["choices"][0]["logprobs"]
    expected = [one.logprob for one in score(CHAR.writer.model, np.array(ids), end)]
    assert said["token_logprobs"] == [None, *expected]
    assert said["text_offset"] == [0, *range(len(ids))]
    for more in (0, 1):
        alone = server.ask(prompt=[end], max_tokens=more, **asked)["choices"][0]["logprobs"]
        assert len(alone["tokens"]) == 1 + more
        assert alone["token_logprobs"][0] is None


def test_what_cannot_be_is_a_number_that_json_has() -> None:
    assert [as_json(value) for value in (-math.inf, math.nan, -0.5)] == [-9999, -9999, -0.5]
    entry = TokenEntry(TokenChoice(1, -math.inf, ((0, -0.1), (1, -math.inf))), 0)
    said = legacy_logprobs([entry], ["a", "b"], 2)
    assert said["token_logprobs"] == [-9999]
    assert said["top_logprobs"] == [{"a": -0.1, "b": -9999}]


def test_too_many_numbers_for_one_answer_are_refused(server: RunningServer) -> None:
    answer = server.post(prompt=PROMPT * 20000, echo=True, max_tokens=0, logprobs=20)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")


def test_a_text_that_is_given_back_counts_as_often_as_it_is_given(server: RunningServer) -> None:
    long = PROMPT * 4000
    answer = server.post(prompt=long, echo=True, max_tokens=0, n=64)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


# -- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"echo": True}, {"echo": True, "max_tokens": 0}, {"logprobs": None}])
def test_the_pieces_of_a_stream_are_the_answer_not_streamed(
    server: RunningServer, kind: str, more: dict[str, Any]
) -> None:
    """U+FFFD of broken bytes, names, offsets and all numbers included."""
    for seed in range(3):
        asked = {**LIVELY, "model": kind, "prompt": PROMPT, "seed": seed, "n": 2, "logprobs": 3} | more
        whole, events = server.ask(**asked), server.stream(**asked)
        assert [joined(events, index) for index in (0, 1)] == whole["choices"]
        assert events[0]["yanmo"] == whole["yanmo"]
        assert all("yanmo" not in event for event in events[1:])
        ends = [c for event in events for c in event["choices"] if c["finish_reason"]]
        assert sorted(end["index"] for end in ends) == [0, 1]
        assert len({event["id"] for event in events}) == 1
        assert all("usage" not in event for event in events)


def test_broken_bytes_were_among_them(server: RunningServer) -> None:
    texts = [server.text(**LIVELY, model="bpe", prompt=PROMPT, seed=seed) for seed in range(6)]
    assert any("\ufffd" in text for text in texts)


def test_a_stream_counts_tokens_only_when_asked(server: RunningServer) -> None:
    asked = {**LIVELY, "prompt": PROMPT, "seed": 1}
    last = server.stream(**asked, stream_options={"include_usage": True})[-1]
    assert last["choices"] == []
    assert last["usage"] == server.ask(**asked)["usage"]
    assert all("usage" not in event for event in server.stream(**asked, stream_options={}))


def test_a_refusal_of_a_stream_has_a_status(server: RunningServer) -> None:
    answer = server.post(prompt=PROMPT, stream=True, no_such_sampler=0.5)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "no_such_sampler")


# -- fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [{"xtc_probability": 0.5}, {"dry_multiplier": 0.8}, {"mirostat_mode": 2}, {"suffix": "灯"}, {"typical_p": 0.9},
     {"grammar": "root ::= x"}, {"custom": [1]}],
)  # fmt: skip
def test_a_field_that_would_act_and_is_unknown_is_named(server: RunningServer, field: dict[str, Any]) -> None:
    answer = server.post(prompt=PROMPT, **field)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, next(iter(field)))
    assert error["param"] in error["message"] and "yanmo does not know it" in error["message"]


def test_a_value_that_cannot_be_is_refused_by_the_name_that_was_sent(server: RunningServer) -> None:
    for name, value in (
        ("temperature", -1),
        ("top_p", 7),
        ("max_tokens", "many"),
        ("n", 0),
        ("logprobs", 21),
    ):
        error = server.post(prompt=PROMPT, **{name: value}).json()["error"]
        assert error["param"] == name and error["type"] == "invalid_request_error"


def test_names_of_other_servers_mean_ours(server: RunningServer) -> None:
    ours = server.text(
        prompt=PROMPT, seed=1, max_tokens=20, repetition_penalty=1.4, penalty_window=9, stop=["灯"]
    )
    theirs = server.text(
        prompt=PROMPT, sampler_seed=1, n_predict=20, rep_pen=1.4, rep_pen_range=9, stopping_strings=["灯"]
    )
    assert ours == theirs
    assert ours != server.text(prompt=PROMPT, seed=1, max_tokens=20, stop=["灯"])


SILLY_TAVERN: dict[str, Any] = {
    "prompt": PROMPT, "model": "char", "max_new_tokens": 12, "max_tokens": 12, "logprobs": 10, "temperature": 0.9,
    "top_p": 0.95, "typical_p": 1, "typical": 1, "sampler_seed": -1, "seed": -1, "min_p": 0.02,
    "repetition_penalty": 1.05, "frequency_penalty": 0, "presence_penalty": 0, "top_k": -1, "skew": 0,
    "min_tokens": 0, "length_penalty": 1, "early_stopping": False, "add_bos_token": True,
    "smoothing_factor": 0, "smoothing_curve": 1, "dry_allowed_length": 2, "dry_multiplier": 0, "dry_base": 1.75,
    "dry_sequence_breakers": [], "dry_penalty_last_n": 0, "max_tokens_second": 0, "sampler_priority": [],
    "samplers": ["top_k", "min_p"], "stopping_strings": ["\n旁白："], "stop": ["\n旁白："],
    "truncation_length": 4096, "ban_eos_token": False, "skip_special_tokens": True, "include_reasoning": True,
    "top_a": 0, "tfs": 1, "tfs_z": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "mirostat_mode": 0, "mirostat": 0,
    "mirostat_tau": 5, "mirostat_eta": 0.1, "custom_token_bans": "", "banned_strings": [], "api_type": "generic",
    "api_server": "http://127.0.0.1:8000", "sampler_order": [6, 0, 1], "xtc_threshold": 0.1, "xtc_probability": 0,
    "nsigma": 0, "top_n_sigma": 0, "min_keep": 0, "rep_pen": 1.05, "rep_pen_range": 0, "repetition_penalty_range": 0,
    "repeat_penalty": 1.05, "repeat_last_n": 0, "guidance_scale": 1, "negative_prompt": "", "grammar_string": "",
    "grammar": "", "json_schema": {}, "dynamic_temperature": False, "dynatemp_low": 1, "dynatemp_high": 1,
    "dynatemp_range": 0, "dynatemp_exponent": 1, "encoder_repetition_penalty": 1, "no_repeat_ngram_size": 0,
    "penalty_alpha": 0, "num_beams": 1, "do_sample": True, "temperature_last": True, "speculative_ngram": False,
    "spaces_between_special_tokens": True, "ignore_eos": False, "n": 1, "n_predict": 12, "cache_prompt": True,
    "adaptive_target": -0.01, "adaptive_decay": 0.9, "stream": True, "logit_bias": {},
}  # fmt: skip
"""Every sampler it knows, switched off or not, as its text completions send them."""
MIKUPAD: dict[str, Any] = {
    "model": "char", "prompt": PROMPT, "stream": True, "temperature": 0.7, "dynatemp_range": 0, "dynatemp_exponent": 1,
    "repetition_penalty": 1.1, "repeat_penalty": 1.1, "repeat_last_n": 256, "penalize_nl": False,
    "presence_penalty": 0, "frequency_penalty": 0, "top_k": 40, "top_p": 0.95, "typical_p": 1, "tfs_z": 1, "min_p": 0,
    "max_tokens": 12, "n_predict": 12, "n_probs": 10, "logprobs": 10, "seed": -1, "stop": [], "ignore_eos": False,
    "logit_bias": {}, "cache_prompt": True, "t_max_predict_ms": 0,
}  # fmt: skip


@pytest.mark.parametrize("body", [SILLY_TAVERN, MIKUPAD], ids=["SillyTavern", "mikupad"])
def test_bodies_of_writers_programs_are_answered(server: RunningServer, body: dict[str, Any]) -> None:
    choice = joined(server.stream(**body))
    assert 0 < len(choice["text"]) <= 12
    assert all(len(others) >= 10 for others in choice["logprobs"]["top_logprobs"])


# -- the same alone and in a crowd ------------------------------------------------------------


def test_a_seeds_text_and_every_bit_of_its_numbers_are_the_same_in_a_crowd(server: RunningServer) -> None:
    """And as the engine gives them offline."""
    asked = {
        "prompt": PROMPT * 5,
        "seed": 11,
        "temperature": 1.2,
        "max_tokens": 40,
        "logprobs": 5,
        "top_p": 0.9,
    }
    alone = server.ask(**asked)["choices"]
    config = SampleConfig(seed=11, temperature=1.2, max_new_tokens=40, top_p=0.9)
    expected = offline("char", server, PROMPT * 5, config)
    assert alone[0]["logprobs"]["token_logprobs"] == [one.logprob for one in expected]
    names = server.models["char"].names
    assert alone[0]["logprobs"]["tokens"] == [names[one.id] for one in expected]

    def request(number: int) -> dict[str, Any]:
        if number % 5 == 0:
            return asked
        echo = {"echo": True, "logprobs": 1} if number % 7 == 0 else {}
        return {**LIVELY, "prompt": PROMPT[: number % 8] * (number % 30), "n": 1 + number % 3, **echo}

    def ask(number: int) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/completions", json=request(number), timeout=60, trust_env=False)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert all(answer.status_code == 200 for answer in answers)
    assert all(answer.json()["choices"] == alone for answer in answers[::5])


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_is_the_same_here_and_from_generate(server: RunningServer, kind: str) -> None:
    """But where the two likeliest tokens are closer than float32 can tell among rows of another number."""
    writer = server.models[kind].writer
    config = SampleConfig(temperature=0, max_new_tokens=40)
    text = write_all(writer.model, writer.tokenizer, PROMPT, config)[0]
    choice = server.ask(model=kind, prompt=PROMPT, temperature=0, max_tokens=40, logprobs=2)["choices"][0]
    near = 0
    for others in choice["logprobs"]["top_logprobs"]:
        first, second = sorted(others.values(), reverse=True)[:2]
        near += first - second < 1e-4
    assert near == 0 and choice["text"] == text
