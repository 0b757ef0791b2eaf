"""Names of complete methods: a backbone's rows under a prefix, and the rows of their heads."""

from jaxvpr.weights.tables import heads
from jaxvpr.weights.tables.convolutional import EFFICIENTNET_SEQUENTIAL, RESNET, RESNET_SEQUENTIAL, VGG_SEQUENTIAL
from jaxvpr.weights.tables.family import Family, Rows, under
from jaxvpr.weights.tables.transformers import DINOV2

OPENVPRLAB_HEADS: Rows = (
    *heads.BOQ,
    *heads.MIXVPR,
    *heads.SALAD,
    *heads.CONVAP,
    (r"aggregator/p", "aggregator.p"),
    (r"aggregator/gem", "aggregator.gem"),
)
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


def _openvprlab_resnet(frozen: int) -> Rows:
    """The stem and the stages of a ResNet as one list, of which the first `frozen` stand apart from the others."""
    names = [f"frozen_layers.{n}" if n < frozen else f"unfrozen_layers.{n - frozen}" for n in range(5)]
    stem: Rows = ((r"backbone/conv1", f"{names[0]}.0"), (r"backbone/bn1", f"{names[0]}.1"))
    stages = (
        row
        for stage in range(1, 5)
        for row in (
            (rf"backbone/layer{stage}_(\d+)/downsample_(\d)", rf"{names[stage]}.\1.downsample.\2"),
            (rf"backbone/layer{stage}_(\d+)/(\w+)", rf"{names[stage]}.\1.\2"),
        )
    )
    return under("backbone.", (*stem, *stages))


# OpenVPRLab's: any of its backbones with any of its aggregators.
OPENVPRLAB = {
    "openvprlab_dinov2": Family(rows=(*under("backbone.dino.", DINOV2), *OPENVPRLAB_HEADS)),
    **{
        f"openvprlab_frozen{frozen}": Family(rows=(*_openvprlab_resnet(frozen), *OPENVPRLAB_HEADS), counters=True)
        for frozen in range(6)
    },
}
