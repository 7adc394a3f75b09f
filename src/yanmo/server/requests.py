"""What clients ask for, in the words of OpenAI's API and of the programs that talk to it.

In: a JSON body. Out: a typed request with the [sample] settings that it names.

A field that would act and is not known is refused by name; one that would do nothing (an empty list, a
sampler that is switched off) is left alone: clients send all that they have.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from yanmo.core.errors import ConfigError
from yanmo.settings.schema import SampleConfig

T = TypeVar("T")
MAX_ROWS = 64
"""Texts that one request may have written: prompts x best_of."""
MAX_TOKENS = 8192
"""Tokens of one text."""
MAX_LOGPROBS = 20
MAX_PROMPTS = 64
MAX_MESSAGES = 1000
MAX_LIST = 100
"""Stop texts, banned phrases."""
MAX_PHRASE_CHARACTERS = 1000
"""Of each of these."""

SETTINGS = frozenset(SampleConfig.model_fields) - {"prompt", "num_samples"}
OTHER_NAMES = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "n_predict": "max_new_tokens",
    "min_tokens": "min_new_tokens",
    "rep_pen": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
    "rep_pen_range": "penalty_window",
    "repetition_penalty_range": "penalty_window",
    "repeat_last_n": "penalty_window",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "bad_words": "banned",
    "banned_strings": "banned",
    "stopping_strings": "stop",
    "stop_sequence": "stop",
    "sampler_seed": "seed",
}
"""Names that other servers have for settings of ours; ours counts where both are given."""
OFF = {"top_k": (-1,), "penalty_window": (-1,), "seed": (-1,), "max_new_tokens": (-1,)}
"""Values that mean "not set" elsewhere."""

SWITCHES: dict[str, tuple[tuple[Any, ...], tuple[str, ...]]] = {
    "dry_multiplier": ((0,), ("dry_",)),
    "xtc_probability": ((0,), ("xtc_",)),
    "mirostat": ((0,), ("mirostat_",)),
    "mirostat_mode": ((0,), ("mirostat_",)),
    "smoothing_factor": ((0,), ("smoothing_",)),
    "dynatemp_range": ((0,), ("dynatemp_",)),
    "dynamic_temperature": ((False,), ("dynatemp_",)),
    "guidance_scale": ((1,), ("negative_prompt",)),
    "adaptive_target": ((-1, -0.01, 0), ("adaptive_",)),
    "typical": ((1,), ()),
    "typical_p": ((1,), ()),
    "tfs": ((1,), ()),
    "tfs_z": ((1,), ()),
    "top_n_sigma": ((0, -1), ()),
    "nsigma": ((0, -1), ()),
    "encoder_repetition_penalty": ((1,), ()),
    "length_penalty": ((1,), ()),
    "num_beams": ((1,), ()),
    "top_a": ((0,), ()),
}
"""Samplers that yanmo does not have: values at which they are off, and how their details begin."""
DETAILS = tuple(sorted({start for _, starts in SWITCHES.values() for start in starts}))
WITHOUT_EFFECT = frozenset({
    "user", "metadata", "store", "service_tier", "api_type", "api_server", "legacy_api", "cache_prompt",
    "id_slot", "slot_id", "samplers", "sampler_order", "sampler_priority", "truncation_length",
    "max_context_length", "n_ctx", "skip_special_tokens", "spaces_between_special_tokens",
    "add_bos_token", "include_reasoning", "timings_per_token", "return_progress", "min_keep", "n_keep",
    "n_discard", "penalize_nl", "penalty_prompt", "max_tokens_second", "temperature_last", "do_sample",
    "early_stopping", "t_max_predict_ms", "t_max_prompt_ms", "use_default_badwordsids",
    "post_sampling_probs", "parallel_tool_calls", "reasoning_effort", "request_id", "priority",
    "stream_tokens",
})  # fmt: skip
"""Fields of which the text does not depend here."""


class StreamOptions(BaseModel):
    """What a stream has beside its pieces."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class WritingRequest(BaseModel):
    """What both kinds of request share."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    model: str = ""
    n: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: dict[int, Annotated[float, Field(ge=-100, le=100)]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        """null means not given."""
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with a count of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def settings(self) -> dict[str, Any]:
        """The [sample] settings that the request names.

        Raises:
            ConfigError: a field would act, and yanmo does not know it.
        """
        given = self.model_extra or {}
        found: dict[str, Any] = {}
        # ours last: they count before the names of others
        for name, value in sorted(given.items(), key=lambda field: field[0] in SETTINGS):
            setting = OTHER_NAMES.get(name, name)
            if setting in SETTINGS:
                if not (is_number(value) and value in OFF.get(setting, ())):
                    found[setting] = (
                        [value] if setting in ("stop", "banned") and isinstance(value, str) else value
                    )
            elif not is_inert(name, value, given):
                raise ConfigError(
                    f"{name} would change the answer, and yanmo does not know it",
                    where=name,
                    hint="leave it out; what there is stands in docs/serving.md",
                )
        check_sizes(found)
        return found

    def in_their_words(self, error: ConfigError) -> ConfigError:
        """A mistake in a setting of [sample], under the name that the request has for it."""
        names = {OTHER_NAMES.get(name, name): name for name in self.model_extra or {}}
        setting = re.search(r"sample\.(\w+)", f"{error.what} {error.where}")
        if setting is None:
            return error
        name = names.get(setting[1], setting[1])
        return ConfigError(error.what.replace(setting[0], name), name, error.hint)


# the first mistake of a list is enough: a million would be described for seconds
Ids = Annotated[list[int], Field(min_length=1, fail_fast=True)]
Several = Annotated[list[T], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]


class CompletionRequest(WritingRequest):
    """POST /v1/completions."""

    prompt: str | Ids | Several[str] | Several[Ids] = ""
    best_of: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None

    @field_validator("prompt", mode="wrap")
    @classmethod
    def _in_one_sentence(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        """What a prompt may be, in place of why it is none of the four."""
        try:
            return read(value)
        except ValidationError as error:
            said = "a text is wanted, a list of texts, ids, or a list of lists of ids; {most} at most"
            raise PydanticCustomError("prompt", said, {"most": MAX_PROMPTS}) from error

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, values: Any) -> Any:
        """n_probs of llama.cpp's clients; true and false for logprobs."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        probabilities = values.pop("n_probs", None)
        if probabilities and values.get("logprobs") is None:
            values["logprobs"] = probabilities
        if isinstance(values.get("logprobs"), bool):
            values["logprobs"] = 1 if values["logprobs"] else None
        return values

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    @property
    def written_rows(self) -> int:
        """Texts that are written for each prompt, of which the best ``n`` are given.

        Raises:
            ConfigError: they are too few or too many, or are to be streamed before the best are known.
        """
        rows = self.best_of or self.n
        if rows * len(self.prompts) > MAX_ROWS:
            field = "best_of" if self.best_of else "n"
            raise ConfigError(
                f"{rows * len(self.prompts):,} texts are too many for one request",
                field,
                f"ask for {MAX_ROWS} at most, over all prompts",
            )
        if rows < self.n:
            raise ConfigError(f"best_of={rows} is less than n={self.n}", "best_of", "give n or more")
        if rows > self.n and self.stream:
            hint = "leave out stream, or best_of"
            raise ConfigError("the best of several texts is only known at their end", "best_of", hint)
        return rows


class ChatMessage(BaseModel):
    """A message of a dialogue."""

    model_config = ConfigDict(extra="allow")
    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """Its text.

        Raises:
            ConfigError: there is something else in it, such as an image.
        """
        if not isinstance(self.content, list):
            return self.content or ""
        for part in self.content:
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                kind = str(part.get("type"))[:40]
                raise ConfigError(f"a message has a part of type {kind}", "messages", "give text alone")
        return "".join(part["text"] for part in self.content)


class ChatRequest(WritingRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0


class ToolRequest(BaseModel):
    """What the smaller requests share: an unknown field that would act is refused by name."""

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        unknown = (name for name in given if name not in cls.model_fields)
        if name := next((name for name in unknown if not is_inert(name, given[name], given)), None):
            known = ", ".join(cls.model_fields)
            raise ConfigError(f"there is no field {name[:100]} here", name[:100], f"the fields are: {known}")
        return values


class TokenizeRequest(ToolRequest):
    """POST /tokenize."""

    model: str = ""
    prompt: str = ""
    content: str = ""
    """The name of the same in llama.cpp's server."""


class DetokenizeRequest(ToolRequest):
    """POST /detokenize."""

    model: str = ""
    tokens: Annotated[list[int], Field(fail_fast=True)]


class OutlineRequest(ToolRequest):
    """POST /yanmo/outline."""

    text: str


class CopiedRequest(ToolRequest):
    """POST /yanmo/copied."""

    model: str = ""
    text: str
    characters: Annotated[int, Field(ge=2, le=1000)] = 20


class Choice(BaseModel):
    """POST /yanmo/choices: a continuation that was taken, beside one that was not."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    prompt: str
    chosen: str
    rejected: str


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_inert(name: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Whether a field that yanmo does not know would change nothing."""
    if name in WITHOUT_EFFECT or (not is_number(value) and not value):
        return True
    if name in SWITCHES:
        return value in SWITCHES[name][0]
    if name.startswith(DETAILS):  # of a sampler that is on, the switch itself is refused
        return True
    return is_number(value) and value == 0


def check_sizes(settings: Mapping[str, Any]) -> None:
    """Refuse what would take the server too long.

    Raises:
        ConfigError: a text would be too long, or a list is.
    """
    tokens = settings.get("max_new_tokens", 0)
    if is_number(tokens) and tokens > MAX_TOKENS:
        hint = f"ask for {MAX_TOKENS:,} at most, and go on from there"
        raise ConfigError(f"{tokens:,} tokens are too many for one request", "max_tokens", hint)
    for name in ("stop", "banned"):
        listed = settings.get(name, ())
        if not isinstance(listed, list):
            continue
        if len(listed) > MAX_LIST:
            raise ConfigError(f"{len(listed):,} texts are too many", name, f"give {MAX_LIST} at most")
        longest = max((len(text) for text in listed if isinstance(text, str)), default=0)
        if longest > MAX_PHRASE_CHARACTERS:
            hint = f"give {MAX_PHRASE_CHARACTERS:,} at most"
            raise ConfigError(f"a text of {longest:,} characters is too long", name, hint)
