"""What ``yanmo chat`` does with a line: a model continues it, or answers if it was taught dialogues.

``Chat.answer`` turns a line into pieces of text; ``terminal.py`` reads the lines. ``TextChat`` has a text
that grows, ``DialogueChat`` questions and answers; most commands are the same in both.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from yanmo.core.console import visible
from yanmo.core.errors import ConfigError
from yanmo.generate.dialogue import answer_prompt
from yanmo.generate.engine import TextRule
from yanmo.generate.memory import MemoryReader
from yanmo.generate.sampling import encode, typed
from yanmo.generate.surprise import alternatives, coloured
from yanmo.generate.text import Prompt, encode_prompt, write_from
from yanmo.generate.text_engine import WrittenPiece
from yanmo.generate.writer import Writer
from yanmo.model.gpt import GPT
from yanmo.settings.recipe import with_values
from yanmo.settings.schema import Recipe, SampleConfig
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.chat_template import ChatTemplate

PROMPT = "> "
SETTINGS = {
    "/temp": "temperature",
    "/topp": "top_p",
    "/topk": "top_k",
    "/memory": "memory",
    "/seed": "seed",
    "/len": "max_new_tokens",
}
OF_ANSWERS = ("/retry", "/more", "/show", "/alternatives", "/save")
"""Commands that need something written."""
COMMON_HELP = """\
/temp X     below 1 safer, above 1 wilder; 0: greedy    温度：小则稳，大则奇
/topp X     top-p (nucleus) sampling; 1: off            核采样，1 为不限
/topk N     top-k sampling; 0: off                      只在前 N 个中选，0 为不限
/memory X   remember the whole text: 0.3; 0: off        记住全文：0.3 为宜，0 为不记
/seed N     same seed, same text                        随机种子，相同则结果相同
/len N      tokens to write                             每次写多少个词元
/show       the last answer, coloured by surprise       按意外程度着色
/alternatives  what else it thought of                  看看别的选择
/help       show this help                              本页
/bye        quit, also Ctrl-D; Ctrl-C stops the writing 退出；Ctrl-C 停笔
"""
ALTERNATIVES = 6
"""Likeliest tokens noted at each place."""


@dataclass
class Chat(ABC):
    """A model, its sampler settings, and what it wrote last."""

    model: GPT
    tokenizer: Tokenizer
    config: SampleConfig
    text_rules: Sequence[TextRule] = ()
    text: str = ""
    """What was written last, and in a text what it continues."""
    written: list[WrittenPiece] = field(default_factory=list)
    """The last answer, token by token."""
    has_colours: bool = False
    """Whether who reads it shows colours."""
    welcome: ClassVar[str]
    help: ClassVar[str]
    own: ClassVar[Mapping[str, Callable[[Any, str], str]]] = {}
    """Commands of this kind alone, and what each does with what is typed behind it."""

    def __post_init__(self) -> None:
        self.reader = MemoryReader(self.model)

    @property
    @abstractmethod
    def whole(self) -> str:
        """All of it, as it is saved; nothing before the first line."""

    @abstractmethod
    def reply(self, line: str) -> Iterator[str]:
        """What the model writes to a line that is no command."""

    @abstractmethod
    def more(self) -> Iterator[str]:
        """Go on with what was written last."""

    @abstractmethod
    def again(self) -> Iterator[str]:
        """Write to the last line once more."""

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
            yield from self.reply(text)
        elif command in SETTINGS:
            yield self.set(SETTINGS[command], value)
        elif command in self.own:
            yield self.own[command](self, value)
        elif command == "/help":
            yield self.help
        elif command not in OF_ANSWERS:
            yield f"unknown command {command}; the commands are {', '.join(self.commands())}\n"
        elif not self.whole:
            yield "there is no text yet: type some\n"
        elif command == "/show":
            yield coloured(self.written, self.has_colours)
        elif command == "/alternatives":
            yield alternatives(self.written, lambda token: visible(self.tokenizer.decode([token])))
        elif command == "/more":
            yield from self.more()
        elif command == "/retry":
            # the same seed would write the same text again
            self.set("seed", str(self.config.seed + 1))
            yield from self.again()
        else:
            yield self.save(value)

    @classmethod
    def commands(cls) -> tuple[str, ...]:
        """All that can be typed here."""
        return (*cls.own, *SETTINGS, *OF_ANSWERS, "/help", "/bye")

    def write(self, prompt: Prompt, end: int | None = None) -> Iterator[str]:
        """Write after ``prompt`` until ``end`` (None: end-of-text); an interrupted text is kept."""
        self.written = []
        rules, reader = self.text_rules, self.reader
        for piece in write_from(
            self.model, self.tokenizer, prompt, self.config, ALTERNATIVES, rules, reader, end
        ):
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
        """Append all of it to a file."""
        if not name:
            return "/save needs a file name: /save story.txt\n"
        try:
            with open(Path(name).expanduser(), "a", encoding="utf-8") as file:
                file.write(self.saved_in(name) + "\n")
        except (OSError, ValueError, RuntimeError) as error:
            return f"{name} cannot be written ({error}); name another file\n"
        return f"saved to {name}\n"

    def saved_in(self, name: str) -> str:
        """What is appended to a file of this name."""
        return self.whole


@dataclass
class TextChat(Chat):
    """A text that grows: the model continues what is typed."""

    prompt: str = ""
    """What was continued last."""
    welcome = "Type some text and the model continues it. 输入文字，模型续写。/help 帮助, /bye 再见"
    help = f"""\
text        the model continues it (it is not an assistant)
            模型续写这段文字（它只会续写，不会回答）
/more       continue the text so far                    接着写
/retry      the same prompt again, with another seed    换一个随机种子重写
/save FILE  append the text to FILE                     把文字存到文件末尾
{COMMON_HELP}"""

    @property
    def whole(self) -> str:
        """The text."""
        return self.text

    def reply(self, line: str) -> Iterator[str]:
        """Continue ``line``, or its end if too long."""
        said: list[str] = []
        window = self.model.config.block_size
        prompt = encode_prompt(self.tokenizer, line, self.config, window, say=said.append)
        self.prompt = self.text = line
        yield from (f"({remark})\n" for remark in said)
        yield from self.write(prompt)

    def more(self) -> Iterator[str]:
        """Continue the text so far."""
        return self.reply(self.text)

    def again(self) -> Iterator[str]:
        """Continue the same prompt."""
        return self.reply(self.prompt)


@dataclass
class DialogueChat(Chat):
    """A dialogue: what is typed is the user's turn, and the model answers."""

    template: ChatTemplate = field(kw_only=True)
    system: str = ""
    """What holds for the whole dialogue; empty: nothing."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """All turns up to the last question."""
    has_left_out: bool = False
    """Whether it was said that the dialogue is longer than the window."""
    welcome = "Ask, and the model answers. 输入你的话，模型作答。/help 帮助, /bye 再见"
    help = f"""\
text        your turn of the dialogue; the model answers
            你说一句，模型答一句
/more       go on with an answer that was cut           接着说被截断的回答
/retry      answer again, with another seed             换一个随机种子重答
/reset      begin anew; the system prompt stays         重新开始，保留系统提示
/system TEXT  set the system prompt and begin anew      设定系统提示，重新开始
/role NAME  the same as /system 你是NAME。              扮演一个角色
/save FILE  append the dialogue; to .jsonl as messages  存对话，.jsonl 存为 messages
{COMMON_HELP}"""

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole dialogue."""
        return [*self.asked, message("assistant", self.text)] if self.asked else []

    @property
    def whole(self) -> str:
        """The dialogue as it stands on the screen."""
        typed_before = {"system": f"{PROMPT}/system ", "user": PROMPT, "assistant": ""}
        return "\n".join(typed_before[one["role"]] + one["content"] for one in self.messages)

    def reply(self, line: str) -> Iterator[str]:
        """Answer a question."""
        system = [message("system", self.system)] if self.system else []
        return self.respond([*(self.messages or system), message("user", line)])

    def more(self) -> Iterator[str]:
        """Go on with an answer that did not end by itself."""
        if self.is_ended:
            return iter(["the answer is whole: ask on, or /retry\n"])
        return self.respond(self.asked, self.text)

    def again(self) -> Iterator[str]:
        """Answer the last question."""
        return self.respond(self.asked)

    def respond(self, asked: list[dict[str, str]], begun: str = "") -> Iterator[str]:
        """Write the answer to the last of ``asked``, of which ``begun`` is there already."""
        ids = encode(self.tokenizer, begun, "the answer")
        prompt = answer_prompt(self.template, asked, self.config, self.model.config.block_size, ids)
        self.asked, self.text = asked, begun
        if prompt.dropped and not self.has_left_out:
            self.has_left_out = True
            yield (
                f"(the dialogue is longer than the model reads: its oldest turns, now {prompt.dropped:,} "
                "tokens, are left out from here on)\n"
            )
        yield from self.write(prompt, self.template.end_of_turn)
        if not self.is_ended and len(self.written) >= self.config.max_new_tokens:
            yield f"(cut after {self.config.max_new_tokens:,} tokens; /more goes on)\n"

    @property
    def is_ended(self) -> bool:
        """Whether the model itself ended its last answer."""
        end = self.template.end_of_turn
        last = self.written[-1].choice if self.written else None
        return last is not None and last.id == (self.tokenizer.end_of_text if end is None else end)

    def reset(self, _: str = "") -> str:
        """Begin anew."""
        self.asked, self.text, self.written, self.has_left_out = [], "", [], False
        return f"a new dialogue; {self.about_system}\n"

    def set_system(self, value: str) -> str:
        """Set the system prompt and begin anew; without one, show it."""
        if not value:
            return f"{self.about_system}\n"
        self.system, said = typed(value)
        return (f"({said})\n" if said else "") + self.reset()

    def set_role(self, name: str) -> str:
        """Have the model be somebody, in the words with which models of plays are taught it."""
        return self.set_system(f"你是{name}。") if name else "/role needs a name: /role 哈姆莱特\n"

    @property
    def about_system(self) -> str:
        """What holds for the whole dialogue, in words."""
        return f"system prompt: {self.system}" if self.system else "no system prompt"

    def saved_in(self, name: str) -> str:
        """The dialogue as text, or as a line of a data set."""
        if not name.lower().endswith(".jsonl"):
            return self.whole
        return json.dumps({"messages": self.messages}, ensure_ascii=False)

    own: ClassVar[Mapping[str, Callable[[Any, str], str]]] = {
        "/reset": reset,
        "/system": set_system,
        "/role": set_role,
    }


def message(role: str, content: str) -> dict[str, str]:
    """A turn of a dialogue."""
    return {"role": role, "content": content}


def chat_with(writer: Writer, config: SampleConfig, system: str = "", only_text: bool = False) -> Chat:
    """A dialogue with a model that was taught to have one, else a text; ``only_text``: a text with any.

    Raises:
        ConfigError: a system prompt is given, and there is no dialogue; or a setting cannot be meant so.
    """
    rules = writer.text_rules(config)
    template = None if only_text else writer.chat
    if template:
        return DialogueChat(writer.model, writer.tokenizer, config, rules, template=template, system=system)
    if system:
        raise ConfigError(
            "a system prompt is for dialogues, and here the model continues a text",
            where="--system",
            hint="leave --text out" if only_text else "it has no chat template: use --pinned for notes",
        )
    return TextChat(writer.model, writer.tokenizer, config, rules)
