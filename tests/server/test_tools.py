"""What the page asks for beside text: chapters, and what each model can do."""

import asyncio
import threading

import pytest

from tests.makers.models import TOKENIZER, lively_model
from tests.makers.servers import served, serving
from tests.makers.work import assert_linear
from yanmo.core.errors import ConfigError
from yanmo.server.app import chapters_of


class Cut(str):
    """A text that counts the characters that are cut out of it."""

    characters = 0

    def __getitem__(self, where: object) -> str:
        found = super().__getitem__(where)  # type: ignore[index]
        self.characters += len(found)
        return found


def test_chapters_have_their_places_and_headings() -> None:
    text = "她来了。\n第一章 来信\n正文。\n\n  第二章 雪夜  \n他"
    assert chapters_of(text) == [
        {"offset": 5, "title": "第一章 来信"},
        {"offset": 17, "title": "第二章 雪夜"},
    ]


def test_a_manuscript_of_many_chapters_is_no_more_work_than_its_length() -> None:
    def work(chapters: int) -> int:
        text = Cut("第一章 来信\n正文。\n" * chapters)
        assert len(chapters_of(text)) == chapters
        return text.characters

    assert_linear(work, 30)


class Watched(list[str]):
    """Names of tokens that know which threads read them."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self.readers: set[int] = set()

    def __getitem__(self, token: object) -> str:  # type: ignore[override]
        self.readers.add(threading.get_ident())
        return super().__getitem__(token)  # type: ignore[index]


async def this_thread() -> int:
    return threading.get_ident()


def test_a_whole_answer_is_made_beside_the_loop_which_answers_others() -> None:
    model = served("char", lively_model(64), TOKENIZER)
    model.names = names = Watched(model.names)
    with serving([model]) as server:
        loop = asyncio.run_coroutine_threadsafe(this_thread(), model.loop).result()
        server.ask(prompt="江湖夜雨", echo=True, logprobs=2, max_tokens=4)
    assert names.readers and loop not in names.readers


def test_what_a_model_cannot_do_is_said_as_the_request_would_say_it() -> None:
    model = served("char", lively_model(64), TOKENIZER)
    with serving([model]) as server:
        (about,) = server.client.get("/v1/models").json()["data"]
        refused = server.post(prompt="江湖", no_copy=5).json()["error"]["message"]
    assert about["yanmo"]["no_copy"] in refused
    with pytest.raises(ConfigError, match="belongs to no run"):
        _ = model.writer.index
