"""Where the descriptors of a database lie while they are searched: in the memory of every host, or on the devices."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.retrieval import mesh_search, search
from jaxvpr.retrieval.cache import Cache, stored
from jaxvpr.retrieval.extract import Described

log = logging.getLogger(__name__)
Array = np.ndarray
SEARCHES = ("auto", "host", "mesh")
WIDEST = 1 << 17  # numbers: no descriptor has more, so that of a small database the model need not be asked
SEARCH_MIB = 1024  # what a search may take on each device beside the descriptors


class Where(NamedTuple):
    """The keys `eval.search` and `eval.host_mib`.

    Attributes:
      search: "host": FAISS, with all descriptors in every process; "mesh": each device keeps and searches its share of
        them; "auto": the host up to `host_mib`, beyond it the devices, where they have the memory.
      host_mib: of all descriptors together.
    """

    search: str = "auto"
    host_mib: int = 4096

    def kept(self, name: str, descriptors: Array, mesh: Mesh) -> Described | Cache:
        """Descriptors of a file [N, D], memory-mapped, where they are searched: on the devices each process reads the
        rows of its own. Rows of zeros are images that could not be read. Raises as `on_mesh`."""
        count, dimension = descriptors.shape
        if self.on_mesh(name, count, lambda: dimension, mesh):
            return stored(descriptors, mesh)
        return Described(descriptors, np.flatnonzero(~descriptors.any(axis=1)))

    def on_mesh(self, name: str, count: int, length: Callable[[], int], mesh: Mesh) -> bool:
        """Whether `count` descriptors are kept and searched on the devices; the same in every process.

        Args:
          name: what the database is called in messages.
          length: gives how many numbers a descriptor has; asked where that may decide.

        Raises:
          UserError: where neither the devices nor, with "auto", the host has the memory.
        """
        most = self.host_mib * 2**20
        if self.search == "host" or (self.search == "auto" and 4 * count * WIDEST <= most):
            return False
        dimension = length()
        size = 4 * count * dimension
        if self.search == "auto" and size <= most:
            return False
        each = -(-size // mesh.size) * 17 // 16 + SEARCH_MIB * 2**20  # a cache may have a sixteenth more rows
        free = int(hosts.of_first(lambda: np.array([_free_mib(mesh)], np.int32), (1,))[0]) * 2**20
        if not free or each <= free:
            return True
        why = (
            f"{name}: {count:,} descriptors of {dimension:,} numbers are {_gib(size)}, with the search {_gib(each)} on "
            f"each of {mesh.size} devices, where {_gib(free)} are free. Use more devices, or shorter descriptors "
            "(pca.dim)"
        )
        if self.search == "mesh" or size > _host_bytes():
            raise UserError(f"{why}, or eval.search=host, which takes {_gib(size)} in every process")
        log.warning("%s. They are searched on the host, which takes %s in every process", why, _gib(size))
        return False


AUTO = Where()


def nearest(database: Described | Cache, queries: Array, k: int) -> tuple[Array, Array]:
    """The k nearest of a database's images to each query, where its descriptors lie: distances float32 and rows int64,
    both [Q, k], as of `search.exact`. Images that could not be read are never results."""
    if isinstance(database, Cache):
        return mesh_search.exact_on_mesh(database, queries, k, memory_mib=SEARCH_MIB)
    return search.exact(database.descriptors, queries, k, missing=database.missing)


def _free_mib(mesh: Mesh) -> int:
    """MiB that each device of this process has free at least; 0 where that is not known, as on a CPU."""
    stats: list[Any] = [device.memory_stats() or {} for device in mesh.local_devices]
    known = [one["bytes_limit"] - one["bytes_in_use"] for one in stats if "bytes_limit" in one]
    return max(1, min(known) // 2**20) if known else 0


def _host_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
