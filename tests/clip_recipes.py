"""Small trainings on clips: of three frames, from the drives of the fixture `drive_tree`, in epochs of two plans."""

from ml_collections import ConfigDict

from configs import common, jist


def drives(root, split, length=3):
    """Clips of a split, or its images for a length of 0."""
    return common.data("csv", str(root), split, thresholds=("10m",), clips={"length": length})


def triplets(tiny_config, root):
    """SeqVLAD of 4 clusters from partially mined triplets, 8 queries a step."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.sequence, config.model.aggregator = "joint", "netvlad"
    config.model.aggregator_options = ConfigDict({"clusters": 4})
    config.train_data = drives(root, "train")
    config.val_data = ConfigDict({"val": drives(root, "val")})
    config.test_data = ConfigDict({"test": drives(root, "test")})
    config.objective = common.mined_triplets(positive="10m", soft="25m", negatives=2, pool=20, refresh=24)
    config.epochs, config.steps_per_epoch, config.batch = 2, 6, 8
    config.optimizer = common.optimizer("adam", 3e-3)
    return config


def places(tiny_config, root):
    """Places of 16 m of the street, 6 of 4 clips in a batch."""
    config = triplets(tiny_config, root)
    config.objective = common.places(P=6, K=4, by="cell")
    config.objective.partition = ConfigDict({"by": "cell", "M": 16.0, "alpha": 360.0})
    config.batch = 24
    return _of_frames(config)


def both(tiny_config, root):
    """JIST: the same drives as images in two groups of cells, and as clips; a new group with each epoch."""
    config = _of_frames(triplets(tiny_config, root))
    cells = common.cells(M=16.0, alpha=360.0, N=2, L=1, groups=2, min_images=2, scale=20.0, margin=0.1)
    config.objective = jist.joint(cells, config.objective, batch=16, size=(24, 24), weights=(1.0, 10.0))
    config.train_data, config.more_train_data = drives(root, "train", 0), ConfigDict({"drives": config.train_data})
    return config


def _of_frames(config):
    """A head on the frames' descriptors, of 16 numbers each."""
    config.model.sequence, config.model.aggregator = "seqgem", "cosplace"
    config.model.aggregator_options = ConfigDict({"dim": 16})
    return config


KINDS = {"triplets": triplets, "places": places, "both": both}
