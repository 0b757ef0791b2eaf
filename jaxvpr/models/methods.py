"""Published methods as data: backbone, aggregator, preprocessing, and the family of names of the weights."""

from collections.abc import Mapping

from jaxvpr.models import sequence_methods
from jaxvpr.models.description import Description, Preprocess

# Images as they are, as in the originals' own evaluations.
OWN_SIZE = Preprocess((), "tensor_linear_antialias")


def _cosplace(backbone: str, dim: int) -> Description:
    """CosPlace (Berton et al., CVPR 2022) and EigenPlaces (Berton et al., ICCV 2023)."""
    model = {"backbone": backbone, "aggregator": "cosplace", "aggregator_options": {"dim": dim}}
    return Description(model, OWN_SIZE, "cosplace")


def _named(prefix: str, dims: Mapping[str, tuple[int, ...]]) -> dict[str, Description]:
    return {f"{prefix}-{backbone}-{dim}": _cosplace(backbone, dim) for backbone, each in dims.items() for dim in each}


def _convap(dim: int) -> Description:
    """Conv-AP (Ali-bey et al., GSV-Cities, Neurocomputing 2022), each with the filter it was trained with."""
    model = {"backbone": "resnet50", "aggregator": "convap", "aggregator_options": {"dim": dim // 4}}
    return Description(model, Preprocess((320, 320), "pil_bicubic" if dim == 4096 else "pil_bilinear"), "convap")


def _mixvpr(dim: int, rows: int) -> Description:
    """MixVPR (Ali-bey et al., WACV 2023)."""
    return Description(
        {
            "backbone": "resnet50",
            "backbone_options": {"cut": "layer3"},
            "aggregator": "mixvpr",
            "aggregator_options": {"dim": dim // rows, "rows": rows},
        },
        Preprocess((320, 320), "pil_bicubic"),
        "mixvpr",
    )


def _salad(letter: str) -> Description:
    """SALAD (Izquierdo and Civera, CVPR 2024), and CliqueMining's weights of the same model."""
    model = {"backbone": f"dinov2_vit{letter}14", "backbone_options": {"train_blocks": 4}, "aggregator": "salad"}
    return Description(model, Preprocess((322, 322), "pil_bilinear"), "salad")


def _netvlad(family: str, preprocess: Preprocess, dim: int = 0) -> Description:
    """NetVLAD on VGG16 (Arandjelović et al., CVPR 2016), with whitening to `dim` numbers."""
    vlad = {"aggregator": "netvlad", "aggregator_options": {"clusters": 64}}
    whitened = {"aggregator": "fc", "aggregator_options": {"inner": vlad, "dim": dim, "conv": True}}
    return Description({"backbone": "vgg16", **(whitened if dim else vlad)}, preprocess, family)


def _deep_vg(backbone: str, aggregator: str) -> Description:
    """The Deep VG benchmark (Berton et al., CVPR 2022): ResNets up to conv4, all of VGG16.

    It ranks what GeM pools, and the numbers of a PCA, as they are; NetVLAD's vector is of unit length by itself.
    """
    cut = {} if backbone == "vgg16" else {"cut": "layer3"}
    head = {"aggregator": aggregator, "aggregator_options": {"l2_before": True}, "l2_after": False}
    model = {"backbone": backbone, "backbone_options": cut, **head}
    return Description(model, Preprocess((480, 640), "tensor_linear"), "deep_vg")


# As Patch-NetVLAD, whose files these are, shows images to it.
PATCH_NETVLAD = Preprocess((480, 640), "pil_bilinear")

METHODS: dict[str, Description] = {
    "netvlad-vgg16": _netvlad("netvlad_pytorch", PATCH_NETVLAD),
    "netvlad-vgg16-pca4096": _netvlad("netvlad_pytorch", PATCH_NETVLAD, 4096),
    **{
        f"deepvg-{backbone}-{aggregator}": _deep_vg(backbone, aggregator)
        for backbone in ("vgg16", "resnet18", "resnet50", "resnet101")
        for aggregator in ("gem", "netvlad")
    },
    # Ge et al., ECCV 2020; colours as Caffe's VGG16 had them.
    "sfrs": _netvlad(
        "sfrs",
        Preprocess(
            (480, 640),
            "pil_bilinear",
            mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
        ),
        4096,
    ),
    # Revaud et al., ICCV 2019
    "apgem-resnet101": Description(
        {
            "backbone": "resnet101",
            "aggregator": "whiten",
            "aggregator_options": {
                "inner": {
                    "aggregator": "fc",
                    "aggregator_options": {"inner": {"aggregator": "gem", "aggregator_options": {}}, "dim": 2048},
                },
                "power": 0.25,
            },
        },
        OWN_SIZE,
        "apgem",
    ),
    **_named(
        "cosplace",
        {
            "vgg16": (64, 128, 256, 512),
            "resnet18": (32, 64, 128, 256, 512),
            "resnet50": (32, 64, 128, 256, 512, 1024, 2048),
            "resnet101": (32, 64, 128, 256, 512, 1024, 2048),
            "resnet152": (32, 64, 128, 256, 512, 1024, 2048),
        },
    ),
    **_named(
        "eigenplaces",
        {
            "vgg16": (512,),
            "resnet18": (256, 512),
            "resnet50": (128, 256, 512, 2048),
            "resnet101": (128, 256, 512, 2048),
        },
    ),
    **{f"convap-resnet50-{dim}": _convap(dim) for dim in (512, 2048, 4096, 8192)},
    **{f"mixvpr-resnet50-{dim}": _mixvpr(dim, rows) for dim, rows in ((128, 2), (512, 2), (4096, 4))},
    # Keetha et al., RA-L 2023: facets of a frozen DINOv2; the vocabulary comes from a file or from the database.
    "anyloc-dinov2g-49152": Description(
        {
            "backbone": "dinov2_vitg14",
            "backbone_options": {"layer": 31, "facet": "value"},
            "aggregator": "vlad",
            "aggregator_options": {"clusters": 32},
        },
        # As its evaluation on data sets has it: torchvision 0.14 resizes tensors bilinearly, without antialias.
        Preprocess((480, 640), "tensor_linear", multiple=14, crop=True),
        "dinov2",
    ),
    **{f"salad-dinov2{letter}": _salad(letter) for letter in "sblg"},
    # Lu et al., CVPR 2024
    "cricavpr": Description(
        {
            "backbone": "dinov2_vitb14",
            "backbone_options": {"adapters": True, "adapters_only": True},
            "aggregator": "cricavpr",
        },
        Preprocess((224, 224), "tensor_linear"),
        "cricavpr",
    ),
    # Lu et al., NeurIPS 2024
    "supervlad-dinov2b": Description(
        {"backbone": "dinov2_vitb14", "aggregator": "supervlad", "aggregator_options": {"layers": 2}},
        Preprocess((322, 322), "tensor_linear"),
        "supervlad",
    ),
    # Ali-bey et al., CVPR 2024
    "boq-resnet50-16384": Description(
        {
            "backbone": "resnet50",
            "backbone_options": {"cut": "layer3"},
            "aggregator": "boq",
            "aggregator_options": {"dim": 512},
        },
        Preprocess((384, 384), "tensor_bicubic_antialias"),
        "boq",
    ),
    "boq-dinov2b-12288": Description(
        {
            "backbone": "dinov2_vitb14",
            "backbone_options": {"norm": False, "train_blocks": 2},
            "aggregator": "boq",
            "aggregator_options": {"dim": 384},
        },
        Preprocess((322, 322), "tensor_bicubic_antialias"),
        "boq",
    ),
    # Berton and Masone, CVPR 2025 workshops
    "megaloc": Description(
        {
            "backbone": "dinov2_vitb14",
            "backbone_options": {"mask_token": False, "train_blocks": 4},
            "aggregator": "megaloc",
        },
        Preprocess((), "tensor_linear_antialias", multiple=14),
        "megaloc",
    ),
    **sequence_methods.METHODS,
}
