import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.models import TOKENIZER, bpe_tokenizer, hugging_face_folder, lively_model, our_folder
from tests.makers.runs import RUN, Trained
from yanmo.core.errors import ConfigError, TokenizerError
from yanmo.core.storage import remove_path
from yanmo.data.text_index import TextIndex, build_index
from yanmo.generate.no_copy import NoCopy
from yanmo.generate.rules import why_no_index
from yanmo.generate.text import write_all, write_samples
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import CharTokenizer, LibraryTokenizer, Tokenizer, WordPieceTokenizer
from yanmo.tokenizer.base import END_OF_TEXT
from yanmo.tokenizer.spec import tokenizer_json
from yanmo.tokenizer.train import learn_bpe
from yanmo.tokenizer.wordpiece import Roles

LETTERS = "甲乙丙ab，"
RARE = "𠮷é"
"""Not in the vocabularies: written as bytes, where there are such."""


def indexed(folder: Path, documents: Sequence[str]) -> TextIndex:
    folder.mkdir(exist_ok=True)
    build_index(folder, [[text] for text in documents])
    return TextIndex(folder)


def words(rng: random.Random) -> list[str]:
    """What a vocabulary may hold beside single characters."""
    return ["".join(rng.choices(LETTERS, k=rng.randrange(2, 6))) for _ in range(30)]


def char_tokenizer(rng: random.Random, documents: list[str]) -> Tokenizer:
    return CharTokenizer(LETTERS)


def learned_bpe(rng: random.Random, documents: list[str]) -> Tokenizer:
    return learn_bpe(["".join(words(rng)) + "".join(documents)], 300, [END_OF_TEXT])


def drawn_unigram(rng: random.Random, documents: list[str]) -> Tokenizer:
    single = [END_OF_TEXT, *(f"<0x{value:02X}>" for value in range(256)), *LETTERS]
    vocab = [[entry, -float(n)] for n, entry in enumerate(dict.fromkeys([*single, *words(rng)]))]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": True}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    return LibraryTokenizer(tokenizer_json({END_OF_TEXT: 0}, model, decoder=decoder), END_OF_TEXT)


def drawn_wordpiece(rng: random.Random, documents: list[str]) -> Tokenizer:
    pieces = [f"{before}{''.join(rng.choices('ab', k=k))}" for k in (1, 2, 3, 4) for before in ("", "##")]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *RARE, *pieces]
    added = {"甲乙丙": False, "a b": False}
    entries = list(dict.fromkeys([*entries, *added]))
    return WordPieceTokenizer(entries, Roles("", "", "[SEP]"), added)


MAKERS = {
    "char": char_tokenizer,
    "bpe": learned_bpe,
    "unigram": drawn_unigram,
    "wordpiece": drawn_wordpiece,
}


def written(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The whole characters of ids, as a stream shows them."""
    return "".join(map(tokenizer.stream().push, ids))


def completes_a_copy(copies: set[str], before: str, after: str, characters: int) -> bool:
    ends = range(max(len(before) + 1, characters), len(after) + 1)
    return any(after[end - characters : end] in copies for end in ends)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("trial", range(6))
def test_a_token_is_barred_if_and_only_if_it_would_complete_a_copy(
    kind: str, trial: int, tmp_path: Path, drawn_seed: int
) -> None:
    """Of tokens that go on as the training text does wherever they may, and sometimes as they like."""
    rng = random.Random(f"{drawn_seed} {kind} {trial}")
    documents = ["".join(rng.choices(LETTERS * 4 + RARE, k=rng.choice((5, 40, 200)))) for _ in range(4)]
    tokenizer = MAKERS[kind](rng, documents)
    documents = [tokenizer.decode(tokenizer.encode(text)) for text in documents]  # as shards hold them
    characters = rng.choice((1, 2, 3, 5, 8))
    copies = {text[at : at + characters] for text in documents for at in range(len(text) - characters + 1)}
    rule = NoCopy(indexed(tmp_path, documents), tokenizer, characters)
    learned = tokenizer.encode(documents[-1]).tolist()
    ids = learned[: rng.randrange(len(learned))]
    state, everything = rule.begin(ids), range(tokenizer.vocab_size)
    for _ in range(25):
        before = written(tokenizer, ids)
        expected = [
            token
            for token in everything
            if completes_a_copy(copies, before, written(tokenizer, [*ids, token]), characters)
        ]
        barred = state.barred()
        assert expected == ([] if barred is None else barred.nonzero().flatten().tolist())
        allowed = [token for token in everything if token not in set(expected)]
        heart = [token for token in learned if token not in set(expected)]
        token = rng.choice(heart if heart and rng.random() < 0.8 else allowed)
        ids.append(token)
        state.push(token)
    assert tokenizer.end_of_text not in expected


@pytest.mark.parametrize("characters", [1, 2, 4, 7])
def test_a_model_that_knows_its_text_by_heart_does_not_write_it(tmp_path: Path, characters: int) -> None:
    model, config = lively_model(), SampleConfig(temperature=0, max_new_tokens=60)
    heart = write_all(model, TOKENIZER, "江湖", config)[0]
    text = "江湖" + heart.replace("�", "")  # which only says that bytes are no character
    rules = [NoCopy(indexed(tmp_path, [text]), TOKENIZER, characters)]
    config = config.model_copy(update={"no_copy": characters})
    (new,) = write_all(model, TOKENIZER, "江湖", config, text_rules=rules)
    assert not TextIndex(tmp_path).copied_spans("江湖"[max(3 - characters, 0) :] + new, max(characters, 1))
    assert new != heart


def test_going_back_from_a_banned_phrase_forgets_no_copy_that_has_begun(tmp_path: Path) -> None:
    model, config = lively_model(), SampleConfig(temperature=0, max_new_tokens=60, no_copy=4)
    heart = write_all(model, TOKENIZER, "江湖", config.model_copy(update={"no_copy": 0}))[0].replace("�", "")
    index = indexed(tmp_path, ["江湖" + heart])
    rules = [NoCopy(index, TOKENIZER, 4)]
    free = write_all(model, TOKENIZER, "江湖", config, text_rules=rules)[0]
    config = config.model_copy(update={"banned": (free.replace("�", "")[:2],)})
    (new,) = write_all(model, TOKENIZER, "江湖", config, text_rules=rules)
    assert not index.copied_spans("湖" + new, 4) and new != free
    assert config.banned[0] in free and config.banned[0] not in new


def test_nothing_is_looked_up_while_no_token_can_complete_a_copy(tmp_path: Path) -> None:
    class Counting(TextIndex):
        asked = 0

        def continuation(self, *arguments: object, **more: object) -> str | None:
            self.asked += 1
            return super().continuation(*arguments, **more)  # type: ignore[arg-type]

    indexed(tmp_path, ["江湖夜雨十年灯，桃李春风一杯酒。"])
    index = Counting(tmp_path)
    state = NoCopy(index, TOKENIZER, 6).begin(TOKENIZER.encode("湖夜").tolist())
    asked = index.asked
    assert state.barred() is None and index.asked == asked
    for token in TOKENIZER.encode("雨十年").tolist():
        state.push(token)
    barred = state.barred()
    assert barred is not None and TOKENIZER.decode(barred.nonzero().flatten().tolist()) == "灯"


# -- where the training text is not at hand ------------------------------------------------------


def test_without_its_rule_no_copy_is_refused_and_never_ignored() -> None:
    with pytest.raises(ConfigError, match="no_copy=5 .* need their rules"):
        write_samples(lively_model(), TOKENIZER, ["江湖"], SampleConfig(no_copy=5))


def test_a_decoder_of_others_is_refused(tmp_path: Path) -> None:
    spec = bpe_tokenizer().spec | {"decoder": {"type": "BPEDecoder", "suffix": "</w>"}}
    with pytest.raises(TokenizerError, match="what each token would write next is not known"):
        NoCopy(indexed(tmp_path, ["江湖"]), LibraryTokenizer(spec, END_OF_TEXT), 5)


def test_a_folder_that_belongs_to_no_run_is_refused(tmp_path: Path) -> None:
    model = lively_model()
    for folder in (
        our_folder(tmp_path / "a", model, TOKENIZER),
        hugging_face_folder(tmp_path / "b", model, TOKENIZER),
    ):
        for verb, typed in (("generate", ""), ("chat", "江湖\n")):
            done = here(verb, str(folder), "--no-copy", "5", typed=typed)
            assert done.returncode == 2
            assert "the text that this model was trained on is not at hand" in done.stderr


def test_a_run_writes_without_copying_through_commands_and_python(
    trained: Trained, novel: Path, own_cache: Path
) -> None:
    """Its shards are not in this cache, so they are made again of its corpus."""
    import yanmo

    trained(RUN, "sample.temperature=0.81")  # by this test alone, so its corpus is the one of this folder
    text = novel.read_text(encoding="utf-8")
    common = ["--no-copy", "2", "--max-new-tokens", "40", "--seed", "3"]
    done = here("generate", str(RUN), "-p", "春", *common)
    new = done.stdout.strip()
    train = text[: len(text) * 9 // 10]
    assert done.returncode == 0 and len(new) > 20
    assert not [new[at : at + 2] for at in range(len(new) - 1) if new[at : at + 2] in train]
    assert yanmo.load(RUN).write("春", no_copy=2, max_new_tokens=40, seed=3) == new[1:]
    chat = here("chat", str(RUN), *common, typed="春\n/more\n")
    assert chat.returncode == 0 and new[1:] in chat.stdout
    assert [folder.name for folder in own_cache.iterdir() if folder.name == "index"]
    assert why_no_index(RUN / "model") is None
    novel.unlink()
    remove_path(own_cache)
    assert "trained on is not at hand" in (why_no_index(RUN / "model") or "")
    gone = here("generate", str(RUN), "-p", "春", *common)
    assert gone.returncode == 2 and "trained on is not at hand" in gone.stderr and gone.stdout == ""


def test_a_runs_own_samples_keep_to_it(trained: Trained, novel: Path) -> None:
    trained(RUN, "sample.no_copy=2", "sample.prompt=春", "sample.max_new_tokens=30")
    text = novel.read_text(encoding="utf-8")
    train = text[: len(text) * 9 // 10]
    samples = [path.read_text(encoding="utf-8")[:-1] for path in (RUN / "samples").iterdir()]
    assert len(samples) == 3 and all(len(new) > 10 for new in samples)
    assert not [new for new in samples for at in range(len(new) - 1) if new[at : at + 2] in train]
