"""Pages and their parts from the files in `templates/` and `static/`. Every text that is filled in is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent


def static(name: str) -> Markup:
    """A style sheet or script of `static/`, to be embedded unchanged."""
    return Markup((FOLDER / "static" / name).read_text(encoding="utf-8"))


ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals["static"] = static
ENVIRONMENT.filters["thousands"] = "{:,}".format
ENVIRONMENT.filters["tenth"] = "{:.1f}".format
ENVIRONMENT.policies["json.dumps_kwargs"] = {"separators": (",", ":")}


def render(template: str, **values: Any) -> Markup:
    """A file of `templates/`, filled in: markup that other templates take unescaped.

    Raises:
      jinja2.UndefinedError: where the template names a value that is not given.
    """
    return Markup(ENVIRONMENT.get_template(template).render(**values))
