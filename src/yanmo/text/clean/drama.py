"""A play → conversations: one for each scene and each of its leading characters.

In: the text of a play in one of the layouts of ``LAYOUTS``, the one in which most of its speeches are. Out:
:class:`Scene` objects, and of these :class:`Conversation`: the system message names the character, the user
says what the others say, and the assistant what the character says. What is not used is counted.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from yanmo.text.read.chapters import BLANK, MAX_HEADING_CHARACTERS, NUMBER, is_heading
from yanmo.text.read.turns import Message

SPACES = " \t\u3000"
MIN_SPEECHES = 20
"""Speeches of a character in a play, from which on there is enough to learn how it speaks."""
SHOWN_ROLES = 8
"""So many characters are named to people."""
HEARD = 10
"""Speeches of others that one answers to. Whoever is silent for longer has left, and begins anew."""
HANZI = "\u3400-\u9fff"
CHINESE_NAME = rf"[{HANZI}]\u3000[{HANZI}](?![{HANZI}])|[{HANZI}·、]{{1,12}}"
LATIN_NAME = r"[A-Z][\w'’.-]*(?: (?:of|the|and|[A-Z0-9][\w'’.-]*)){0,3}"
DIRECTION = re.compile(
    rf"（[^（）]*）|〔[^〔〕]*(?:〕|$)|\[[^\[\]]*(?:\]|$)|【[^【】]*】|\([^(){HANZI}]*[{HANZI}][^()]*\)"
)
"""A stage direction in brackets; in Latin letters () are a part of what is said."""
BLANKS = rf"{BLANK}{{0,8}}"


@dataclass(frozen=True)
class Layout:
    """How a line begins a speech: with a name, and perhaps what is said."""

    pattern: re.Pattern[str]
    is_after_blank: bool = False
    """Only behind a blank line; a line of verse may look the same."""

    def begin(self, before: str, line: str) -> re.Match[str] | None:
        """The name and the rest, where a line begins a speech."""
        return None if self.is_after_blank and before.strip() else self.pattern.fullmatch(line)


LAYOUTS = (
    Layout(  # NAME：speech
        re.compile(
            rf"{BLANKS}(?P<name>{CHINESE_NAME}|{LATIN_NAME}){BLANKS}"
            rf"(?:{DIRECTION.pattern})?{BLANKS}[:：](?P<speech>.*\S.*)"
        )
    ),
    Layout(re.compile(rf"{BLANKS}(?P<name>{CHINESE_NAME})(?={BLANK}|[（〔\[])(?P<speech>.*\S.*)")),
    Layout(re.compile(rf"{BLANKS}(?P<name>[A-Z][A-Z'’ -]{{1,40}})\. (?P<speech>.*\S.*)")),  # NAME. speech
    Layout(  # NAME on its own line
        re.compile(
            rf"{BLANKS}(?P<name>{CHINESE_NAME}|[A-Z][^:：.!?]{{0,40}}){BLANKS}"
            rf"(?:[:：]|(?<=[A-Z]{{2}})\.)(?P<speech>){BLANKS}"
        ),
        is_after_blank=True,
    ),
)
ENDS = rf"(?={BLANK}|[:：.。]|$)"
ACT = re.compile(rf"第{NUMBER}[幕折]{ENDS}|(?:ACT|Act)\s+(?:[IVXLC]+|[0-9]+)\b")
FIRST_ACT = re.compile(r"第[一1１][幕折]|(?:ACT|Act)\s+(?:I|1)\b")
SCENE = re.compile(rf"第{NUMBER}[场場出齣景]{ENDS}|(?:SCENE|Scene)\s+(?:[IVXLC]+|[0-9]+)\b")
ASIDE = re.compile(
    "(?:[剧劇]中人物|人物(?:列?表)?|登[场場]人物|注[释釋]|《[^》]*》|"
    "dramatis person(?:ae|æ)|persons represented)[:：.]?",
    re.IGNORECASE,
)
"""A line from which on, up to the next scene, stands the cast, a title or notes."""
DIRECTIONS = "stage directions, and lines that nobody speaks"
MOVES = re.compile(
    "^(?:[^我你您他她它咱]|其他)*[上下](?:场|場)?(?:[。；，]|$)|^(?:喇叭|号角|旗?鼓|雷|幕|灯光|奏乐)|"
    r"^(?:Enter|Re-enter|Exit|Exeunt|Flourish|Alarum|Sennet)\b"
)
"""A line without a name that is a stage direction, not verse: who comes and goes, and sounds."""


@dataclass(frozen=True)
class Speech:
    """What a character says at a time; verse has several lines."""

    name: str
    lines: list[str]


@dataclass
class Scene:
    """The speeches of a scene, in which nobody speaks twice in a row."""

    label: str
    speeches: list[Speech] = field(default_factory=list)

    def say(self, name: str, line: str) -> None:
        """Add a line to the last speech, if it is of the same character, or a new speech."""
        if not (self.speeches and self.speeches[-1].name == name):
            self.speeches.append(Speech(name, []))
        self.speeches[-1].lines.append(line)


@dataclass(frozen=True)
class Conversation:
    """What a character hears and answers in a scene."""

    character: str
    scene: str
    messages: tuple[Message, ...]


@dataclass
class DramaCounts:
    """What became of plays: speeches = answers + those in ``unused``."""

    plays: int = 0
    scenes: int = 0
    speeches: int = 0
    conversations: int = 0
    answers: int = 0
    """Speeches that a conversation learns."""
    characters: Counter[str] = field(default_factory=Counter)
    """Those who have conversations, with their answers."""
    unused: Counter[str] = field(default_factory=Counter)
    """Speeches that no conversation learns, by reason; others may still hear them."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Lines that are no speeches."""

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, for a manifest."""
        return {
            key: dict(value) if isinstance(value, Counter) else value for key, value in vars(self).items()
        }

    def lines(self) -> list[str]:
        """The same for people."""
        named = ", ".join(f"{name} {number:,}" for name, number in self.characters.most_common(SHOWN_ROLES))
        more = ", …" if len(self.characters) > SHOWN_ROLES else ""
        return [
            f"dialogues  {self.conversations:,} with {self.answers:,} answers, of {self.speeches:,} speeches"
            f" in {self.scenes:,} scenes",
            f"roles      {len(self.characters):,}: {named}{more}",
            *(f"unused     {number:,}: {why}" for why, number in (self.unused + self.left_out).most_common()),
        ]


def conversations(text: str, counts: DramaCounts) -> Iterator[Conversation]:
    """The conversations of a text that holds one play or several; of another text none."""
    lines = text.split("\n")
    layout = _layout_of(lines)
    if layout is None:
        return
    is_chinese = len(re.findall(f"[{HANZI}]", text)) > len(re.findall("[A-Za-z]", text))
    for scenes in _plays(lines, layout, counts):
        counts.plays += 1
        spoken = Counter(speech.name for scene in scenes for speech in scene.speeches)
        for scene in scenes:
            yield from _of_scene(scene, spoken, is_chinese, counts)


def rows_of_plays(text: str, source: str, counts: DramaCounts) -> list[dict[str, Any]]:
    """The same as rows of a .jsonl."""
    return [
        {
            "messages": [vars(message) for message in found.messages],
            "character": found.character,
            "scene": found.scene,
            "source": source,
        }
        for found in conversations(text, counts)
    ]


# -- lines → scenes ---------------------------------------------------------------------------


def _layout_of(lines: Sequence[str]) -> Layout | None:
    """The layout of most speeches; none where nobody has enough of them, or nobody to speak with."""
    spoken = [Counter(begin["name"] for _, begin in _begins(lines, layout) if begin) for layout in LAYOUTS]
    most, layout = max(zip(spoken, LAYOUTS, strict=True), key=lambda both: both[0].total())
    return layout if len(most) > 1 and max(most.values()) >= MIN_SPEECHES else None


def _begins(lines: Sequence[str], layout: Layout) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Each line, and how it begins a speech."""
    for before, line in pairwise(["", *lines]):
        yield line, layout.begin(before, line)


def _plays(lines: Sequence[str], layout: Layout, counts: DramaCounts) -> Iterator[list[Scene]]:
    """The scenes with speeches of each play; a first act that follows a later one begins another play."""
    has_scenes = any(map(_heading_of, lines))
    scenes: list[Scene] = [] if has_scenes else [Scene("")]
    act, speaker, is_open = "", "", not has_scenes
    for line, begin in _begins(lines, layout):
        if heading := _heading_of(line):
            if FIRST_ACT.match(heading) and act and not FIRST_ACT.match(act):
                yield from _spoken(scenes)
                scenes = []
            act = heading if ACT.match(heading) else act
            scenes.append(Scene(heading if heading == act else f"{act} {heading}".strip()))
            speaker, is_open = "", True
            continue
        is_open = is_open and not (has_scenes and ASIDE.fullmatch(line.strip(SPACES)))
        if line.strip() and is_open:
            speaker = _hear(scenes[-1], speaker, line, begin, counts)
        elif line.strip():
            counts.left_out["lines of a cast, a preface or notes"] += 1
    yield from _spoken(scenes)


def _spoken(scenes: Sequence[Scene]) -> Iterator[list[Scene]]:
    """The scenes in which somebody speaks, if there are some; a table of contents has none."""
    if found := [scene for scene in scenes if scene.speeches]:
        yield found


def _heading_of(line: str) -> str:
    """What an act or a scene is called, where a line begins one."""
    bare = line.strip(SPACES)
    if found := ACT.match(bare) or SCENE.match(bare):
        return found[0]
    return bare if len(line) <= MAX_HEADING_CHARACTERS and is_heading(line) else ""


def _hear(scene: Scene, speaker: str, line: str, begin: re.Match[str] | None, counts: DramaCounts) -> str:
    """Add a line to a scene. Gives who is speaking."""
    if begin is not None:
        speaker, line = begin["name"].replace("\u3000", ""), begin["speech"]
    said = DIRECTION.sub("", line).strip(SPACES)
    if begin is None and not (said and speaker and not MOVES.search(said)):
        counts.left_out[DIRECTIONS] += 1
    elif said:
        scene.say(speaker, said)
    return speaker


# -- scenes → conversations -------------------------------------------------------------------


def _of_scene(
    scene: Scene, spoken: Counter[str], is_chinese: bool, counts: DramaCounts
) -> Iterator[Conversation]:
    counts.scenes += 1
    counts.speeches += len(scene.speeches)
    here = Counter(speech.name for speech in scene.speeches)
    if len(here) == 1:
        counts.unused["speeches in scenes with one speaker"] += len(scene.speeches)
        return
    for name, number in here.items():
        if spoken[name] < MIN_SPEECHES:
            counts.unused[f"speeches of characters with fewer than {MIN_SPEECHES}"] += number
            continue
        for messages in _parts_of(name, scene.speeches, is_chinese, counts):
            counts.conversations += 1
            answers = len(messages) // 2
            counts.answers += answers
            counts.characters[name] += answers
            yield Conversation(name, scene.label, tuple(messages))


def _parts_of(
    name: str, speeches: Sequence[Speech], is_chinese: bool, counts: DramaCounts
) -> Iterator[list[Message]]:
    """What a character hears and says, from each time it comes until it leaves."""
    system = Message("system", f"你是{name}。" if is_chinese else f"You are {name}.")
    messages, heard = [system], list[str]()
    for speech in speeches:
        if speech.name != name:
            heard.append(_line_of(speech, is_chinese))
            continue
        if not heard:
            counts.unused["speeches that open a scene"] += 1
            continue
        if len(heard) > HEARD and len(messages) > 1:
            yield messages
            messages = [system]
        messages += [
            Message("user", "\n".join(heard[-HEARD:])),
            Message("assistant", "\n".join(speech.lines)),
        ]
        heard = []
    if len(messages) > 1:
        yield messages


def _line_of(speech: Speech, is_chinese: bool) -> str:
    """What somebody else says, on one line."""
    colon, between = ("：", "") if is_chinese else (": ", " ")
    return f"{speech.name}{colon}{between.join(speech.lines)}"
