"""Every key of a configuration with its default, and helpers that recipes share.

A recipe takes `base()`, changes what it is about, and says in its docstring what it costs and what it reached. A key
that is not here does not exist: the command line refuses it.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

# Recipes take these as `common.cells(...)` and so on.
from configs.objectives import cells as cells
from configs.objectives import geoclip as geoclip
from configs.objectives import mined_triplets as mined_triplets
from configs.objectives import places as places
from configs.objectives import positions as positions

T = TypeVar("T")


def base() -> ConfigDict:
    """The defaults of all keys, locked. A recipe adds at least `train_data` to train, or `test_data` to measure."""
    config = ConfigDict()
    config.name = ""
    config.seed = 0
    # Weights to start from: FILE, run:FOLDER, pip:NAME or METHOD:FILE, each with :PATTERN behind it, a regular
    # expression of our parameter paths (`jaxvpr.cli.weight_source`); empty for random. `weights=` is another word on
    # the command line.
    config.init = ""
    # A published method (docs/models.md) whose architecture and preprocessing fill `model` and `image` below.
    config.method = ""
    # Dotted keys that are chosen from the data once it is read (`jaxvpr.builders.choices`), each said with its reason.
    # One that is set on the command line is no longer chosen; auto=() takes all of them as the recipe has them.
    config.auto = ()
    for add in (_model, _data, _training, _running):
        add(config)
    # Locked: a recipe that misspells a key fails instead of adding one.
    return config.lock()


def _model(config: ConfigDict) -> None:
    """What the model is, and how images become its input."""
    config.model = ConfigDict(
        {
            "backbone": "resnet18",
            "backbone_options": ConfigDict({}),
            "aggregator": "cosplace",
            "aggregator_options": ConfigDict({}),
            # What describes clips of frames (docs/models.md): a head over all frames' features ("joint") or over their
            # descriptors ("cat", "mean", "seqgem", ...); "" is a model of images. `non_local` are the options of a
            # non-local block behind the backbone, such as {"kind": "2d", "bottleneck": 32}; {} is none.
            "sequence": "",
            "sequence_options": ConfigDict({}),
            "non_local": ConfigDict({}),
            # What answers a position from a descriptor (docs/positions.md): "direct", "hypersphere", "cells" or
            # "mixture"; "" is none. Its options are those of the kind and of its layers, and `area` = (south, west,
            # north, east), in degrees or with `metres` in metres: () is taken from the data that trains.
            "position": "",
            "position_options": ConfigDict({}),
            # Descriptors of unit length; false leaves them as the aggregator makes them. Aggregators that pool have
            # `l2_before` among their options.
            "l2_after": True,
            # In training BatchNorm takes so many images of a batch at a time, as one GPU of a published run has them;
            # it decides the weights, and is told with every recall. 0: all of a batch (or of its parts, with
            # `accumulate`), on all devices. Groups that lie on one device each need no word with the others.
            "batch_norm_images": 0,
            # The type that the backbone computes in, and what products of float32 numbers are computed in, in it and in
            # the aggregator: "highest", "high", "default" or "BF16_BF16_F32" (docs/scale_out.md). An empty
            # head_precision is "highest" with float32, else "default". They hold wherever images are described;
            # `train_precision` below may be another.
            "dtype": "float32",
            "precision": "highest",
            "head_precision": "",
        }
    )
    config.image = image((512, 512), "pil_bilinear")
    # Strengths as torchvision's; scale and ratio are those of a random resized crop, an empty scale is none.
    # `randaugment` counts the operations of RandAugment, each of `magnitude` 0 to 30. `perspective` is the distortion
    # (0 to 1) of every second image, `rotation` the most degrees. `grey` and `erasing` are probabilities, of an image
    # without colours and of one with an empty box; `blur` is the most pixels, of every second image.
    # With `one_of` an image has either the colours or the blur, never both.
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
            "grey": 0.0,
            "blur": 0.0,
            "erasing": 0.0,
            "one_of": False,
        }
    )

    # Training images that are panoramas of `size` = (height, width), whose width is the whole circle: an objective that
    # looks somewhere sees `view` columns of them. () is ordinary images.
    config.panorama = ConfigDict({"size": (), "view": 512})


def _data(config: ConfigDict) -> None:
    """Data sets, and the adaptation to one without labels."""
    # Data sets, each made by `data` below. The reader "minicity" writes the city first if it is not there. The sets of
    # a preset lie in `data`: another folder given on the command line moves all their roots there, but for those given
    # beside it.
    config.data = "data"
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


def _training(config: ConfigDict) -> None:
    """What is learned, for how long, and by which optimiser."""
    config.objective = cells()
    config.epochs = 50
    config.steps_per_epoch = 10_000
    config.batch = 32
    # Steps that run in one call of the devices, for heads of a few milliseconds a step: the host waits once a call. A
    # call ends with a plan, and where checkpoint.every_steps saves; a request to stop waits for its end, and all its
    # batches are in memory. Weights are those of single steps: to the bit for heads of matrix products on a CPU, to
    # rounding where XLA computes otherwise in a loop, as it does convolutions.
    config.steps_per_call = 1
    # Two ways to take a batch in several equal parts, one after the other. The loss sees each part alone with
    # accumulate, which suits classification; it sees the whole batch with grad_cache, as comparing images needs, and
    # every image is embedded twice (Gao et al., 2021).
    config.accumulate = 1
    config.grad_cache = 1
    # Of backbone and aggregator in training alone: such as "default", TF32 on NVIDIA GPUs and bfloat16 on TPUs. "" is
    # what `model` has. Losses are always at the highest.
    config.train_precision = ""
    # What the devices' parts of the backbone's gradients are added up in, where `model.dtype` is a narrower type:
    # "float32", or "bfloat16", which sends half as many bytes (docs/scale_out.md). Else they are float32 in any case.
    config.gradient_dtype = "float32"
    # Patterns of parameter paths that do not train, beside those that the model's own options freeze.
    config.frozen = ()
    # Frozen parameters that no file of weights gives are an error, unless this says that random ones are meant.
    config.frozen_random = False
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
    # All learning rates times `factor` where the measure of `best` gets no better: torch's ReduceLROnPlateau. 0 is
    # none. `options` are further arguments of `jaxvpr.training.plateau.plateau`: threshold, cooldown, min_rate, mode.
    config.plateau = ConfigDict({"factor": 0.0, "patience": 10, "options": ConfigDict({})})


def _running(config: ConfigDict) -> None:
    """What comes before and after training, and how a run uses its machine."""
    # An aggregator with clusters (netvlad, crn, vlad, ...) that no file of weights gives starts from k-means of the
    # local features of so many images: those it trains on, or where it trains on nothing those of the database that is
    # described. 0 leaves it random. The Deep VG benchmark takes 500.
    config.clusters = ConfigDict({"images": 0, "per_image": 100, "iterations": 100})

    # The descriptor's first `dim` principal components, 0 for none, fitted by FAISS after training on so many training
    # images (as many as `memory_mib` of the host lets; the Deep VG benchmark has 2^14) and kept as the model's last
    # layer. With `whiten` each has a variance of one. Validation during training goes without.
    config.pca = ConfigDict({"dim": 0, "images": 16384, "whiten": False, "memory_mib": 4096})

    # With `cached` the backbone does not train: what it gives of each image (a map of features, 44 KB with the recipe
    # `own`) is computed once, kept in `folder` for all recipes with the same backbone, and the aggregator trains on it.
    # Of each map a random window is shown in training, with `crop` of its height and of its width; 1: all of it.
    config.maps = ConfigDict({"cached": False, "crop": 1.0, "folder": "runs/features"})

    # How a run's state lies on its devices, which changes nothing but rounding. `model` devices share one set of class
    # prototypes, each with a part of the classes; with 0 all of them do. Parameters of the model of `fsdp_mib` or more
    # (a 1024 x 1024 matrix has 4 MiB), their optimiser state and averages are split over all devices, and gathered in
    # every step; 0 leaves them whole on every device.
    config.mesh = ConfigDict({"model": 1, "fsdp_mib": 0.0})
    # Only operations of XLA that always add up in the same order, for a resume to the bit on NVIDIA GPUs: the flag
    # --xla_gpu_deterministic_ops. CPUs need none. Not measured yet, neither what it costs nor that it suffices.
    config.deterministic = False
    # Seconds that the hosts of a run wait for a late one, at the start and wherever they wait for each other.
    config.hosts = ConfigDict({"wait": 3600.0})
    # How images are read (`data_pipelines.loaders.batches`). 0 threads: one for each core of this process, at most 16.
    # With own_shards each of H hosts has some of the shards of records to train on, those numbered h, h + H, ..., on a
    # disk of its own (docs/records.md).
    config.loader = ConfigDict({"threads": 0, "workers": 0, "prefetch": 4, "on_error": "raise", "own_shards": False})
    # Every so many epochs the model is validated and saved; every_steps saves between.
    config.every_epochs = 1
    config.checkpoint = ConfigDict({"keep": 2, "every_steps": 0})
    # `batch` images are described at a time on each device (by all of them together where descriptors depend on the
    # batch). With `localize` queries are localised by classification too (LR@N): the classes that the objective "cells"
    # trained are the database. They are measured in validation and left in the run's folder for the verb localize.
    # `search` says where the descriptors of a database lie and are searched: "host" is FAISS, with all of them in every
    # process; "mesh" leaves on each device those it computed, so that no process holds them all; "auto" is the host up
    # to `host_mib` of descriptors.
    config.eval = ConfigDict(
        {
            "batch": 64,
            "recalls": (1, 5, 10, 20, 100),
            "baselines": True,
            "localize": False,
            "search": "auto",
            "host_mib": 4096,
            # Within which the answers of a head that answers positions are right, such as ("25m", "1km"); () are those
            # usual for an area of its size.
            "distances": (),
            # How clips are compared (`jaxvpr.retrieval.sequence_search.Score`): "" by their descriptors, which takes a
            # model of clips. The others look at the frames, each described once: "average" is the mean distance of
            # aligned frames, "seqslam" the best of `velocities` between the two `velocity` after local contrast over
            # `window` frames (0: none), "two_stage" takes the `top` first by descriptors of clips again by "average".
            "sequence": ConfigDict({"score": "", "top": 20, "velocity": (0.8, 1.2), "velocities": 5, "window": 10}),
        }
    )
    config.log_seconds = 10.0
    # Traces so many steps of the first host into `profile` in the run's folder; `first` steps are made before.
    config.profile = ConfigDict({"first": 10, "steps": 0})


# Of the colours of ImageNet, which nearly all weights were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of EfficientNet-Lite: (x - 127) / 128 of colours in [0, 255].
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
# Of CLIP.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


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
    one block of a transformer to the one before it. `options` are further arguments of the optimiser by that name, as
    torch calls them: `nesterov` of sgd; `b1`, `b2` and `eps` of adam, adamw and radam; `lambd`, `alpha` and `t0` of
    asgd. Each may be given to this function.
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
        "clip": 0.0,
        "factors": (),
        "layer_decay": 1.0,
    }
    options = {key: value for key, value in changes.items() if key not in keys}
    own = {key: value for key, value in changes.items() if key in keys}
    return ConfigDict({**keys, **own, "options": ConfigDict(options)})


def data(
    reader: str,
    root: str,
    split: str = "",
    *,
    thresholds: tuple[str, ...] = ("25m",),
    conditions: tuple[str, ...] = (),
    role: str = "",
    partition: Mapping[str, Any] | None = None,
    clips: Mapping[str, Any] | None = None,
    hold_out: float = 0.0,
    gap: float = 50.0,
    **options,
) -> ConfigDict:
    """A data set: which reader (`data_pipelines.readers`), where, which split, and further arguments of the reader.

    `thresholds` say which database images answer a query: "25m", "1m_5deg", "1frame", "label", "list". `conditions`
    ("night", "rain") keeps only the images taken in one of them, of a set to measure on only such queries; () is all.
    `role` ("database", "query") keeps those images of a set to train on; a set to measure on has both.
    `partition` ({"by": "cell", "M": 10.0, "alpha": 30.0}) says what the places of a set to train on are, where that is
    not what `objective.partition` says; a key that is left out, "" or 0 is the objective's.

    `hold_out` keeps about that share of a set to train on apart to validate on, for a recipe without `val_data`: a part
    of the map, `gap` metres from what trains, or whole places where there are no metres (`data_pipelines.holdout`). It
    is the validation set `held_out`, of these `thresholds`, and the test as well where there is no `test_data`.

    `clips` ({"length": 5}) cuts it into clips, with the keys of `data_pipelines.clips.Cutting`; length 0 is images.

    Raises:
      ValueError: for a key of `partition` or `clips` that does not exist.
    """
    keys = {"reader": reader, "root": root, "split": split, "thresholds": thresholds}
    groups = {
        "partition": _group("partition", {"by": "", "M": 0.0, "alpha": 0.0}, partition),
        "clips": _group("clips", CLIPS, clips),
        "options": ConfigDict(options),
    }
    return ConfigDict({**keys, "conditions": conditions, "role": role, "hold_out": hold_out, "gap": gap, **groups})


# Windows of a drive: see `data_pipelines.clips.Cutting`.
CLIPS = {
    "length": 0,
    "stride": 1,
    "every": 1,
    "metres": 0.0,
    "seconds": 0.0,
    "task": "seq2seq",
    "match": "any",
    "order": "normal",
}


def _group(name: str, keys: Mapping[str, Any], given: Mapping[str, Any] | None) -> ConfigDict:
    unknown = sorted(set(given or {}) - set(keys))
    if unknown:
        raise ValueError(f"{name} has no key {unknown}; there are {list(keys)}")
    return ConfigDict({**keys, **(given or {})})


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
        near = difflib.get_close_matches(name, list(presets), 1)
        hint = f": did you mean {near[0]}?" if near else "."
        raise ValueError(f"no preset {name!r}{hint} There are {', '.join(presets)}")
    return presets[name]
