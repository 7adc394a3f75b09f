"""Health: what is wrong with a run, said while there is time, with what to do about it.

In: rows of metrics.jsonl, in order; a row may lack any field. Out: each :class:`Finding` once, at the first
step that shows it. A rule is a pure function of a :class:`History`, which keeps of all rows only what rules
look at; a rule whose quantity is missing says nothing. docs/health.md lists the rules.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from yanmo.core.console import counted
from yanmo.eval.history import OVERFLOWS, RECENT, SPEED_ROWS, History, Row, number, step_of
from yanmo.text.clean.characters import QUOTES

Said = tuple[str, str] | None
"""A sentence with the values, and what to do; or nothing."""

FEW = 3
"""Logged steps, or evaluations, that must agree: one alone may be chance."""
TIMED_S = 60.0
"""Seconds over which speed is judged: shorter spans measure what else the machine does."""

FAR_FIRST_LOSS = 0.25
"""Share of ln V by which the first loss may differ: initialisations in use give ln V within 0.02."""
STUCK_STEPS = 200
"""Steps, and share of the planned ones, before which no run counts as stuck."""
STUCK_SHARE = 0.3
STUCK_GAIN = 0.01
"""A held-out loss that fell by less than this share since half as many steps no longer falls; that of a
healthy run falls by 4% and more while it is above the bigram line."""
NEAR_LINE = 0.04
"""Share by which a loss may lie under a line and still count as at it."""
MIN_UPDATE = 3e-4
"""Median size of an update relative to its matrix, for a width of 256: Muon at 0.006 has 0.02 to 0.06, AdamW
at 0.001 about 0.01, GPT-2's published rate about 0.003; a tenth of that wastes the run."""
MAX_UPDATE = 0.1
"""The same on the other side, in any step: sound runs reach 0.06. Weights soon grow to fit the rate."""
MAX_RATES = 8.0
"""Times the usual rate of the optimizer and width; two or three times it are a choice."""
MAX_WARMUP_SHARE = 0.5
MAX_DROPOUT = 0.5
"""GPT-2 has 0.1, and 0.2 to 0.3 help small texts; from a half on hardly anything reaches the top."""
SPIKE_SIGMA = 6.0
SPIKE_ROWS = 32
"""Logged steps before a deviation can be judged."""
SPIKE_NATS = 0.3
"""A spike of the loss is at least so high, and one of the gradient's norm so many times its mean: in calm
stretches six deviations are next to nothing."""
SPIKE_TIMES = 4.0
DIVERGED_NATS = 1.0
"""Rise of the mean training loss above its least one, and half of it for each of ten losses; no sound run
lost so much as a tenth of it."""
OVERFITTED = 0.03
"""Rise of the held-out loss above its least one, as a share: chance and schedule move it by 1%."""
HELD_TIMES = 20.0
"""How many times a model can hold its text before that is said. Plays that a model of 3.6 million parameters
learns well, in twenty passes, fit into it three times."""
BITS_PER_PARAMETER = 3.6
"""What a GPT can learn by heart (Morris et al. 2025, "How much do language models memorize?")."""
MANY_PASSES = 5.0
LEAKED = 0.1
"""Share of the held-out text; novels have none, collections of poems and essays up to 0.01."""
REPEATS = 3
MIN_SPREAD = 0.12
"""Deviation of the windows' places; shuffled 0.29, in order next to 0."""
SPREAD_ROWS = 8
MIN_ALIGNED = 0.5
"""Share of targets that are the next input; all but the ends of texts in a sound batch, 0.03 by chance."""
MAX_LACKING = 0.003
"""Share of characters without a token, rare ones left out: by a vocabulary of the same text none, by that of
another text in the same script 0.005 to 0.02, in the other script 0.2 and more."""
MAX_GIVEN_LACKING = 0.25
"""The same where nothing can be chosen: the vocabulary was learned from this text, or came with weights."""
MAX_ODD = 0.05
"""Share of garbled passages; novels, plays, poems and essays have none."""
OVERFLOW_STEPS = 100
MAX_WAIT = 0.1
SLOWER = 0.5
SAMPLE_SHARE = 0.3
"""Share of the planned steps before which samples may be anything."""
ONE_CHARACTER = 0.3
"""Share of the commonest character; a comma has 0.08 of Chinese prose, a line end 0.15 of verse."""
LOOPING = 0.5
"""Share of runs of 8 characters that came before; prose has 0.02."""
LOST_CHARACTERS = 0.05
UNBALANCED = 4
"""Quotes and brackets that are open or closed in excess; a sample that is cut off has one or two."""

MIN_SAMPLE_CHARACTERS = 40
RUN_CHARACTERS = 8


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and from which step on that is seen."""

    name: str
    step: int
    sentence: str
    hint: str

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def said(self) -> str:
        """For people."""
        return f"health: {self.name}: {self.sentence}; {self.hint}"


# -- rules of the first row -------------------------------------------------------------------


def warmup_too_long(log: History) -> Said:
    """The warm-up is half of the run or more."""
    warmup, planned = log.fact("warmup_steps"), log.planned
    if not warmup or not planned or warmup < MAX_WARMUP_SHARE * planned:
        return None
    return (
        f"the warm-up takes {warmup:,.0f} of {planned:,.0f} steps, and only then has the rate its peak",
        f"set optim.warmup_steps to about {max(planned / 20, 1):,.0f}, a twentieth of the run",
    )


def dropout_too_high(log: History) -> Said:
    """Dropout takes half of the activations or more."""
    dropout = log.fact("dropout")
    if dropout is None or dropout < MAX_DROPOUT:
        return None
    return (
        f"dropout takes away {dropout:.0%} of the activations in every layer",
        "set model.dropout=0.1, or at most 0.3 for a small text",
    )


def too_little_text(log: History) -> Said:
    """The model could hold its text many times over, and reads it often enough to."""
    characters, parameters = log.fact("characters"), log.fact("parameters")
    bits, passes = log.fact("bigram_bits_per_char"), log.passes(int(log.planned or 0))
    if not (log.begins_anew and characters and parameters and bits and passes) or passes < MANY_PASSES:
        return None
    times = BITS_PER_PARAMETER * parameters / (bits * characters)
    if times < HELD_TIMES:
        return None
    return (
        f"{parameters:,.0f} parameters read {characters:,.0f} characters {passes:,.0f} times and could hold"
        f" them {times:,.0f} times over: they will be learned by heart",
        "add text, begin from a trained model (model.init), or choose a smaller model.n_embd and n_layer",
    )


def leaked_validation(log: History) -> Said:
    """Held-out text stands in the training text."""
    share = log.fact("held_out_found")
    if share is None or share < LEAKED:
        return None
    return (
        f"{share:.0%} of the held-out text stands in the training text, too, so its loss flatters the model",
        "remove duplicates: yanmo clean TEXT --dedup",
    )


def wrong_vocabulary(log: History) -> Said:
    """The vocabulary lacks characters of the text."""
    share, is_own = log.fact("lacking_share"), log.start.get("own_vocabulary")
    if share is None or share < (MAX_GIVEN_LACKING if is_own else MAX_LACKING):
        return None
    return (
        f"the vocabulary has no token for {share:.1%} of the characters, though they are no rare ones",
        "begin from weights whose vocabulary has them"
        if log.start.get("from_weights")
        else "leave tokenizer.path out, so that one is learned from this text, or raise tokenizer.vocab_size",
    )


def damaged_text(log: History) -> Said:
    """Passages of the text are garbled."""
    share = log.fact("odd_share")
    if share is None or share < MAX_ODD:
        return None
    return (
        f"{share:.0%} of the training text is garbled: characters that a wrong encoding gives, or lost ones",
        "look at it with yanmo inspect TEXT, repair it with yanmo clean, or name corpus.encoding",
    )


# -- rules of a logged step -------------------------------------------------------------------


def first_loss(log: History) -> Said:
    """The first loss is not that of untrained weights."""
    vocabulary, loss = log.fact("vocab_size"), number(log.row, "loss")
    if not (log.begins_anew and log.is_text and vocabulary and loss is not None) or log.row is not log.first:
        return None
    expected = math.log(vocabulary)
    # a loss that was not logged at once may have fallen already
    far = abs(loss - expected) if log.step <= 1 else loss - expected
    if far < FAR_FIRST_LOSS * expected:
        return None
    return (
        f"the loss at step {log.step} is {loss:.2f}, where untrained weights have ln {vocabulary:,.0f} ="
        f" {expected:.2f}",
        "check how weights are initialised; a much lower loss means that the model sees what it predicts",
    )


def rate_too_low(log: History) -> Said:
    """Updates are too small to learn by."""
    sizes = log.warm_updates()
    if not log.begins_anew or len(sizes) < FEW or fmean(sizes) >= MIN_UPDATE:
        return None
    return (
        f"a step changes a weight by {fmean(sizes):.1e} of its size, less than a tenth of what is usual",
        f"raise optim.learning_rate={log.fact('learning_rate'):g} tenfold, or leave it out; yanmo train"
        " --find-lr tries rates",
    )


def rate_too_high(log: History) -> Said:
    """The rate is many times the usual one, or updates leave nothing of the weights."""
    rate, usual, update = log.fact("learning_rate"), log.fact("usual_rate"), log.update(log.row)
    if rate and usual and rate >= MAX_RATES * usual:
        return (
            f"the peak rate is {rate:g}, {rate / usual:.0f} times the usual {usual:g}",
            f"set optim.learning_rate={usual:g}, or leave it out",
        )
    # the factors of LoRA begin at zero, so their first updates are as large as they are
    if log.start.get("method") == "lora" or update is None or update < MAX_UPDATE:
        return None
    return (
        f"step {log.step:,} changes a weight by {update:.2g} of its size, several times what is usual",
        "divide optim.learning_rate by ten, or leave it out",
    )


def spike(log: History) -> Said:
    """The loss, or the gradient's norm, jumps out of its usual range."""
    for key, what in (("loss", "loss"), ("grad_norm", "gradient's norm")):
        values = [value for row in log.recent if (value := number(row, key)) is not None]
        now = number(log.row, key)
        if now is None or len(values) <= SPIKE_ROWS:
            continue
        mean = fmean(values[:-1])
        deviation = math.sqrt(fmean((value - mean) * (value - mean) for value in values[:-1]))
        least = mean + SPIKE_NATS if key == "loss" else SPIKE_TIMES * mean
        if now > max(mean + SPIKE_SIGMA * deviation, least):
            return (
                f"the {what} jumps to {now:.2f} at step {log.step:,}, from {mean:.2f} ± {deviation:.2f}",
                "one is harmless; if more follow, lower optim.learning_rate or set optim.grad_clip=1",
            )
    return None


def diverged(log: History) -> Said:
    """A number was not finite, or the training loss went up to stay."""
    hint = "lower optim.learning_rate, or lengthen optim.warmup_steps, in a new folder (--out)"
    for key in ("loss", "val_loss", "grad_norm"):
        value = log.row.get(key)
        if isinstance(value, float) and not math.isfinite(value):
            return f"the {key} at step {log.step:,} is {value}", hint
    if factor := number(log.row, "rate_factor"):  # rows with such a number are not kept
        reason = str(log.row.get("reason") or "a number was not finite")
        return f"{reason}: the run went back to step {log.step:,}, with {factor:g} times the rate", hint
    last, mean = [*log.losses][-RECENT:], log.train_loss
    if not log.is_text or mean is None or mean < log.least_loss + DIVERGED_NATS:
        return None
    if min(last) < log.least_loss + DIVERGED_NATS / 2:  # small batches have losses far from each other
        return None
    return f"the training loss rose from {log.least_loss:.2f} to {mean:.2f} and stays there", hint


def repeated_batches(log: History) -> Said:
    """The same batch comes again and again."""
    batch, windows, rows = log.row.get("batch"), log.fact("windows"), log.fact("batch_size")
    # a text of a few windows has few batches
    if not isinstance(batch, int) or (windows and rows and windows < 2 * rows):
        return None
    if log.batches[batch] < REPEATS:
        return None
    return (
        f"the batch of step {log.step:,} is one that was given {REPEATS - 1} times before",
        "look at what makes the batches: most of the text may never be read",
    )


def unshuffled(log: History) -> Said:
    """Batches are read from the text in order."""
    windows, rows = log.fact("windows"), log.fact("batch_size")
    spreads = [value for row in log.recent if (value := number(row, "spread")) is not None]
    if len(spreads) < SPREAD_ROWS or fmean(spreads) >= MIN_SPREAD:
        return None
    if windows and rows and windows < 4 * rows:
        return None
    return (
        f"the windows of a batch lie close together in the text: spread {fmean(spreads):.2f}, shuffled 0.29",
        "shuffle them: neighbours resemble each other, so each step learns one place and forgets others",
    )


def shifted_targets(log: History) -> Said:
    """Targets are not the tokens that follow."""
    aligned = number(log.row, "aligned")
    if aligned is None or aligned >= MIN_ALIGNED:
        return None
    return (
        f"{aligned:.0%} of the targets are the token after their input; nearly all should be",
        "look at what makes the batches: the target at place t is the input at t + 1",
    )


def frozen_layer(log: History) -> Said:
    """Matrices that should learn do not change."""
    names = sorted(name for name, times in log.frozen.items() if times >= FEW)
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"no step changes {', '.join(names[:3])}{more}",
        "something cuts off the gradient; to freeze layers on purpose use finetune.method=last",
    )


def data_wait(log: History) -> Said:
    """Steps wait for their data."""
    rows = [row for row in log.recent if number(row, "data_wait") is not None]
    if len(rows) < FEW or _seconds(rows) < TIMED_S:
        return None
    share = fmean(number(row, "data_wait") or 0.0 for row in rows)
    if share < MAX_WAIT:
        return None
    return (
        f"{share:.0%} of the time goes into waiting for data",
        "put the folder .yanmo on a local disk (YANMO_CACHE), or leave more memory to the system's cache",
    )


def slow_machine(log: History) -> Said:
    """The machine is much slower than at the start."""
    rows = [row for row in log.recent if number(row, "tokens_per_s") is not None][-SPEED_ROWS:]
    if len(rows) < SPEED_ROWS or len(log.speeds) < SPEED_ROWS or _seconds(rows) < TIMED_S:
        return None
    then, now = median(log.speeds), median(number(row, "tokens_per_s") or 0.0 for row in rows)
    if now >= SLOWER * then:
        return None
    return (
        f"the machine does {now:,.0f} tokens a second, where it did {then:,.0f} at the start",
        "see what else runs on it, and whether it is hot or short of memory",
    )


def _seconds(rows: list[Row]) -> float:
    """From the first of these rows to the last."""
    return (number(rows[-1], "elapsed_s") or 0.0) - (number(rows[0], "elapsed_s") or 0.0)


# -- rules of an evaluation -------------------------------------------------------------------


def stuck_at_unigram(log: History) -> Said:
    """The loss rests where counting characters would be."""
    unigram = log.fact("unigram_bits_per_char")
    bits = _stuck_bits(log)
    if bits is None or not unigram or bits < (1 - NEAR_LINE) * unigram:
        return None
    return (
        f"the held-out loss stays at {bits:.2f} bits per character, the unigram line ({unigram:.2f}): it"
        " knows how often each character occurs, and nothing about their order",
        "see that targets fit inputs and that gradients reach all layers, then try another"
        " optim.learning_rate",
    )


def stuck_at_bigram(log: History) -> Said:
    """The loss rests where counting pairs of characters would be."""
    unigram, bigram = log.fact("unigram_bits_per_char"), log.fact("bigram_bits_per_char")
    bits = _stuck_bits(log)
    if bits is None or not unigram or not bigram:
        return None
    if not (1 - NEAR_LINE) * bigram <= bits < min((1 + NEAR_LINE) * bigram, (1 - NEAR_LINE) * unigram):
        return None
    return (
        f"the held-out loss stays at {bits:.2f} bits per character, the bigram line ({bigram:.2f}): it"
        " uses only the character before",
        "see that attention reaches back, and that model.block_size is more than a few tokens; then try"
        " another optim.learning_rate",
    )


def _stuck_bits(log: History) -> float | None:
    """The held-out bits per character, if they and the training loss have stopped falling."""
    now = log.evaluated[-1] if log.evaluated else None
    if now is None or now.bits is None or now.step < STUCK_STEPS or log.done(now.step) < STUCK_SHARE:
        return None
    # what begins from weights may come to rest anywhere: it has learned elsewhere
    if not log.is_text or log.start.get("from_weights"):
        return None
    half = bisect_right(log.evaluated, now.step / 2, key=lambda one: one.step)
    earlier = log.evaluated[max(half - 1, 0)]
    if earlier.bits is None or not 0 < earlier.step <= now.step / 2:
        return None
    train = log.bits(now.train_loss)
    is_learned = train is not None and train < 0.9 * now.bits  # overfitting, then, and not stuck
    return None if is_learned or now.bits < (1 - STUCK_GAIN) * earlier.bits else now.bits


def overfitting(log: History) -> Said:
    """The held-out loss rises while the training loss falls."""
    now, best = log.evaluated[-1] if log.evaluated else None, log.best
    if now is None or best is None or now.loss < (1 + OVERFITTED) * best.loss:
        return None
    if len(log.evaluated) < FEW or log.evaluated[-2].loss <= best.loss:
        return None
    if now.train_loss is not None and best.train_loss is not None and now.train_loss > best.train_loss:
        return None  # both rise: the rate, or the data
    passes = log.passes(best.step)
    useful = f", in pass {math.ceil(passes):,}" if passes else ""
    return (
        f"the held-out loss is {now.loss:.3f}; at step {best.step:,}{useful}, the last that helped, it was"
        f" {best.loss:.3f}",
        "stop here, for the best checkpoint is kept; then more text, model.dropout=0.1, a larger"
        " optim.weight_decay or a smaller model",
    )


def dead_experts(log: History) -> Said:
    """Experts get no tokens."""
    idle = sorted(place for place, times in log.idle.items() if times >= FEW)
    if not idle:
        return None
    where = ", ".join(f"{expert} of layer {layer}" for layer, expert in idle[:3])
    return (
        f"{counted(len(idle), 'expert')} got no tokens in {FEW} evaluations: {where}",
        "choose a smaller model.n_expert, a larger train.batch_size or a lower optim.learning_rate",
    )


def float16_overflow(log: History) -> Said:
    """Many steps are lost to float16."""
    steps = log.overflows
    if len(steps) < OVERFLOWS or steps[-1] - steps[0] >= OVERFLOW_STEPS:
        return None
    return (
        f"float16 overflowed in {OVERFLOWS} of {steps[-1] - steps[0] + 1} steps, which were lost",
        "set train.precision=bfloat16 or float32, in a new folder (--out)",
    )


def degenerate_samples(log: History) -> Said:
    """What the model writes is broken."""
    if len(log.samples) < 2 or log.done(step_of(log.samples[0])) < SAMPLE_SHARE:
        return None
    flaws = [_flaw(row) for row in log.samples]
    if not all(flaws):
        return None
    return (
        f"the last two samples are broken: {flaws[-1]}",
        "if the loss is good, raise sample.temperature or set sample.top_p=0.95; else it has to learn more",
    )


def _flaw(row: Row) -> str:
    """What is wrong with a sample, or an empty string."""
    shares = (
        ("commonest", ONE_CHARACTER, "{:.0%} of it is one character"),
        ("repeated", LOOPING, "{:.0%} of its runs of 8 characters came before"),
        ("lost", LOST_CHARACTERS, "{:.0%} of its characters are U+FFFD, bytes that form none"),
        ("unbalanced", UNBALANCED, "{:.0f} quotes or brackets have no partner"),
    )
    found = (said.format(value) for key, most, said in shares if (value := number(row, key) or 0.0) >= most)
    return next(found, "")


# -- all of them ------------------------------------------------------------------------------

Rule = Callable[[History], Said]
_OF_THE_TEXT = (
    leaked_validation, damaged_text, wrong_vocabulary, too_little_text, rate_too_high, dropout_too_high,
    warmup_too_long,
)  # fmt: skip
RULES: dict[str, tuple[Rule, ...]] = {
    "start": _OF_THE_TEXT,
    "plan": (warmup_too_long, diverged),
    "train": (
        first_loss, shifted_targets, unshuffled, repeated_batches, frozen_layer, rate_too_low, rate_too_high,
        diverged, spike, data_wait, slow_machine,
    ),
    "eval": (diverged, overfitting, stuck_at_unigram, stuck_at_bigram),
    "experts": (dead_experts,),
    "overflow": (float16_overflow,),
    "sample": (degenerate_samples,),
}  # fmt: skip
"""Kind of a row -> what is looked at when one comes; causes first."""
NAMES = frozenset(rule.__name__ for rules in RULES.values() for rule in rules)
SYMPTOMS = {"spike", "stuck_at_unigram", "stuck_at_bigram", "degenerate_samples"}
HARMLESS = {"spike", "leaked_validation", "too_little_text", "data_wait", "slow_machine", "first_loss"}
"""A symptom is not said once something is named that explains it; these explain none."""


class Health:
    """The rules, given one row after another; those ``ignored`` are not said."""

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self.log, self.ignored = History(), ignored

    def add(self, row: Row) -> list[Finding]:
        """What is new with this row."""
        found = []
        for rule in RULES.get(self.log.add(row), ()):
            name = rule.__name__
            is_explained = name in SYMPTOMS and self.log.named - HARMLESS - SYMPTOMS
            if name in self.log.named or is_explained or (said := rule(self.log)) is None:
                continue
            self.log.named.add(name)
            if name not in self.ignored:
                found.append(Finding(name, self.log.step, *said))
        return found


def findings(rows: Iterable[Row]) -> list[Finding]:
    """All that rows show, each once, in their order."""
    health = Health()
    return [finding for row in rows for finding in health.add(row)]


# -- a sample --------------------------------------------------------------------------------


def facts_of_sample(text: str) -> dict[str, float]:
    """What ``degenerate_samples`` looks at; nothing of a sample too short to judge."""
    if len(text) < MIN_SAMPLE_CHARACTERS:
        return {}
    counts = Counter(text)
    runs = [text[i : i + RUN_CHARACTERS] for i in range(len(text) - RUN_CHARACTERS + 1)]
    return {
        "commonest": round(counts.most_common(1)[0][1] / len(text), 4),
        "repeated": round(1 - len({*runs}) / len(runs), 4),
        "lost": round(counts["\ufffd"] / len(text), 4),
        "unbalanced": float(
            sum(abs(counts[opening] - counts[closing]) for opening, closing in QUOTES.items())
        ),
    }
