"""What an export says of names and texts: to Ollama, to a shell, in a Modelfile, in a model card."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.makers.models import char_tokenizer, drawn, our_folder, small
from tests.makers.ollama import is_valid_name, read_modelfile
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError
from yanmo.hub.exports.card import RunRecords, fenced, in_markdown, model_card
from yanmo.hub.exports.exporter import Exported, export
from yanmo.hub.exports.ollama import accepted_name, create_line, is_sayable, modelfile, modelfile_of, quoted
from yanmo.settings.schema import SampleConfig

MODEL = drawn(small("gpt2", char_tokenizer()))
NAMES = [
    "novel-1", "v1.2", "水浒", "水浒 传", "红楼梦2", "-x", ".x", "a..b", "a.", "a b", "a/b", "x" * 81, "é",
    'say "hi"', "it's", "back\\slash", "two\nlines", "$(rm)", "ＡＢ", "　", "a:b", "‮abc", "",
]  # fmt: skip
FILES = [
    "plain.gguf",
    "水浒.gguf",
    "a b.gguf",
    'a"b.gguf',
    '"',
    "it's $HOME.gguf",
    "a\\b.gguf",
    "a\nb.gguf",
    "#a.gguf",
]
FILES += ['a"\nb.gguf', '""" x.gguf', 'x"""', " a ", "a\tb.gguf", "“引”.gguf"]


@pytest.mark.parametrize("name", NAMES)
def test_ollama_accepts_the_name_of_every_run(name: str) -> None:
    assert is_valid_name(accepted_name(name))
    assert accepted_name(name) == name or not is_valid_name(name)


def test_runs_of_other_names_are_other_models_of_ollama() -> None:
    assert len({accepted_name(name) for name in NAMES}) == len(NAMES)
    assert accepted_name("红楼梦") == accepted_name("红楼梦")


@pytest.mark.parametrize("name", NAMES)
def test_the_line_for_ollama_is_four_words_and_a_path_in_a_shell(name: str) -> None:
    path = Path("出 口") / f"{name}.gguf"
    words = shlex.split(create_line(name, path))
    assert words == ["ollama", "create", accepted_name(name), "-f", str(modelfile_of(path))]


@pytest.mark.parametrize("name", FILES)
def test_ollama_reads_the_file_that_was_written_from_the_modelfile(name: str) -> None:
    said = modelfile(Path("exports") / name, MODEL.config, char_tokenizer(), SampleConfig())
    read = read_modelfile(said)
    assert read[0] == ("model", f"./{name}")
    assert [key for key, _ in read] == [
        "model", "template", "num_ctx", "num_predict", "temperature", "top_k", "top_p", "min_p", "repeat_penalty",
        "stop",
    ]  # fmt: skip


@pytest.mark.parametrize("text", [*FILES, "<|endoftext|>", '""x', "\n", "。\n\n", "[SEP]", "\\n", '"'])
def test_a_text_in_a_modelfile_is_read_as_it_was(text: str) -> None:
    assert is_sayable(text)
    assert read_modelfile(f"FROM x\nPARAMETER stop {quoted(text)}\nPARAMETER seed 1")[1] == ("stop", text)


@pytest.mark.parametrize("text", ['a"""\nb', 'a""" \n', "a\x07b", "全　角", "a\u200bb", "\udce4"])
def test_what_a_modelfile_cannot_say_is_known(text: str) -> None:
    assert not is_sayable(text)
    try:
        read = read_modelfile(f"FROM {quoted(text)}\nPARAMETER seed 1")
    except ValueError:
        return
    assert read != [("model", text), ("seed", "1")]


def test_an_end_of_text_that_a_modelfile_cannot_say_is_left_to_the_gguf() -> None:
    class Strange:
        end_of_text = 0

        def decode(self, ids: list[int]) -> str:
            return "\x00"

    said = modelfile(Path("x.gguf"), MODEL.config, Strange(), SampleConfig())  # type: ignore[arg-type]
    assert "stop" not in dict(read_modelfile(said))


def exported(run: str, to: str, console: Console, out: str | None = None) -> Exported:
    source = our_folder(Path(run), MODEL, char_tokenizer())
    return export(source, to, Path(out) if out else None, None, False, console)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["三国 演义", 'a "b"', "全　角", "two\nlines", "it's \\ $x"])
def test_a_gguf_of_a_run_with_any_name_comes_with_a_line_that_works(
    run: str, own_folder: Path, console: Console
) -> None:
    found = exported(run, "gguf", console)
    *_, name, _, file = shlex.split(found.said[0])
    assert is_valid_name(name)
    source = dict(read_modelfile(Path(file).read_text(encoding="utf-8")))["model"]
    assert (Path(file).parent / source).read_bytes()[:4] == b"GGUF"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["全　角.gguf", "bell\x07.gguf", 'x"""\n.gguf', "‮.gguf"])
def test_a_file_that_ollama_could_not_be_told_of_is_refused_before_anything_is_written(
    name: str, own_folder: Path, console: Console
) -> None:
    with pytest.raises(ConfigError, match="cannot contain this name"):
        exported("run", "gguf", console, f"there/{name}")
    assert not Path("there").exists()


@pytest.mark.parametrize(
    "text", ["*a* _b_", "<b>x</b>", "[a](b)", "# x #", "a\nb", "`x`", "a & b", "~~x~~", "a|b"]
)
def test_a_name_in_a_card_is_one_line_without_marks(text: str) -> None:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    opened, inline, _ = reader.parse(f"# {in_markdown(text)}\n")
    assert opened.tag == "h1"
    parts = inline.children or []
    assert {part.type for part in parts} == {"text"}
    assert "".join(part.content for part in parts) == " ".join(text.split())


@pytest.mark.parametrize("text", ["plain", "```\n# no heading\n```", "a ````` b", "> x\n\n---\n<script>"])
def test_a_text_between_fences_is_the_text(text: str) -> None:
    from markdown_it import MarkdownIt

    (block,) = MarkdownIt().parse(fenced(text, "text"))
    assert (block.type, block.content) == ("fence", f"{text}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["plain", "诗 词", 'a "b"', "it's", "back\\slash", "two\nlines", "``` x", "a'\"b"]
)
def test_the_example_of_a_card_opens_the_folder_that_was_written(
    name: str, own_folder: Path, console: Console
) -> None:
    found = exported("运行", "hf", console, f"deep/{name}")
    assert opened_by(found.path / "README.md") == (found.path / "config.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_of_a_card_names_the_usual_folder_too(own_folder: Path, console: Console) -> None:
    found = exported('run "1"', "hf", console)
    assert found.path == Path('exports/run "1"')
    assert opened_by(found.path / "README.md")


def opened_by(card: Path) -> str:
    """What the example reads, run in a process of its own with a ``transformers`` that only looks."""
    Path("transformers.py").write_text(
        "from pathlib import Path\n"
        "def pipeline(task, model):\n"
        "    print(Path(model, 'config.json').read_text(encoding='utf-8'), end='')\n"
        "    raise SystemExit\n",
        encoding="utf-8",
    )
    fence = re.search(r"^(`{3,})python\n(.*?)\n\1$", card.read_text(encoding="utf-8"), re.M | re.S)
    assert fence
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", fence[2]], capture_output=True, encoding="utf-8",
                          check=True, cwd=Path.cwd())  # fmt: skip
    return done.stdout


def test_what_a_card_quotes_of_a_sample_stays_within_its_fence() -> None:
    sample = "一\n```\n# 二\n<script>"
    card = model_card("n", Path("n"), MODEL, char_tokenizer(), RunRecords(), sample)
    assert f"````text\n{sample}\n````" in card
