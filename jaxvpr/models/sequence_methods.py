"""Published methods that describe clips, as data: those of vg-transformers (SeqVLAD) and JIST."""

from collections.abc import Mapping
from typing import Any

from jaxvpr.models.description import Description, Preprocess

FRAMES = 5  # of a clip, in both originals' defaults and files


def _vg_transformers(family: str, size: tuple[int, int], **model: Any) -> Description:
    """Mereu et al., "Learning Sequential Descriptors for Sequence-Based Visual Place Recognition", RA-L 2022.

    It ranks what its models give: SeqVLAD's is of unit length by itself.
    """
    return Description(
        {**model, "l2_after": False}, Preprocess(size, "pil_bilinear"), f"vg_transformers{family}", FRAMES
    )


def _seqvlad(family: str, size: tuple[int, int], backbone: str, options: Mapping[str, Any]) -> Description:
    head = {"tokens": True} if family else {}
    return _vg_transformers(
        family, size, backbone=backbone, backbone_options=options, aggregator="netvlad", aggregator_options=head,
        sequence="joint",
    )  # fmt: skip


def _jist(sequence: str, **options: Any) -> Description:
    """Berton et al., "JIST: Joint Image and Sequence Training for Sequential Visual Place Recognition", RA-L 2023.

    CosPlace describes the frames; nothing is normalised behind the head for clips.
    """
    model = {"backbone": "resnet18", "aggregator": "cosplace", "aggregator_options": {"dim": 512}, "l2_after": False}
    clips = {"sequence": sequence, "sequence_options": options}
    return Description({**model, **clips}, Preprocess((480, 640), "pil_bilinear"), "jist", FRAMES)


HUGGING_FACE = {"eps": 1e-12, "antialias": False, "pooler": True}
CUT = {"cut": "layer3"}
LARGE, SQUARE = (480, 640), (224, 224)
AS_THEY_ARE = {"l2_frames": False}

METHODS: dict[str, Description] = {
    "seqvlad-resnet18-16384": _seqvlad("", LARGE, "resnet18", CUT),
    "seqvlad-resnet50-65536": _seqvlad("", LARGE, "resnet50", CUT),
    "seqvlad-cct384-24576": _seqvlad("_cct", (384, 384), "cct14_384", {"cut": 8, "frozen_blocks": 2}),
    "seqvlad-vit-49152": _seqvlad("_vit", SQUARE, "vit_b16", HUGGING_FACE),
    "gem-cat-resnet18-1280": _vg_transformers(
        "", LARGE, backbone="resnet18", backbone_options=CUT, aggregator="gem", aggregator_options={"l2_before": True},
        sequence="cat", sequence_options={**AS_THEY_ARE, "frames": FRAMES},
    ),
    "netvlad-cat-resnet18-81920": _vg_transformers(
        "_pooling", LARGE, backbone="resnet18", backbone_options=CUT, aggregator="netvlad",
        sequence="cat", sequence_options={**AS_THEY_ARE, "frames": FRAMES},
    ),
    "vit-cat-3840": _vg_transformers(
        "_vit", SQUARE, backbone="vit_b16", backbone_options=HUGGING_FACE, aggregator="cls",
        sequence="cat", sequence_options={**AS_THEY_ARE, "frames": FRAMES},
    ),
    "vit-fc-2048": _vg_transformers(
        "_vit", SQUARE, backbone="vit_b16", backbone_options=HUGGING_FACE, aggregator="cls",
        sequence="fc", sequence_options={**AS_THEY_ARE, "frames": FRAMES, "dim": 2048},
    ),
    "cct384-cat-1920": _vg_transformers(
        "_cct", (384, 384), backbone="cct14_384", backbone_options={"cut": 8, "frozen_blocks": 2},
        aggregator="seqpool", aggregator_options={"frozen": True},
        sequence="cat", sequence_options={**AS_THEY_ARE, "frames": FRAMES},
    ),
    "timesformer-768": _vg_transformers(
        "_timesformer", SQUARE, backbone="timesformer_b16", backbone_options={"frames": FRAMES}, aggregator="cls"
    ),
    "jist-resnet18-512": _jist("seqgem"),
    "jist-mean-resnet18-512": _jist("mean"),
    "jist-max-resnet18-512": _jist("max"),
    "jist-conv1d-resnet18-512": _jist("conv", width=FRAMES),
    "jist-simplefc-resnet18-512": _jist("fc", frames=FRAMES, bias=False),
    "jist-meanfc-resnet18-512": _jist("fc", frames=FRAMES, bias=False, mean_start=True),
    "jist-concat-resnet18-2560": _jist("cat", frames=FRAMES),
}  # fmt: skip
