"""Vocabulary files of others: the ids are those of the library they come from."""

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from tests.makers.texts import lesson, random_strings
from yanmo.core.errors import TokenizerError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import CharTokenizer, Tokenizer, files, find_tokenizer, kind_of, load_tokenizer
from yanmo.tokenizer.library import byte_letters
from yanmo.tokenizer.train import learn_bpe

LEARNED = learn_bpe([lesson()], 600, ["<|endoftext|>"])
END = TokenizerConfig()
FEW, MANY = 2_000, 20_000
LATIN = [" ".join(map(chr, range(0x21, 0x7F)))] * 5
"""What every real vocabulary holds; a control piece could be read out of a text without `<` in it."""

Encode = Callable[[str], list[int]]
Case = tuple[Tokenizer, Encode]


def ranks() -> dict[bytes, int]:
    """The learned byte BPE as tiktoken has it: tokens without the special one, numbered from 0."""
    letters = byte_letters()
    texts = list(LEARNED.spec["model"]["vocab"])[1:]
    return {bytes(letters[letter] for letter in text): rank for rank, text in enumerate(texts)}


def of_tiktoken(folder: Path, rule: str, monkeypatch: pytest.MonkeyPatch) -> Case:
    found = ranks()
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in found.items()]
    (folder / "ours.tiktoken").write_text("".join(lines), encoding="utf-8", newline="\n")
    specials = {"<|endoftext|>": 700, "<|last|>": 720}
    monkeypatch.setitem(files.TIKTOKEN_FILES, len(found), (rule, specials))
    theirs = tiktoken.Encoding("ours", pat_str=rule, mergeable_ranks=found, special_tokens=specials)
    return open_(folder / "ours.tiktoken"), theirs.encode_ordinary


def of_gpt2(folder: Path) -> Case:
    model = LEARNED.spec["model"]
    (folder / "my_encoder.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (folder / "my_vocab.bpe").write_text(
        "#version: 0.2\n" + "\n".join(model["merges"]) + "\n", encoding="utf-8"
    )
    library = tokenizers.ByteLevelBPETokenizer(str(folder / "my_encoder.json"), str(folder / "my_vocab.bpe"))
    return open_(folder / "my_encoder.json"), lambda text: library.encode(text).ids


def of_hugging_face_bpe(folder: Path) -> Case:
    LEARNED.save(folder, 100)
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spec["truncation"] = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    spec["post_processor"] = {
        "type": "TemplateProcessing", "pair": [],
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    return open_(folder), lambda text: theirs(text, add_special_tokens=False)["input_ids"]


def of_hugging_face_bert(folder: Path) -> Case:
    entries = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *"江湖客栈老掌柜说的，。：“”",
        "the",
        "##n",
        "in",
        "4",
        "##2",
    ]
    (folder / "vocab.txt").write_text("\n".join(entries), encoding="utf-8")
    from transformers import BertTokenizer

    theirs = BertTokenizer(str(folder / "vocab.txt"), split_special_tokens=True)
    theirs.save_pretrained(folder / "saved")
    return open_(folder / "saved"), lambda text: theirs(text, add_special_tokens=False)["input_ids"]


def of_sentencepiece(folder: Path, **settings: object) -> Case:
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*lesson(30_000).splitlines(), *LATIN]), model_writer=model, vocab_size=500,
        minloglevel=2, hard_vocab_limit=False, num_threads=1, **settings,
    )  # fmt: skip
    (folder / "ours.model").write_bytes(model.getvalue())
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return open_(folder / "ours.model"), theirs.encode


def of_meta(folder: Path) -> Case:
    characters = sorted(set(lesson(5000)))
    stoi = {character: number for number, character in enumerate(characters)}
    meta = {"vocab_size": len(stoi), "itos": {n: c for c, n in stoi.items()}, "stoi": stoi}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return open_(folder / "meta.pkl"), lambda text: [stoi[c] for c in text]


def open_(path: Path) -> Tokenizer:
    return files.read_tokenizer(path, END)


CASES: dict[str, Callable[[Path, pytest.MonkeyPatch], Case]] = {
    "tiktoken gpt2": lambda folder, patch: of_tiktoken(folder, files.GPT2, patch),
    "tiktoken cl100k": lambda folder, patch: of_tiktoken(folder, files.CL100K, patch),
    "tiktoken o200k": lambda folder, patch: of_tiktoken(folder, files.O200K, patch),
    "gpt2 files": lambda folder, _: of_gpt2(folder),
    "hugging face bpe": lambda folder, _: of_hugging_face_bpe(folder),
    "hugging face bert": lambda folder, _: of_hugging_face_bert(folder),
    "sentencepiece unigram": lambda folder, _: of_sentencepiece(folder, model_type="unigram", byte_fallback=True),
    "sentencepiece bpe": lambda folder, _: of_sentencepiece(folder, model_type="bpe", byte_fallback=True),
    "sentencepiece plain": lambda folder, _: of_sentencepiece(
        folder, model_type="unigram", normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, user_defined_symbols=["萧炎"],
    ),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES)


def check_ids(case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    ours, theirs = CASES[case](folder, monkeypatch)
    ours.save(folder, 100)
    again = load_tokenizer(folder)
    differing = []
    for text in (lesson(4000, seed=9), *random_strings(count, seed=3)):
        expected, found = theirs(text), ours.encode(text).tolist()
        if "unigram" in case and found != expected and sorted(found) == sorted(expected):
            expected = found  # the same pieces in another order have the same probability
        if found != expected or again.encode(text).tolist() != expected:
            differing.append(text)
    assert not differing, f"{len(differing)} of {count}: {differing[:3]!r}"


@cases
def test_ids_are_those_of_the_original_library(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_ids(case, tmp_path, monkeypatch, FEW)


@pytest.mark.long
@cases
def test_ids_are_the_same_on_twenty_thousand(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_ids(case, tmp_path, monkeypatch, MANY)


def test_a_tiktoken_file_has_its_special_ids_and_gaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = of_tiktoken(tmp_path, files.CL100K, monkeypatch)
    assert ours.vocab_size == 721
    assert ours.end_of_text == 700
    assert ours.lossless
    assert {701, 719, 720} <= set(ours.suppressed)
    assert ours.encode("<|last|>", special=True).tolist() == [720]


def test_meta_pkl_keeps_its_ids_and_learns_to_write_everything(tmp_path: Path) -> None:
    ours, theirs = of_meta(tmp_path)
    assert isinstance(ours, CharTokenizer)
    text = lesson(2000)
    assert ours.encode(text).tolist() == theirs(text)
    assert ours.decode(ours.encode("龘 is no KeyError")) == "龘 is no KeyError"
    ours.save(tmp_path, 10)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert again.end_of_text == ours.end_of_text == len(set(lesson(5000)))


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return print, ("taken over",)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("value", [Evil(), {"itos": Evil()}, {"itos": {0: "a", 1: b"b"}}, {0: {"x", "y"}}])
def test_a_pickle_that_does_more_is_refused_unrun(
    value: object, protocol: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(TokenizerError, match="does more than hold a table"):
        open_(tmp_path / "meta.pkl")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("itos", [{}, {0: "a", 2: "b"}, {0: "ab"}, {0: "a", 1: "a"}, {"0": "a"}, "ab"])
def test_a_table_that_is_no_vocabulary_is_refused(itos: object, tmp_path: Path) -> None:
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"itos": itos}))
    with pytest.raises(TokenizerError, match="'itos'"):
        open_(tmp_path / "meta.pkl")


def damaged(data: bytes) -> Iterator[bytes]:
    yield data[: len(data) // 2]
    yield data[:-1]
    yield b""
    yield b"\x00" * 50
    yield bytes(reversed(data))


@pytest.mark.parametrize("name", ["tokenizer.json", "ours.model", "meta.pkl", "ours.tiktoken", "vocab.json"])
def test_a_damaged_file_is_a_clear_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (of_meta, of_hugging_face_bpe):
        make(tmp_path)
    of_sentencepiece(tmp_path, model_type="unigram")
    of_tiktoken(tmp_path, files.GPT2, monkeypatch)
    model = LEARNED.spec["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("\n".join(model["merges"]), encoding="utf-8")
    whole = (tmp_path / name).read_bytes()
    open_(tmp_path / name)
    refused = 0
    for data in damaged(whole):
        (tmp_path / name).write_bytes(data)
        try:
            open_(tmp_path / name)
        except TokenizerError as error:
            refused += 1
            assert str(tmp_path) in error.where
            assert error.hint
    assert refused >= 4


def test_merges_that_name_unknown_pieces_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "<|endoftext|>": 2}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match="cannot read it"):
        open_(tmp_path / "vocab.json")
    (tmp_path / "merges.txt").write_text("a b c\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match="line 1 is not two pieces"):
        open_(tmp_path / "merges.txt")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(TokenizerError, match=r"merges.txt is missing"):
        open_(tmp_path / "vocab.json")


def test_an_unknown_tiktoken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tiktoken").write_text("YQ== 0\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match="of 1 tokens is not known"):
        open_(tmp_path / "x.tiktoken")


def test_a_recipe_takes_every_kind_of_file(tmp_path: Path) -> None:
    of_sentencepiece(tmp_path, model_type="unigram")
    found = find_tokenizer(TokenizerConfig(path=str(tmp_path / "ours.model")))
    assert found is not None
    assert kind_of(found) == "unigram"
    assert not found.lossless


def test_words_of_a_bert_tokenizer_stream_as_they_decode(tmp_path: Path) -> None:
    ours, _ = of_hugging_face_bert(tmp_path)
    ids = ours.encode("老掌柜说：the inn")
    stream = ours.stream()
    assert "".join(stream.push(token) for token in ids.tolist()) + stream.flush() == ours.decode(ids)


def test_a_foreign_decoder_without_bytes_is_run_by_the_library(tmp_path: Path) -> None:
    library = tokenizers.Tokenizer(models.BPE({"<eos>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")]))
    library.add_special_tokens(["<eos>"])
    library.normalizer = normalizers.Lowercase()
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.decoder = decoders.BPEDecoder(suffix="</w>")
    library.save(str(tmp_path / "tokenizer.json"))
    ours = open_(tmp_path)
    assert not ours.lossless
    assert ours.decode(ours.encode("AB a")) == library.decode(library.encode("AB a").ids)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", {"<\ud800>": 3}),
        ("added_tokens.json", {"\udfff": 3, "<x>": 4}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"3": {"content": "a\udc00"}}}),
    ],
)
def test_an_added_token_with_half_a_character_is_refused(name: str, content: object, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[SEP]\n江", encoding="utf-8")
    (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match="half a character"):
        files.read_tokenizer(tmp_path / "vocab.txt", END)


@pytest.mark.parametrize("itos", [{0: "a", "1": "b"}, {"0": "a", 1: "b"}, {0: "a", 2: "b"}, {}])
def test_a_meta_pickle_without_a_character_for_each_id_is_refused(itos: object, tmp_path: Path) -> None:
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"itos": itos}))
    with pytest.raises(TokenizerError, match="no table 'itos'"):
        files.read_tokenizer(tmp_path / "meta.pkl", END)


@pytest.mark.parametrize("entry", ["\ud800", "\udfff", "ab", ""])
def test_a_meta_pickle_of_what_is_no_character_is_refused(entry: str, tmp_path: Path) -> None:
    head = b"\x80\x04}\x8c\x04itos}K\x00\x8c"
    data = entry.encode("utf-8", "surrogatepass")
    (tmp_path / "meta.pkl").write_bytes(head + bytes([len(data)]) + data + b"ss.")
    with pytest.raises(TokenizerError, match="not one character"):
        files.read_tokenizer(tmp_path / "meta.pkl", END)
