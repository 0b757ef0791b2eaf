"""EigenPlaces: classification of cells by what their images look at, beside the street and along it (Berton et al.,
"EigenPlaces: Training Viewpoint Robust Models for Visual Place Recognition", ICCV 2023).

    python -m jaxvpr.main --config=configs/eigenplaces.py                   # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/eigenplaces.py:city_panoramas    # the same, cut out of its panoramas
    python -m jaxvpr.main --config=configs/eigenplaces.py:sf_xl,data=/data,init=resnet18_512_cosplace.pth
    python -m jaxvpr.main --config=configs/eigenplaces.py:own,data=FOLDER   # one's own photos, docs/own_street.md

The first two take some three minutes on two cores. Measured results stand in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The headed views of the embedded city of 2 x 2 blocks: the network, the images seen (76,800) and the schedule of
    `cosplace.py:city`.

    The city is small: with the paper's cells of 15 m and N = 3 a group would have 3 to 10 classes. Of the 12 views of a
    panorama the classes look at two, so that 1,206 of the 7,488 images are ever seen.
    """
    config = trainings.in_city("eigenplaces-city")
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})
    config.objective = _looks(M=7.5, N=1, min_images=3, scale=20.0, margin=0.4, warmup=0.8)
    config.epochs, config.steps_per_epoch, config.every_epochs = 48, 25, 8
    config.batch = 32
    config.optimizer = common.optimizer("adam", 4e-3, schedule="cosine", warmup=60)
    config.optimizer_extra = common.optimizer("adam", 3e-2, schedule="cosine", warmup=60)
    return config


def city_panoramas() -> ConfigDict:
    """As `city`, with views cut out of the training panoramas towards the very point that a class looks at."""
    config = city()
    config.name = "eigenplaces-city-panoramas"
    config.train_data = common.data("minicity", "data/minicity", "train", panoramas=True)
    config.panorama.update(size=(128, 624), view=156)
    return config


def tiny() -> ConfigDict:
    """One block at 32 pixels and a few steps: shows that everything runs, learns nothing. The tests use it."""
    config = city()
    config.name = "eigenplaces-tiny"
    config.image.size = (32, 32)
    config.city = ConfigDict({"blocks": 1, "size": 32, "test_queries": 24, "val_queries": 16, "database_spacing": 20.0})
    config.train_data.root = "data/minicity-tiny"
    config.val_data.minicity_val.root = config.test_data.minicity.root = "data/minicity-tiny"
    config.model.backbone_options = ConfigDict({"widths": (8, 8, 16, 16)})
    config.model.aggregator_options.dim = 32
    config.objective.update(M=10.0, N=2, groups=2)
    config.epochs, config.steps_per_epoch, config.every_epochs, config.batch = 2, 4, 1, 8
    config.optimizer.warmup = config.optimizer_extra.warmup = 2
    return config


def sf_xl() -> ConfigDict:
    """The paper's training of a ResNet-18 on SF-XL's panoramas: 9 groups, 5,000 steps each, 40 epochs.

    Wants `init=` with CosPlace's weights of the same network (backbone and head here, the backbone alone with
    FILE:backbone as in the paper). For SF-XL's processed crops give `train_data.root=` their folder and set
    `panorama.size=()`: the views that look nearest to the points are taken then.
    """
    config = common.base()
    config.name = "eigenplaces-sf-xl"
    config.model.backbone_options = ConfigDict({"cut": "layer4"})
    config.model.aggregator_options = ConfigDict({"dim": 512})
    config.frozen = ("backbone/(conv1|bn1|layer1_|layer2_)",)
    config.augment.update(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5, scale=(0.5, 1.0))
    config.panorama.update(size=(512, 3328), view=512)
    config.train_data = common.data("at_names", "data/sf_xl/raw/train/panoramas", "train")
    config.val_data = ConfigDict({"sf_xl_val": common.data("at_names", "data/sf_xl/processed", "val")})
    config.test_data = ConfigDict({"sf_xl_v1": common.data("at_names", "data/sf_xl/processed", "test")})
    config.objective = _looks(M=15.0, N=3, min_images=5, scale=100.0, margin=0.4, warmup=0.0)
    config.epochs, config.steps_per_epoch, config.batch = 40, 5_000, 32
    return config


def own() -> ConfigDict:
    """The later blocks of EfficientNet-Lite0 on photos with headings in the folder `data`, with cells chosen from them.

    Each group's heads have 50 steps before the backbone moves.
    """
    config = trainings.tuned_on_own_photos("eigenplaces-own")
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})
    config.objective = _looks(M=15.0, N=1, min_images=3, scale=20.0, margin=0.4, warmup=0.8)
    config.objective.head_steps = 50
    config.auto = (
        *trainings.OF_OWN_PHOTOS, "batch", "optimizer.rate", "objective.M", "objective.N", "objective.min_images",
    )  # fmt: skip
    return config


def _looks(*, M: float, N: int, min_images: int, scale: float, margin: float, warmup: float) -> ConfigDict:
    """Cells of `M` metres, N x N groups, classes of `min_images`; 0 groups are all there are.

    A class looks at a point `distance` metres from its cell's middle. Of images that are no panoramas, those whose
    headings differ by at most `turn` degrees from the point's bearing belong to it. `weights` are those of the lateral
    and of the frontal loss.
    """
    return ConfigDict(
        {
            "name": "eigenplaces",
            "M": M,
            "N": N,
            "groups": 0,
            "distance": 10.0,
            "turn": 20.0,
            "min_images": min_images,
            "scale": scale,
            "margin": margin,
            "margin_warmup": warmup,
            "head_steps": 0,
            "weights": (1.0, 1.0),
        }
    )


PRESETS = {"city": city, "city_panoramas": city_panoramas, "tiny": tiny, "sf_xl": sf_xl, "own": own}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
