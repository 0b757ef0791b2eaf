"""Names of complete methods: a backbone's rows under a prefix, and the rows of their heads."""

from jaxvpr.weights.tables import heads
from jaxvpr.weights.tables.convolutional import EFFICIENTNET_SEQUENTIAL, RESNET, RESNET_SEQUENTIAL, VGG_SEQUENTIAL
from jaxvpr.weights.tables.family import Family, Rows, under
from jaxvpr.weights.tables.transformers import DINOV2

COSPLACE_HEAD: Rows = ((r"aggregator/gem", "aggregation.1"), (r"aggregator/fc", "aggregation.3"))

FAMILIES = {
    # EigenPlaces writes the same names.
    "cosplace": Family(
        rows=(*under("backbone.", (*RESNET_SEQUENTIAL, *VGG_SEQUENTIAL, *EFFICIENTNET_SEQUENTIAL)), *COSPLACE_HEAD),
        counters=True,
    ),
    "mixvpr": Family(rows=(*under("backbone.model.", RESNET), *heads.MIXVPR), counters=True),
    "convap": Family(rows=(*under("backbone.model.", RESNET), *heads.CONVAP), counters=True),
    # CliqueMining writes the same names.
    "salad": Family(rows=(*under("backbone.model.", DINOV2), *heads.SALAD)),
    "megaloc": Family(rows=(*under("backbone.", DINOV2), *heads.MEGALOC)),
    "boq": Family(
        rows=(*under("backbone.net.", RESNET_SEQUENTIAL), *under("backbone.dino.", DINOV2), *heads.BOQ), counters=True
    ),
    # With the counters of its adapters' BatchNorms.
    "cricavpr": Family(rows=(*under("backbone.", DINOV2), *heads.CRICAVPR), counters=True),
}
