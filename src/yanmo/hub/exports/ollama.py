"""What Ollama wants beside a GGUF file: a Modelfile, and a name that it accepts.

In: where the file lies, what its run is called and how it writes. Out: texts. A Modelfile knows no escapes:
quotes only fence a text off, what is not printed is dropped, and a line end behind a closing fence ends it.
"""

import re
import shlex
from pathlib import Path

from yanmo.core.errors import ConfigError
from yanmo.core.storage import fingerprint
from yanmo.model.config import GPTConfig
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer

ACCEPTED = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]|\.(?!\.)){0,79}")
"""Names of models: at most 80 characters, the first no dash and no dot, no two dots in a row."""
KEPT_CHARACTERS = 40
"""Of a name that is not accepted as it is."""


def modelfile_of(path: Path) -> Path:
    """Where the Modelfile of a .gguf lies."""
    return path.with_name(f"{path.stem}.Modelfile")


def create_line(name: str, path: Path) -> str:
    """What makes Ollama's model of a .gguf, to be pasted into a shell."""
    return f"ollama create {accepted_name(name)} -f {shlex.quote(str(modelfile_of(path)))}"


def accepted_name(name: str) -> str:
    """A run's name as Ollama accepts one: where something had to go, a digest keeps runs apart."""
    if ACCEPTED.fullmatch(name):
        return name
    kept = re.sub("[^A-Za-z0-9_]+", "-", name).strip("-")[:KEPT_CHARACTERS]
    return f"{kept or 'yanmo'}-{fingerprint(name)[:8]}"


def modelfile(path: Path, config: GPTConfig, tokenizer: Tokenizer, sample: SampleConfig) -> str:
    """What `ollama create NAME -f FILE` reads: the model continues a text, so the template is the text."""
    end = tokenizer.decode([tokenizer.end_of_text]) or "<|endoftext|>"
    lines = [
        f"FROM {quoted(f'./{path.name}')}",
        'TEMPLATE """{{ .Prompt }}"""',
        f"PARAMETER num_ctx {config.block_size}",
        f"PARAMETER num_predict {sample.max_new_tokens}",
        f"PARAMETER temperature {sample.temperature:g}",
        f"PARAMETER top_k {sample.top_k or config.vocab_size}",
        f"PARAMETER top_p {sample.top_p:g}",
        f"PARAMETER min_p {sample.min_p:g}",
        f"PARAMETER repeat_penalty {sample.repetition_penalty:g}",
    ]
    if is_sayable(end):  # else the number of the token, which the .gguf says, has to do
        lines.append(f"PARAMETER stop {quoted(end)}")
    return "\n".join(lines) + "\n"


def require_sayable(path: Path) -> None:
    """Refuse a name of a .gguf that its Modelfile could not say.

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
    """A text as a Modelfile says it."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    fence = '"""' if '"' in text else '"'
    return f"{fence}{text}{fence}"


def is_sayable(text: str) -> bool:
    """Whether Ollama reads what :func:`quoted` wrote as it was."""
    is_printed = all(letter.isprintable() or letter in "\t\n" for letter in text)
    return is_printed and not re.search('"""[ \t]*\n', text)


def sayable(text: str) -> str:
    """A text with a dash for each character that is not printed."""
    return "".join(letter if letter.isprintable() else "-" for letter in text)
