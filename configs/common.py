"""Every key of a configuration with its default, and helpers that recipes share.

A recipe takes `base()`, changes what it is about, and says in its docstring what it costs and what it reached. A key
that is not here does not exist: the command line refuses it.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict


def base() -> ConfigDict:
    """The defaults: the embedded city on any machine."""
    config = ConfigDict()
    config.name = ""
    config.seed = 0
    # Weights to start from: FILE or FILE:PATTERN (a regular expression of our parameter paths); empty for random.
    # On the command line `weights=` is another word for it.
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
    config.augment = ConfigDict(
        {
            "brightness": 0.0,
            "contrast": 0.0,
            "saturation": 0.0,
            "hue": 0.0,
            "scale": (),
            "ratio": (3 / 4, 4 / 3),
            "flip": 0.0,
        }
    )

    # Data sets, each made by `data` below. The reader "minicity" writes the city first if it is not there.
    config.city = ConfigDict({})
    config.train_data = ConfigDict({})
    # Further data sets to train on, by name, for objectives that take several.
    config.more_train_data = ConfigDict({})
    config.val_data = ConfigDict({})
    config.test_data = ConfigDict({})

    config.objective = ConfigDict({"name": "cells"})
    config.epochs = 50
    config.steps_per_epoch = 10_000
    config.batch = 32
    config.accumulate = 1
    # Patterns of parameter paths that do not train.
    config.frozen = ()
    config.optimizer = optimizer("adam", 1e-5)
    config.optimizer_extra = optimizer("adam", 1e-2)

    # An aggregator with clusters (netvlad, crn, vlad, ...) that no file of weights gives starts from k-means of the
    # local features of so many images; 0 leaves it random. The Deep VG benchmark takes 500.
    config.clusters = ConfigDict({"images": 0, "per_image": 100, "iterations": 100})

    config.mesh = ConfigDict({"model": 1})
    config.loader = ConfigDict({"threads": 2, "workers": 0, "prefetch": 4, "on_error": "raise"})
    # Every so many epochs the model is validated and saved; every_steps saves between.
    config.every_epochs = 1
    config.checkpoint = ConfigDict({"keep": 2, "every_steps": 0})
    config.eval = ConfigDict({"batch": 64, "recalls": (1, 5, 10, 20, 100), "baselines": True})
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


def data(reader: str, root: str, split: str = "", *, thresholds: tuple[str, ...] = ("25m",), **options) -> ConfigDict:
    """A data set: which reader (`data_pipelines.readers`), where, which split, and what else the reader is told.

    `thresholds` say which database images answer a query: "25m", "1m_5deg", "1frame", "label", "list".
    """
    return ConfigDict(
        {"reader": reader, "root": root, "split": split, "thresholds": thresholds, "options": ConfigDict(options)}
    )


def choose(preset: str, presets: Mapping[str, Callable[[], ConfigDict]]) -> ConfigDict:
    """The configuration of a preset; the first one if none is named.

    Raises:
      ValueError: for a preset that does not exist; lists those that do.
    """
    name = preset or next(iter(presets))
    if name not in presets:
        raise ValueError(f"no preset {name!r}; there are {list(presets)}")
    config = presets[name]()
    config.name = config.name or name
    return config
