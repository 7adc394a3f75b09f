"""A console for writing with a model: type some text and the model continues it; it does not answer.

``Chat.answer`` turns a line into pieces of text, ``converse`` reads lines and writes the pieces, and
``open_console`` knows about terminals.
"""

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from yanmo.core import storage
from yanmo.core.console import visible
from yanmo.core.errors import YanmoError
from yanmo.generate.engine import TextRule
from yanmo.generate.memory import MemoryReader
from yanmo.generate.sampling import typed
from yanmo.generate.surprise import Coloured, alternatives, coloured
from yanmo.generate.text import encode_prompt, write_from
from yanmo.generate.text_engine import WrittenPiece
from yanmo.model.gpt import GPT
from yanmo.settings.recipe import with_values
from yanmo.settings.schema import Recipe, SampleConfig
from yanmo.tokenizer import Tokenizer

PROMPT = "> "
WELCOME = "Type some text and the model continues it. 输入文字，模型续写。/help 帮助, /bye 再见"
LEAVE = "/bye or Ctrl-D leaves (/bye 或 Ctrl-D 退出)"
HELP = """\
text        the model continues it (it is not an assistant)
            模型续写这段文字（它只会续写，不会回答）
/more       continue the text so far                    接着写
/retry      the same prompt again, with another seed    换一个随机种子重写
/temp X     below 1 safer, above 1 wilder; 0: greedy    温度：小则稳，大则奇
/topp X     top-p (nucleus) sampling; 1: off            核采样，1 为不限
/topk N     top-k sampling; 0: off                      只在前 N 个中选，0 为不限
/memory X   remember the whole text: 0.3; 0: off        记住全文：0.3 为宜，0 为不记
/seed N     same seed, same text                        随机种子，相同则结果相同
/len N      tokens to write                             每次写多少个词元
/show       the last answer, coloured by surprise       按意外程度着色
/alternatives  what else it thought of                  看看别的选择
/save FILE  append the text to FILE                     把文字存到文件末尾
/help       show this help                              本页
/bye        quit, also Ctrl-D; Ctrl-C stops the writing 退出；Ctrl-C 停笔
"""
SETTINGS = {
    "/temp": "temperature",
    "/topp": "top_p",
    "/topk": "top_k",
    "/memory": "memory",
    "/seed": "seed",
    "/len": "max_new_tokens",
}
COMMANDS = (*SETTINGS, "/retry", "/more", "/show", "/alternatives", "/save", "/help", "/bye")
ALTERNATIVES = 6
"""Likeliest tokens noted at each place."""
HISTORY_LINES = 1000
PASTE_SECONDS = 0.03
"""Lines that follow each other within this time were pasted: nobody types so fast."""


@dataclass
class Chat:
    """A model, its sampler settings, the last prompt and the text that it became."""

    model: GPT
    tokenizer: Tokenizer
    config: SampleConfig
    text_rules: Sequence[TextRule] = ()
    prompt: str = ""
    text: str = ""
    written: list[WrittenPiece] = field(default_factory=list)
    """The last answer, token by token."""
    has_colours: bool = False
    """Whether who reads it shows colours."""

    def __post_init__(self) -> None:
        self.reader = MemoryReader(self.model)

    def answer(self, line: str) -> Iterator[str]:
        """The answer to a line, piece by piece.

        Raises:
            ConfigError: a setting of the wrong kind, or a line that is no text.
        """
        command, value = (*line.split(maxsplit=1), "")[:2]
        value = value.strip()
        if not command.startswith("/"):
            text, said = typed(line)
            if said:
                yield f"({said})\n"
            yield from self.go_on(text)
        elif command in SETTINGS:
            yield self.set(SETTINGS[command], value)
        elif command == "/help":
            yield HELP
        elif command not in ("/retry", "/more", "/save", "/show", "/alternatives"):
            yield f"unknown command {command}; the commands are {', '.join(COMMANDS)}\n"
        elif not self.text:
            yield "there is no text yet: type some\n"
        elif command == "/show":
            yield coloured(self.written, self.has_colours)
        elif command == "/alternatives":
            yield alternatives(self.written, lambda token: visible(self.tokenizer.decode([token])))
        elif command == "/more":
            yield from self.go_on(self.text)
        elif command == "/retry":
            # the same seed would write the same text again
            self.set("seed", str(self.config.seed + 1))
            yield from self.go_on(self.prompt)
        else:
            yield self.save(value)

    def go_on(self, prompt: str) -> Iterator[str]:
        """Continue ``prompt``, or its end if too long; an interrupted text is kept as far as it came."""
        said: list[str] = []
        read = encode_prompt(
            self.tokenizer, prompt, self.config, self.model.config.block_size, say=said.append
        )
        self.prompt = self.text = prompt
        yield from (f"({remark})\n" for remark in said)
        self.written = []
        rules, reader = self.text_rules, self.reader
        for piece in write_from(self.model, self.tokenizer, read, self.config, ALTERNATIVES, rules, reader):
            self.written.append(piece)
            self.text += piece.text
            yield piece.text
        yield "\n"

    def set(self, name: str, value: str) -> str:
        """Change a setting of the sampler.

        Raises:
            ConfigError: it is not of the right kind.
        """
        changed = with_values(Recipe(sample=self.config), {f"sample.{name}": value}, "chat")
        self.config = changed.sample
        return f"{name} = {getattr(self.config, name)}\n"

    def save(self, name: str) -> str:
        """Append the last text to a file."""
        if not name:
            return "/save needs a file name: /save story.txt\n"
        try:
            with open(Path(name).expanduser(), "a", encoding="utf-8") as file:
                file.write(self.text + "\n")
        except (OSError, ValueError, RuntimeError) as error:
            return f"{name} cannot be written ({error}); name another file\n"
        return f"saved to {name}\n"


def converse(chat: Chat, read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Read lines and write the answers, until /bye or the end of input. Ctrl-C never leaves."""
    while True:
        try:
            line = read()
            if line.strip() == "/bye":
                return
            if line.strip():
                respond(chat, line, write)
        except KeyboardInterrupt:
            write(f"\n{LEAVE}\n")
        except EOFError:
            return


def respond(chat: Chat, line: str, write: Callable[[str], None]) -> None:
    """Write the answer to a line. Ctrl-C ends only that; a mistake is answered in one line."""
    try:
        for piece in chat.answer(line):
            write(piece)
    except KeyboardInterrupt:
        write(" …\n")
    except YanmoError as error:
        write(f"{error.what}; {error.hint}\n")


# -- terminals --------------------------------------------------------------------------------


def open_console(chat: Chat) -> None:
    """Converse on standard input and output."""

    def write(text: str) -> None:
        # the terminal's guard makes escape codes visible, ours too
        stream = getattr(sys.stdout, "stream", sys.stdout) if isinstance(text, Coloured) else sys.stdout
        stream.write(text)
        stream.flush()

    chat.has_colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    # bytes that are not UTF-8 become surrogates, which ``encode`` refuses in a sentence, instead of a crash
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=None if sys.stdin.isatty() else "utf-8", errors="surrogateescape")
    if not sys.stdin.isatty():
        converse(chat, lambda: read_piped(sys.stdin), write)
        return
    with history() as has_readline:
        converse(chat, (lambda: input(PROMPT)) if has_readline else read_pasted, write)


def read_piped(stream: TextIO) -> str:
    """The next line of a file or a pipe."""
    line = stream.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n").removeprefix("\ufeff")  # Windows editors begin files with a byte order mark


def read_pasted(
    read: Callable[[str], str] = input, is_more: Callable[[], bool] = lambda: is_waiting(sys.stdin)
) -> str:
    """A typed line, or all the lines of a paste, where there is no readline to tell them apart."""
    lines = [read(PROMPT)]
    with contextlib.suppress(EOFError):
        while is_more():
            lines.append(read(""))
    return "\n".join(lines)


def is_waiting(stream: TextIO) -> bool:
    """Whether another line is there already; unknown on Windows, where select knows sockets only."""
    try:
        return bool(select.select([stream], [], [], PASTE_SECONDS)[0])
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def history() -> Iterator[bool]:
    """Line editing with the lines of earlier chats; whether there is such a thing here."""
    try:
        import readline
    except ImportError:  # Windows
        yield False
        return
    path = storage.cache_root() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    # the terminal marks a paste, so that its line ends do not send it line by line
    readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)
