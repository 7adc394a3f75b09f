"""Writes docs/settings.md from the docstrings in ``settings/schema.py``: ``make docs``."""

from pathlib import Path

from yanmo.settings.schema import SECTIONS, Cleaning, Recipe

HEAD = """# Settings

Every key of a recipe, and at the end those of `yanmo clean`. On the command line, write them as
`section.key=value` after the positional arguments; in a recipe, write them in TOML under their section.
*decided* means: if you leave the key out, yanmo chooses its value by rule or measurement when it makes the
run folder, and writes it into the run's `recipe.toml`. If you use that file as the recipe of a new run and
change a setting, decisions that depend on this setting are made again; values that you wrote stay.

This page is made from `src/yanmo/settings/schema.py` by `make docs`.
"""


def page() -> str:
    lines = [HEAD]
    sections = {name: getattr(Recipe(), name) for name in SECTIONS} | dict(Cleaning())
    for section, values in sections.items():
        lines += [f"## [{section}]", "", (type(values).__doc__ or "").strip().replace("``", "`"), ""]
        lines += ["| key | default | |", "|---|---|---|"]
        for key, field in type(values).model_fields.items():
            value = getattr(values, key)
            default = "*decided*" if value is None else f"`{value}`"
            text = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{key}` | {default} | {text} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    Path(__file__).with_name("settings.md").write_text(page(), encoding="utf-8", newline="\n")
