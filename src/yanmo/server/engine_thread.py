"""The thread that owns a model: it writes and scores for all requests at once.

    EngineThread.submit(job)    from the event loop; refused where too many wait
      TextEngine.step()         a token more for each row     (``generate/text_engine.py``)
      one part of one reading   some hundred tokens of a text to be scored, in turn
    job.deliver(event)          called by the thread: a Grown, a Scored, or an error

Whoever reads slowly holds nobody up: what is delivered waits at the reader's.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from yanmo.core.errors import YanmoError
from yanmo.generate.engine import RunningSequence, TokenChoice
from yanmo.generate.text_engine import TextEngine, WrittenPiece
from yanmo.model.gpt import GPT
from yanmo.tokenizer import Tokenizer

ROWS = 8
"""Texts that are written together; fixed, so that a seed's text never depends on how many there are."""
MAX_WAITING = 256
"""Rows and readings that may wait; whoever comes later is asked to come again."""
MAX_SECONDS = 600.0
"""A request ends after so long, with what it has."""
STALLED_SECONDS = 60.0
"""A step that takes longer than this is no step any more."""


class Grown(NamedTuple):
    """Some tokens of a row became certain."""

    row: RunningSequence
    pieces: list[WrittenPiece]
    is_last: bool
    """Whoever reads it must not ask the row, which may be further on by then."""


class Scored(NamedTuple):
    """The next tokens of a text that is scored."""

    text: int
    """Its place among the job's readings."""
    choices: list[TokenChoice]


class Done(NamedTuple):
    """Everything that a job asked for is delivered."""


Event = Grown | Scored | Done | YanmoError


@dataclass(eq=False)
class Job:
    """What one request asks of the engine: readings first, then rows."""

    deliver: Callable[[list[Event]], None]
    """Called by the engine's thread; it must return at once."""
    rows: Sequence[RunningSequence] = ()
    readings: list[Iterator[list[TokenChoice]]] = field(default_factory=list)
    """Texts to be read before anything is written; each gives what it scored, some tokens at a time."""
    ends_at: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)
    read: int = 0
    """Readings that are done."""
    is_begun: bool = False
    """A part of what is to be read is read."""
    is_called_off: bool = False
    """Nobody reads it any more: its rows end within a token."""
    size: int = field(init=False)
    """Places that it takes in the queue."""

    def __post_init__(self) -> None:
        self.size = len(self.rows) + len(self.readings)


class Busy(Exception):
    """Too many wait already."""


class EngineThread:
    """A model with its engine, in a thread of its own."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, rows: int = ROWS, most_waiting: int = MAX_WAITING
    ) -> None:
        self.model, self.tokenizer, self.rows, self.most_waiting = model, tokenizer, rows, most_waiting
        self.tokens_written = self.tokens_scored = 0
        self._engine = TextEngine(model, tokenizer, rows)
        self._news = threading.Condition()
        self._inbox: list[Job] = []
        self._places = 0  # of jobs that are not done
        self._jobs: dict[Job, None] = {}  # in the order of their coming
        self._job_of: dict[RunningSequence, Job] = {}
        self._is_stopping = False
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being done."""
        with self._news:
            self._is_stopping = True
            self._news.notify()
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Write and score what a job asks for.

        Raises:
            Busy: too many wait already.
        """
        with self._news:
            if self._places + job.size > self.rows + self.most_waiting:
                raise Busy
            if not self._places:  # it rested, and did not stall
                self._beat = time.monotonic()
            self._places += job.size
            self._inbox.append(job)
            self._news.notify()

    @property
    def running(self) -> int:
        """Rows and readings that are being worked at."""
        return min(self._places, self.rows)

    @property
    def waiting(self) -> int:
        """Rows and readings that nobody has begun."""
        return max(self._places - self.rows, 0)

    @property
    def is_alive(self) -> bool:
        """Whether it still does what it is asked."""
        is_stalled = self._places > 0 and time.monotonic() - self._beat > STALLED_SECONDS
        return self._thread.is_alive() and not is_stalled

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._is_stopping or self._inbox or self._jobs)
                if self._is_stopping:
                    return
                new, self._inbox = self._inbox, []
            self._jobs |= dict.fromkeys(new)
            self._beat = time.monotonic()
            self._round(new)

    def _round(self, new: list[Job]) -> None:
        """A step of the engine and a part of one reading; what came of it is delivered."""
        events: dict[Job, list[Event]] = {job: [] for job in self._jobs}
        self._let_go()
        try:
            self._begin(new)
            self._read(events)
            self._write(events)
        except Exception as error:  # whatever it is, those who wait are told, and others are served
            self._give_up(events, error)
        for job, found in events.items():
            if job in self._jobs and not job.readings and not any(map(self._job_of.__contains__, job.rows)):
                found.append(Done())
                self._forget(job)
            if found:
                job.deliver(found)

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Give the rows of those whose texts are read to the engine."""
        for job in jobs:
            if not job.readings and job in self._jobs:
                for row in job.rows:
                    self._job_of[row] = job
                    self._engine.add(row)

    def _read(self, events: dict[Job, list[Event]]) -> None:
        """A part of one text that is to be scored; the next round reads a part of another job's."""
        # what is read for rows may be a memory of 150 MB, kept until they are written: so for no more jobs
        # at a time than can be written
        held = sum(job.is_begun and bool(job.rows) for job in self._jobs)
        ready = (job for job in self._jobs if job.is_begun or not job.rows or held < self.rows)
        job = next((job for job in ready if job.readings), None)
        if job is None:
            return
        job.is_begun = True
        part = next(job.readings[0], None)
        if part is None:
            del job.readings[0]
            job.read += 1
            self._begin([job])
        elif part:
            self.tokens_scored += len(part)
            events[job].append(Scored(job.read, part))
        self._jobs[job] = self._jobs.pop(job)  # to the end of the line

    def _write(self, events: dict[Job, list[Event]]) -> None:
        """A token more for each row."""
        if not self._engine.is_busy:
            return
        for row, pieces in self._engine.step():
            self.tokens_written += len(pieces)
            events[self._job_of[row]].append(Grown(row, pieces, row.ended))
            if row.ended:
                del self._job_of[row]

    def _let_go(self) -> None:
        """End what nobody reads any more, and what took too long."""
        now = time.monotonic()
        for job in list(self._jobs):
            if job.is_called_off or now > job.ends_at:
                for row in job.rows:
                    self._engine.call_off(row)
                    self._job_of.pop(row, None)
                job.readings.clear()
                if job.is_called_off:
                    self._forget(job)

    def _give_up(self, events: dict[Job, list[Event]], error: Exception) -> None:
        """Begin with a new engine; all whose texts were in the old one are told why."""
        if not isinstance(error, YanmoError):
            logging.getLogger("yanmo.server").exception("the engine failed")
            error = YanmoError(f"the engine failed: {type(error).__name__}", hint="see the server's log")
        for job, found in events.items():
            if job in self._jobs:
                found.append(error)
                self._forget(job)
        self._job_of.clear()
        self._engine = TextEngine(self.model, self.tokenizer, self.rows)

    def _forget(self, job: Job) -> None:
        del self._jobs[job]
        with self._news:
            self._places -= job.size
