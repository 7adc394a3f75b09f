"""What a run measures and writes at an evaluation, and at its end.

In: an open run, of a text, of dialogues or of pairs. Out: losses on what is held out and on the text of its
base; a sample; the share of answers that come to an end.
"""

from yanmo.core import storage
from yanmo.data.prepared import HeldOut
from yanmo.eval.health import facts_of_sample
from yanmo.eval.loss import Evaluation, evaluate
from yanmo.generate.answers import write_answers
from yanmo.generate.text import write_all
from yanmo.train.base import base_model
from yanmo.train.metrics import Metrics
from yanmo.train.preference import PreferenceEvaluation, PreferenceLoss, evaluate_pairs
from yanmo.train.run import Run, prompt_ids

STOP_ANSWERS = 20
"""Answers that are written at the end of a run, to see whether they end."""


Measured = Evaluation | PreferenceEvaluation


def measure_now(run: Run) -> Measured:
    """The model's loss on what is held out."""
    return measure_pairs(run) or measure(run, run.held_out)


def log_evaluation(
    run: Run, step: int, found: Measured, metrics: Metrics, live: Measured | None = None
) -> None:
    """Write an ``eval`` row and a line on the console, with what is left of the text of the base.

    ``live`` is of the weights that are trained, where those measured and saved are their average.
    """
    base, unseen = measure_besides(run, run.base_held_out), measure_besides(run, run.unseen)
    besides = {"base_bits_per_char": base.bits_per_char} if base else {}
    besides |= {"held_out_bits_per_char": unseen.bits_per_char} if unseen else {}
    besides |= {"live_val_bits_per_char": live.bits_per_char} if live else {}
    metrics.write("eval", step=step, **found.row(), **besides)
    run.console.print(
        f"step {step:,}  {found.said()} ({run.lines.describe_rank(found.bits_per_char)})"
        + (f"; the base's text {base.bits_per_char:.3f}" if base else "")
        + (f"; data.held_out {unseen.bits_per_char:.3f}" if unseen else "")
    )


def measure(run: Run, text: HeldOut) -> Evaluation:
    """The model's loss on a text."""
    batches = text.batches(run.recipe.train.micro_batch_size or 1)
    return evaluate(run.model, batches, text.targets, text.characters, run.autocast, run.world)


def measure_besides(run: Run, text: HeldOut | None) -> Evaluation | None:
    """The model's loss on another text, where there is one."""
    return measure(run, text) if text is not None else None


def preference_loss(run: Run) -> PreferenceLoss | None:
    """The loss of pairs, if the run learns such."""
    asked = run.recipe.finetune
    return PreferenceLoss(run.model, asked.beta, asked.preference == "dpo_norm") if asked.preference else None


def measure_pairs(run: Run) -> PreferenceEvaluation | None:
    """What the model makes of held-out pairs, if it learns such."""
    loss_of, pairs, reference = preference_loss(run), run.prepared.pairs, run.reference
    if loss_of is None or pairs is None or reference is None:
        return None
    base = base_model(run.recipe).to(run.world.device)
    characters = run.prepared.shards.manifest.splits.val.characters
    return evaluate_pairs(loss_of, base, pairs.val, reference.val, characters, run.autocast)


def write_sample(run: Run, step: int, metrics: Metrics) -> None:
    """One sample, on the console and in samples/, by the first rank; its facts in the metrics."""
    if not run.world.is_main:
        return
    run.model.eval()
    asked, written = sample_text(run) if run.prepared.is_text else sample_answer(run)
    text = asked + written
    run.model.train()
    if facts := facts_of_sample(written):
        metrics.write("sample", step=step, **facts)
    storage.write_atomic(run.folder / "samples" / f"step-{step:08d}.txt", text + "\n")
    run.console.print("  │ " + text.replace("\n", "\n  │ "), style="cyan")


def sample_text(run: Run) -> tuple[str, str]:
    """The prompt, and a continuation of it."""
    # the seed of [sample] stays fixed in a run, so that samples differ by what was learned, not by chance
    config = run.recipe.sample.model_copy(update={"num_samples": 1})
    prompt = config.prompt or ""
    # str as the receiver of remarks about the prompt: they were shown when the run was opened
    (text,) = write_all(run.model, run.prepared.tokenizer, prompt, config, str, run.text_rules)
    return prompt, text


def sample_answer(run: Run) -> tuple[str, str]:
    """A held-out question, or the one that was asked for, and the answer to it."""
    prepared, config = run.prepared, run.recipe.sample
    if config.prompt is None:
        asked = prepared.questions(1, run.model.config.block_size // 2)
    else:
        # remarks about it were shown when the run was opened
        asked = [prompt_ids(run.recipe, prepared, str)]
    if not asked:
        return "", ""
    (answer,) = write_answers(run.model, prepared.tokenizer, end_of_turn(run), asked, config)
    return prepared.tokenizer.decode(asked[0]), answer.text


def learns_to_answer(run: Run) -> bool:
    """Whether it learns dialogues or pairs by a chat template."""
    return run.prepared.chat is not None and not run.prepared.is_text


def end_of_turn(run: Run) -> int | None:
    """The token that ends an answer; None: end-of-text."""
    return run.prepared.chat.end_of_turn if run.prepared.chat is not None else None


def stop_rate(run: Run) -> float | None:
    """Share of answers to held-out questions that come to an end; None: there are no questions."""
    prepared, block_size = run.prepared, run.model.config.block_size
    asked = prepared.questions(STOP_ANSWERS, block_size // 2) if learns_to_answer(run) else []
    if not asked:
        return None
    config = run.recipe.sample.model_copy(update={"max_new_tokens": block_size, "min_new_tokens": 0})
    run.model.eval()
    answers = write_answers(run.model, prepared.tokenizer, end_of_turn(run), asked, config)
    share = sum(answer.ended for answer in answers) / len(answers)
    run.console.print(f"{share:.0%} of {len(answers)} answers to held-out questions come to an end")
    return share
