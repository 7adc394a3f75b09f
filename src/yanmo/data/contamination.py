"""How much of the held-out text occurs in the training text as well (contamination).

In: a corpus. Out: :class:`~yanmo.text.clean.dedup.Overlap` for the split that ``prepare`` would make. Exact
copies of documents fall on one side anyway; this finds passages copied within and between documents.
"""

from collections.abc import Iterator

from yanmo.data.split import Sizes, assign, content_hash, default_val_fraction, plan_split, smallest
from yanmo.settings.schema import CorpusConfig
from yanmo.text.clean.dedup import Overlap, overlap
from yanmo.text.read.documents import read_documents

GAP_CHARACTERS = 256
"""Characters left out between the two parts of one document: a window of the usual 256 tokens."""


def contamination(corpus: CorpusConfig) -> Overlap:
    """The overlap, in three readings of the corpus: sizes, held-out text, training text.

    Memory is 20 bytes for each document, not the text.

    Raises:
        DataError: a path is missing or unreadable.
    """
    sizes = Sizes()
    for document in read_documents(corpus):
        sizes.add(document.text)
    characters = sizes.characters
    fraction = default_val_fraction(characters)
    # the split is a pure function of the sizes, so this is the one that training will use
    split = plan_split(smallest(sizes.by_hash(), fraction * characters), fraction, characters)

    def side(wanted: str) -> Iterator[str]:
        for document in read_documents(corpus):
            for found, part in assign(document, content_hash(document.text), split, GAP_CHARACTERS):
                if found == wanted:
                    yield part.text

    return overlap(side("val"), lambda: side("train"))
