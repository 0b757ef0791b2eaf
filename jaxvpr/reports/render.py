"""Pages and their parts from the files in `templates/` and `static/`. Every text that is filled in is escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent
LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # halves of characters, which no name gives: those are from U+DC80


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


def encoded(page: str) -> bytes:
    """A page as UTF-8. Bytes of a file's name that are no text, such as Latin-1, stand there as `\\xe9`."""
    whole = LONE.sub("\N{REPLACEMENT CHARACTER}", page).encode(errors="surrogateescape")
    return whole.decode(errors="backslashreplace").encode()


def render(template: str, **values: Any) -> Markup:
    """A file of `templates/`, filled in: markup that other templates take unescaped.

    Raises:
      jinja2.UndefinedError: where the template names a value that is not given.
    """
    return Markup(ENVIRONMENT.get_template(template).render(**values))
