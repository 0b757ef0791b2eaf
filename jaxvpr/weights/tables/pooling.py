"""Names of methods that pool: the Deep VG benchmark, NetVLAD and its heirs, AP-GeM, AnyLoc's vocabulary."""

from jaxvpr.weights.tables import heads
from jaxvpr.weights.tables.convolutional import RESNET, RESNET_SEQUENTIAL, VGG_SEQUENTIAL
from jaxvpr.weights.tables.family import Family, Rows, under
from jaxvpr.weights.tables.heads import CLUSTERS
from jaxvpr.weights.tables.transformers import DINOV2, POOLER, VIT_HF

MATLAB: Rows = ((r"aggregator/conv", "score_proj"), (r"aggregator/centers", "centers"))
CONVOLUTIONAL: Rows = (*RESNET_SEQUENTIAL, *VGG_SEQUENTIAL)


def inner(prefix: str, rows: Rows) -> Rows:
    """Rows of an aggregator for where it stands in front of another step, and has names of its own there."""
    return under(prefix, ((pattern.replace("aggregator/", "aggregator/inner/"), name) for pattern, name in rows))


def _deep_vg(backbone: Rows, gem: str) -> Rows:
    """The benchmark's names; a Sequential counts its L2 where there is one, so that GeM is its first or second."""
    head = (
        (r"aggregator/p", gem),
        *CLUSTERS,
        (r"aggregator/crn/(\w+)", r"crn.\1"),
        (r"aggregator/(ln1|fc1|fc2|ln2)", r"\1"),
    )
    return (
        *under("backbone.", backbone),
        *under("aggregation.", (*head, *inner("0.", head), (r"aggregator/fc", "1"))),
    )


def _port(encoder: str, pool: str) -> Family:
    """NetVLAD in PyTorch; on several GPUs its two halves are wrapped each on its own."""
    rows = under(pool, CLUSTERS)
    return Family(
        rows=(*under(encoder, CONVOLUTIONAL), *rows, *inner("", rows), (r"aggregator/fc", "WPCA.0")),
        convolved=(r"aggregator/fc",),
        counters=True,
    )


FAMILIES = {
    # L2 before pooling, and all that has no such choice.
    "deep_vg": Family(rows=_deep_vg(CONVOLUTIONAL, "1.p"), counters=True),
    # L2 after pooling, or none.
    "deep_vg_l2_after": Family(rows=_deep_vg(CONVOLUTIONAL, "0.p"), counters=True),
    "deep_vg_vit": Family(
        rows=_deep_vg(under("vit_model.", VIT_HF), "0.p"), extras=(rf"backbone\.vit_model\.{POOLER}",)
    ),
    "netvlad_pytorch": _port("encoder.", "pool."),
    "netvlad_pytorch_gpus": _port("encoder.module.", "pool.module."),
    # hloc's, converted from the authors' MATLAB files.
    "netvlad_hloc": Family(
        rows=(
            *under("backbone.", VGG_SEQUENTIAL),
            *under("netvlad.", (*MATLAB, *inner("", MATLAB))),
            (r"aggregator/fc", "whiten"),
        )
    ),
    "sfrs": Family(
        rows=(
            *under("base_model.base.", VGG_SEQUENTIAL),
            *under("net_vlad.", (*CLUSTERS, *inner("", CLUSTERS))),
            (r"aggregator/fc", "pca_layer"),
        ),
        convolved=(r"aggregator/fc",),
    ),
    "apgem": Family(
        rows=(
            *RESNET,
            (r"aggregator/(?:inner/)*p", "adpool.p"),
            (r"aggregator/(?:inner/)?fc", "fc"),
            (r"aggregator/(mean_|components_|explained_variance_)", r"pca.Landmarks_clean.\1"),
        ),
        extras=(r"pca\..+",),
        counters=True,
    ),
    "supervlad": Family(rows=(*under("backbone.", DINOV2), *heads.SUPERVLAD)),
    "anyloc_vocabulary": Family(rows=((r"aggregator/centroids", "c_centers"),), covers="aggregator/"),
}
