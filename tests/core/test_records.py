"""Typed records: what several parts read of them."""

from yanmo.core.records import SplitCounts, Splits


def test_what_both_sides_of_a_split_have_is_added_up() -> None:
    train = SplitCounts(files=["train.bin"], documents=3, tokens=70, characters=100)
    val = SplitCounts(files=["val.bin"], documents=1, tokens=8, characters=9)
    both = Splits(train=train, val=val)
    assert (both.tokens, both.characters) == (78, 109)
