"""What a server lets through, and what it does with those who leave, flood it or end it."""

import json
import logging
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.makers.console import here
from tests.makers.models import TOKENIZER, lively_model, our_folder
from tests.makers.processes import Child, as_yanmo
from tests.makers.servers import COMPLETIONS, RunningServer, served, serving, until
from yanmo.cli.serving import listen, load_models
from yanmo.core.errors import ConfigError
from yanmo.generate.engine import RunningSequence, TokenChoice
from yanmo.generate.sampling import TokenConstraints
from yanmo.generate.writer import Writer
from yanmo.server import guard
from yanmo.server.engine_thread import ROWS, Done, Event, Job
from yanmo.server.process import address_of
from yanmo.server.served import ServedModel
from yanmo.settings.schema import CorpusConfig, SampleConfig
from yanmo.text.read.dialogues import read_dialogues
from yanmo.text.read.turns import Pair

ORIGIN, TOKEN = "https://write.example.org", "长而难猜 0123456789"
PATHS = ("/", "/page/main.js", "/health", "/metrics", "/v1/models", COMPLETIONS, "/nowhere")
JSON = {"Content-Type": "application/json"}
FINISHING = "finishing 1 text, for up to 30 seconds; once more ends at once"
ENDLESS: dict[str, Any] = {
    "prompt": "江湖",
    "max_tokens": 8000,
    "logit_bias": {str(TOKENIZER.end_of_text): -100},
}
"""Nobody waits for the end of it."""


def model(**more: Any) -> ServedModel:
    return served("char", lively_model(64), TOKENIZER, **more)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving([model()]) as running:
        yield running


@pytest.fixture(scope="module")
def closed() -> Iterator[RunningServer]:
    """A server with a token, which a page of one other origin may ask."""
    with serving([model()], token=TOKEN, origins=[ORIGIN]) as running:
        yield running


def bearing(token: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {token}".encode()}


# -- who may ask ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example.org", "", "[::1", "127.0.0.1.example.org", "localhost.evil:80"]
)
def test_a_server_is_asked_by_its_address_alone(server: RunningServer, host: str) -> None:
    """Else any page could have a name of its own point here, and read what the server says."""
    for path in PATHS:
        answer = server.client.get(path, headers={"Host": host})
        assert answer.status_code in (400, 403), path
    for known in ("127.0.0.1:1", "localhost", "localhost:8000", "[::1]:80", "10.0.0.7"):
        assert server.client.get("/health", headers={"Host": known}).status_code == 200


def test_a_host_that_was_named_is_known(closed: RunningServer) -> None:
    assert closed.client.get("/health", headers={"Host": "write.example.org"}).status_code == 200
    assert closed.client.get("/health", headers={"Host": "else.example.org"}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["https://evil.example.org", "null", "http://127.0.0.1:1", "http://[", "file://"]
)
def test_pages_of_others_may_not_ask(server: RunningServer, origin: str) -> None:
    answer = server.client.post(COMPLETIONS, json={"prompt": "江"}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    own = server.client.post(COMPLETIONS, json={"max_tokens": 1}, headers={"Origin": server.url})
    assert own.status_code == 200


def test_a_page_of_a_named_origin_may_ask_and_no_other(closed: RunningServer) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    for origin, may in ((ORIGIN, True), ("https://evil.example.org", False)):
        before = closed.client.options(COMPLETIONS, headers={"Origin": origin, **asks})
        after = closed.client.get("/v1/models", headers={"Origin": origin, **bearing(TOKEN)})
        assert [one.is_success for one in (before, after)] == [may, may]
        for answer in (before, after):
            assert (answer.headers.get("access-control-allow-origin") == origin) == may
    refused = closed.client.get("/v1/models", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


def test_everything_but_the_page_and_health_needs_the_token(
    closed: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare = guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    for headers in ({}, bearing("wrong"), bearing(TOKEN[:-1]), {"Authorization": TOKEN.encode() + b"x"}):
        for path in (
            "/metrics",
            "/v1/models",
            COMPLETIONS,
            "/tokenize",
            "/nowhere",
            "/pages",
            "//page/main.js",
        ):
            answer = closed.client.get(path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["type"] == "authentication_error"
    assert compared and all(right == TOKEN.encode() for _, right in compared)
    assert closed.client.get("/v1/models", headers=bearing(TOKEN)).status_code == 200
    for path in ("/", "/health", "/page/main.js"):
        assert closed.client.get(path).status_code == 200


def test_where_no_token_is_set_one_that_comes_is_ignored(server: RunningServer) -> None:
    assert server.client.get("/v1/models", headers=bearing("sk-whatever")).status_code == 200


@pytest.mark.parametrize("path", [*PATHS, "/page/../app.py", "/page/%2e%2e/app.py"])
def test_every_answer_lets_a_browser_run_our_page_alone(
    server: RunningServer, closed: RunningServer, path: str
) -> None:
    for running in (server, closed):
        for method in ("GET", "OPTIONS"):
            answer = running.client.request(method, path, headers={"Origin": ORIGIN})
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "import" not in answer.text or path.endswith(".js")


# -- limits -----------------------------------------------------------------------------------


def test_a_body_that_is_too_large_is_refused_while_it_comes(server: RunningServer) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1 << 20
            yield b" " * (1 << 20)

    try:
        answer = server.client.post(COMPLETIONS, content=endless())
        assert (answer.status_code, answer.json()["error"]["param"]) == (413, None)
    except httpx.TransportError:  # it closed the door before everything was said
        pass
    assert sent < 90 << 20
    assert server.client.get("/health").status_code == 200


def test_whoever_comes_when_too_many_wait_is_told_when_to_come_again() -> None:
    narrow = model()
    narrow.thread.most_waiting = 2
    with serving([narrow]) as running:
        with running.client.stream("POST", COMPLETIONS, json=ENDLESS | {"n": 10, "stream": True}):
            for stream in (False, True):
                refused = running.post(prompt="江", stream=stream)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) > 0
                assert refused.json()["error"]["type"] == "rate_limit_error"
            assert running.client.get("/health").json() == {"status": "ok", "running": 8, "waiting": 2}
        running.waits_for(running=0, waiting=0)
        assert running.post(prompt="江", max_tokens=1).status_code == 200


def test_what_is_read_for_texts_that_only_wait_is_not_kept() -> None:
    """It may be a memory of 150 MB each."""
    thread, parts, is_over = model().thread, Counter[int](), threading.Event()

    def reading(number: int) -> Iterator[list[TokenChoice]]:
        while not is_over.is_set():
            parts[number] += 1
            yield []

    def row() -> RunningSequence:
        return RunningSequence([260], SampleConfig(max_new_tokens=1), TokenConstraints(0))

    ended: list[Event] = []
    jobs = [Job(ended.extend, [row()], [reading(number)]) for number in range(20)]
    thread.start()
    for job in jobs:
        thread.submit(job)
    until(lambda: parts.total() > 100)
    assert sorted(parts) == list(range(ROWS))
    thread.submit(Job(ended.extend, [], [iter([[TokenChoice(1, 0.0)]])]))  # scored and gone, so not held up
    until(lambda: any(isinstance(one, Done) for one in ended))
    is_over.set()
    until(lambda: sum(isinstance(one, Done) for one in ended) == 21)
    thread.stop()


def test_requests_that_would_fill_the_memory_or_take_too_long_are_refused(server: RunningServer) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("memory", {"prompt": ["江" * 60_000] * 2, "memory": 0.3}),
        ("stop", {"prompt": "江", "stop": ["湖" * 1001]}),
        ("banned", {"prompt": "江", "banned": ["湖" * 1001]}),
    ]
    for field, body in asked:
        answer = server.post(**body, max_tokens=1)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    broken = server.client.post(COMPLETIONS, content='{"prompt": "江', headers=JSON)
    assert (broken.status_code, broken.json()["error"]["param"]) == (400, None)


def test_a_model_and_a_path_that_are_not_there_are_named(server: RunningServer) -> None:
    answer = server.post(model="gpt-5", prompt="江")
    assert answer.status_code == 404 and "gpt-5" in answer.json()["error"]["message"]
    client = server.client
    assert client.get("/v1/models/gpt-5").json()["error"]["message"] == answer.json()["error"]["message"]
    assert client.get("/v1/models/char").json() == client.get("/v1/models").json()["data"][0]
    for path in ("/nowhere", "/page/nowhere.js", "/v1/", "/yanmo/nowhere"):
        answer = client.get(path)
        assert answer.status_code == 404 and path in answer.json()["error"]["message"]
    for answer in (client.delete(COMPLETIONS), client.post("/v1/models"), client.post("/page/main.js")):
        assert answer.status_code == 405 and answer.json()["error"]["message"]


def test_a_body_that_cannot_be_read_is_answered_in_a_sentence(server: RunningServer) -> None:
    body, text = b'{"prompt": "a"}', {"Content-Type": "text/plain"}
    for content, headers, said in (
        (body, text, "Content-Type: application/json"),
        (body, {}, "Content-Type: application/json"),
        (b'{"prompt": ', JSON, "the body is not JSON: "),
        (b"[1]", JSON, "the body is not a JSON object"),
    ):
        answer = server.client.post(COMPLETIONS, content=content, headers=headers)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, None) and said in error["message"]
    mixed = server.post(prompt=["江湖", 5])
    assert mixed.status_code == 400 and mixed.json()["error"]["param"] == "prompt"
    assert mixed.json()["error"]["message"].startswith("prompt: a text is wanted, a list of texts, ids, or")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"prompt": "江"}),
        ("/detokenize", {"tokens": [300]}),
        ("/yanmo/outline", {"text": "江"}),
        ("/yanmo/copied", {"text": "江"}),
    ],
)
def test_the_smaller_requests_refuse_unknown_fields_too(
    server: RunningServer, path: str, body: dict[str, Any]
) -> None:
    refused = server.post(path, **body, chars="湖")
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "chars")
    assert all(field in error["message"] for field in ("chars", *body))
    # without effect
    usual, inert = server.post(path, **body), server.post(path, **body, add_special_tokens=False)
    assert (inert.status_code, inert.text) == (usual.status_code, usual.text)


# -- those who leave --------------------------------------------------------------------------


def slots(running: RunningServer) -> int:
    engine = running.models["char"].thread._engine
    return sum(row is not None and not row.ended for row in engine.engine.slots) + len(engine._texts)


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_goes_away_frees_its_slot(server: RunningServer, is_streamed: bool) -> None:
    body = json.dumps(ENDLESS | {"n": 12, "stream": is_streamed}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        server.waits_for(running=8, waiting=4)
    server.waits_for(running=0, waiting=0)
    until(lambda: slots(server) == 0)
    assert server.post(prompt="江", max_tokens=1).status_code == 200


def test_a_client_that_leaves_while_it_waits_leaves_the_queue(server: RunningServer) -> None:
    with server.client.stream("POST", COMPLETIONS, json=ENDLESS | {"n": 8, "stream": True}):
        for is_streamed in (True, False):
            body = ENDLESS | {"stream": is_streamed}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{server.url}{COMPLETIONS}", json=body, timeout=0.3, trust_env=False)
            server.waits_for(running=8, waiting=0)
    server.waits_for(running=0, waiting=0)


def test_a_request_ends_when_its_time_is_over_with_what_it_has(server: RunningServer) -> None:
    thread = server.models["char"].thread
    with server.client.stream("POST", COMPLETIONS, json=ENDLESS | {"stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        for job in list(thread._jobs):
            job.ends_at = time.monotonic()
        rest = [line for line in lines if line]
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    server.waits_for(running=0)


# -- what it says of itself -------------------------------------------------------------------


def test_health_says_when_the_engine_is_gone() -> None:
    with serving([model()]) as running:
        assert running.client.get("/health").json() == {"status": "ok", "running": 0, "waiting": 0}
        running.models["char"].thread.stop()
        assert running.client.get("/health").status_code == 503


def test_metrics_count_what_was_asked_and_written() -> None:
    with serving([model()]) as running:
        running.ask(prompt="江湖", max_tokens=3, logit_bias={str(TOKENIZER.end_of_text): -100})
        running.ask(prompt="江湖夜雨", max_tokens=0, echo=True, logprobs=1)
        running.post(prompt="江", temperature=-1)
        page = running.client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert lines['yanmo_tokens_written_total{model="char"}'] == "3.0"
    assert lines['yanmo_tokens_scored_total{model="char"}'] == "4.0"
    assert lines['yanmo_requests_total{status="200"}'] == "2.0"
    assert lines['yanmo_requests_total{status="400"}'] == "1.0"
    assert lines["yanmo_first_text_seconds_count"] == "2.0"
    assert "江" not in page


def test_choices_are_kept_only_where_that_was_asked(server: RunningServer, own_folder: Path) -> None:
    choice = {"prompt": "江湖", "chosen": "夜雨", "rejected": "春风\n"}
    answer = server.post("/yanmo/choices", **choice)
    assert answer.status_code == 404 and "--keep-choices" in answer.json()["error"]["message"]
    file = own_folder / "choices.jsonl"
    with serving([model()], keep_choices=file) as running:
        assert running.client.get("/v1/models").json()["data"][0]["yanmo"]["keep_choices"] is True
        for _ in range(2):
            assert running.post("/yanmo/choices", **choice).status_code == 204
        half = running.client.post(
            "/yanmo/choices", content=json.dumps(choice | {"chosen": "\ud800"}), headers=JSON
        )
        assert half.status_code < 500
    first, second, *_ = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == json.loads(second) == choice | {"format": "text"}
    pairs = read_dialogues(CorpusConfig(path=(str(file),)))
    assert next(pairs) == Pair(**choice, where="choices.jsonl:1")


def test_prompts_are_never_logged(
    own_folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even where the engine fails."""
    caplog.set_level(logging.DEBUG)
    broken = model()
    with serving([broken]) as running:
        running.ask(prompt="桃李春风", max_tokens=2)
        running.post(prompt="桃李春风", temperature="桃李")
        running.client.post(COMPLETIONS, content='{"prompt": "桃李春风', headers=JSON)
        broken.thread._engine.step = None  # type: ignore[method-assign,assignment]
        failed = running.post(prompt="桃李春风", max_tokens=2)
        assert failed.status_code == 500 and "engine failed" in failed.json()["error"]["message"]
        assert running.post(prompt="桃李春风", max_tokens=2).status_code == 200
    said = caplog.text + "".join(capfd.readouterr())
    assert "the engine failed" in said
    assert not any(sign in said for sign in ("桃", "\\u6843"))


# -- the command ------------------------------------------------------------------------------


def test_what_cannot_be_served_so_is_said_before_a_model_is_loaded(own_folder: Path) -> None:
    our_folder(own_folder / "model", lively_model(64), TOKENIZER)
    for words, code, said in (
        (["--host", "0.0.0.0"], 2, "token"),
        (["--allow-origin", "write.example.org"], 2, "https://"),
        (["--token-file", "nowhere"], 2, "nowhere"),
        (["--keep-choices", "nowhere/choices.jsonl"], 74, "nowhere"),
    ):
        done = here("serve", "model", *words)
        assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_server_that_is_told_to_end_finishes_what_streams(own_folder: Path) -> None:
    our_folder(own_folder / "model", lively_model(64), TOKENIZER)
    child = Child(as_yanmo, ["serve", "model", "--port", "0"], YANMO_TOKEN=TOKEN)
    until(lambda: child.out().endswith("\n") or child.poll() is not None)
    url = child.out().strip()
    assert url.startswith("http://127.0.0.1:"), child.err()
    body = ENDLESS | {"max_tokens": 700, "stream": True}  # well within the 30 s of grace
    with httpx.stream(
        "POST", url + COMPLETIONS, json=body, headers=bearing(TOKEN), trust_env=False
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert "loading model\n" in child.err()
        child.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert len(rest) > 500
    assert child.wait(60) == 128 + signal.SIGTERM
    assert "Traceback" not in child.err() and "江湖" not in child.err()
    assert child.err().splitlines()[-2:] == [FINISHING, "the server has ended"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


@pytest.mark.slow
def test_a_server_that_is_told_twice_ends_at_once(own_folder: Path) -> None:
    our_folder(own_folder / "model", lively_model(64), TOKENIZER)
    child = Child(as_yanmo, ["serve", "model", "--port", "0"])
    until(lambda: child.out().endswith("\n") or child.poll() is not None)
    url = child.out().strip()
    with httpx.stream("POST", url + COMPLETIONS, json=ENDLESS | {"stream": True}, trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        child.send_signal(signal.SIGINT)
        until(lambda: FINISHING in child.err())
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 128 + signal.SIGINT
        with pytest.raises(httpx.HTTPError):
            list(lines)
    assert child.err().splitlines()[-2:] == [FINISHING, "ended at once"]


@pytest.mark.slow
def test_a_connection_may_rest_for_longer_than_a_few_seconds(own_folder: Path) -> None:
    # a proxy keeps one for longer than uvicorn's own five seconds, and would meet a closed door
    our_folder(own_folder / "model", lively_model(64), TOKENIZER)
    child = Child(as_yanmo, ["serve", "model", "--port", "0"])
    until(lambda: child.out().endswith("\n") or child.poll() is not None)
    connection = HTTPConnection(urlsplit(child.out().strip()).netloc, timeout=20)
    try:
        for rest in (6.5, 0.0):
            connection.request("GET", "/health")
            assert connection.getresponse().read().startswith(b'{"status":"ok"')
            connection.auto_open = 0  # the one that is there, or none
            time.sleep(rest)
    finally:
        connection.close()
        child.kill()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_the_address_that_is_said_can_be_opened(host: str) -> None:
    with socket.create_server((host, 0)) as listening:
        address = urlsplit(address_of(listening))
        assert address.hostname and address.port
        assert not ip_address(address.hostname).is_unspecified
        socket.create_connection((address.hostname, address.port), timeout=5).close()


def test_writers_defaults_are_those_of_requests() -> None:
    lively = ServedModel(
        "char", Writer(Path("nowhere"), lively_model(64), TOKENIZER, SampleConfig(max_new_tokens=4))
    )
    with serving([lively]) as running:
        assert running.ask(prompt="江", logit_bias=ENDLESS["logit_bias"])["usage"]["completion_tokens"] == 4


def test_settings_named_to_serve_are_those_of_requests_that_name_none(tmp_path: Path) -> None:
    folder = our_folder(tmp_path / "model", lively_model(64), TOKENIZER)
    (model,) = load_models([folder], {"temperature": 0.0, "max_new_tokens": 3}, "cpu", "float32", True)
    assert (model.writer.sample.temperature, model.writer.sample.max_new_tokens) == (0, 3)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        load_models([folder], {"max_new_tokens": 0}, "cpu", "float32", True)


def test_an_address_that_is_taken_is_said_before_a_model_is_loaded() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match="cannot be listened on") as refused,
    ):
        listen("127.0.0.1", taken.getsockname()[1])
    assert refused.value.where == "--port" and refused.value.what.count("127.0.0.1") == 1
