"""Pieces of a text are its tokens' pieces, however long they are."""

from hypothesis import given
from hypothesis import strategies as st

from tests.makers.texts import any_text, lesson
from yanmo.tokenizer import cuts
from yanmo.tokenizer.cuts import pieces

PLAIN = st.text(alphabet="他说，。“ \nab1.'", max_size=60)


@given(text=PLAIN | any_text(), length=st.integers(1, 50))
def test_joined_pieces_are_the_text(text: str, length: int) -> None:
    found = list(pieces(text, length))
    assert "".join(found) == text
    assert all(found)


def test_pieces_are_about_as_long_as_asked() -> None:
    found = list(pieces(lesson(20000), 500))
    assert max(map(len, found)) <= 500
    assert min(map(len, found[:-1])) > 400


@given(text=PLAIN, lengths=st.tuples(st.integers(1, 12), st.integers(13, 60)))
def test_long_runs_are_cut_at_the_same_places_whatever_the_length(
    text: str, lengths: tuple[int, int]
) -> None:
    """A run is cut at ``max_run`` from its beginning; a longer piece, cut again, is cut there too."""
    short, long = min(lengths), max(lengths)
    at_once = set(forced(text, short))
    again = {
        start + place
        for start, piece in starts(text, long)
        for place in (*forced(piece, short), 0)
        if start + place in at_once or place
    }
    assert at_once <= again | {start for start, _ in starts(text, long)}
    assert again <= at_once


def test_a_run_without_a_cut_is_cut_at_its_limit() -> None:
    assert [len(piece) for piece in pieces("a" * 120 + "他，说", 10, max_run=50)] == [50, 50, 21, 2]


def test_behind_a_forced_cut_the_rest_is_cut_as_if_it_stood_alone() -> None:
    text = "a" * 12 + "\n" + "b" * 20
    assert [piece for start, piece in starts(text, 4) if start >= 12] == list(
        pieces(text[12:], 4, max_run=12)
    )


def forced(text: str, length: int) -> list[int]:
    """Where a text is cut though nothing ends there."""
    natural = {match.start() for match in cuts.SAFE.finditer(text)}
    return [start for start, _ in starts(text, length) if start and start not in natural]


def starts(text: str, length: int) -> list[tuple[int, str]]:
    found, at = [], 0
    for piece in pieces(text, length, max_run=12):
        found.append((at, piece))
        at += len(piece)
    return found
