"""Real clients: the official openai package, lm-eval's local-completions."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("name", ["char", "bpe"])
def test_lm_eval_measures_the_models_own_log_probabilities(
    server: RunningServer, name: str, own_folder: Path
) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    writer = server.models[name].writer
    folder = our_folder(own_folder / "model", writer.model, writer.tokenizer)
    client = LocalCompletionsAPI(
        model=name, base_url=f"{server.url}/v1/completions", tokenizer=str(folder), tokenizer_backend="huggingface",
        max_length=WINDOW, batch_size=3, num_concurrent=1,
    )  # fmt: skip
    pairs = [("江湖夜雨", "十年灯"), ("桃李", "春风一杯酒"), ("", "江湖"), ("the", " the")]
    doc: dict[str, Any] = {}
    requests = [Instance("loglikelihood", doc, pair, number) for number, pair in enumerate(pairs)]
    found = client.loglikelihood(requests)
    for (before, after), (value, _) in zip(pairs, found, strict=True):
        ids = writer.tokenizer.encode(before + after)
        own = [one.logprob for one in score(writer.model, ids, writer.tokenizer.end_of_text)]
        counted = len(ids) - len(writer.tokenizer.encode(before))
        assert value == pytest.approx(sum(own[-counted:]), abs=1e-4), (before, after)
    (rolled,) = client.loglikelihood_rolling([Instance("loglikelihood_rolling", doc, (PROMPT,), 0)])
    ids = writer.tokenizer.encode(PROMPT)
    own = [one.logprob for one in score(writer.model, np.array(ids), writer.tokenizer.end_of_text)]
    value = rolled[0] if isinstance(rolled, tuple) else rolled
    assert value == pytest.approx(sum(own), abs=1e-4)
