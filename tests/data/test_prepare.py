import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.parsers import shard_files
from tests.makers.texts import invented_text
from yanmo.core.console import Console
from yanmo.core.errors import DataError
from yanmo.data.prepare import decide_vocabulary, prepare
from yanmo.data.prepared import Prepared
from yanmo.data.shards import ShardSet, ShardWriter, Tokens, dtype_for
from yanmo.data.split import cut_document, default_val_fraction, plan_split
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig
from yanmo.tokenizer import CharTokenizer
from yanmo.tokenizer.char import count_characters


def prepared(
    path: Path, console: Console, block_size: int = 16, val_fraction: float | None = None
) -> Prepared:
    corpus, data = CorpusConfig(path=(str(path),)), DataConfig(val_fraction=val_fraction)
    return prepare(corpus, TokenizerConfig(), data, block_size, console)


def text_of(part: Tokens, tokenizer: CharTokenizer) -> str:
    return tokenizer.decode(part.slice(0, len(part)))


def test_a_novel_is_split_near_its_end_at_a_paragraph_a_window_apart(novel: Path, console: Console) -> None:
    done = prepared(novel, console, val_fraction=0.1)
    text = novel.read_text(encoding="utf-8")
    train, val = (
        text_of(done.shards.train, done.tokenizer),
        text_of(done.shards.val, done.tokenizer),
    )
    assert text.startswith(train) and train.endswith("\n")
    assert text.endswith(val) and text[-len(val) - 1] == "\n"
    left_out = done.shards.manifest.as_json()["split"]["characters_left_out_between"]
    assert len(text) - len(train) - len(val) == left_out >= 16
    assert 0.05 < len(val) / len(text) <= 0.1


def test_the_manifest_adds_up(novel: Path, console: Console) -> None:
    shards = prepared(novel, console).shards
    manifest = shards.manifest.as_json()
    splits = manifest["splits"]
    total = splits["train"]["characters"] + splits["val"]["characters"]
    assert total + manifest["split"]["characters_left_out_between"] == manifest["counts"]["characters"]
    assert splits["train"]["tokens"] == len(shards.train)
    assert splits["train"]["tokens"] == splits["train"]["characters"] + splits["train"]["documents"]
    assert manifest["dtype"] == "<u2"


def test_many_documents_are_held_out_whole_and_duplicates_together(tmp_path: Path, console: Console) -> None:
    folder = tmp_path / "poems"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03}.txt").write_text(f"第{number % 150}首\n" + "山水" * 20, encoding="utf-8")
    done = prepared(folder, console, val_fraction=0.1)
    sides = []
    for part in (done.shards.train, done.shards.val):
        ids = part.slice(0, len(part))
        ends = np.flatnonzero(ids == done.tokenizer.end_of_text)
        assert len(ends) == len(part.starts)
        documents = np.split(ids, ends + 1)[:-1]
        sides.append(Counter(done.tokenizer.decode(document) for document in documents))
    train, val = sides
    assert not set(train) & set(val)
    assert (train + val).total() == 200
    assert 0.08 < val.total() / 200 < 0.16


def test_equal_documents_that_are_cut_are_cut_alike(tmp_path: Path, console: Console) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    text = invented_text(4000)
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    done = prepared(folder, console, val_fraction=0.1)
    train = text_of(done.shards.train, done.tokenizer)
    val = text_of(done.shards.val, done.tokenizer)
    ending = val[: len(val) // 2]
    assert val == ending * 2
    assert ending not in train


@given(
    st.lists(st.tuples(st.sampled_from([f"{n:02x}" for n in range(40)]), st.integers(1, 5000)), min_size=1),
    st.sampled_from([0.005, 0.05, 0.2]),
    st.integers(1, 3),
)
@settings(max_examples=300)
def test_the_split_holds_out_about_its_share(sizes: list[tuple[str, int]], share: float, copies: int) -> None:
    lengths = dict(sizes)
    total = sum(lengths.values()) * copies
    split = plan_split(list(lengths.items()) * copies, share)
    held_out = sum(lengths[name] for name in split.held_out) + sum(split.cuts.values())
    assert held_out * copies <= 1.5 * share * total + len(lengths) * copies
    assert held_out * copies >= 0.95 * share * total - len(lengths) * copies
    assert not split.held_out & split.cuts.keys()
    assert all(lengths[name] * copies <= share * total / 2 for name in split.held_out)
    assert all(cut <= lengths[name] / 2 for name, cut in split.cuts.items())


def test_as_few_documents_are_cut_as_it_takes() -> None:
    sizes = [(f"{n:02}", 1500 + n) for n in range(20)]
    split = plan_split(sizes, 0.05)
    assert list(split.cuts) == ["19", "18"]
    assert sum(split.cuts.values()) == pytest.approx(0.05 * sum(n for _, n in sizes), rel=0.02)


def test_a_text_without_paragraphs_is_cut_all_the_same() -> None:
    before, after = cut_document("字" * 1000, 100, gap=20)
    assert (len(before), len(after)) == (880, 100)


@pytest.mark.parametrize(
    ("characters", "share"), [(1000, 0.05), (1_000_000, 0.05), (5_000_000, 0.02), (10**9, 0.005)]
)
def test_the_default_share(characters: int, share: float) -> None:
    assert default_val_fraction(characters) == pytest.approx(share)


def test_a_text_shorter_than_a_window_is_a_clear_error(tmp_path: Path, console: Console) -> None:
    path = tmp_path / "short.txt"
    path.write_text("太短了。", encoding="utf-8")
    with pytest.raises(DataError, match=r"shorter than one window: \d+ training tokens .*block_size=16"):
        prepared(path, console)


@given(st.text(max_size=300), st.integers(1, 50))
@settings(max_examples=200)
def test_tokens_of_pieces_are_tokens_of_the_whole(text: str, size: int) -> None:
    tokenizer = CharTokenizer.train(count_characters("的一是不了人我在有他这"))
    pieces = list(tokenizer.pieces(text, size))
    encoded = [np.zeros(0, int), *(tokenizer.encode(piece) for piece in pieces)]
    assert np.concatenate(encoded).tolist() == tokenizer.encode(text).tolist()
    assert "".join(pieces) == text


def test_openings_are_words_of_the_held_out_text_that_fit_the_window(novel: Path, console: Console) -> None:
    done = prepared(novel, console, val_fraction=0.2)
    held_out = text_of(done.shards.val, done.tokenizer)
    openings = done.openings(3, max_tokens=16)
    assert len(openings) == 3 and all(openings)
    assert all(opening in held_out and len(opening) <= 12 for opening in openings)
    assert all(len(opening) <= 4 for opening in done.openings(3, max_tokens=4))


def test_a_folder_of_nothing_usable_says_why(tmp_path: Path, console: Console) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"\x00\x00")
    with pytest.raises(DataError, match="none of 1 documents could be used") as caught:
        prepared(folder, console)
    assert "a.txt: not readable text: binary" in caught.value.hint


def test_new_runs_leave_rare_characters_to_bytes_and_earlier_ones_keep_theirs(
    tmp_path: Path, console: Console
) -> None:
    path = tmp_path / "novel.txt"
    path.write_text("山水。\n" * 500 + "龘龘龖\n", encoding="utf-8")
    corpus = CorpusConfig(path=(str(path),))
    decided = decide_vocabulary(corpus, TokenizerConfig())
    assert decided == {"tokenizer.kind": "char", "tokenizer.min_count": 3}
    assert decide_vocabulary(corpus, TokenizerConfig(kind="bpe"))["tokenizer.min_count"] is None
    assert decide_vocabulary(corpus, TokenizerConfig(path="folder")) == {}
    # the recipe of an earlier run says nothing of it
    known = [
        prepare(corpus, TokenizerConfig(min_count=count), DataConfig(), 16, console).tokenizer.vocab_size
        for count in (None, 1, 2, 3)
    ]
    assert known == [257 + 6, 257 + 6, 257 + 5, 257 + 4]


def test_texts_that_are_held_out_are_never_trained_on(tmp_path: Path, console: Console) -> None:
    folder = tmp_path / "plays"
    folder.mkdir()
    texts = {
        name: f"{name}登场。\n" + invented_text(3000, seed=number) for number, name in enumerate("甲乙丙")
    }
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    elsewhere = tmp_path / "other.txt"
    elsewhere.write_text("丁从未来过。", encoding="utf-8")
    corpus = CorpusConfig(path=(str(folder),))
    data = DataConfig(held_out=(str(folder / "丙.txt"), str(elsewhere)))
    done = prepare(corpus, TokenizerConfig(), data, 16, console)
    sides = done.shards.train, done.shards.val
    read = "".join(text_of(side, done.tokenizer) for side in sides)
    assert "甲登场" in read and "乙登场" in read and "丙" not in read
    # nothing of it is learned, its characters neither: they are bytes
    assert len(done.tokenizer.encode("丙")) == 3
    assert done.unseen is not None
    assert done.unseen.characters == len(texts["丙"]) + 6
    assert done.tokenizer.decode(done.unseen.ids) == texts["丙"] + "丁从未来过。"
    assert done.shards.manifest.as_json()["split"]["documents_never_read"] == 1
    counted = done.unseen.held_out(16, done.tokenizer.end_of_text)
    targets = sum(int((batch.targets >= 0).sum()) for batch in counted.batches(4))
    assert targets == counted.targets == len(done.unseen.ids)
    # without it the whole is read, from shards of its own
    whole = prepare(corpus, TokenizerConfig(), DataConfig(), 16, console)
    assert "丙" in "".join(text_of(side, whole.tokenizer) for side in (whole.shards.train, whole.shards.val))
    gone = tmp_path / "gone.txt"
    with pytest.raises(DataError, match="gone.txt"):
        prepare(corpus, TokenizerConfig(), DataConfig(held_out=(str(gone),)), 16, console)
    some = tmp_path / "some.jsonl"
    some.write_text('{"text": "甲。"}\n{"text": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match="not all texts of data.held_out can be used: .*some.jsonl"):
        prepare(corpus, TokenizerConfig(), DataConfig(held_out=(str(some),)), 16, console)
    finished = tmp_path / "finished"
    finished.mkdir()
    for name, content in shard_files().items():
        (finished / name).write_bytes(content)
    held, shards = DataConfig(held_out=(str(elsewhere),)), CorpusConfig(path=(str(finished),))
    with pytest.raises(DataError, match=r"data\.held_out=.* cannot be taken out of finished shards"):
        prepare(shards, TokenizerConfig(), held, 16, console)
    with pytest.raises(DataError, match="nothing is left of 3 documents"):
        prepare(corpus, TokenizerConfig(), DataConfig(held_out=(str(folder),)), 16, console)


def test_a_second_time_nothing_is_made_again(
    novel: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(novel, console)
    for reader in ("prepare", "survey"):
        monkeypatch.setattr(f"yanmo.data.{reader}.read_documents", lambda *a, **k: pytest.fail("read again"))
    again = prepared(novel, console)
    assert again.shards.manifest == first.shards.manifest


def test_shards_of_any_size_hold_the_same_row(tmp_path: Path) -> None:
    ids = np.arange(1000) % 300
    for shard_tokens in (1000, 7, 333):
        folder = tmp_path / str(shard_tokens)
        folder.mkdir()
        writer = ShardWriter(folder, "train", 300, shard_tokens)
        for start in range(0, 1000, 90):
            writer.begin_document()
            writer.write(ids[start : start + 90], 90)
        done = writer.close()
        assert len(done["files"]) == -(-1000 // shard_tokens)
        row = Tokens([folder / f for f in done["files"]], "<u2", folder / "train.starts.bin")
        assert np.array_equal(row.slice(0, 1000), ids)
        assert row.starts.tolist() == list(range(0, 1000, 90))
        places = np.array([[999, 0], [500, 332]])
        assert np.array_equal(row.at(places), ids[places])


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(256, "<u2"), (65536, "<u2"), (65537, "<u4"), (100277, "<u4")]
)
def test_ids_never_wrap(vocab_size: int, dtype: str, tmp_path: Path) -> None:
    assert dtype_for(vocab_size).str == dtype
    writer = ShardWriter(tmp_path, "train", vocab_size)
    writer.begin_document()
    writer.write(np.array([vocab_size - 1]), 1)
    with pytest.raises(DataError, match=f"token id {vocab_size} is outside"):
        writer.write(np.array([vocab_size]), 1)
    files = [tmp_path / name for name in writer.close()["files"]]
    assert Tokens(files, dtype, tmp_path / "train.starts.bin").slice(0, 1).tolist() == [vocab_size - 1]


@pytest.mark.parametrize("shard_tokens", [7, 100])
@pytest.mark.parametrize("place", [0, 19])
def test_a_token_beyond_the_vocabulary_is_refused_where_it_is_read(
    place: int, shard_tokens: int, tmp_path: Path
) -> None:
    with ShardWriter(tmp_path, "train", 300, shard_tokens) as writer:
        writer.begin_document()
        writer.write(np.arange(20), 20)
        files = [tmp_path / name for name in writer.close()["files"]]
    damaged = files[place // shard_tokens]
    ids = np.fromfile(damaged, "<u2")
    ids[place % shard_tokens] = 300
    ids.tofile(damaged)
    row = Tokens(files, "<u2", tmp_path / "train.starts.bin", 300)
    assert row.slice(5, 15).tolist() == list(range(5, 15))
    with pytest.raises(DataError, match="token 300 is outside the vocabulary of 300"):
        row.at(np.array([[place, 3]]))


def test_shards_of_another_tokenizer_are_refused(novel: Path, console: Console, tmp_path: Path) -> None:
    done = prepared(novel, console)
    folder = next((tmp_path / "cache" / "shards").glob("*/manifest.json")).parent
    with pytest.raises(DataError, match="belong to tokenizer"):
        ShardSet(folder, done.shards.manifest.corpus, "another")


def test_with_a_vocabulary_documents_have_their_start_and_end_and_losses_are_counted(
    tmp_path: Path, console: Console
) -> None:
    vocabulary = tmp_path / "vocab.txt"
    entries = ["[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(invented_text(2000)) - set("\n山"))]
    vocabulary.write_text("\n".join(entries), encoding="utf-8")
    for number in range(8):
        path = tmp_path / "texts" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(invented_text(300, seed=number), encoding="utf-8")
    wordpiece = TokenizerConfig(
        path=str(vocabulary), newline_token="[SEP]", start_token="[MASK]", end_token="[CLS]"
    )
    corpus = CorpusConfig(path=(str(tmp_path / "texts"),))
    done = prepare(corpus, wordpiece, DataConfig(val_fraction=0.3), 16, console)
    for part in (done.shards.train, done.shards.val):
        ids = part.slice(0, len(part))
        assert {int(ids[start]) for start in part.starts} == {3}
        assert {int(ids[end - 1]) for end in [*part.starts[1:], len(part)]} == {1}
    unknown = sum(invented_text(300, seed=n).count("山") for n in range(8))
    assert done.is_lossy
    assert (done.shards.manifest.lost or {})["unknown_characters"] == {"山": unknown}
    assert (done.shards.manifest.lost or {})["total"] == unknown
    characters = done.shards.manifest.splits.characters
    assert characters == 8 * 300


def test_a_vocabulary_that_loses_nothing_of_a_text_is_not_lossy(tmp_path: Path, console: Console) -> None:
    text = invented_text(2000).replace("\n", "")
    (tmp_path / "x.txt").write_text(text, encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(["[UNK]", "[SEP]", *sorted(set(text))]), encoding="utf-8")
    corpus, vocabulary = CorpusConfig(path=(str(tmp_path / "x.txt"),)), TokenizerConfig(path="vocab.txt")
    assert not prepare(corpus, vocabulary, DataConfig(), 16, console).is_lossy


def test_a_mix_is_read_as_often_as_its_rows_say(tmp_path: Path, console: Console) -> None:
    stories = [f"第{n}篇：" + invented_text(60 + n, seed=n) for n in range(40)]
    rows = [
        json.dumps({"text": text, "yanmo_repeat": 1 + n % 3}, ensure_ascii=False)
        for n, text in enumerate(stories)
    ]
    path = tmp_path / "mix.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    done = prepared(path, console, val_fraction=0.1)
    train, val = text_of(done.shards.train, done.tokenizer), text_of(done.shards.val, done.tokenizer)
    held_out = [text for text in stories if text in val]
    assert held_out and all(val.count(text) == 1 for text in held_out)
    for n, text in enumerate(stories):
        assert train.count(text) == (0 if text in held_out else 1 + n % 3)
    again = done.shards.manifest.as_json()["split"]["documents_read_again"]
    assert again == sum(1 for n in range(40) if n % 3)
