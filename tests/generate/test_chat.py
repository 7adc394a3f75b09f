"""The console where text is continued: what each line brings, in this process; and once as a person has it, on a terminal."""

import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.makers.console import yanmo
from tests.makers.models import TOKENIZER, lively_model, saved_model
from yanmo.checkpoint.hf_names import to_hugging_face
from yanmo.core.errors import ConfigError
from yanmo.generate import terminal as module
from yanmo.generate.chat import PROMPT, TextChat
from yanmo.generate.terminal import LEAVE, converse, read_pasted, read_piped
from yanmo.generate.text import write_all
from yanmo.model.config import GPTConfig
from yanmo.model.families import GPT2
from yanmo.settings.schema import SampleConfig

CONFIG = SampleConfig(max_new_tokens=10, temperature=1, top_p=1, seed=6)


@pytest.fixture
def chat() -> TextChat:
    return TextChat(lively_model(), TOKENIZER, CONFIG)


def said(chat: TextChat, line: str) -> str:
    return "".join(chat.answer(line))


def typed(chat: TextChat, *lines: str | type[BaseException]) -> str:
    """What a console shows when these lines are typed."""
    shown, queue = [], list(lines)

    def read() -> str:
        line = queue.pop(0) if queue else EOFError
        if isinstance(line, str):
            return line
        raise line

    converse(chat, read, shown.append)
    return "".join(shown)


def test_a_line_is_continued_as_generate_does(chat: TextChat) -> None:
    expected = write_all(chat.model, TOKENIZER, "江湖", CONFIG)[0]
    assert said(chat, "江湖") == expected + "\n"
    assert chat.text == "江湖" + expected


def test_more_goes_on_and_retry_writes_another_continuation_of_the_same_prompt(chat: TextChat) -> None:
    first = said(chat, "江湖")
    more = said(chat, "/more")
    assert chat.text == "江湖" + first[:-1] + more.partition(")\n")[2][:-1]
    said(chat, "江湖")
    again = said(chat, "/retry")
    assert chat.config.seed == CONFIG.seed + 1 and again != first
    assert chat.prompt == "江湖" and chat.text == "江湖" + again[:-1]
    assert (
        again[:-1]
        == write_all(chat.model, TOKENIZER, "江湖", CONFIG.model_copy(update={"seed": CONFIG.seed + 1}))[0]
    )


def test_settings_are_changed_by_commands(chat: TextChat) -> None:
    assert said(chat, "/temp 0.5") == "temperature = 0.5\n"
    for line in ("/topp 0.9", "/topk  7", "/seed 11", " /len 3 "):
        assert " = " in said(chat, line)
    assert chat.config == SampleConfig(temperature=0.5, top_p=0.9, top_k=7, seed=11, max_new_tokens=3)
    assert chat.text == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/temp hot", ["sample.temperature='hot'", "always takes the likeliest"]),
        ("/temp nan", ["sample.temperature='nan'"]),
        ("/temp -1", ["sample.temperature='-1'"]),
        ("/topp", ["sample.top_p=''", "1: all"]),
        ("/topp 3", ["sample.top_p='3'"]),
        ("/topk 1.5", ["sample.top_k='1.5'"]),
        ("/seed -4", ["sample.seed='-4'"]),
        ("/len 0", ["sample.max_new_tokens='0'"]),
        ("/tmp 3", ["unknown command /tmp", *TextChat.commands()]),
        ("/retry", ["there is no text yet"]),
        ("/more", ["there is no text yet"]),
        ("/save a.txt", ["there is no text yet"]),
        ("夜\udc80", ["half a character", "UTF-8"]),
    ],
)
def test_mistakes_are_answered_in_one_line(chat: TextChat, line: str, words: list[str]) -> None:
    shown = typed(chat, line)
    assert shown.count("\n") == 1 and shown.endswith("\n")
    for word in words:
        assert word in shown
    assert chat.config == CONFIG and chat.text == ""


def test_save_appends_the_last_text(chat: TextChat, tmp_path: Path) -> None:
    said(chat, "江湖")
    first = chat.text
    assert said(chat, "/save my story.txt") == "saved to my story.txt\n"
    said(chat, "夜雨")
    said(chat, "/save my story.txt")
    saved = (tmp_path / "my story.txt").read_text(encoding="utf-8")
    assert saved == f"{first}\n{chat.text}\n"
    assert "needs a file" in said(chat, "/save")
    assert "cannot be written" in said(chat, f"/save {tmp_path}")
    assert "cannot be written" in said(chat, "/save a\0b")


def test_a_text_longer_than_the_window_keeps_its_end_and_says_so(chat: TextChat) -> None:
    long = "江湖夜雨十年灯，桃李春风一杯酒。" * 2 + "一杯春风，十年夜雨。江湖灯，桃李"
    shown = said(chat, long)
    note, _, text = shown.partition("\n")
    assert "48 tokens; the model only reads the last 16" in note
    assert text[:-1] == write_all(chat.model, TOKENIZER, long[-16:], CONFIG)[0]
    assert chat.text == long + text[:-1]
    assert "the last 16 of" in said(chat, "/more")


@pytest.mark.parametrize("line", ["上联：江湖\\n下联：", "夜\\n\\n雨", "灯\\n"])
def test_a_typed_backslash_n_is_a_line_end_and_that_is_said(chat: TextChat, line: str) -> None:
    text = said(chat, line)
    assert text.startswith("(") and "is a line end" in text.splitlines()[0]
    assert chat.prompt == line.replace("\\n", "\n")


def test_ctrl_c_stops_an_answer_and_keeps_its_text_and_never_leaves(chat: TextChat) -> None:
    shown, typing = (
        list[str](),
        iter([KeyboardInterrupt, "江", KeyboardInterrupt, "", "  ", "/bye", "unread"]),
    )

    def read() -> str:
        line = next(typing)
        if isinstance(line, str):
            return line
        raise line

    def write(text: str) -> None:
        shown.append(text)
        if len(shown) == 3:  # after the notice and a first piece of the answer
            raise KeyboardInterrupt

    converse(chat, read, write)
    notice, *answer, end, again = shown
    assert notice == again == f"\n{LEAVE}\n" and end == " …\n"
    assert len(answer) == 2 and chat.text == "江" + "".join(answer)
    assert next(typing) == "unread"


def test_bye_and_the_end_of_the_input_leave(chat: TextChat) -> None:
    assert typed(chat, " /bye ", "江") == ""
    assert typed(chat) == ""


def test_help_is_in_both_languages(chat: TextChat) -> None:
    shown = said(chat, "/help")
    assert "随机种子" in shown and "quit" in shown
    for command in chat.commands():
        assert command in shown


def test_piped_lines_are_prompts() -> None:
    stream = io.StringIO("\ufeff江湖\r\n\n夜雨")
    assert [read_piped(stream) for _ in range(3)] == ["江湖", "", "夜雨"]
    with pytest.raises(EOFError):
        read_piped(stream)


def test_pasted_lines_are_one_text_where_there_is_no_readline() -> None:
    lines, waiting, prompts = iter(["江湖", "夜雨", "十年"]), iter([True, True, False]), list[str]()
    assert read_pasted(lambda said: prompts.append(said) or next(lines), lambda: next(waiting)) == (
        "江湖\n夜雨\n十年"
    )
    assert prompts == [PROMPT, "", ""]


def test_whether_a_line_waits_is_asked_of_the_terminal() -> None:
    read, write = os.pipe()
    with open(read, encoding="utf-8") as stream, open(write, "w", encoding="utf-8") as other:
        assert not module.is_waiting(stream)
        other.write("夜\n")
        other.flush()
        assert module.is_waiting(stream)
    assert not module.is_waiting(stream)  # closed: as where select cannot say


def test_history_fails_softly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the cache should be", encoding="utf-8")
    with module.history() as has_readline:
        assert has_readline
    monkeypatch.setitem(sys.modules, "readline", None)
    with module.history() as has_readline:
        assert not has_readline


def test_a_bad_setting_raises_for_other_front_ends(chat: TextChat) -> None:
    with pytest.raises(ConfigError):
        said(chat, "/temp hot")


# -- on a terminal ------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that writes Chinese characters, at random and without an end."""
    torch.manual_seed(1)
    place = tmp_path / "model"
    place.mkdir()
    model = saved_model(place, GPTConfig(TOKENIZER.vocab_size, 2, 2, 16, 32))
    with torch.no_grad():
        model.norm.weight[0], model.norm.bias[0] = 0, 10  # the first channel is 10, whatever is read:
        model.tokens.weight[:, 0] = 0
        model.tokens.weight[:257, 0] = -10  # it makes bytes and the end unlikely
    weights = {name: p.detach() for name, p in model.named_parameters()}
    save_file(to_hugging_face(GPT2, weights), place / "model.safetensors", {"format": "pt"})
    TOKENIZER.save(place, 32)
    return place


@pytest.mark.slow
def test_lines_from_a_pipe_are_continued(folder: Path) -> None:
    typed = "江湖\n\n/temp hot\n夜\n".encode() + b"\xff\n"
    done = yanmo("chat", str(folder), "--max-new-tokens", "4", "--top-k", "3", typed=typed)
    assert done.returncode == 0, done.stderr
    assert "sample.temperature='hot'" in done.stdout and "half a character" in done.stdout
    assert "top_k=3" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals on Windows")
def test_chat_on_a_terminal(folder: Path, tmp_path: Path, own_cache: Path) -> None:
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "yanmo", "chat", str(folder)],
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=own_terminal,
        env=os.environ | {"TERM": "xterm", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    os.close(slave)
    try:
        talk(master, process)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "江湖" in (tmp_path / "cache" / "chat_history").read_text(encoding="utf-8")
    assert (tmp_path / "kept.txt").read_text(encoding="utf-8").startswith("夜雨\n江湖")


def talk(master: int, process: subprocess.Popen[bytes]) -> None:
    seen = b""

    def until(done: Callable[[str], bool]) -> str:
        """Everything shown since the last call, once it is enough."""
        nonlocal seen
        deadline = time.monotonic() + 40
        while not done(text := re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", seen.decode("utf-8", "ignore"))):
            if time.monotonic() > deadline:
                pytest.fail(f"nothing more came after: {text}")
            assert process.poll() is None, text
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 4096)
        seen = b""
        return text

    def prompted(text: str) -> bool:
        return text.endswith("> ")

    def type_line(line: str) -> None:
        os.write(master, line.encode() + b"\r")

    assert "输入文字" in until(prompted)
    type_line("/len 5")
    assert "max_new_tokens = 5" in until(prompted)
    type_line("江湖")
    answered = until(prompted)
    assert answered.startswith("江湖\r\n") and len(answered) > len("江湖\r\n\r\n> ")
    time.sleep(0.3)  # readline has shown its prompt and begins to wait
    os.write(master, b"\x03")  # Ctrl-C at the prompt
    assert "/bye" in until(prompted)
    type_line("/len 1000000")
    until(prompted)
    os.write(master, "\x1b[200~夜雨\n江湖\x1b[201~\r".encode())  # two lines, pasted
    until(lambda text: len(text) > 300)
    os.write(master, b"\x03")  # Ctrl-C while it writes
    assert "…" in until(prompted)
    type_line("/save kept.txt")
    assert "saved" in until(prompted)
    type_line("/len 5")
    until(prompted)
    type_line("/retry")
    until(prompted)
    type_line("/bye")


def own_terminal() -> None:
    """The pseudo-terminal sends this process its signals."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
