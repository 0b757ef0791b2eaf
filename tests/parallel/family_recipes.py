"""The smallest recipes that take each family through what its hosts do together; presets, and a sweep of them all.

Four devices divide every batch, or its images. All train by SGD, which does not blow rounding up, at rates that move
the weights of each.
"""

from ml_collections import ConfigDict

from configs import common, cosplace, eigenplaces, jist, pretrain, sfrs

ROOT, DRIVES = "data/photos", "data/drives"


def cells() -> ConfigDict:
    """Heads of two groups that lie with two devices each, a batch in two parts, averaged weights, answers by class."""
    config = _small("cells", cosplace.get_config("tiny").objective, 3e-4)
    config.objective.partition.min_images = 2
    config.mesh.model, config.accumulate, config.eval.localize = 2, 2, True
    config.ema.decay = 0.5
    config.val_data = ConfigDict({"val": common.data("at_names", ROOT, "val")})
    return config


def triplets() -> ConfigDict:
    """Fully mined, from clusters of k-means, two queries of four images on four devices, and a PCA behind."""
    config = _small("triplets", common.mined_triplets(mining="full", negatives=2, pool=10, refresh=6), 2e-2)
    _cluster(config)
    config.objective.update(positive="12m", soft="18m")
    config.batch = 2
    config.pca.update(dim=6, whiten=True)
    return config


def triplets_in_turn() -> ConfigDict:
    """Two data sets in turn, partially mined: only pool and positives are described."""
    config = triplets()
    config.name, config.batch, config.pca.dim = "triplets_in_turn", 4, 0
    config.objective.update(mining="partial", sets="in_turn", refresh=12)
    config.more_train_data = ConfigDict({"other": common.data("at_names", ROOT, "test", role="database")})
    return config


def teacher_of_regions() -> ConfigDict:
    """SFRS in two generations; difficult positives are re-ranked by reciprocal neighbours from the second on."""
    config = _small("teacher_of_regions", sfrs.sfrs(generations=(0, 1), temperatures=(0.07, 0.06)), 5e-3)
    _cluster(config)
    config.objective.update(
        difficult=2, difficult_pool=3, reciprocal=4, positive="12m", soft="18m", negatives=2, pool=10, refresh=6
    )
    config.batch = 2
    return config


def reversal() -> ConfigDict:
    """CosPlace with a classifier of domains, and further images of another domain in every batch."""
    config = cells()
    config.name, config.accumulate, config.ema.decay, config.eval.localize = "reversal", 1, 0.0, False
    config.target_data = common.data("at_names", ROOT, "test", role="query")
    config.domain.update(method="grl", source=4, target=4)
    return config


def cliques() -> ConfigDict:
    """Places, half of them cliques that the model of the moment finds alike, with a miner; gradients in two parts."""
    config = _places("cliques", 0.2)
    config.objective.cliques.update(share=0.5, similar=3)
    config.grad_cache = 2
    config.model.backbone_options.frozen_bn, config.frozen_random = "all", True
    return config


def memory() -> ConfigDict:
    """Places compared with the descriptors of the last two batches."""
    config = _places("memory", 0.2)
    config.objective.memory = 16
    return config


def prototypes() -> ConfigDict:
    """Places as classes, whose prototypes lie with two devices each."""
    config = _places("prototypes", 3e-4)
    config.mesh.model = 2
    config.objective.loss, config.objective.loss_options = "cosface", ConfigDict({"margin": 0.2})
    return config


def kept() -> ConfigDict:
    """A head on features that each host finds in the store, after both computed them; clusters of them; near images."""
    config = _places("kept", 0.2)
    config.objective = common.places(P=4, K=2, by="near", radius=20.0, angle=180.0, min_distance=25.0)
    netvlad = {"aggregator": "netvlad", "aggregator_options": ConfigDict({"clusters": 3})}
    config.model.aggregator, config.model.aggregator_options = "project", ConfigDict({"inner": ConfigDict(netvlad)})
    config.clusters.update(images=20, per_image=4, iterations=5)
    config.augment, config.frozen_random = common.base().augment, True
    config.maps.update(cached=True, crop=0.75)
    config.val_data = ConfigDict({"val": common.data("at_names", ROOT, "val")})
    return config


def positions() -> ConfigDict:
    """A head that answers positions, in calls of three steps on descriptors that lie on every device."""
    config = _small("positions", common.positions(loss="cross_entropy"), 0.5)
    config.model.position, config.model.position_options = "cells", ConfigDict({"cells": 3, "hidden": 1})
    config.augment, config.frozen_random, config.maps.cached = common.base().augment, True, True
    config.objective.noise.metres, config.objective.noise.degrees = 2.0, 5.0
    config.val_data = ConfigDict({"val": common.data("at_names", ROOT, "val")})
    config.steps_per_call, config.best.measure = 3, "25m"
    config.auto = ("model.position_options.area", "model.position_options.metres")
    return config


def looks() -> ConfigDict:
    """EigenPlaces: two heads of each group."""
    config = _small("looks", eigenplaces.get_config("tiny").objective, 3e-4)
    config.objective.update(M=30.0, N=1, groups=1, turn=180.0, min_images=1)
    return config


def classes() -> ConfigDict:
    """Pre-training by classification."""
    return _small("classes", pretrain.classes(by="cell", min_images=3), 5e-2)


def clips() -> ConfigDict:
    """SeqVLAD from fully mined triplets of clips: two queries of four clips on four devices."""
    config = triplets()
    config.name, config.pca.dim, config.model.sequence = "clips", 0, "joint"
    config.objective.update(positive="10m", soft="25m", pool=20)
    config.train_data, config.test_data = _drives("train"), ConfigDict({"test": _drives("test")})
    config.optimizer = common.optimizer("sgd", 8e-3)
    return config


def images_and_clips() -> ConfigDict:
    """JIST: images by cells whose heads lie with two devices each, and triplets of clips, in one step."""
    config = clips()
    config.name, config.mesh.model, config.model.sequence = "images_and_clips", 2, "seqgem"
    config.model.aggregator, config.clusters.images = "cosplace", 0
    config.model.aggregator_options = ConfigDict({"dim": 16})
    cells = common.cells(M=16.0, alpha=360.0, N=1, L=1, groups=1, min_images=2)
    config.objective = jist.joint(cells, config.objective, batch=8, weights=(1.0, 10.0))
    config.more_train_data = ConfigDict({"drives": config.train_data})
    config.train_data = _drives("train", 0)
    config.optimizer = common.optimizer("sgd", 1e-3)
    return config


def _drives(split: str, length: int = 3) -> ConfigDict:
    return common.data("csv", DRIVES, split, thresholds=("10m",), clips={"length": length})


def _small(name: str, objective: ConfigDict, rate: float) -> ConfigDict:
    """Two epochs of three steps of eight small images; the last weights are kept."""
    config = cosplace.get_config("tiny").unlock()
    config.name, config.objective, config.city = name, objective, ConfigDict({})
    config.model.backbone_options.update(widths=(8, 16, 16, 16), cut="layer2")
    config.train_data = common.data("at_names", ROOT, "train")
    config.val_data = ConfigDict({})
    config.test_data = ConfigDict({"test": common.data("at_names", ROOT, "test")})
    config.eval.update(recalls=(1, 5), batch=8, baselines=False)
    config.epochs, config.steps_per_epoch, config.batch = 2, 3, 8
    config.optimizer = common.optimizer("sgd", rate)
    config.optimizer_extra = config.optimizer_shared = common.optimizer("sgd", 3e-3)
    return config


def _places(name: str, rate: float) -> ConfigDict:
    config = _small(name, common.places(P=4, K=2, by="cell", min_distance=25.0), rate)
    config.model.aggregator_options.fc_norm = False
    return config


def _cluster(config: ConfigDict) -> None:
    """NetVLAD behind the backbone, from k-means of its local features."""
    config.model.aggregator, config.model.aggregator_options = "netvlad", ConfigDict({"clusters": 3})
    config.clusters.update(images=20, per_image=4, iterations=5)


PRESETS = {
    one.__name__: one
    for one in (
        cells, triplets, triplets_in_turn, teacher_of_regions, reversal, cliques, memory, prototypes, kept, positions,
        looks, classes, clips, images_and_clips,
    )
}  # fmt: skip


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS).lock()


def get_sweep(preset: str = "") -> dict[str, object]:
    """All of them, or the one named."""
    runs = {name: {"recipe": f"{__file__}:{name}"} for name in ([preset] if preset else PRESETS)}
    return {"name": "families", "recipe": f"{__file__}:cells", "runs": runs}
