"""Options that several verbs share, and the sampler's, declared once.

In: a verb with a parameter ``sampler``. Out: the same verb with an option for each setting of [sample]; their
values arrive in that parameter, by the names of the settings.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from yanmo.core.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite a file that yanmo did not make; never an input.")
]
Run = Annotated[
    Path | None, typer.Argument(help="Run, checkpoint or model folder. [default: the newest run]")
]
Seed = Annotated[
    int | None, typer.Option(help="Same seed, same text. [default: a new one each time, printed]")
]
Device = Annotated[
    str | None, typer.Option(help="Device: cpu, cuda, cuda:1, mps. [default: a GPU, else cpu]")
]
Precision = Annotated[
    Literal["float32", "bfloat16", "int8"] | None,
    typer.Option(
        help="Precision; int8: 8-bit weights, for CPUs. [default: bfloat16 on a GPU, and on a CPU where it "
        "is faster]"
    ),
]
Verify = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Verify the model's checksums before using it.")
]

SAMPLER: dict[str, Any] = {
    "pinned": Annotated[
        str | None, typer.Option(help="Notes that stay at the beginning of the window, before the prompt.")
    ],
    "max_new_tokens": Annotated[int | None, typer.Option(help="Tokens to write.")],
    "temperature": Annotated[
        float | None, typer.Option(help="Below 1 safer, above 1 wilder; 0: always the likeliest token.")
    ],
    "top_k": Annotated[int | None, typer.Option(help="Sample only from the k likeliest tokens; 0: all.")],
    "top_p": Annotated[
        float | None,
        typer.Option(help="Sample from the likeliest tokens that together have this probability; 1: all."),
    ],
    "min_p": Annotated[
        float | None,
        typer.Option(
            help="Sample from tokens with at least this fraction of the highest probability; 0: all."
        ),
    ],
    "repetition_penalty": Annotated[
        float | None,
        typer.Option(help="Make tokens that are already in the window less likely; 1: off, 1.1: a little."),
    ],
    "frequency_penalty": Annotated[
        float | None,
        typer.Option(help="Lower the logit of a token by this for each time it was written; 0: off."),
    ],
    "presence_penalty": Annotated[
        float | None, typer.Option(help="Lower the logit of every token that was written by this; 0: off.")
    ],
    "penalty_window": Annotated[
        int | None, typer.Option(help="Tokens that the penalties look back on; 0: the whole window.")
    ],
    "no_repeat_ngram": Annotated[
        int | None, typer.Option(help="Never write the same n tokens in a row twice; 0: off.")
    ],
    "no_copy": Annotated[
        int | None,
        typer.Option(
            help="Never write this many characters in a row as they stand in the training text; 0: off."
        ),
    ],
    "verse": Annotated[
        int | None, typer.Option(help="Write a poem with lines of 5 or 7 Chinese characters; 0: prose.")
    ],
    "verse_lines": Annotated[int | None, typer.Option(help="Lines of a poem.")],
    "acrostic": Annotated[
        str | None, typer.Option(help="The first characters of a poem's lines, from the first one on.")
    ],
    "rhyme": Annotated[
        bool | None, typer.Option("--rhyme/--no-rhyme", help="The even lines of a poem rhyme.")
    ],
    "banned": Annotated[
        list[str] | None, typer.Option(help="A text that is never written (repeat for more).")
    ],
    "stop": Annotated[
        list[str] | None,
        typer.Option(help=r"A text that ends a sample, itself left out (repeat for more); \n is a line end."),
    ],
    "stop_at": Annotated[
        Literal["sentence", "paragraph", "chapter", "line"] | None,
        typer.Option(help="End a sample with the first of these."),
    ],
    "min_new_tokens": Annotated[int | None, typer.Option(help="Tokens before which no sample ends.")],
    "memory": Annotated[
        float | None,
        typer.Option(help="Share of a memory of the whole prompt in each choice; 0: off, 0.3 is good."),
    ],
    "memory_written": Annotated[
        bool | None,
        typer.Option("--memory-written/--no-memory-written", help="Remember what is written too."),
    ],
}
"""Settings of [sample] that a verb that writes takes as options; the names are the settings'."""


def with_sampler(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with an option for each of ``SAMPLER`` in the place of its parameter ``sampler``."""
    own = inspect.signature(verb).parameters
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in SAMPLER.items()
    ]

    @functools.wraps(verb)
    def given(**values: Any) -> None:
        verb(**{k: v for k, v in values.items() if k in own}, sampler={k: values[k] for k in SAMPLER})

    # typer reads signature and annotations; through __wrapped__ it would find the verb's own
    parameters = [parameter for parameter in own.values() if parameter.name != "sampler"]
    at = next((n for n, one in enumerate(parameters) if one.name == "seed"), len(parameters))
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    signature = inspect.Signature([*keyword[:at], *shared, *keyword[at:]])
    given.__signature__ = signature  # type: ignore[attr-defined]
    given.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    del given.__wrapped__
    return given


def refuse_beside(option: str, others: dict[str, object]) -> None:
    """Refuse options that have no effect beside another one."""
    for name, value in others.items():
        if value is not None:
            raise ConfigError(f"{name} has no effect with {option}", where=name, hint="leave one of them out")
