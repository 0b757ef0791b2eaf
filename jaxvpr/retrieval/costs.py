"""The costs of a method: memory of the database, time for an image and for a query."""

from __future__ import annotations


def costs(
    *,
    database: int,
    dimension: int,
    extraction_ms_per_image: float | None = None,
    matching_ms_per_query: float | None = None,
    parameters: int | None = None,
    model_bytes: int | None = None,
    flops_per_image: float | None = None,
    training_seconds: float | None = None,
    planning_seconds: float | None = None,
) -> dict[str, float | int]:
    """The `costs` of `metrics.json` (docs/metrics.md); unknown ones are left out.

    Args:
      database: number of descriptors of the database: of images, of clips, or of their frames.
      dimension: of the descriptors, which are float32.
      extraction_ms_per_image: milliseconds, reading and decoding included.
      matching_ms_per_query: milliseconds of the search.
      parameters, model_bytes: of the network.
      flops_per_image: a multiply-add counted as two.
      training_seconds: wall-clock time.
      planning_seconds: the part of it spent on choosing what to draw next, mining above all.
    """
    size = 4 * int(dimension)
    always = {"descriptor_dimension": int(dimension), "descriptor_bytes": size, "database_bytes": int(database) * size}
    measured = {
        "extraction_ms_per_image": extraction_ms_per_image,
        "matching_ms_per_query": matching_ms_per_query,
        "parameters": parameters,
        "model_bytes": model_bytes,
        "flops_per_image": flops_per_image,
        "training_seconds": training_seconds,
        "planning_seconds": planning_seconds,
    }
    return always | {key: value for key, value in measured.items() if value is not None}
