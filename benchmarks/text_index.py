"""How long the index of a training text takes, how much memory, and how fast other texts are looked up in it.

    python benchmarks/text_index.py TEXT… --characters 10000000

The first so many characters of the texts are indexed, in a temporary folder. Then the last million, which are
copied whole, and a million that follow, which are not, are looked up: spans of 20 characters or more.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from yanmo.data.text_index import TextIndex, build_index
from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.documents import read_documents

LOOKED_UP = 1_000_000
SPAN = 20


def main() -> None:
    """Index, look up, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--characters", type=int, default=10_000_000)
    asked = parser.parse_args()
    documents = (document.text for document in read_documents(CorpusConfig(path=tuple(asked.texts))))
    text = "\n".join(documents)
    known, unknown = text[: asked.characters], text[asked.characters :][:LOOKED_UP]
    del text
    before = peak_megabytes()
    with tempfile.TemporaryDirectory() as place:
        took = seconds(partial(build_index, Path(place), [[known]]))
        print(f"{len(known):,} characters indexed in {took}")
        print(f"memory {peak_megabytes():.0f} MB at its peak, of which the text itself {before:.0f} MB")
        index = TextIndex(Path(place))
        for name, looked_up in (("copied", known[-LOOKED_UP:]), ("other", unknown)):
            took = seconds(partial(index.copied_spans, looked_up, SPAN))
            print(f"{len(looked_up):,} {name} characters looked up in {took}")


def seconds(work: Callable[[], object]) -> str:
    """By the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - clock:.1f} s ({time.process_time() - processor:.1f} s of a processor)"


def peak_megabytes() -> float:
    """What this process held at most so far, mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    main()
