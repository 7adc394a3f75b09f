"""The demo corpus: unambiguous, exactly measured, well formed, and always the same text."""

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from tests.makers.demo_parser import parses
from yanmo.text.demo.stories import (
    PROMPTS,
    STORY_COUNT,
    Fork,
    Story,
    Template,
    free_entries,
    grammar,
    stories,
    story,
)

DRAWN = 4_000
PARSED = 200
GOLDEN = "ade21f95d0871d64409b2628ac03be393b06cd6df7a2827a148ab940c75cd651"


@pytest.fixture(scope="module")
def many() -> list[Story]:
    return list(stories(DRAWN, seed=1))


@pytest.fixture(scope="module")
def corpus() -> list[Story]:
    return list(stories())


def forks(template: Template) -> Iterator[Fork]:
    for part in template:
        if isinstance(part, Fork):
            yield part
            for option in part.options:
                yield from forks(option)


def test_the_parser_recovers_every_choice(many: list[Story]) -> None:
    assert_parsed(many[:PARSED])


@pytest.mark.nightly
def test_the_parser_recovers_every_choice_of_ten_thousand_stories(drawn_seed: int) -> None:
    assert_parsed(stories(10_000, seed=drawn_seed))


def assert_parsed(told_stories: Iterable[Story]) -> None:
    for told in told_stories:
        found = parses(told.text)
        assert len(found) == 1, f"{len(found)} derivations of:\n{told.text}"
        assert found[0].choices == told.choices
        assert math.isclose(found[0].bits, told.bits, rel_tol=1e-12)


def test_a_text_outside_the_grammar_has_no_derivation(corpus: list[Story]) -> None:
    text = corpus[0].text
    assert parses(text)
    assert not parses(text[:-1])
    assert not parses(text + "。")
    assert not parses(text.replace("。", "，", 1))


def test_quotes_open_and_close_in_turn(corpus: list[Story]) -> None:
    for told in corpus:
        for opening, closing in ("“”", "《》"):
            depth = 0
            for character in told.text:
                depth += (character == opening) - (character == closing)
                assert depth in (0, 1), told.text
            assert depth == 0, told.text


def test_the_text_is_chinese_with_full_width_punctuation(corpus: list[Story]) -> None:
    allowed = re.compile(r"[\u4e00-\u9fff，。！？：；“”《》…\n]+")
    clumsy = re.compile(r"[，：；][，。！？：；”]|。[，。！？：；]|[！？][，。：；]|“”|^\s|\s$|\n\n")
    for told in corpus:
        assert allowed.fullmatch(told.text), told.text
        assert not clumsy.search(told.text), told.text


def test_every_paragraph_is_a_title_or_ends_a_sentence(corpus: list[Story]) -> None:
    for told in corpus:
        title, *paragraphs = told.text.split("\n")
        assert re.fullmatch("《[^《》]+》", title)
        assert 4 <= len(paragraphs) <= 7
        assert all(re.search("[。！？]”?$", paragraph) for paragraph in paragraphs), told.text


def test_the_same_seed_tells_the_same_stories() -> None:
    assert list(stories(50, seed=3)) == list(stories(50, seed=3))
    assert list(stories(50, seed=3)) == list(stories(80, seed=3))[:50]
    assert list(stories(50, seed=3)) != list(stories(50, seed=4))
    assert next(stories(1, seed=9)) == story(random.Random(9))


def test_the_text_never_changes_by_accident() -> None:
    text = "\n\n".join(told.text for told in stories(100))
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


def test_the_default_corpus_weighs_three_megabytes(corpus: list[Story]) -> None:
    assert len(corpus) == STORY_COUNT
    size = sum(len(told.text.encode()) for told in corpus)
    assert 2_700_000 <= size <= 3_300_000


def test_no_story_is_told_twice_and_none_is_nearly_certain(corpus: list[Story]) -> None:
    assert len({told.text for told in corpus}) == len(corpus)
    assert min(told.bits for told in corpus) > 60


def test_only_the_characters_of_the_story_are_named(corpus: list[Story]) -> None:
    given = [form.get("") for form in grammar()["given"]]
    names = [str(template[0]) for template in given if template]
    for told in corpus:
        bound = {names[index] for slot, index in told.choices if slot.startswith("given:")}
        assert len(bound) in (1, 2)
        assert {name for name in names if name in told.text} == bound, told.text


def test_two_characters_share_neither_surname_nor_given_name(corpus: list[Story]) -> None:
    for told in corpus:
        choices = dict(told.choices)
        for pool in ("family", "given"):
            assert choices[f"{pool}:hero"] != choices.get(f"{pool}:rival")


def test_nobody_is_given_a_pronoun_of_the_wrong_gender() -> None:
    """她 is said only where some woman is present, 他 only where some man is."""
    pronoun = {
        pool: ["".join(map(str, entry["ta"])) for entry in grammar()[pool]] for pool in ("given", "boss")
    }
    for told in stories(1000, seed=5):
        present = {
            pronoun[slot.partition(":")[0]][index]
            for slot, index in told.choices
            if slot.partition(":")[0] in pronoun
        }
        text = told.text.replace("他们", "")  # a gang
        said = {character for character in text if character in "他她"}
        assert said <= present, told.text


def test_every_entry_and_every_fork_occurs_in_the_default_corpus(corpus: list[Story]) -> None:
    seen = {(slot.partition(":")[0], index) for told in corpus for slot, index in told.choices}
    for pool, entries in grammar().items():
        if len(entries) > 1:
            assert {(pool, index) for index in range(len(entries))} <= seen, pool
        for entry in entries:
            for template in entry.values():
                for fork in forks(template):
                    assert {(fork.slot, i) for i in range(len(fork.options))} <= seen, fork


def test_entries_are_drawn_as_often_as_bits_says(many: list[Story]) -> None:
    for slot in ("plot", "family:hero", "given:hero"):
        pool = slot.partition(":")[0]
        counts = Counter(dict(told.choices)[slot] for told in many)
        free, probabilities = free_entries(pool, frozenset())
        expected = [len(many) * probability for probability in probabilities]
        terms = zip(free, expected, strict=True)
        chi_square = sum((counts[index] - mean) ** 2 / mean for index, mean in terms)
        degrees = len(free) - 1
        assert chi_square < degrees + 4 * math.sqrt(2 * degrees), slot


def test_mean_bits_agree_with_the_entropy_of_the_observed_choices() -> None:
    """Split the code length by slot: each slot's mean cost is its empirical cross-entropy."""
    told = list(stories(4_000, seed=11))
    total = math.fsum(each.bits for each in told) / len(told)
    held = Counter(slot for each in told for slot, _ in each.choices)
    pairs = Counter(choice for each in told for choice in each.choices)
    entropy = -sum(n / len(told) * math.log2(n / held[slot]) for (slot, _), n in pairs.items())
    assert math.isclose(entropy, total, rel_tol=0.02)


def test_a_held_entry_is_left_out_and_the_rest_renormalised() -> None:
    free, probabilities = free_entries("family", frozenset({0, 5}))
    assert set(free) == set(range(len(grammar()["family"]))) - {0, 5}
    assert math.isclose(math.fsum(probabilities), 1, rel_tol=1e-12)
    assert math.isclose(probabilities[0] / probabilities[1], 12 / 11)


def test_prompts_open_stories_of_the_default_corpus(corpus: list[Story]) -> None:
    assert len(set(PROMPTS)) == 3
    for prompt in PROMPTS:
        assert 6 <= len(prompt) <= 14
        assert any(told.text.startswith(prompt) for told in corpus), prompt
