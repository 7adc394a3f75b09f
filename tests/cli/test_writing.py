"""The verbs that write, by their options."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.models import CHATML, TOKENIZER, chat_tokenizer, lively_model, our_folder, talking_model
from tests.makers.runs import Trained
from yanmo.cli.options import SAMPLER
from yanmo.cli.writing import chat, generate, stream_to_stdout
from yanmo.generate.text import TextDelta
from yanmo.generate.writer import Writer
from yanmo.settings.schema import SampleConfig


def test_every_setting_of_the_sampler_is_an_option_of_each_verb_that_writes() -> None:
    own = {"prompt", "num_samples", "seed"}  # generate names these itself
    assert set(SAMPLER) == set(SampleConfig.model_fields) - own
    for verb in (generate, chat):
        assert set(SAMPLER) <= set(inspect.signature(verb).parameters)
    told = here("generate", "--help").stdout.split()
    assert {f"--{name.replace('_', '-')}" for name in SAMPLER} <= {word.partition("/")[0] for word in told}


def test_ctrl_c_ends_the_line_that_is_being_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Iterator[TextDelta]:
        yield TextDelta(0, 0, "春", None)
        raise KeyboardInterrupt

    monkeypatch.setattr("yanmo.generate.text.write_pieces", interrupted)
    writer = Writer(Path("nowhere"), lively_model(), TOKENIZER, SampleConfig())
    with pytest.raises(KeyboardInterrupt):
        stream_to_stdout(writer, ["江"], SampleConfig(num_samples=1))
    assert capsys.readouterr().out == "江春\n"


def test_an_option_acts(trained: Trained) -> None:
    trained("run")
    asked = ("generate", "run", "-p", "江湖", "--seed", "3", "--max-new-tokens", "40")
    whole = here(*asked, "--min-new-tokens", "40").stdout
    line = here(*asked, "--stop-at", "line").stdout.removesuffix("\n")
    assert "\n" not in line and len(whole) > len(line) >= 2
    refused = here(*asked, "--stop-at", "word")
    assert refused.returncode == 2 and "sentence" in refused.stderr
    refused = here(*asked, "--presence-penalty", "3")
    assert refused.returncode == 2 and "sample.presence_penalty=3" in refused.stderr


def test_chat_answers_with_a_model_that_was_taught_to_and_continues_text_when_told_so(tmp_path: Path) -> None:
    tokenizer = chat_tokenizer()
    our_folder(tmp_path / "talker", talking_model(tokenizer), tokenizer, CHATML)
    our_folder(tmp_path / "writer", talking_model(tokenizer), tokenizer)
    typed = "hello\n/role 哈姆莱特\nwho are you?\n/save talk.jsonl\n"
    done = here("chat", "talker", "--seed", "2", "--system", "You rhyme.", "--temperature", "1", typed=typed)
    assert done.returncode == 0 and "the model answers" in done.stderr and "Traceback" not in done.stderr
    first, _, rest = done.stdout.partition("a new dialogue; system prompt: 你是哈姆莱特。\n")
    assert first.strip() and rest.endswith("\nsaved to talk.jsonl\n") and "<|" not in done.stdout
    assert "who are you?" in (tmp_path / "talk.jsonl").read_text(encoding="utf-8")
    for words in (("talker", "--text"), ("writer",)):
        done = here("chat", *words, "--seed", "3", typed="hello\n/more\n/role X\n")
        assert "the model continues it" in done.stderr and done.stdout.startswith("\n\nunknown command /role")
        refused = here("chat", *words, "--system", "You rhyme.", typed="hello\n")
        assert refused.returncode == 2 and "--system" in refused.stderr
