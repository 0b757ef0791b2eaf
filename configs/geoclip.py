"""Where on Earth a photo was taken, without a database of photos: GeoCLIP and ReGeo, whose backbone is CLIP.

    python -m jaxvpr.main import --config=configs/geoclip.py,init=pip:geoclip --checkpoint=CLIP.safetensors \
--workdir=runs/geoclip
    python -m jaxvpr.main localize --config=configs/geoclip.py --workdir=runs/geoclip --images=FOLDER
    python -m jaxvpr.main --config=configs/geoclip.py,init=CLIP.safetensors,data=FOLDER
    python -m jaxvpr.main --config=configs/geoclip.py:regeo,init=CLIP.safetensors,data=FOLDER
    python -m jaxvpr.main --config=configs/geoclip.py:city                   # any descriptor, any city

CLIP.safetensors is `model.safetensors` of openai/clip-vit-large-patch14. The package `geoclip` (pip install --no-deps
geoclip) holds the released heads, which `init=pip:geoclip` reads, and the gallery of 100,000 coordinates that answers
are chosen from. `worldwide` in FOLDER holds photos and a table of their paths, latitudes and longitudes
(docs/data_formats.md).
Neither CLIP nor the sets that the two were trained on fit here: of the worldwide presets the heads are measured
(tests/weights/test_parity_geoclip.py), not a training.
"""

from ml_collections import ConfigDict

from configs import common, trainings

# Of the rate, after each of ten epochs.
DECAY = {"schedule": "multi_step", "per": "epoch", "milestones": tuple(range(1, 10)), "gamma": 0.87}
GLOBE = (-90.0, -180.0, 90.0, 180.0)


def _worldwide(name: str, **projection) -> ConfigDict:
    """A frozen CLIP on photos with latitudes and longitudes, augmented as SimCLR's are, as GeoCLIP's package has it."""
    config = common.base()
    config.name = name
    config.model.backbone, config.model.aggregator = "clip_vitl14", "cls"
    config.model.backbone_options = ConfigDict(projection)
    config.model.l2_after = False
    config.image = common.image((224, 224), "pil_bicubic_middle", mean=common.CLIP_MEAN, std=common.CLIP_STD)
    config.augment.update(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, scale=(0.08, 1.0), flip=0.5, grey=0.2)
    config.frozen = ("^backbone/",)
    config.train_data = common.data("csv", "data/worldwide", "train")
    config.val_data = ConfigDict({"photos_val": common.data("csv", "data/worldwide", "val")})
    config.test_data = ConfigDict({"photos": common.data("csv", "data/worldwide", "test")})
    config.best.measure = "25km"
    config.eval.batch = 16
    return config


def geoclip() -> ConfigDict:
    """GeoCLIP: the image's head on CLIP's projected feature against the summed encoders of coordinates at three scales.

    The package's queue and temperature; batch, rate, decay of the rate and the noise in metres are our choice, since
    the package says nothing of them. Colours are normalised as CLIP's own processor does it, which the package's own
    training does not.
    """
    config = _worldwide("geoclip")
    config.model.position = "geoclip"
    config.model.position_options = ConfigDict(
        {"area": GLOBE, "size": 100_000, "source": "pip:geoclip", "hidden": 768, "sigmas": (1.0, 16.0, 256.0)}
    )
    config.objective = common.geoclip(views=2)
    config.batch, config.epochs, config.steps_per_epoch = 512, 10, 10_000
    config.optimizer = common.optimizer("adam", 3e-5, weight_decay=1e-6, **DECAY)
    return config


def regeo() -> ConfigDict:
    """ReGeo (Rothlin and Purandare, SDS 2025): two encoder layers on CLIP's tokens, then halving layers to two numbers.

    Activation, norm, dropout and all numbers of the training are our choice: the authors released no code. Their first
    step, a Siamese pre-training of the location head, is a training with objective.name=places on the same model.
    """
    config = _worldwide("regeo", projection=0)
    config.model.aggregator = "regeo"
    config.model.position = "direct"
    config.model.position_options = ConfigDict(
        {
            "area": GLOBE,
            "bearing": False,
            "ending": "tanh",
            "widths": (512, 256, 128, 64, 32),
            "norm": True,
            "activation": "relu",
            "dropout": 0.1,
        }
    )
    config.objective = common.positions(loss="haversine", metres=1e6)
    config.objective.noise.metres = 150.0
    config.batch, config.epochs, config.steps_per_epoch = 256, 20, 10_000
    config.optimizer = common.optimizer("adam", 1e-4, weight_decay=1e-5)
    return config


def city() -> ConfigDict:
    """GeoCLIP's heads and loss on descriptors of CosPlace's network in the embedded city, kept on disk.

    The scales are 80, 20 and 5 m of a city of 160 m, smaller networks and a queue of two batches; the candidates within
    10 m of an image's own place, where others were taken too, are no wrong answers. The gallery is where the training
    images were taken.

    Cost: one CPU minute, once the descriptors are kept. Measured on 2026-11-28, seeds 0, 1 and 2: within 25 m of 600
    queries 71.3, 73.5 and 70.8 %, and 69.0 with near=0 (seed 0); retrieval by the same descriptors among the 7,488
    training images 76.8.
    """
    config = trainings.in_city("geoclip-city")
    config.init = "runs/cosplace-city/model.safetensors"
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})
    config.augment = common.base().augment
    config.maps.cached = True
    config.model.position = "geoclip"
    config.model.position_options = ConfigDict(
        {"projection": "area", "source": "train", "dim": 256, "sigmas": (1.0, 4.0, 16.0), "features": 128, "width": 256}
    )
    config.objective = common.geoclip(queue=512, near=10.0)
    config.objective.noise = ConfigDict({"metres": 1.0, "queue": 3.0})
    config.batch, config.epochs, config.every_epochs, config.steps_per_epoch = 256, 20, 2, 30
    config.optimizer = common.optimizer("adam", 1e-3, weight_decay=1e-5)
    config.plateau.factor, config.plateau.patience = 0.1, 5
    config.best.measure, config.best.patience = "25m", 8
    config.auto = (*(f"model.position_options.{key}" for key in ("area", "metres", "size")), "steps_per_epoch")
    return config


PRESETS = {"geoclip": geoclip, "regeo": regeo, "city": city}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset; GeoCLIP without one."""
    return common.choose(preset, PRESETS)
