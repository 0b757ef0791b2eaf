"""Names of whole methods: a backbone's rows under a prefix, and the rows of their heads."""

from jaxvpr.weights.tables.convolutional import EFFICIENTNET_SEQUENTIAL, RESNET_SEQUENTIAL, VGG_SEQUENTIAL
from jaxvpr.weights.tables.family import Family, Rows, under

COSPLACE_HEAD: Rows = ((r"aggregator/gem", "aggregation.1"), (r"aggregator/fc", "aggregation.3"))

FAMILIES = {
    # EigenPlaces writes the same names.
    "cosplace": Family(
        rows=(*under("backbone.", (*RESNET_SEQUENTIAL, *VGG_SEQUENTIAL, *EFFICIENTNET_SEQUENTIAL)), *COSPLACE_HEAD),
        counters=True,
    ),
}
