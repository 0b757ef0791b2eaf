"""What lies under the root of a city: its marker, which says what was drawn and that all of it is there."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.minicity.drawing import write_atomic
from data_pipelines.own_files import read_json

log = logging.getLogger(__name__)


class Tree(NamedTuple):
    """One thing that is drawn under a root.

    Attributes:
      root: the folder.
      what: its name, for messages: "mini city" or "drives".
      name: of its marker below the root, without `.json`: it stands there when all is drawn, and `<name>.partial.json`
        until then.
      marker: what the marker holds: digest and settings (`config`).
      others: digests of what serves as well.
      free: settings that the others differ in.
    """

    root: Path
    what: str
    name: str
    marker: Mapping[str, Any]
    others: tuple[str, ...] = ()
    free: tuple[str, ...] = ()

    @property
    def done(self) -> Path:
        """Its marker."""
        return self.root / f"{self.name}.json"

    @property
    def partial(self) -> Path:
        """What stands for the marker while it is drawn."""
        return self.root / f"{self.name}.partial.json"

    def begin(self, folders: list[str]) -> None:
        """Makes the folders, below `images`, and says what is being drawn."""
        for folder in ["", *folders]:
            (self.root / "images" / folder).mkdir(parents=True, exist_ok=True)
        if not self.partial.exists():
            write_atomic(self.partial, json.dumps(self.marker, indent=1).encode())

    def finish(self, folders: list[str], images: dict[str, int]) -> None:
        """Writes the marker, with the number of images of each folder, and clears away what a killed run left."""
        write_atomic(self.done, json.dumps({**self.marker, "images": images}, indent=1).encode())
        self.partial.unlink(missing_ok=True)
        for folder in folders:
            for left in (self.root / "images" / folder).glob(".*.part"):
                left.unlink(missing_ok=True)

    def found(self) -> tuple[Path, str] | None:
        """The marker that lies there, finished or not, and its digest; None where there is none.

        Raises:
          DataError: where it is of something else.
        """
        for marker in (self.done, self.partial):
            if marker.is_file():
                return marker, self._compare(marker)
        return None

    def _compare(self, marker: Path) -> str:
        """The digest of a marker that serves; DataError where it is of anything else."""
        try:
            found = read_json(marker)
            digest, settings = found["digest"], dict(found["config"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{marker} is not a marker of a mini city ({error}); delete {marker.parent} and write again"
            ) from error
        if digest in (self.marker["digest"], *self.others):
            return digest
        wanted = json.loads(json.dumps(self.marker["config"]))
        differing = [
            f"{k}: {settings.get(k)!r} there, {v!r} wanted"
            for k, v in wanted.items()
            if settings.get(k) != v and k not in self.free
        ]
        raise DataError(
            f"{self.done.parent} holds another {self.what} ({'; '.join(differing) or 'written by another version'}); "
            "give another folder or delete that one"
        )

    def has_all(self, wanted: Mapping[str, int]) -> bool:
        """Whether all images of each folder that was finished are still there; says how many are missing.

        Raises:
          DataError: for more than there should be: they would be trained on.
        """
        missing = 0
        for folder, count in wanted.items():
            path = self.root / "images" / folder
            there = sum(entry.name.endswith(".jpg") for entry in os.scandir(path)) if path.is_dir() else 0
            if there > count:
                raise DataError(
                    f"{path} has {there} images, {there - count} more than were drawn: move what is not of it"
                )
            missing += count - there
        if missing:
            total = sum(wanted.values())
            log.warning("%d of the %d images of %s are missing: drawing them again", missing, total, self.root)
        return not missing
