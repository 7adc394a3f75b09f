"""Rules that cut text into words before a byte BPE merges anything: the ones that others know too.

A model opens in llama.cpp only if its rule is one of theirs, so new vocabularies take GPT-2's. The others
are those of files people bring along. Regular expressions as their makers publish them, in the dialect
of the ``tokenizers`` library.
"""

from typing import Any

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
"""Radford et al. 2019; also r50k, p50k."""
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""GPT-4's; Llama 3 has the same."""
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
"""GPT-4o's."""
KNOWN = (GPT2, CL100K, QWEN2, O200K)


def split_rule(spec: dict[str, Any]) -> str | None:
    """The rule in a tokenizer.json, if it is a known one and all that cuts the text."""
    steps = _steps(spec.get("pre_tokenizer"))
    rules = [rule for step in steps if (rule := _rule(step)) is not None]
    plain = all(step["type"] in ("ByteLevel", "Split") and not step.get("add_prefix_space") for step in steps)
    return rules[0] if plain and len(rules) == 1 and rules[0] in KNOWN else None


def split_step(rule: str, behavior: str = "Isolated") -> dict[str, Any]:
    """The pre-tokenizer step that cuts by ``rule``; what it matches stays (Isolated) or goes (Removed)."""
    return {"type": "Split", "pattern": {"Regex": rule}, "behavior": behavior, "invert": False}


def byte_level(use_regex: bool) -> dict[str, Any]:
    """The step that writes bytes as letters; with ``use_regex`` it cuts by GPT-2's rule first."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    if step is None:
        return []
    return list(step["pretokenizers"]) if step.get("type") == "Sequence" else [step]


def _rule(step: dict[str, Any]) -> str | None:
    """What a step cuts by; None if it does not cut."""
    if step["type"] == "ByteLevel":
        return GPT2 if step.get("use_regex", True) else None
    pattern = step.get("pattern", {}).get("Regex")
    isolates = step.get("behavior") == "Isolated" and not step.get("invert")
    return str(pattern) if isolates else "another"
