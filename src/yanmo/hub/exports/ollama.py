"""What Ollama needs beside a GGUF file: a Modelfile, and a name that it accepts.

In: the path of the file, the name of its run and its [sample] settings. Out: texts. A Modelfile has no
escapes: quotes only delimit a text, unprintable characters are dropped, and a line end after a closing
delimiter ends the text.
"""

import re
import shlex
from pathlib import Path

from yanmo.core.errors import ConfigError
from yanmo.core.storage import fingerprint
from yanmo.model.config import GPTConfig
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.base import CHAT_TOKENS

ACCEPTED = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]|\.(?!\.)){0,79}")
"""Names of models: at most 80 characters, the first no dash and no dot, no two dots in a row."""
KEPT_CHARACTERS = 40
"""Characters kept of a name that is not accepted as it is."""


def modelfile_of(path: Path) -> Path:
    """The path of the Modelfile of a .gguf."""
    return path.with_name(f"{path.stem}.Modelfile")


def create_line(name: str, path: Path) -> str:
    """The command that makes an Ollama model of a .gguf, to be pasted into a shell."""
    return f"ollama create {accepted_name(name)} -f {shlex.quote(str(modelfile_of(path)))}"


def accepted_name(name: str) -> str:
    """A run's name as Ollama accepts it."""
    if ACCEPTED.fullmatch(name):
        return name
    # two Chinese names would both be dashes, so a digest of the whole name follows
    kept = re.sub("[^A-Za-z0-9_]+", "-", name).strip("-")[:KEPT_CHARACTERS]
    return f"{kept or 'yanmo'}-{fingerprint(name)[:8]}"


CONTINUE = 'TEMPLATE """{{ .Prompt }}"""'
"""The prompt alone: a model that continues texts would take a chat template for noise."""
CHATML = """\
TEMPLATE \"\"\"{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
\"\"\""""


def modelfile(
    path: Path, config: GPTConfig, tokenizer: Tokenizer, sample: SampleConfig, chat: str | None = None
) -> str:
    """The Modelfile that `ollama create NAME -f FILE` reads."""
    is_chatml = chat is not None and all(marker in chat for marker in CHAT_TOKENS)
    end = CHAT_TOKENS[1] if is_chatml else tokenizer.decode([tokenizer.end_of_text]) or "<|endoftext|>"
    # of another template Ollama finds its own in the .gguf
    templates = [CHATML if is_chatml else CONTINUE] if is_chatml or chat is None else []
    lines = [
        f"FROM {quoted(f'./{path.name}')}",
        *templates,
        f"PARAMETER num_ctx {config.block_size}",
        f"PARAMETER num_predict {sample.max_new_tokens}",
        f"PARAMETER temperature {sample.temperature:g}",
        # 0 means no limit here; in a Modelfile the size of the vocabulary says so
        f"PARAMETER top_k {sample.top_k or config.vocab_size}",
        f"PARAMETER top_p {sample.top_p:g}",
        f"PARAMETER min_p {sample.min_p:g}",
        f"PARAMETER repeat_penalty {sample.repetition_penalty:g}",
    ]
    if is_sayable(end):  # else the number of the token, which the .gguf says, has to do
        lines.append(f"PARAMETER stop {quoted(end)}")
    return "\n".join(lines) + "\n"


def require_sayable(path: Path) -> None:
    """Refuse a name of a .gguf that a Modelfile cannot express.

    Raises:
        ConfigError: Ollama would look for another file.
    """
    if not is_sayable(path.name):
        raise ConfigError(
            "its Modelfile cannot contain this name: Ollama drops unprintable characters",
            where=f"--out {path}",
            hint="use a file name of letters, digits and visible signs",
        )


def quoted(text: str) -> str:
    """A text as a Modelfile writes it."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    # there are no escapes: a text with a quote needs the longer fence
    fence = '"""' if '"' in text else '"'
    return f"{fence}{text}{fence}"


def is_sayable(text: str) -> bool:
    """Whether Ollama reads what :func:`quoted` wrote as it was."""
    is_printed = all(letter.isprintable() or letter in "\t\n" for letter in text)
    return is_printed and not re.search('"""[ \t]*\n', text)


def sayable(text: str) -> str:
    """A text with a dash for each unprintable character."""
    return "".join(letter if letter.isprintable() else "-" for letter in text)
