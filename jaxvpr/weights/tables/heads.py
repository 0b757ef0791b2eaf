"""Names of the learned heads, as in the files of complete methods."""

from jaxvpr.weights.tables.family import Rows

CONVAP: Rows = ((r"aggregator/channel_pool", "aggregator.channel_pool"),)
MIXVPR: Rows = (
    (r"aggregator/mix_(\d+)/mix_(\d)", r"aggregator.mix.\1.mix.\2"),
    (r"aggregator/(channel_proj|row_proj)", r"aggregator.\1"),
)
SALAD: Rows = (
    (r"aggregator/(token_features|cluster_features|score)_(\d)", r"aggregator.\1.\2"),
    (r"aggregator/dust_bin", "aggregator.dust_bin"),
)
MEGALOC: Rows = (
    *((path.replace("/", "/agg/"), name.replace(".", ".agg.", 1)) for path, name in SALAD),
    (r"aggregator/linear", "aggregator.linear"),
)
BOQ: Rows = (
    (r"aggregator/boqs_(\d+)/encoder/self_attn/out_proj", r"aggregator.boqs.\1.encoder.self_attn.out_proj"),
    (r"aggregator/boqs_(\d+)/encoder/(\w+)", r"aggregator.boqs.\1.encoder.\2"),
    (r"aggregator/boqs_(\d+)/(self_attn|cross_attn)/out_proj", r"aggregator.boqs.\1.\2.out_proj"),
    (r"aggregator/boqs_(\d+)/(\w+)", r"aggregator.boqs.\1.\2"),
    (r"aggregator/(proj_c|norm_input|fc)", r"aggregator.\1"),
)
# PyTorch's TransformerEncoder across the images of a batch.
ENCODER: Rows = (
    (r"aggregator/layers_(\d+)/self_attn/out_proj", r"encoder.layers.\1.self_attn.out_proj"),
    (r"aggregator/layers_(\d+)/(\w+)", r"encoder.layers.\1.\2"),
)
CRICAVPR: Rows = ((r"aggregator/gem", "aggregation.1"), *ENCODER)
SUPERVLAD: Rows = ((r"aggregator/conv", "aggregation.conv"), *ENCODER)
# NetVLAD's, below the module that holds it.
CLUSTERS: Rows = ((r"aggregator/conv", "conv"), (r"aggregator/centroids", "centroids"))
