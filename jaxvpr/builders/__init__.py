# ruff: noqa: F401 (names that this room hands on)
"""From the keys of a recipe to objects: its model, its data sets, its weights to start from."""

from jaxvpr.builders.choices import settle
from jaxvpr.builders.clips import (
    check_clips,
    check_measured,
    check_model,
    cut_sets,
    elements,
    refuse_clips,
    training_cuts,
)
from jaxvpr.builders.datasets import (
    benchmarks,
    cutting,
    folders,
    identity,
    owners,
    photos,
    places,
    recall_ns,
    tests,
    two_folders,
    validation,
)
from jaxvpr.builders.features import (
    check_maps,
    describer_of_kept,
    descriptors_kept,
    kept_describer,
    map_shapes,
    maps_kept,
    resting,
)
from jaxvpr.builders.gallery import OF_TRAINING, filled_gallery, table_gallery, training_gallery, with_table
from jaxvpr.builders.heads import answering, coding, head
from jaxvpr.builders.layout import Choice
from jaxvpr.builders.network import (
    apply,
    blank,
    clip_length,
    describer,
    describing,
    descriptor_size,
    fresh_variables,
    image_size,
    mesh,
    model,
    score,
    shapes,
    where,
)
from jaxvpr.builders.positions import (
    Positions,
    area_around,
    area_metres,
    coding_of,
    normalised,
    positions,
    to_learn,
)
from jaxvpr.builders.start import filled, initial_variables, without_clusters
from jaxvpr.builders.training_images import (
    PARTITIONS,
    augmentation,
    check_panoramas,
    image_source,
    only,
    partitioned,
    refuse_partitions,
    shown,
    specs,
    training_sets,
    training_source,
)
