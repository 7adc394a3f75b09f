"""Deduplication of a corpus too large for one machine: datatrove's stages with our marks of a text.

Each kind has three steps: a part's documents → signatures; those of all parts → matches; matches → a filter
of the part's documents. A document is identified by its number among those that passed the filters before,
so each stage must receive the same documents in the same order.

1. Equal documents (``ExactDedup…``): any one of them stays.
2. Near ones (``MinhashDedup…``): documents with a whole band of numbers in common are a pair, and a chain of
   pairs is one cluster, of which any one document stays.
3. Paragraphs that several documents have (``SentenceDedup…``): any one of them keeps it.

The marks are those of ``text/clean/dedup.py``, which need no words; datatrove's need spaCy and jieba.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.data import Document
from datatrove.pipeline.dedup import (
    ExactDedupConfig,
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
    SentDedupConfig,
    SentenceDedupSignature,
    SentenceFindDedups,
)
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WhitespaceTokenizer

from yanmo.scale.plan import Plan
from yanmo.settings.schema import DedupConfig
from yanmo.text.clean.dedup import COPY, NEAR_COPY, PERMUTATIONS, marks_of

Drop = Callable[[str, str], None]
"""Receives the reason and the name of a document that is dropped."""
READ_AT_ONCE = 1000
"""Signatures read from a file at a time; datatrove's 5 cost more calls than comparisons."""
LINES = 1 << 16
"""Lines of a document that are compared: datatrove writes a line's number in 16 bits."""
REPEATED = np.dtype([("document", "<u4"), ("line", "<u2")])
"""What ``SentenceFindDedups`` writes."""
EQUAL = HashConfig(precision=64, hash_fc="sha1")
NO_WORDS = WhitespaceTokenizer()
"""datatrove's signatures load a word tokenizer, which ours never use; this one needs no library."""


# -- equal documents --------------------------------------------------------------------------


def letters_of(document: Document) -> bytes:
    """The key of equal documents: a hash of their letters, without spaces and case."""
    return marks_of(document.text, DedupConfig(near=0, paragraphs=0)).exact


def exact_signature(plan: Plan) -> ExactDedupSignature:
    """Signatures of a part's documents."""
    return ExactDedupSignature(str(plan.work("exact")), _exact_config(), plan.finders)


def find_copies(plan: Plan) -> ExactFindDedups:
    """Which documents are copies, in a range of hashes; as many tasks as the plan has finders."""
    folders = str(plan.work("exact")), str(plan.work("copies"))
    return ExactFindDedups(*folders, _exact_config(), lines_to_buffer=READ_AT_ONCE)


def exact_filter(plan: Plan, drop: Drop) -> ExactDedupFilter:
    """Lets one of equal documents through."""
    return ExactDedupFilter(str(plan.work("copies")), _exact_config(), _told(drop, COPY))


def _exact_config() -> ExactDedupConfig:
    return ExactDedupConfig(letters_of, hash_config=EQUAL)


# -- near documents ---------------------------------------------------------------------------


def bands_of(near: float) -> tuple[int, int]:
    """(number of bands, numbers in each) that find documents with ``near`` of their runs in common.

    Two documents with a share s in common agree in one number of their MinHash with probability s, in all r
    of a band with sʳ, and in one of b bands at least with 1 - (1 - sʳ)ᵇ: a curve in the form of an S that is
    steepest at about (1/b)^(1/r) (Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4). Of all
    shapes with 128 numbers, the one whose step is nearest.

    >>> bands_of(0.8), bands_of(0.5), bands_of(1.0)
    ((11, 11), (25, 5), (1, 128))
    """
    shapes = [(PERMUTATIONS // numbers, numbers) for numbers in range(1, PERMUTATIONS + 1)]
    return min(shapes, key=lambda shape: abs((1 / shape[0]) ** (1 / shape[1]) - near))


class NearSignature(MinhashDedupSignature):  # type: ignore[misc]
    """datatrove's signatures, of runs of five characters instead of words.

    The numbers are rensa's, as `yanmo clean --dedup` compares them. datatrove would hash each run in Python
    and make a table of 128 numbers for each: far slower, and a gigabyte for a million characters.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(str(plan.work("near")), near_config(plan), NO_WORDS)
        self._compared = DedupConfig(exact=False, near=plan.settings.dedup.near, paragraphs=0)

    def get_shingles(self, text: str) -> npt.NDArray[np.uint32]:
        """The smallest hash of a text's runs for each permutation, (128,)."""
        return np.frombuffer(marks_of(text, self._compared).near, "<u4")

    def get_signature(self, shingles: npt.NDArray[np.uint32]) -> list[list[int]]:
        """As many of them as fill the bands, by bands."""
        # The last numbers are left out where they fill no band: 11 bands of 11 take 121 of 128.
        bands, numbers = self.config.num_buckets, self.config.hashes_per_bucket
        return shingles[: bands * numbers].reshape(bands, numbers).tolist()


def near_config(plan: Plan) -> MinhashConfig:
    """Bands of numbers of 32 bits; how datatrove would hash words does not matter."""
    bands, numbers = bands_of(plan.settings.dedup.near)
    hashes = HashConfig(precision=32, hash_fc="sha1")
    return MinhashConfig(num_buckets=bands, hashes_per_bucket=numbers, hash_config=hashes)


def find_pairs(plan: Plan) -> MinhashDedupBuckets:
    """Documents that agree in a band; one task for each band, or a multiple."""
    folders = str(plan.work("near")), str(plan.work("pairs"))
    return MinhashDedupBuckets(*folders, config=near_config(plan), lines_to_buffer=READ_AT_ONCE)


def cluster(plan: Plan) -> MinhashDedupCluster:
    """Pairs → clusters, and all documents of each but one are to be removed. One task."""
    folders = str(plan.work("pairs")), str(plan.work("clusters"))
    return MinhashDedupCluster(*folders, near_config(plan), lines_to_buffer=READ_AT_ONCE)


def near_filter(plan: Plan, drop: Drop) -> MinhashDedupFilter:
    """Lets one document of each cluster through."""
    return MinhashDedupFilter(str(plan.work("clusters")), _told(drop, NEAR_COPY))


def _told(drop: Drop, reason: str) -> Any:
    """A stand-in for the writer to which datatrove's filters give what they drop."""
    return nullcontext(SimpleNamespace(write=lambda document, rank: drop(reason, document.id)))


# -- paragraphs -------------------------------------------------------------------------------


class ParagraphSignature(SentenceDedupSignature):  # type: ignore[misc]
    """datatrove's signatures of sentences, of long paragraphs instead."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(str(plan.work("paragraphs")), plan.finders, _sentence_config(), NO_WORDS)
        self._compared = _only_paragraphs(plan)

    def get_hashes(self, doc: Document, doc_idx: int) -> list[tuple[int, int, int]]:
        """(hash, document, line) of each; once if a document repeats itself, as a song its refrain."""
        first: dict[bytes, int] = {}
        for line, hashed in marks_of(doc.text, self._compared).paragraphs:
            if line < LINES:
                # the first of its lines; all_places finds the others again
                first.setdefault(hashed, line)
        return [(int.from_bytes(hashed, "little"), doc_idx, line) for hashed, line in first.items()]


def find_repeated(plan: Plan) -> SentenceFindDedups:
    """Which paragraphs another document has, in a range of hashes; as many tasks as the plan has finders."""
    folders = str(plan.work("paragraphs")), str(plan.work("repeated"))
    return SentenceFindDedups(*folders, config=_sentence_config(), lines_to_buffer=READ_AT_ONCE)


def repeated_lines_of(plan: Plan, part: int) -> dict[int, set[int]]:
    """The lines that are to be taken out of the documents of a part, by the document's number."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for file in plan.work("repeated").glob(f"*/{part:05d}.c4_dup"):
        for document, line in np.fromfile(file, REPEATED).tolist():
            found[document].add(line)
    return found


def all_places(plan: Plan, text: str, lines: set[int]) -> set[int]:
    """These lines of a text, and those that say the same."""
    if not lines:
        return lines
    paragraphs = marks_of(text, _only_paragraphs(plan)).paragraphs
    # A paragraph was written down once for each document, with the first of its lines.
    repeated = {hashed for line, hashed in paragraphs if line in lines}
    return {line for line, hashed in paragraphs if hashed in repeated}


def _only_paragraphs(plan: Plan) -> DedupConfig:
    return DedupConfig(exact=False, near=0, paragraphs=plan.settings.dedup.paragraphs)


def _sentence_config() -> SentDedupConfig:
    return SentDedupConfig(n_sentences=1, split_sentences=False, hash_config=EQUAL)
