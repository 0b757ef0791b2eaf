"""Names of vision transformers, alone and as rows for the methods built on them."""

from jaxvpr.weights.tables.family import Family, Rows, under
from jaxvpr.weights.tables.heads import CLUSTERS

VIT_TIMM: Rows = (
    (r"backbone/(cls_token|pos_embed)", r"\1"),
    (r"backbone/patch_embed/proj", "patch_embed.proj"),
    (r"backbone/blocks_(\d+)/(norm[12])", r"blocks.\1.\2"),
    (r"backbone/blocks_(\d+)/(attn|mlp)/(\w+)", r"blocks.\1.\2.\3"),
    (r"backbone/norm", "norm"),
)
# With those of CricaVPR's adapters, which stand in its blocks.
DINOV2: Rows = (
    *VIT_TIMM,
    (r"backbone/(mask_token|register_tokens)", r"\1"),
    (r"backbone/blocks_(\d+)/(ls[12])", r"blocks.\1.\2"),
    (r"backbone/blocks_(\d+)/adapter/(D_fc[12])", r"blocks.\1.adapter.\2"),
    (r"backbone/blocks_(\d+)/adapter/branch1/(\w+)", r"blocks.\1.adapter.branch1.\2"),
    (r"backbone/blocks_(\d+)/adapter/(branch[23])_(\d)/(\w+)", r"blocks.\1.adapter.\2.\3.\4"),
)
# Hugging Face's ViTModel, as it stands in the Deep VG benchmark under `backbone.vit_model.`.
VIT_HF: Rows = (
    (r"backbone/cls_token", "embeddings.cls_token"),
    (r"backbone/pos_embed", "embeddings.position_embeddings"),
    (r"backbone/patch_embed/proj", "embeddings.patch_embeddings.projection"),
    (r"backbone/blocks_(\d+)/norm1", r"encoder.layer.\1.layernorm_before"),
    (r"backbone/blocks_(\d+)/attn/qkv", r"encoder.layer.\1.attention.attention.{query,key,value}"),
    (r"backbone/blocks_(\d+)/attn/proj", r"encoder.layer.\1.attention.output.dense"),
    (r"backbone/blocks_(\d+)/norm2", r"encoder.layer.\1.layernorm_after"),
    (r"backbone/blocks_(\d+)/mlp/fc1", r"encoder.layer.\1.intermediate.dense"),
    (r"backbone/blocks_(\d+)/mlp/fc2", r"encoder.layer.\1.output.dense"),
    (r"backbone/norm", "layernorm"),
    (r"backbone/pooler_dense", "pooler.dense"),
)
# The vision part of Hugging Face's CLIPModel.
CLIP: Rows = (
    (r"backbone/class_embedding", "vision_model.embeddings.class_embedding"),
    (r"backbone/position_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"backbone/patch_embed/proj", "vision_model.embeddings.patch_embedding"),
    (r"backbone/norm_pre", "vision_model.pre_layrnorm"),
    (r"backbone/blocks_(\d+)/norm([12])", r"vision_model.encoder.layers.\1.layer_norm\2"),
    (r"backbone/blocks_(\d+)/attn/qkv", r"vision_model.encoder.layers.\1.self_attn.{q_proj,k_proj,v_proj}"),
    (r"backbone/blocks_(\d+)/attn/proj", r"vision_model.encoder.layers.\1.self_attn.out_proj"),
    (r"backbone/blocks_(\d+)/mlp/(fc[12])", r"vision_model.encoder.layers.\1.mlp.\2"),
    (r"backbone/norm", "vision_model.post_layernorm"),
    (r"backbone/projection", "visual_projection"),
)
# What that model has beside them: texts, the temperature, and the numbers of positions, which older files hold.
CLIP_TEXT = (
    r"text_model\..+",
    r"(text|visual)_projection\.weight",
    r"logit_scale",
    r"vision_model\.embeddings\.position_ids",
)
# SHI-Labs' CCT, whose pooling and last normalisation are parts of its classifier.
CCT: Rows = (
    (r"backbone/tokenizer_(\d)", r"tokenizer.conv_layers.\1.0"),
    (r"backbone/positional_emb", "classifier.positional_emb"),
    (r"backbone/blocks_(\d+)/(\w+)", r"classifier.blocks.\1.\2"),
    (r"backbone/blocks_(\d+)/self_attn/(\w+)", r"classifier.blocks.\1.self_attn.\2"),
    (r"backbone/norm", "classifier.norm"),
    (r"aggregator/attention_pool", "classifier.attention_pool"),
)
# What a model without its option `pooler` leaves in the file.
POOLER = r"pooler\.dense\.(weight|bias)"


def attention_pool(prefix: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """CCT-14's attention pooling, which its classifier has whether anything uses it or not."""
    name = f"{prefix}classifier.attention_pool."
    return (f"{name}weight", (1, 384)), (f"{name}bias", (1,))


FAMILIES = {
    "dinov2": Family(
        rows=DINOV2,
        covers="backbone/",
        extras=(r"mask_token", r"norm\.(weight|bias)"),
        stages=r"blocks\.\d+\.",
        counters=True,
    ),
    "timm_vit": Family(rows=VIT_TIMM, covers="backbone/", extras=(r"head\.(weight|bias)",), stages=r"blocks\.\d+\."),
    "huggingface_vit": Family(rows=VIT_HF, covers="backbone/", extras=(POOLER,), stages=r"encoder\.layer\.\d+\."),
    # A classifier's file has the same network one level down.
    "huggingface_vit_classifier": Family(
        rows=under("vit.", VIT_HF),
        covers="backbone/",
        extras=(rf"vit\.{POOLER}", r"classifier\.(weight|bias)"),
        stages=r"vit\.encoder\.layer\.\d+\.",
    ),
    "huggingface_clip": Family(
        rows=CLIP, covers="backbone/", extras=CLIP_TEXT, stages=r"vision_model\.encoder\.layers\.\d+\."
    ),
    "cct": Family(
        rows=CCT,
        covers=("backbone/", "aggregator/attention_pool/"),
        extras=(r"classifier\.(fc|attention_pool)\.(weight|bias)",),
        stages=r"classifier\.blocks\.\d+\.",
    ),
    # The Deep VG benchmark's, with any of the aggregators that it allows: `seqpool` and `cls` have no head there.
    "deep_vg_cct": Family(
        rows=(
            *under("backbone.", CCT),
            (r"aggregator/p", "aggregation.0.p"),
            *under("aggregation.", CLUSTERS),
        ),
        unused=attention_pool("backbone."),
    ),
}
