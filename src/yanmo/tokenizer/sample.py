"""A corpus of any size → so many characters of it, chosen evenly, with a memory that never grows.

Every stretch of text gets a random rank from (seed, its number); those with the lowest ranks are kept
(bottom-k sampling, so one pass is enough and the same corpus gives the same sample). A corpus that fits
is kept whole.
"""

import heapq
import random

from yanmo.tokenizer.cuts import pieces

STRETCH_CHARACTERS = 1 << 12
"""Characters kept or left out together."""


class Reservoir:
    """At most ``characters`` of all that is added, each stretch with the same chance."""

    def __init__(self, characters: int, seed: int) -> None:
        self._room = characters
        self._seed = seed
        self._kept: list[tuple[float, int, str]] = []  # a heap; the highest rank first
        self._number = 0
        self.offered = 0
        self.characters = 0

    def add(self, text: str) -> None:
        """Offer a text."""
        for stretch in pieces(text, STRETCH_CHARACTERS):
            # from the stretch's number alone: what is drawn does not depend on what is kept so far
            rank = random.Random(f"{self._seed}/{self._number}").random()
            heapq.heappush(self._kept, (-rank, self._number, stretch))
            self._number += 1
            self.offered += len(stretch)
            self.characters += len(stretch)
            # the highest rank goes first; one stretch stays, however small the room is
            while self.characters > self._room and len(self._kept) > 1:
                self.characters -= len(heapq.heappop(self._kept)[2])

    def texts(self) -> list[str]:
        """What is kept, in the order of the corpus."""
        return [text for _, _, text in sorted(self._kept, key=lambda kept: kept[1])]
