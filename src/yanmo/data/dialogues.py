"""Dialogues and pairs → shards with marks of what is learned, reused by content hash.

Each dialogue is rendered by the model's chat template (``tokenizer/chat_template.py``); learned are answers
with the ends of their turns. One longer than a window becomes several, cut between rounds, each with the
system prompt; a single round that is longer keeps its end. Of a pair, two documents follow each other: what
was chosen, then what was rejected.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from yanmo.core import storage
from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import ConfigError, DataError
from yanmo.data.packed import PackedRows
from yanmo.data.pairs import PairRows
from yanmo.data.prepared import Prepared, Sides
from yanmo.data.shards import LEARNED, REJECTED, ShardSet, ShardWriter, write_manifest
from yanmo.data.split import content_hash, default_val_fraction
from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.dialogues import DialogueCounts, read_dialogues
from yanmo.text.read.documents import corpus_fingerprint
from yanmo.text.read.turns import Dialogue, Message, Pair
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.chat_template import ChatTemplate, OtherRenderingError

DIALOGUES_VERSION = 2
"""Part of every cache key: raise it when the same dialogues would give other shards."""
TOO_LONG, REFUSED = "longer than the window", "refused by the template"


@dataclass(frozen=True)
class EncodedDialogue:
    """Ids and which of them the model is to write, one beside the other."""

    ids: list[int]
    learned: list[bool]
    characters: int
    """Of what is learned."""
    is_rejected: bool = False

    def end(self, length: int) -> "EncodedDialogue":
        """Its last ``length`` ids."""
        return replace(self, ids=self.ids[-length:], learned=self.learned[-length:])


@dataclass
class EncodingCounts:
    """What became of the dialogues that were read."""

    read: DialogueCounts = field(default_factory=DialogueCounts)
    encoded: int = 0
    parts: int = 0
    """Of dialogues that are longer than a window."""
    dropped: Counter[str] = field(default_factory=Counter)
    rounds_dropped: int = 0
    """Of those: rounds whose answer alone is longer than a window."""
    cut: int = 0
    """Single rounds that lost the beginning of their question."""
    first_dropped: str = ""


class DialogueEncoder:
    """Encodes dialogues and pairs for a window of ``block_size`` tokens."""

    def __init__(
        self, tokenizer: Tokenizer, chat: ChatTemplate | None, block_size: int, counts: EncodingCounts
    ) -> None:
        self.tokenizer, self.chat, self.counts = tokenizer, chat, counts
        # the last token is a target only
        self.longest = block_size + 1

    def encode(self, record: Dialogue | Pair) -> list[EncodedDialogue]:
        """The documents of a dialogue, or the two of a pair; none if it cannot be used."""
        try:
            found = self._pair(record) if isinstance(record, Pair) else self._dialogue(record)
        except ConfigError as error:
            return self._drop(REFUSED, f"{record.where}: {error.what}")
        if not found:
            return self._drop(TOO_LONG, f"{record.where}: its answer alone is longer than the window")
        self.counts.encoded += 1
        return found

    def _drop(self, reason: str, named: str) -> list[EncodedDialogue]:
        self.counts.dropped[reason] += 1
        self.counts.first_dropped = self.counts.first_dropped or named
        return []

    def _dialogue(self, dialogue: Dialogue) -> list[EncodedDialogue]:
        messages = dialogue.messages
        try:
            whole = self._encoded(messages)
        except OtherRenderingError:
            # a template that writes earlier answers otherwise than the last one: each is learned as the last
            answers = [n for n, message in enumerate(messages) if message.role == "assistant"]
            found = [self._fitting(self._answered(messages[:n], messages[n].content)) for n in answers]
        else:
            if len(whole.ids) <= self.longest:
                return [whole]
            found = [self._fitting(self._encoded(part)) for part in self._parts(messages, whole)]
        parts = [part for part in found if part is not None]
        self.counts.parts += len(parts) if len(parts) > 1 else 0
        # without any part the dialogue itself is counted
        self.counts.rounds_dropped += len(found) - len(parts) if parts else 0
        return parts

    def _parts(self, messages: Sequence[Message], whole: EncodedDialogue) -> Iterator[tuple[Message, ...]]:
        """Runs of rounds that fit the window, each behind the system prompt."""
        system = tuple(messages[:1]) if messages[0].role == "system" else ()
        asked, ends = rounds(messages[len(system) :]), ends_of_answers(whole.learned)
        # two rounds alone say what stands before and behind every run; the rest is seen in the whole, so
        # that each message is encoded once for it
        first, second = (len(self._encoded((*system, *one)).ids) for one in (asked[0], asked[:2][-1]))
        behind = first - ends[0]
        around = second - (ends[:2][-1] - ends[0]) if len(asked) > 1 else first
        begun, before = 0, 0  # round and token
        for number, end in enumerate(ends):
            if number > begun and end - before + (around if begun else behind) > self.longest:
                yield (*system, *chain.from_iterable(asked[begun:number]))
                begun, before = number, ends[number - 1]
        yield (*system, *chain.from_iterable(asked[begun:]))

    def _fitting(self, encoded: EncodedDialogue) -> EncodedDialogue | None:
        """A part, of a single long round its end; None if no whole answer would be left."""
        too_many = len(encoded.ids) - self.longest
        if too_many <= 0:
            return encoded
        # what stands first is no target
        if any(encoded.learned[: too_many + 1]):
            return None
        self.counts.cut += 1
        return encoded.end(self.longest)

    def _pair(self, pair: Pair) -> list[EncodedDialogue]:
        if isinstance(pair.prompt, str):
            return self._continuations(pair.prompt, (pair.chosen, pair.rejected))
        if self.chat is None and [message.role for message in pair.prompt] == ["user"]:
            # a base without a template continues texts: so it is taught to
            return self._continuations(pair.prompt[0].content, (pair.chosen, pair.rejected))
        chosen, rejected = (self._answered(pair.prompt, answer) for answer in (pair.chosen, pair.rejected))
        found = [chosen, replace(rejected, is_rejected=True)]
        # both lose the same beginning, or they would answer different questions
        too_many = max(len(one.ids) for one in found) - self.longest
        if too_many <= 0:
            return found
        if any(any(one.learned[: too_many + 1]) for one in found):
            return []
        self.counts.cut += 1
        return [one.end(len(one.ids) - too_many) for one in found]

    def _continuations(self, prompt: str, texts: Sequence[str]) -> list[EncodedDialogue]:
        """Texts that go on with a prompt, of which the end is read."""
        begun = [self.tokenizer.end_of_text, *self.tokenizer.encode(prompt).tolist()]
        ids = [self.tokenizer.encode(text).tolist() for text in texts]
        room = self.longest - max(map(len, ids))
        if room < 1 or not all(ids):
            return []
        self.counts.cut += len(begun) > room
        before = begun[-room:]
        masks = [[False] * len(before) + [True] * len(after) for after in ids]
        chosen, rejected = (
            EncodedDialogue(before + after, mask, len(text))
            for after, mask, text in zip(ids, masks, texts, strict=True)
        )
        return [chosen, replace(rejected, is_rejected=True)]

    def _answered(self, prompt: Sequence[Message], answer: str) -> EncodedDialogue:
        """A prompt and its answer, of which the answer alone is to be written."""
        messages = [vars(message) for message in (*prompt, Message("assistant", answer))]
        ids, learned = self._template.encode_learned(messages, only_last=True)
        return EncodedDialogue(ids, learned, len(answer))

    def _encoded(self, messages: Sequence[Message]) -> EncodedDialogue:
        """
        Raises:
            ConfigError: the template refuses these messages, or there is none.
        """
        ids, learned = self._template.encode_learned([vars(message) for message in messages])
        return EncodedDialogue(ids, learned, characters_of(messages))

    @property
    def _template(self) -> ChatTemplate:
        if self.chat is None:
            raise ConfigError(
                "the base has no chat template, so it knows no roles",
                where="messages",
                hint="teach it dialogues first",
            )
        return self.chat


def characters_of(messages: Sequence[Message]) -> int:
    """Of all answers."""
    return sum(len(message.content) for message in messages if message.role == "assistant")


def ends_of_answers(learned: Sequence[bool]) -> list[int]:
    """Where each run of learned tokens ends."""
    return [n + 1 for n, (now, then) in enumerate(pairwise((*learned, False))) if now and not then]


def rounds(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """What is asked, with the answer to it."""
    found: list[tuple[Message, ...]] = [()]
    for message in messages:
        if message.role == "user" and any(one.role == "assistant" for one in found[-1]):
            found.append(())
        found[-1] += (message,)
    return found


def prepare_dialogues(
    corpus: CorpusConfig,
    tokenizer: Tokenizer,
    chat: ChatTemplate | None,
    val_fraction: float | None,
    block_size: int,
    console: Console,
    are_pairs: bool = False,
) -> Prepared:
    """Shards of dialogues or pairs, made where they are missing; pairs alone may do without a template.

    Raises:
        DataError: none can be used, or there are fewer than two.
    """
    content = corpus_fingerprint(corpus)
    template = chat.text if chat is not None else None
    asked = [DIALOGUES_VERSION, content, tokenizer.fingerprint, template, val_fraction, block_size]

    def fill(folder: Path) -> None:
        records = read_dialogues(corpus, DialogueCounts())
        sizes = [(content_of(record), learned_characters(record)) for record in records]
        fraction = val_fraction or default_val_fraction(sum(n for _, n in sizes))
        encoder = DialogueEncoder(tokenizer, chat, block_size, EncodingCounts())
        with ProgressLine(console, "rendering dialogues", len(sizes)) as progress:
            splits = _write(folder, corpus, encoder, hold_out(sizes, fraction), progress)
        _require_both_sides(splits, encoder.counts, corpus)
        more = {"counts": counts_of(encoder.counts), "val_fraction": fraction}
        write_manifest(folder, content, tokenizer.fingerprint, tokenizer.vocab_size, splits, more)

    shards = ShardSet(
        storage.cached("dialogues", storage.fingerprint(asked), fill), content, tokenizer.fingerprint
    )
    for line in said_of(shards.manifest.as_json()["counts"]):
        console.print(line)
    fraction = shards.manifest.as_json()["val_fraction"]
    if are_pairs:
        pairs = Sides(PairRows(shards.train, block_size), PairRows(shards.val, block_size))
        return Prepared(tokenizer, shards, fraction, chat, pairs=pairs)
    rows = Sides(PackedRows(shards.train, block_size), PackedRows(shards.val, block_size))
    return Prepared(tokenizer, shards, fraction, chat, rows)


def content_of(record: Dialogue | Pair) -> str:
    """A name for a record's content, wherever it stands."""
    if isinstance(record, Pair):
        return content_hash(repr((record.prompt, record.chosen, record.rejected)))
    return content_hash(repr(record.messages))


def learned_characters(record: Dialogue | Pair) -> int:
    """Characters of its answers, or of what was chosen."""
    return len(record.chosen) if isinstance(record, Pair) else characters_of(record.messages)


def hold_out(sizes: Sequence[tuple[str, int]], fraction: float) -> frozenset[str]:
    """Records to hold out, by hash until the share is reached; one at least, and never all."""
    copies, length = Counter(name for name, _ in sizes), dict(sizes)
    share = fraction * sum(size for _, size in sizes)
    found: set[str] = set()
    for name in sorted(length)[: len(length) - 1]:
        if share <= 0:
            break
        found.add(name)
        share -= length[name] * copies[name]
    return frozenset(found)


def _write(
    folder: Path,
    corpus: CorpusConfig,
    encoder: DialogueEncoder,
    held_out: frozenset[str],
    progress: ProgressLine,
) -> dict[str, Any]:
    """Every record to its side; returns the manifest's ``splits``."""
    sides = {side: MarkedWriter(folder, side, encoder.tokenizer.vocab_size) for side in ("train", "val")}
    with sides["train"], sides["val"]:
        for record in read_dialogues(corpus, encoder.counts.read):
            side = sides["val" if content_of(record) in held_out else "train"]
            for document in encoder.encode(record):
                side.add(document)
            progress.advance(1)
    return {side: writer.close() for side, writer in sides.items()}


class MarkedWriter(ShardWriter):
    """Writes tokens and, beside them, a mark for each."""

    def __init__(self, folder: Path, split: str, vocab_size: int) -> None:
        super().__init__(folder, split, vocab_size)
        self._marks = open(folder / f"{split}.marks.bin", "wb")  # noqa: SIM115 - closed in __exit__
        self._targets = 0

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._marks.close()

    def add(self, document: EncodedDialogue) -> None:
        """Append a document."""
        mark = REJECTED if document.is_rejected else LEARNED
        self.begin_document()
        self.write(np.array(document.ids, dtype=np.int64), 0 if document.is_rejected else document.characters)
        self._marks.write((mark * np.array(document.learned, dtype=np.uint8)).tobytes())
        self._targets += 0 if document.is_rejected else sum(document.learned)

    def close(self) -> dict[str, Any]:
        """Finish; returns this split's part of the manifest."""
        return super().close() | {"targets": self._targets}


def _require_both_sides(splits: dict[str, Any], counts: EncodingCounts, corpus: CorpusConfig) -> None:
    if not all(splits[side]["documents"] for side in splits):
        first = counts.first_dropped or "there are fewer than two different ones"
        raise DataError(
            f"{counts.encoded} dialogues are too few: some are trained on, some held out",
            where=", ".join(corpus.path),
            hint=f"{first}; give more dialogues, or a base with a longer window",
        )


def counts_of(counts: EncodingCounts) -> dict[str, Any]:
    """For the manifest: everything read is encoded or dropped under a reason."""
    read = counts.read.as_json()
    return {
        "documents_read": counts.encoded + sum(counts.dropped.values()),
        "documents_dropped": dict(counts.dropped),
        "parts_of_long_dialogues": counts.parts,
        "rounds_dropped": counts.rounds_dropped,
        "questions_cut_to_fit": counts.cut,
        "first_dropped": counts.first_dropped,
        "records": read,
    }


def said_of(counts: dict[str, Any]) -> list[str]:
    """The same in lines for people."""
    dropped = counts["documents_dropped"]
    used = counts["documents_read"] - sum(dropped.values())
    lines = [f"{used:,} dialogues or pairs are used"]
    records = counts["records"]
    for word, counted in (("dropped", records["dropped"]), ("changed", records["changed"])):
        for reason, number in counted.items():
            lines.append(f"  {number:,} {word}: {reason} ({'; '.join(records['places'][reason])})")
    if counts["parts_of_long_dialogues"]:
        lines.append(f"  some became several, {counts['parts_of_long_dialogues']:,} parts between rounds")
    if counts["rounds_dropped"]:
        lines.append(f"  {counts['rounds_dropped']:,} rounds of theirs dropped: {TOO_LONG}")
    if counts["questions_cut_to_fit"]:
        lines.append(f"  {counts['questions_cut_to_fit']:,} lost the beginning of a long question")
    lines += [f"  {number:,} dropped: {reason}" for reason, number in dropped.items()]
    if dropped:
        lines.append(f"  the first: {counts['first_dropped']}")
    return lines
