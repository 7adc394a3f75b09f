import random
import re
import sys
from collections.abc import Iterable

import pytest

from tests.makers.console import yanmo
from tests.makers.models import TOKENIZER, bpe_tokenizer, lively_model
from tests.makers.runs import RUN, Trained
from yanmo.core.errors import ConfigError
from yanmo.generate.rules import text_rules
from yanmo.generate.text import write_all, write_samples
from yanmo.generate.verse import Verse, rhyme_of, why_no_verse
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import CharTokenizer, LibraryTokenizer, Tokenizer, WordPieceTokenizer
from yanmo.tokenizer.base import END_OF_TEXT
from yanmo.tokenizer.spec import tokenizer_json
from yanmo.tokenizer.train import learn_bpe
from yanmo.tokenizer.wordpiece import Roles

LETTERS = "春江花月夜光霜乡长望人天年山间风中空红之时鸡衣雨绿a，。！"
ACROSS = "光，春江", "霜。\n", "霜。\n春江花月夜，春江花月天"
"""Characters over the ends of lines, the last over those of two that do not rhyme."""
LINE = "[\u4e00-\u9fff]"


def pairs(rng: random.Random) -> list[str]:
    """What a vocabulary may hold beside single characters, some of it across the ends of lines."""
    return sorted({"".join(rng.choices(LETTERS, k=rng.randrange(2, 7))) for _ in range(200)} | {*ACROSS})


def unigram(rng: random.Random, spelled: Iterable[int] = range(256)) -> Tokenizer:
    single = [END_OF_TEXT, *(f"<0x{value:02X}>" for value in spelled), *LETTERS]
    vocab = [[entry, -float(n)] for n, entry in enumerate([*single, *pairs(rng)])]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": True}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    return LibraryTokenizer(tokenizer_json({END_OF_TEXT: 0}, model, decoder=decoder), END_OF_TEXT)


def wordpiece(rng: random.Random, letters: str = LETTERS) -> Tokenizer:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    added = [text for text in pairs(rng) if "\n" not in text]
    return WordPieceTokenizer([*entries, *added], Roles("", "", "[SEP]"), dict.fromkeys(added, False))


MAKERS = {
    "char": lambda rng: CharTokenizer(LETTERS + "\n"),
    "bpe": lambda rng: learn_bpe(["".join(pairs(rng))], 400, [END_OF_TEXT]),
    "unigram": unigram,
    "some bytes": lambda rng: unigram(rng, {10, *rng.sample(range(0x80, 0xF0), 90)}),
    "wordpiece": wordpiece,
}


def is_poem(text: str, config: SampleConfig) -> bool:
    """Whether a text has the form that settings ask for, read from the text alone."""
    lines = re.split("(?<=[，。])\n?", text)[:-1]
    marks = [("，", "。")[n % 2 or n == config.verse_lines - 1] for n in range(config.verse_lines)]
    ends = [line[-2] for line in lines[1::2]]
    return (
        [line[-1] for line in lines] == marks
        and all(re.fullmatch(LINE + f"{{{config.verse}}}", line[:-1]) for line in lines)
        and "".join(line[0] for line in lines).startswith(config.acrostic)
        and not re.search("(?<!。)\n|\n$", text)
        and (not config.rhyme or (len({*map(rhyme_of, ends)}) <= 1 and len({*ends}) == len(ends)))
    )


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("trial", range(8))
def test_whatever_tokens_are_drawn_the_text_is_a_poem_of_the_form_asked_for(
    kind: str, trial: int, drawn_seed: int
) -> None:
    rng = random.Random(f"{drawn_seed} {kind} {trial}")
    tokenizer = MAKERS[kind](rng)
    lines = rng.randrange(1, 9)
    config = SampleConfig(
        verse=rng.choice((5, 7)), verse_lines=lines, rhyme=rng.random() < 0.7, max_new_tokens=2000,
        acrostic="".join(rng.choices("春江花月", k=rng.randrange(lines + 1))),
        banned=rng.choice(((), ("光", "！"))),
    )  # fmt: skip
    rule = Verse(tokenizer, config)
    before = rng.choice(("", "春a", "夜。\n"))
    prompt = tokenizer.encode(before).tolist()
    state, stream, text = rule.begin(prompt), tokenizer.stream(), ""
    for token in prompt:
        stream.push(token)
    for _ in range(config.max_new_tokens):
        allowed = (~state.barred()).nonzero().flatten().tolist()
        longer = [token for token in allowed if len(tokenizer.decode([token])) > 1]
        token = rng.choice(longer if longer and rng.random() < 0.5 else allowed)
        if token == tokenizer.end_of_text:
            break
        text += stream.push(token)
        state.push(token)
    assert allowed == [tokenizer.end_of_text] and not stream.flush()
    begins_a_line = before == "春a" and kind != "wordpiece"
    assert text.startswith("\n") == begins_a_line
    poem = text.removeprefix("\n")
    assert is_poem(poem, config)
    assert ("\n" in poem) == (lines > 2 and kind != "wordpiece")


def test_a_token_may_hold_the_end_of_one_line_and_the_beginning_of_the_next_but_not_two_ends() -> None:
    rule = Verse(unigram(random.Random(0)), SampleConfig(verse=5, rhyme=True))
    state, ids = rule.begin([]), {rule.tokenizer.decode([token]): token for token in rule.usable}
    over_one, _, over_two = (ids[text] for text in ACROSS)
    assert state.barred()[over_one]
    for character in "春江花月":
        state.push(ids[character])
    assert not state.barred()[over_one]
    state.push(over_one)
    for character in "花月":
        state.push(ids[character])
    assert not state.barred()[ids["霜"]] and state.barred()[over_two]


@pytest.mark.parametrize("pair", ["光霜", "光乡", "山天", "间年", "花家", "流秋", "时之"])
def test_characters_rhyme_whose_finals_differ_by_a_medial_at_most(pair: str) -> None:
    assert rhyme_of(pair[0]) == rhyme_of(pair[1]) != ""


@pytest.mark.parametrize("pair", ["之鸡", "月歌", "山霜", "人天", "风光"])
def test_others_do_not(pair: str) -> None:
    assert rhyme_of(pair[0]) != rhyme_of(pair[1])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_model_writes_poems_one_by_one_and_together(seed: int, temperature: float) -> None:
    tokenizer, model = TOKENIZER, lively_model()  # most characters byte by byte
    asked = {"verse": 5, "verse_lines": 4, "rhyme": True, "acrostic": "春江花月", "max_new_tokens": 100}
    config = SampleConfig(**asked, temperature=temperature, seed=seed, min_new_tokens=99, num_samples=3)
    rules = text_rules(config, tokenizer, index=pytest.fail)
    written = write_samples(model, tokenizer, ["夜"], config, text_rules=rules)
    assert all(is_poem(sample.text.removeprefix("\n"), config) for sample in written)
    assert all(sample.text.startswith("\n") for sample in written)


# -- where no poem can be ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "settings", "said"),
    [
        ("春，。", {"acrostic": "龙"}, "the vocabulary has no 龙"),
        ("春。", {}, "the vocabulary has no ，"),
        ("ab，。", {}, "the vocabulary has no Chinese characters"),
        ("春月，。", {"rhyme": True}, "no rhyme has 2 characters in this vocabulary"),
    ],
)
def test_a_vocabulary_that_lacks_what_it_takes_is_refused(letters: str, settings: dict, said: str) -> None:
    tokenizer = wordpiece_of(letters)
    with pytest.raises(ConfigError, match=said):
        Verse(tokenizer, SampleConfig(verse=5, **settings))


def wordpiece_of(letters: str) -> Tokenizer:
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    return WordPieceTokenizer(entries, Roles("", "", "[SEP]"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"verse": 5, "stop": ["月"]}, "cannot be written with stop"),
        ({"verse": 5, "stop_at": "line"}, "cannot be written with stop_at"),
        ({"verse": 5, "no_copy": 12}, "cannot be written with no_copy"),
        ({"verse": 5, "acrostic": "春a"}, "not one Chinese character for each line"),
        ({"verse": 5, "acrostic": "春江花月夜"}, "not one Chinese character for each line of 4"),
        ({"verse": 7, "max_new_tokens": 97}, "may need 98 tokens"),
        ({"verse": 5, "banned": ["，"]}, "must have '，', which is banned"),
        ({"verse": 5, "banned": ["。\n花"], "acrostic": "春江花"}, "which is banned"),
        ({"acrostic": "春江"}, "acrostic is of a poem"),
        ({"rhyme": True}, "rhyme is of a poem"),
    ],
)
def test_settings_that_leave_no_poem_are_refused(settings: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        text_rules(SampleConfig(**settings), MAKERS["char"](random.Random(0)), index=pytest.fail)


def test_without_its_rule_verse_is_refused_and_never_ignored() -> None:
    with pytest.raises(ConfigError, match="verse=5 need their rules"):
        write_all(lively_model(), MAKERS["char"](random.Random(0)), "春", SampleConfig(verse=5))


def test_rhymes_without_pypinyin_are_refused_with_the_way_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rhyme_of.cache_clear()
    monkeypatch.setitem(sys.modules, "pypinyin", None)
    with pytest.raises(ConfigError, match="rhymes need pypinyin"):
        Verse(MAKERS["char"](random.Random(0)), SampleConfig(verse=5, rhyme=True))


def test_why_a_model_writes_no_poem_is_said() -> None:
    assert why_no_verse(MAKERS["char"](random.Random(0))) is None
    assert why_no_verse(wordpiece_of("ab")) == "the vocabulary has no Chinese characters"
    spec = bpe_tokenizer().spec | {"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}
    assert "not known" in (why_no_verse(LibraryTokenizer(spec, END_OF_TEXT)) or "")


@pytest.mark.slow
def test_the_command_writes_a_poem_or_says_why_not(trained: Trained) -> None:
    trained(RUN)
    common = "--verse", "5", "--acrostic", "江湖", "--rhyme", "--seed", "1", "--max-new-tokens", "80"
    done = yanmo("generate", str(RUN), "-p", "春", *common)
    config = SampleConfig(verse=5, acrostic="江湖", rhyme=True)
    assert done.returncode == 0 and is_poem(done.stdout.strip().removeprefix("春\n"), config)
    again = yanmo("chat", str(RUN), *common, typed="春\n")
    assert again.returncode == 0 and done.stdout.strip()[1:] in again.stdout
    refused = yanmo("generate", str(RUN), "-p", "春", "--verse", "6")
    assert refused.returncode == 2 and "verse" in refused.stderr
