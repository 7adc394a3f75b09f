"""Real clients: the official openai package, lm-eval's local-completions."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.makers.models import TOKENIZER, bpe_tokenizer, lively_model, our_folder
from tests.makers.servers import RunningServer, served, serving
from yanmo.generate.score import score

pytestmark = pytest.mark.slow
WINDOW = 64
PROMPT = "江湖夜雨十年灯，"
ASKED: dict[str, Any] = {"model": "char", "prompt": PROMPT, "max_tokens": 20, "temperature": 1.2, "seed": 3}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    bpe = bpe_tokenizer()
    models = [
        served("char", lively_model(WINDOW), TOKENIZER),
        served("bpe", lively_model(WINDOW, bpe.vocab_size), bpe),
    ]
    with serving(models) as running:
        yield running


def test_the_official_client_reads_texts_streams_and_log_probabilities(server: RunningServer) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["char", "bpe"]
    whole = client.completions.create(**ASKED, logprobs=3, echo=True)
    expected = server.ask(**ASKED, logprobs=3, echo=True)
    assert whole.choices[0].text == expected["choices"][0]["text"]
    said = whole.choices[0].logprobs
    assert said.token_logprobs == expected["choices"][0]["logprobs"]["token_logprobs"]
    assert whole.usage.completion_tokens == expected["usage"]["completion_tokens"]
    pieces = list(client.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    assert PROMPT + "".join(p.choices[0].text for p in pieces if p.choices) == whole.choices[0].text
    assert pieces[-1].usage == whole.usage

    async def of_async_client() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as other:
            once = await other.completions.create(**ASKED)
            stream = await other.completions.create(**ASKED, stream=True)
            return once.choices[0].text, "".join([piece.choices[0].text async for piece in stream])

    assert [PROMPT + text for text in asyncio.run(of_async_client())] == [whole.choices[0].text] * 2
    with pytest.raises(openai.BadRequestError, match="no_such"):
        client.completions.create(**ASKED, extra_body={"no_such": 1})
    with pytest.raises(openai.NotFoundError, match="gpt-5"):
        client.completions.create(**ASKED | {"model": "gpt-5"})


CHOICE, ROLLING = "choice", "rolling"
PAIRS = [
    ("江湖夜雨", ["十年灯", "一杯酒"]),
    ("桃李", ["春风一杯酒", "夜"]),
    ("", ["江湖", "灯"]),
    ("the", [" the", "t"]),
]


def tasks(folder: Path) -> Path:
    """Two tasks over files of their own, as somebody would write them."""
    docs = {
        CHOICE: [{"begins": begins, "ends": ends, "right": 0} for begins, ends in PAIRS],
        ROLLING: [{"text": PROMPT}, {"text": "桃李春风一杯酒。"}],
    }
    how = {
        CHOICE: "doc_to_text: '{{begins}}'\ndoc_to_choice: ends\ndoc_to_target: right\ntarget_delimiter: ''\n"
        "output_type: multiple_choice\nmetric_list:\n  - metric: acc\n",
        ROLLING: "doc_to_text: ''\ndoc_to_target: '{{text}}'\noutput_type: loglikelihood_rolling\nmetric_list:\n"
        "  - metric: bits_per_byte\n",
    }
    folder.mkdir()
    for name, rows in docs.items():
        lines = folder / f"{name}.jsonl"
        lines.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {lines}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(head + how[name], encoding="utf-8")
    return folder


def run_lm_eval(url: str, name: str, folder: Path, place: Path) -> dict[str, list[list[float]]]:
    """The command; of each task the log-likelihoods of each document's requests."""
    arguments = {
        "model": name, "base_url": f"{url}/v1/completions", "tokenizer": folder,
        "tokenizer_backend": "huggingface", "max_length": WINDOW,
    }  # fmt: skip
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "local-completions",
        "--model_args", ",".join(f"{key}={value}" for key, value in arguments.items()),
        "--include_path", tasks(place / "tasks"), "--tasks", f"{CHOICE},{ROLLING}",
        "--log_samples", "--output_path", place / "results",
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(place / "hf")}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {}
    for task in (CHOICE, ROLLING):
        (path,) = (place / "results").glob(f"**/samples_{task}_*.jsonl")
        rows = sorted(
            map(json.loads, path.read_text(encoding="utf-8").splitlines()), key=lambda row: row["doc_id"]
        )
        found[task] = [[said(answer) for answer in row["resps"]] for row in rows]
    return found


def said(answer: Any) -> float:
    """The log-likelihood in an answer, which lm-eval wraps in lists and writes as text."""
    while isinstance(answer, list):
        answer = answer[0]
    return float(answer)


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_the_command_of_lm_eval_finds_the_models_own_log_probabilities(
    server: RunningServer, name: str, own_folder: Path
) -> None:
    pytest.importorskip("lm_eval")
    writer = server.models[name].writer
    folder = our_folder(own_folder / "model", writer.model, writer.tokenizer)
    found = run_lm_eval(server.url, name, folder, own_folder)

    def own(before: str, after: str) -> float:
        ids = writer.tokenizer.encode(before + after)
        counted = len(ids) - len(writer.tokenizer.encode(before))
        scored = list(score(writer.model, ids, writer.tokenizer.end_of_text))
        return sum(one.logprob for one in scored[-counted:])

    for (begins, ends), values in zip(PAIRS, found[CHOICE], strict=True):
        assert values == pytest.approx([own(begins, end) for end in ends], abs=1e-4), begins
    assert [value for (value,) in found[ROLLING]] == pytest.approx(
        [own("", PROMPT), own("", "桃李春风一杯酒。")], abs=1e-4
    )
