"""Which parts of a published model's backbone rest while it is tuned on photos of one's own."""

from __future__ import annotations

from typing import Any

from flax import linen as nn

from jaxvpr.models.backbones.cct import CCT
from jaxvpr.models.backbones.dinov2 import DINOv2
from jaxvpr.models.backbones.efficientnet import EfficientNet
from jaxvpr.models.backbones.efficientnet_lite import EfficientNetLite
from jaxvpr.models.backbones.resnet import ResNet
from jaxvpr.models.backbones.transformer import blocks_to_run
from jaxvpr.models.backbones.vgg import VGG
from jaxvpr.models.backbones.vit import ViT

OPTIONS = {"frozen_until", "frozen_blocks", "train_blocks", "adapters_only"}  # those that say it themselves
TUNED = 4  # blocks of a transformer that train, as SALAD's
# The last part that rests: of CosPlace's networks, of the Deep VG benchmark's VGG16.
EARLY: dict[type[nn.Module], Any] = {ResNet: "layer2", EfficientNet: 4, EfficientNetLite: 4, VGG: 23}


def early(backbone: nn.Module) -> tuple[dict[str, Any], str]:
    """The options under which the early parts of a backbone rest, and what then trains; none where it has no such."""
    if isinstance(backbone, DINOv2):
        return {"train_blocks": TUNED}, f"the last {TUNED} of {backbone.depth} blocks train"
    if isinstance(backbone, ViT | CCT):
        blocks = blocks_to_run(backbone.depth, backbone.cut, None)
        return {"frozen_blocks": max(0, blocks - TUNED)}, f"the last {min(TUNED, blocks)} of {blocks} blocks train"
    for kind, last in EARLY.items():
        if isinstance(backbone, kind):
            rest = {"frozen_until": last, **({"frozen_bn": "all"} if hasattr(backbone, "frozen_bn") else {})}
            return rest, f"what comes behind {last} trains, and averages of BatchNorm rest"
    return {}, ""
