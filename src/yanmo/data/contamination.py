"""How much of what would be held out stands in the training text as well.

In: a corpus. Out: :class:`~yanmo.text.dedup.Overlap` for the split that ``prepare`` would make. Exact copies
fall on one side anyway; this finds what is copied within documents and between them.
"""

from collections.abc import Iterator

from yanmo.data.split import Sizes, assign, content_hash, default_val_fraction, plan_split, smallest
from yanmo.settings.schema import CorpusConfig
from yanmo.text.clean.dedup import Overlap, overlap
from yanmo.text.read.documents import read_documents

GAP_CHARACTERS = 256
"""Characters left out between the two parts of one document, as for a window of so many tokens."""


def contamination(corpus: CorpusConfig) -> Overlap:
    """Read the corpus three times: its sizes, what is held out, what is not. A document takes 20 bytes.

    Raises:
        DataError: a path is missing or unreadable.
    """
    sizes = Sizes()
    for document in read_documents(corpus):
        sizes.add(document.text)
    characters = sizes.characters
    fraction = default_val_fraction(characters)
    split = plan_split(smallest(sizes.by_hash(), fraction * characters), fraction, characters)

    def side(wanted: str) -> Iterator[str]:
        for document in read_documents(corpus):
            for found, part in assign(document, content_hash(document.text), split, GAP_CHARACTERS):
                if found == wanted:
                    yield part.text

    return overlap(side("val"), lambda: side("train"))
