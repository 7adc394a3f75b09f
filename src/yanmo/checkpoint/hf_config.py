"""The shape of a model ↔ the config.json of its Hugging Face architecture, by the record of its family.

Every key that matters is written, also where transformers' default is right today: other tools have other
defaults. What a config.json asks for and yanmo does not compute is refused by name.
"""

from typing import Any

from yanmo.core.errors import CheckpointError
from yanmo.model.config import GPTConfig
from yanmo.model.families import FAMILIES, Family
from yanmo.settings.schema import MOST_TOKENS, FamilyName

MAX_SIZES = {
    "vocab_size": MOST_TOKENS,
    "n_layer": 1_000,
    "n_head": 4_096,
    "n_kv_head": 4_096,
    "head_dim": 4_096,
    "n_embd": 1 << 17,
    "n_inner": 1 << 20,
    "block_size": 1 << 24,
    "n_expert": 4_096,
    "n_expert_active": 4_096,
    "n_expert_shared": 4_096,
    "expert_inner": 1 << 20,
    "n_dense_layer": 1_000,
}
"""Limits that no model exceeds: a config.json beyond them is a mistake, and would exhaust memory first."""
MAX_NUMBER = 1e12
NUMBERS = ("dropout", "rope_theta", "expert_scaling")
NULLABLE = ("n_inner", "n_kv_head", "head_dim", "n_expert_shared")
"""Sizes that may be null, which means the default."""
GELU = {"tanh": "gelu_new", "erf": "gelu"}
ACTIVATIONS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "erf"}
DAMAGED = "download the folder again"


def to_config_json(
    config: GPTConfig, begin: int, end: int | None = None, dtype: str = "float32"
) -> dict[str, Any]:
    """config.json as transformers, llama.cpp and vLLM expect it.

    ``begin`` and ``end`` are the ids that begin and end a text, the same by default; ``dtype`` is that of the
    weights.
    """
    kind = config.kind
    values = {
        "architectures": [kind.architecture],
        "model_type": kind.model_type,
        "initializer_range": 0.02,
        "bos_token_id": begin,
        "eos_token_id": begin if end is None else end,
        "dtype": dtype,
        **{key: allowed[0] for key, allowed in kind.constants.items()},
        **kind.also_written,
        **{theirs: getattr(config, ours) for ours, theirs in kind.config_keys.items()},
        **{theirs: getattr(config, ours) for theirs, ours in kind.same_keys.items()},
    }
    if kind.positions == "rotary":
        values["rope_parameters"] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.has("gelu"):
        values["activation_function"] = GELU[config.gelu]
    if "n_inner" in kind.defaults and config.n_inner == 4 * config.n_embd:
        values["n_inner"] = None  # GPT2Config's way to say 4 · n_embd, which other tools expect
    return values


def from_config_json(values: dict[str, Any], where: str) -> GPTConfig:
    """The shape in a config.json.

    Raises:
        CheckpointError: another architecture, or one of ours with a part that ours does not have.
    """
    name = family_of(values, where)
    kind = FAMILIES[name]
    if values.get("quantization_config"):
        raise CheckpointError(
            "config.json has a quantization_config: its weights are quantised, which yanmo does not read",
            where=where,
            hint="give the model before quantisation",
        )
    asked = shape_in(kind, values, where)
    check_sizes(kind, asked, where)
    check_shares(kind, asked, where)
    refuse_differences(name, values, where)
    return GPTConfig(**{ours: value for ours, value in asked.items() if value is not None}, family=name)


def family_of(values: dict[str, Any], where: str) -> FamilyName:
    """Which family a config.json means.

    Raises:
        CheckpointError: none of ours.
    """
    names = {kind.model_type: name for name, kind in FAMILIES.items()}
    model_type = values.get("model_type", "gpt2")
    if str(model_type) not in names:
        raise CheckpointError(
            f"config.json has model_type={model_type!r}; yanmo knows {', '.join(names)}",
            where=where,
            hint="give a folder with one of these",
        )
    return names[str(model_type)]


def shape_in(kind: Family, values: dict[str, Any], where: str) -> dict[str, Any]:
    """The shape a config.json asks for, by our keys: a key left out has the default of its config class.

    Raises:
        CheckpointError: a key without a default is missing, or another activation is asked for.
    """
    asked = {}
    for ours, theirs in kind.config_keys.items():
        if theirs not in values and ours not in kind.defaults:
            raise CheckpointError(f"config.json lacks {theirs!r}", where=where)
        asked[ours] = values.get(theirs, kind.defaults.get(ours))
    if kind.positions == "rotary":
        rope = values.get("rope_parameters") or {}
        if not isinstance(rope, dict):
            raise impossible("rope_parameters", rope, where)
        asked["rope_theta"] = rope.get("rope_theta") or asked["rope_theta"] or kind.defaults["rope_theta"]
        asked["head_dim"] = asked["head_dim"] or kind.defaults["head_dim"]
    if "gelu" in asked:
        asked["gelu"] = ACTIVATIONS.get(str(asked["gelu"]))
        if asked["gelu"] is None:
            raise different(kind, "activation_function", values["activation_function"], "gelu_new", where)
    return asked


def check_sizes(kind: Family, asked: dict[str, Any], where: str) -> None:
    """Sizes are whole numbers that a model can have, shares and scales are numbers.

    Raises:
        CheckpointError: one is not.
    """
    for ours, value in asked.items():
        is_open = value is None and (ours in NULLABLE or ours in NUMBERS)
        least = 0 if ours == "n_dense_layer" else 1
        if ours in MAX_SIZES:
            is_right = type(value) is int and least <= value <= MAX_SIZES[ours]
        elif ours in NUMBERS:
            is_right = type(value) in (int, float) and 0 <= value < MAX_NUMBER
        else:
            is_right = True
        if not (is_right or is_open):
            raise impossible(kind.config_keys[ours], value, where)


def check_shares(kind: Family, asked: dict[str, Any], where: str) -> None:
    """Heads divide the width and share the KV heads evenly, and no token uses more experts than there are.

    Raises:
        CheckpointError: they do not.
    """
    active, experts = asked.get("n_expert_active", 1), asked.get("n_expert", 1)
    if active > experts:
        raise CheckpointError(
            f"config.json has num_experts_per_tok={active} of n_routed_experts={experts}",
            where=where,
            hint=DAMAGED,
        )
    heads, shared, width = asked["n_head"], asked.get("n_kv_head") or 1, asked["n_embd"]
    if heads % shared or (not asked.get("head_dim") and width % heads):
        raise CheckpointError(
            f"config.json has {kind.config_keys['n_head']}={heads}, which does not divide"
            f" {kind.config_keys['n_embd']}={width} or is not a multiple of"
            f" num_key_value_heads={shared}",
            where=where,
            hint=DAMAGED,
        )


def refuse_differences(name: FamilyName, values: dict[str, Any], where: str) -> None:
    """Refuse a model that computes anything in another way than ours: its weights would give other text.

    Raises:
        CheckpointError: a key asks for something else.
    """
    kind = FAMILIES[name]
    asked = {"norm_topk_prob": False} | values  # Dots1Config's default; the other families have no such key
    for key, allowed in kind.constants.items():
        if asked.get(key, allowed[0]) not in allowed:
            raise different(kind, key, asked[key], allowed[0], where)
    if kind.positions == "rotary":
        # scaled positions (YaRN, linear): other angles from the first token on
        rope_type = (values.get("rope_parameters") or {}).get("rope_type", "default")
        if rope_type != "default":
            raise different(kind, "rope_type", rope_type, "default", where)
        if values.get("rope_scaling") is not None:
            raise different(kind, "rope_scaling", values["rope_scaling"], None, where)
        if has_sliding_layers(name, values):
            raise different(kind, "sliding layers", True, False, where)
    if values.get("n_routed_experts", 2) < 2:
        raise different(kind, "enough experts", False, True, where)


def has_sliding_layers(name: FamilyName, values: dict[str, Any]) -> bool:
    """Whether a layer attends to the last tokens only; Dots1Config can imply it without naming layers."""
    if values.get("layer_types") or name != "moe" or values.get("sliding_window", 4096) is None:
        return "sliding_attention" in str(values.get("layer_types"))
    first = values.get("max_window_layers") or 62  # Dots1Config's default, as 4096 is above
    return not isinstance(first, int) or first < values["num_hidden_layers"]


def impossible(key: str, value: Any, where: str) -> CheckpointError:
    """A value that no model has."""
    return CheckpointError(
        f"config.json has {key}={value!r}, which is not possible for a model", where=where, hint=DAMAGED
    )


def different(kind: Family, key: str, value: Any, ours: Any, where: str) -> CheckpointError:
    """A value that means something which ours does not compute."""
    return CheckpointError(
        f"config.json has {key}={value!r}; yanmo's {kind.model_type} has {ours!r}",
        where=where,
        hint="give a folder without this value",
    )
