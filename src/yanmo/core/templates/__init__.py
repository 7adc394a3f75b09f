"""Pages of HTML: the templates in this folder, and the one way to fill them in.

In: a template's name and its values. Out: a page. Whatever is put in is escaped, for most of it is somebody's
text; a value that was forgotten is an error, not a gap in the page.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from yanmo.core.outputs import MARK

PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.globals["MARK"] = Markup(MARK)  # our own words, which must stand in the page as they are


def render(name: str, **values: object) -> str:
    """The template ``name`` with its values."""
    return PAGES.get_template(name).render(values) + "\n"
