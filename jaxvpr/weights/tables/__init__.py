"""The names that PyTorch's originals give their parameters: one `Family` each."""

from jaxvpr.weights.tables import convolutional, methods, pooling, positions, sequences, transformers
from jaxvpr.weights.tables.family import LEAVES, Family, covered, name_of, under

__all__ = ["FAMILIES", "LEAVES", "Family", "covered", "name_of", "under"]

FAMILIES = {
    **convolutional.FAMILIES,
    **transformers.FAMILIES,
    **methods.FAMILIES,
    **pooling.FAMILIES,
    **sequences.FAMILIES,
    **methods.OPENVPRLAB,
    **positions.FAMILIES,
    # Any model of ours, for what has no original: our path with dots, our layout.
    "jaxvpr": Family(same_layout=True),
    **sequences.OURS_OVER_TIME,
}
