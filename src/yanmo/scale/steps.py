"""The stages as steps of a datatrove pipeline: the only file that imports datatrove.

A step says which part of the work its rank is; the work itself is in ``corpus.py``, ``duplicates.py`` and
``tokens.py``. Each step writes its files whole or not at all, so that a killed task can be done again.
"""

from collections.abc import Iterator
from typing import Any

from datatrove.data import Document
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig

from yanmo.scale.corpus import clean_part, keep_part
from yanmo.scale.duplicates import BAND, Numbers, Signatures, bands_of, find_copies, find_repeated
from yanmo.scale.plan import Plan
from yanmo.scale.tokens import finish, join_shards, tokenise_part, write_split


class PlanStep(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """A step of a plan."""

    type = "yanmo"

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


class TaskStep(PlanStep):
    """A step that reads and writes files of the plan, and passes nothing on."""

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """One task of the stage."""
        with self.track_time(unit="task"):
            self.work(rank, world_size)

    def work(self, rank: int, tasks: int) -> None:
        """What the task does."""
        raise NotImplementedError


class ReadAndClean(PlanStep):
    """Files of a part → clean documents: the rules of `yanmo clean`."""

    name = "read and clean"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Clean documents, which are written on the way."""
        for number, text in enumerate(clean_part(self.plan, rank)):
            self.stat_update("documents")
            yield Document(text=text, id=f"{rank}/{number}")


class WriteRows(PlanStep):
    """Lets the documents through to their end, where nothing compares them."""

    name = "write rows"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Read all that comes."""
        for _ in data or ():
            self.stat_update("documents")


class CharacterSignature(MinhashDedupSignature):  # type: ignore[misc]
    """datatrove's signatures, of runs of five characters instead of words.

    The numbers are those `yanmo clean --dedup` compares (rensa's), so that what is near here is near there.
    datatrove's own constructor would load a tokenizer of words.
    """

    name = "signatures of characters"

    def __init__(self, plan: Plan) -> None:
        PipelineStep.__init__(self)
        self.plan = plan
        self.config = minhash_config(plan)
        self.output_folder = get_datafolder(str(plan.work("signatures")))
        self.skip_existing_sigs = False
        self._signatures: Signatures | None = None

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> None:
        """Write the signatures of a part and, beside them, its digests and paragraphs."""
        with Signatures(self.plan, rank) as self._signatures:
            super().run(data, rank, world_size)
        self._signatures = None

    def get_shingles(self, text: str) -> Numbers:
        """The numbers of a text, uint32 of shape (bands · 4,): its smallest hashes already."""
        assert self._signatures is not None
        return self._signatures.add(text)

    def get_signature(self, shingles: Numbers) -> list[list[int]]:
        """The same by bands."""
        return shingles.reshape(-1, BAND).tolist()


class Buckets(MinhashDedupBuckets):  # type: ignore[misc]
    """datatrove's search for documents that agree in a band; one task for each band, or a multiple."""

    def __init__(self, plan: Plan) -> None:
        folders = str(plan.work("signatures")), str(plan.work("buckets"))
        super().__init__(*folders, config=minhash_config(plan), lines_to_buffer=1000)


class FindCopies(TaskStep):
    """Goes through what agrees, in order: the first of its kind stays. One task."""

    name = "find copies"

    def work(self, rank: int, tasks: int) -> None:
        for reason, number in find_copies(self.plan).items():
            self.stat_update(reason, value=number)


class FindRepeatedParagraphs(TaskStep):
    """Paragraphs that an earlier document has; each task takes a share of all hashes."""

    name = "find repeated paragraphs"

    def work(self, rank: int, tasks: int) -> None:
        self.stat_update("paragraphs", value=find_repeated(self.plan, rank, tasks))


class Keep(TaskStep):
    """Documents of a part that stay → corpus/."""

    name = "keep"

    def work(self, rank: int, tasks: int) -> None:
        self.stat_update("documents", value=keep_part(self.plan, rank))


class PlanSplit(TaskStep):
    """What is held out for validation. One task."""

    name = "split"

    def work(self, rank: int, tasks: int) -> None:
        write_split(self.plan)


class Tokenise(TaskStep):
    """Documents of a part → tokens of a part."""

    name = "tokenise"

    def work(self, rank: int, tasks: int) -> None:
        self.stat_update("tokens", value=tokenise_part(self.plan, rank))


class JoinShards(TaskStep):
    """Tokens of all parts → shards/; each task writes some of the files."""

    name = "join"

    def work(self, rank: int, tasks: int) -> None:
        self.stat_update("bytes", value=join_shards(self.plan, rank, tasks))


class Finish(TaskStep):
    """Where documents begin, and the manifests. One task."""

    name = "finish"

    def work(self, rank: int, tasks: int) -> None:
        for side, part in finish(self.plan).items():
            self.stat_update(f"{side} tokens", value=part["tokens"])


def minhash_config(plan: Plan) -> MinhashConfig:
    """Bands of four numbers of 32 bits; how datatrove would hash words does not matter."""
    return MinhashConfig(
        num_buckets=bands_of(plan.settings.dedup),
        hashes_per_bucket=BAND,
        hash_config=HashConfig(precision=32, hash_fc="sha1"),
    )
