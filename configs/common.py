"""Every key of a configuration with its default, and helpers that recipes share.

A recipe takes `base()`, changes what it is about, and says in its docstring what it costs and what it reached. A key
that is not here does not exist: the command line refuses it.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from ml_collections import ConfigDict

T = TypeVar("T")


def base() -> ConfigDict:
    """The defaults: the embedded city on any machine."""
    config = ConfigDict()
    config.name = ""
    config.seed = 0
    # Weights to start from: FILE, run:FOLDER or METHOD:FILE, each with :PATTERN behind it, a regular expression of our
    # parameter paths (`jaxvpr.cli.weight_source`); empty for random. On the command line `weights=` is another word.
    config.init = ""
    # A published method (docs/models.md) whose architecture and preprocessing fill `model` and `image` below.
    config.method = ""

    config.model = ConfigDict(
        {
            "backbone": "resnet18",
            "backbone_options": ConfigDict({}),
            "aggregator": "cosplace",
            "aggregator_options": ConfigDict({}),
            "dtype": "float32",
        }
    )
    config.image = image((512, 512), "pil_bilinear")
    # Strengths as torchvision's; scale and ratio are those of a random resized crop, an empty scale is none.
    # `randaugment` counts the operations of RandAugment, each of `magnitude` 0 to 30. `perspective` is the distortion
    # (0 to 1) of every second image, `rotation` the most degrees.
    config.augment = ConfigDict(
        {
            "brightness": 0.0,
            "contrast": 0.0,
            "saturation": 0.0,
            "hue": 0.0,
            "scale": (),
            "ratio": (3 / 4, 4 / 3),
            "flip": 0.0,
            "randaugment": 0,
            "magnitude": 9,
            "perspective": 0.0,
            "rotation": 0.0,
        }
    )

    # Training images that are panoramas of `size` = (height, width), whose width is the whole circle: an objective that
    # looks somewhere sees `view` columns of them. () is ordinary images.
    config.panorama = ConfigDict({"size": (), "view": 512})

    # Data sets, each made by `data` below. The reader "minicity" writes the city first if it is not there.
    config.city = ConfigDict({})
    config.train_data = ConfigDict({})
    # Further data sets to train on, by name, for objectives that take several.
    config.more_train_data = ConfigDict({})
    config.val_data = ConfigDict({})
    config.test_data = ConfigDict({})

    # Adaptation of any objective to unlabelled images of another domain (`jaxvpr.objectives.domain`), `target_data`.
    # `method` is "grl" (a classifier of domains behind a reversed gradient), "mmd", "linear_mmd", "coral", or
    # "batchnorm", which moves statistics and trains nothing; "" is none. `weight` is lambda, `gamma` how fast the
    # reversal grows (0: never), and mu, the classifier's learning rate, is `optimizer_shared.rate`. The classifier
    # has layers of `hidden` widths and looks at the "descriptor" or at the mean of the backbone's "map". Of each domain
    # `source` and `target` images are compared in a step.
    config.domain = ConfigDict(
        {
            "method": "",
            "weight": 1.0,
            "gamma": 10.0,
            "on": "descriptor",
            "hidden": (64,),
            "source": 8,
            "target": 8,
        }
    )
    config.target_data = ConfigDict({})

    config.objective = ConfigDict({"name": "cells"})
    config.epochs = 50
    config.steps_per_epoch = 10_000
    config.batch = 32
    # Two ways to take a batch in several equal parts, one after the other. The loss sees each part alone with
    # accumulate, which suits classification; it sees the whole batch with grad_cache, as comparing images needs, and
    # every image is embedded twice (Gao et al., 2021).
    config.accumulate = 1
    config.grad_cache = 1
    # Patterns of parameter paths that do not train, beside those that the model's own options freeze.
    config.frozen = ()
    config.optimizer = optimizer("adam", 1e-5)
    config.optimizer_extra = optimizer("adam", 1e-2)
    # Of what an objective trains beside the heads of its groups, once for them all: the classifier of domains.
    config.optimizer_shared = optimizer("adam", 1e-2)
    # Moving average of the weights, which is then what is validated and kept: `jaxvpr.training.ema`. 0 is none.
    config.ema = ConfigDict({"decay": 0.0, "warmup": 0})
    # Which measure of validation decides which checkpoint is the best: "R@5" of the first validation set, "SET/R@5" of
    # another, "LR@1" with `eval.localize`, "" for the first of all. After `patience` validations in a row that are no
    # better the run ends; 0: never.
    config.best = ConfigDict({"measure": "", "patience": 0})
    # All learning rates times `factor` where the measure of `best` gets no better: torch's
    # ReduceLROnPlateau, `jaxvpr.training.plateau`. 0 is none.
    config.plateau = ConfigDict(
        {"factor": 0.0, "patience": 10, "mode": "max", "threshold": 1e-4, "cooldown": 0, "min_rate": 0.0}
    )

    # An aggregator with clusters (netvlad, crn, vlad, ...) that no file of weights gives starts from k-means of the
    # local features of so many images; 0 leaves it random. The Deep VG benchmark takes 500.
    config.clusters = ConfigDict({"images": 0, "per_image": 100, "iterations": 100})

    # The descriptor's first `dim` principal components, 0 for none, fitted by FAISS after training on so many training
    # images (as many as `memory_mib` of the host lets; the Deep VG benchmark has 2^14) and kept as the model's last
    # layer. With `whiten` each has a variance of one. Validation during training goes without.
    config.pca = ConfigDict({"dim": 0, "images": 16384, "whiten": False, "memory_mib": 4096})

    config.mesh = ConfigDict({"model": 1})
    # How images are read (`data_pipelines.loaders.batches`). 0 threads: one for each core of this process, at most 16.
    config.loader = ConfigDict({"threads": 0, "workers": 0, "prefetch": 4, "on_error": "raise"})
    # Every so many epochs the model is validated and saved; every_steps saves between.
    config.every_epochs = 1
    config.checkpoint = ConfigDict({"keep": 2, "every_steps": 0})
    # With `localize` queries are localised by classification too (LR@N): the classes that the objective "cells" trained
    # are the database. They are measured in validation and left in the run's folder for the verb localize.
    config.eval = ConfigDict({"batch": 64, "recalls": (1, 5, 10, 20, 100), "baselines": True, "localize": False})
    config.log_seconds = 10.0
    # Locked: a recipe that misspells a key fails instead of adding one.
    return config.lock()


# Of the colours of ImageNet, which nearly all weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image(
    size: tuple[int, ...],
    resize: str,
    *,
    multiple: int = 1,
    crop: bool = False,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> ConfigDict:
    """How an image becomes the input of a model; the keys of `jaxvpr.models.Preprocess`.

    `size` is (height, width) in pixels, or () for each image's own. `resize` is a rule: those that begin with "tensor_"
    run on the device and serve evaluation only. The sides are rounded to the nearest `multiple` of pixels; with
    `crop` the image is resized to `size` as it is, and then cut all round to the largest multiples that fit.
    """
    keys = {"size": size, "resize": resize, "multiple": multiple, "crop": crop, "mean": mean, "std": std}
    return ConfigDict(keys)


def optimizer(name: str, rate: float, **changes) -> ConfigDict:
    """An optimiser's keys, with torch's meanings: `jaxvpr.training.schedules.schedule` explains those of the schedule.

    `factors` are (pattern, factor) pairs that scale the rate of parameters by path; `layer_decay` is the factor from
    one block of a transformer to the one before it. `lambd`, `alpha` and `t0` are ASGD's.
    """
    keys = {
        "name": name,
        "rate": rate,
        "schedule": "constant",
        "per": "step",
        "warmup": 0,
        "warmup_epochs": 0,
        "warmup_start": 0.0,
        "length": 0,
        "start": 1.0,
        "final": 0.0,
        "milestones": (),
        "gamma": 0.1,
        "weight_decay": 0.0,
        "momentum": 0.9,
        "nesterov": False,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "lambd": 1e-4,
        "alpha": 0.75,
        "t0": 1e6,
        "clip": 0.0,
        "factors": (),
        "layer_decay": 1.0,
    }
    return ConfigDict({**keys, **changes})


def data(
    reader: str,
    root: str,
    split: str = "",
    *,
    thresholds: tuple[str, ...] = ("25m",),
    conditions: tuple[str, ...] = (),
    role: str = "",
    **options,
) -> ConfigDict:
    """A data set: which reader (`data_pipelines.readers`), where, which split, and what else the reader is told.

    `thresholds` say which database images answer a query: "25m", "1m_5deg", "1frame", "label", "list". `conditions`
    ("night", "rain") keeps only the images taken in one of them, of a set to measure on only such queries; () is all.
    `role` ("database", "query") keeps those images of a set to train on; a set to measure on has both.
    """
    keys = {"reader": reader, "root": root, "split": split, "thresholds": thresholds}
    return ConfigDict({**keys, "conditions": conditions, "role": role, "options": ConfigDict(options)})


def places(*, P: int, K: int, by: str, min_distance: float = 0.0, by_city: bool = False) -> ConfigDict:
    """The keys of the objective `places`, with the loss and the miner of GSV-Cities.

    Any loss of `jaxvpr.losses.metric` or `jaxvpr.losses.margins` and any miner go by name. `weights` has a number for
    each data set that places are drawn from, `train_data` first; () lets all places weigh the same. `cliques.share` of
    a batch's places are cliques: images within `distance` metres and `angle` degrees of each other (180: any), among
    `similar` places that look like one, as the model of every `refresh` epochs sees them. They come from the data sets
    numbered `cliques.sets` (0 is `train_data`; () is all), the other places from the others, where there are others.
    `memory` is how many past descriptors a batch is compared with, and `head_steps` how many first steps train the
    prototypes of a margin loss alone.
    """
    return ConfigDict(
        {
            "name": "places",
            "P": P,
            "K": K,
            "partition": ConfigDict({"by": by, "M": 10.0, "alpha": 30.0}),
            "min_distance": min_distance,
            "by_city": by_city,
            "weights": (),
            "cliques": ConfigDict(
                {"share": 0.0, "sets": (), "similar": 15, "distance": 25.0, "angle": 180.0, "refresh": 1}
            ),
            "loss": "multi_similarity",
            "loss_options": ConfigDict({"alpha": 1.0, "beta": 50.0, "base": 0.0}),
            "miner": "multi_similarity",
            "miner_options": ConfigDict({}),
            "memory": 0,
            "head_steps": 0,
        }
    )


def mined_triplets(**changes) -> ConfigDict:
    """The keys of the objective `mined_triplets` with the values of the Deep VG benchmark (Berton et al., CVPR 2022).

    A database image within `positive` of a query may be its positive, one beyond `soft` is a negative: thresholds as of
    a test, such as "10m" or "2m_30deg". `mining` is "full", "partial" or "random"
    (`jaxvpr.objectives.triplet_plans`); each plan takes `refresh` queries and looks for their `negatives` among `pool`
    database images, 0 for all. `weighted` draws queries of the night and sideways ones more often. Several data sets
    are "merged", so that negatives cross them, or used "in_turn", one an epoch. Any loss of `jaxvpr.losses.triplets`
    goes by name. The search takes up to `memory_mib` on each device, beside the descriptors.
    """
    keys = {
        "name": "mined_triplets",
        "mining": "partial",
        "positive": "10m",
        "soft": "25m",
        "negatives": 10,
        "pool": 1000,
        "refresh": 1000,
        "weighted": False,
        "sets": "merged",
        "loss": "triplet",
        "loss_options": ConfigDict({"margin": 0.1, "squared": False}),
        "memory_mib": 1024,
    }
    unknown = sorted(set(changes) - set(keys))
    if unknown:
        raise ValueError(f"mined_triplets has no key {unknown}; there are {list(keys)}")
    return ConfigDict({**keys, **changes})


def deep_vg(name: str, dataset: str, root: str) -> ConfigDict:
    """What trainings of the Deep VG benchmark share: ResNet-18 to conv4, 480 x 640 pixels, 4 queries a step.

    An epoch has 5000 queries, and the run ends after 3 that bring R@5 no further. Aggregator and objective are the
    recipe's.
    """
    config = base()
    config.name = name
    config.model.backbone_options = ConfigDict({"cut": "layer3"})
    config.frozen = ("backbone/(conv1|bn1|layer1_|layer2_)",)
    config.image = image((480, 640), "pil_bilinear")
    config.train_data = data("at_names", root, "train")
    config.val_data = ConfigDict({f"{dataset}_val": data("at_names", root, "val")})
    config.test_data = ConfigDict({dataset: data("at_names", root, "test")})
    config.batch, config.epochs, config.steps_per_epoch = 4, 1000, 1250
    config.optimizer = optimizer("adam", 1e-5)
    config.best.measure, config.best.patience = "R@5", 3
    return config


def in_city(name: str) -> ConfigDict:
    """A small ResNet on the embedded city of 2 x 2 blocks: its data, 64 pixels, light augmentation."""
    config = base()
    config.name = name
    config.model.backbone = "resnet_small"
    config.image = image((64, 64), "area")
    config.train_data = data("minicity", "data/minicity", "train")
    config.val_data = ConfigDict({"minicity_val": data("minicity", "data/minicity", "val")})
    config.test_data = ConfigDict({"minicity": data("minicity", "data/minicity", "test")})
    config.augment.update(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, scale=(0.75, 1.0))
    return config


def places_in_city(name: str) -> ConfigDict:
    """Metric learning on places of the embedded city of 2 x 2 blocks, by a small ResNet from random weights.

    A place is a cell of 10 m and 30 degrees; a batch has 16 of them, at least 25 m apart, of 4 images. The aggregator
    is the recipe's to choose.
    """
    config = in_city(name)
    config.objective = places(P=16, K=4, by="cell", min_distance=25.0)
    config.batch = 64
    config.epochs, config.steps_per_epoch, config.every_epochs = 12, 100, 2
    config.optimizer = optimizer("adamw", 2e-3, schedule="cosine", warmup=60)
    return config


def small_dino(config: ConfigDict, **options) -> None:
    """Puts a DINOv2 of 4 blocks and 96 channels into a recipe of the embedded city, with random weights.

    A patch has 14 pixels whatever the model's size; images of 64 are enlarged to 112, so that it covers 8 of theirs.
    """
    config.model.backbone = "dinov2_vits14"
    config.model.backbone_options = ConfigDict({"width": 96, "depth": 4, "heads": 3, "side": 8, **options})
    config.image = image((112, 112), "linear")
    config.optimizer.rate = 1e-3


def places_of_gsv_cities(name: str, P: int, epochs: int) -> ConfigDict:
    """Training on GSV-Cities as its authors and those after them do it: P places of 4 images of one city.

    Multi-similarity loss and miner, RandAugment of 3 operations, validated on Pitts30k. Backbone, aggregator, size of
    the images and optimiser are the recipe's. An epoch is a pass over the 62,514 places.
    """
    config = base()
    config.name = name
    config.train_data = data("gsv_cities", "data/gsv_cities")
    config.val_data = ConfigDict({"pitts30k_val": data("at_names", "data/pitts30k", "val")})
    config.test_data = ConfigDict({"pitts30k": data("at_names", "data/pitts30k", "test")})
    config.objective = places(P=P, K=4, by="place", by_city=True)
    config.augment.randaugment = 3
    config.batch = 4 * P
    config.epochs, config.steps_per_epoch = epochs, 62_514 // P
    return config


def choose(preset: str, presets: Mapping[str, Callable[[], ConfigDict]]) -> ConfigDict:
    """The configuration of a preset; the first one if none is named.

    Raises:
      ValueError: for a preset that does not exist; lists those that do.
    """
    config = chosen(preset, presets)()
    config.name = config.name or preset or next(iter(presets))
    return config


def chosen(preset: str, presets: Mapping[str, Callable[[], T]]) -> Callable[[], T]:
    """The function of a preset; the first one if none is named. Raises as `choose`."""
    name = preset or next(iter(presets))
    if name not in presets:
        raise ValueError(f"no preset {name!r}; there are {list(presets)}")
    return presets[name]
