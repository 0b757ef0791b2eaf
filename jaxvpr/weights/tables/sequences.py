"""Names of what describes clips: vg-transformers (SeqVLAD), TimeSformer, JIST and SeqNet.

On several GPUs vg-transformers writes its names under `module.`, and reads them with or without.
"""

from jaxvpr.weights.tables.convolutional import RESNET_SEQUENTIAL, VGG_SEQUENTIAL
from jaxvpr.weights.tables.family import Family, Rows, under
from jaxvpr.weights.tables.heads import CLUSTERS
from jaxvpr.weights.tables.methods import COSPLACE_HEAD
from jaxvpr.weights.tables.transformers import CCT, POOLER, VIT_HF, VIT_TIMM, attention_pool

TIMESFORMER: Rows = (
    *VIT_TIMM,
    (r"backbone/time_embed", "time_embed"),
    (r"backbone/blocks_(\d+)/(temporal_norm1|temporal_fc)", r"blocks.\1.\2"),
    (r"backbone/blocks_(\d+)/temporal_attn/(\w+)", r"blocks.\1.temporal_attn.\2"),
)
# An image model's, whose attention over time starts as that over space.
OVER_TIME: Rows = (
    *VIT_TIMM,
    (r"backbone/blocks_(\d+)/temporal_norm1", r"blocks.\1.norm1"),
    (r"backbone/blocks_(\d+)/temporal_attn/(\w+)", r"blocks.\1.attn.\2"),
)
NEW_OVER_TIME = r"backbone/(time_embed|blocks_\d+/temporal_fc/.+)"
FC: Rows = ((r"sequence/fc", "aggregator.1"),)
CLASSIFIER = r"head\.(weight|bias)"


def _vg_transformers(encoder: Rows, pooling: Rows = ()) -> Rows:
    """An encoder, a pooling of frames where there is one, and an aggregator, which is SeqVLAD or an FC of frames."""
    return (*under("encoder.", encoder), *under("pooling.", pooling), *under("aggregator.", CLUSTERS), *FC)


CONVOLUTIONAL: Rows = (*RESNET_SEQUENTIAL, *VGG_SEQUENTIAL)

FAMILIES = {
    # Of a model of images: SeqVLAD is NetVLAD for a clip of one frame.
    "vg_transformers": Family(rows=_vg_transformers(CONVOLUTIONAL, ((r"aggregator/p", "1.p"),)), counters=True),
    # NetVLAD of each frame.
    "vg_transformers_pooling": Family(
        rows=(*under("encoder.", CONVOLUTIONAL), *under("pooling.", CLUSTERS), *FC), counters=True
    ),
    "vg_transformers_cct": Family(rows=_vg_transformers(CCT), unused=attention_pool("encoder.")),
    "vg_transformers_vit": Family(rows=_vg_transformers(VIT_HF), extras=(rf"encoder\.{POOLER}",)),
    "vg_transformers_timesformer": Family(rows=under("encoder.model.", TIMESFORMER)),
    # With the classifier of actions that its authors' files have.
    "timesformer": Family(
        rows=under("model.", TIMESFORMER),
        covers="backbone/",
        extras=(rf"model\.{CLASSIFIER}",),
        stages=r"model\.blocks\.\d+\.",
    ),
    "timm_vit_over_time": Family(
        rows=OVER_TIME,
        covers="backbone/",
        keeps=NEW_OVER_TIME,
        extras=(CLASSIFIER,),
        stages=r"blocks\.\d+\.",
    ),
    "jist": Family(
        rows=(
            *under("model.", (*under("backbone.", RESNET_SEQUENTIAL), *COSPLACE_HEAD)),
            (r"sequence/gem", "seq_gem"),
            (r"sequence/fc", "final_fc"),
            (r"sequence", "conv1d"),
        ),
        counters=True,
    ),
    # It is trained on descriptors of frames that others computed.
    "seqnet": Family(rows=((r"sequence", "pool.0.conv"),), covers="sequence/"),
}

# A vision transformer of ours, read as `timm_vit_over_time` reads timm's.
OURS_OVER_TIME = {
    "jaxvpr_vit_over_time": Family(
        rows=(
            (r"backbone/(blocks_\d+)/temporal_norm1/(\w+)", r"backbone.\1.norm1.\2"),
            (r"backbone/(blocks_\d+)/temporal_attn/(\w+)/(\w+)", r"backbone.\1.attn.\2.\3"),
        ),
        covers="backbone/",
        keeps=NEW_OVER_TIME,
        extras=(r"(aggregator|sequence)\..+",),
        same_layout=True,
    )
}
