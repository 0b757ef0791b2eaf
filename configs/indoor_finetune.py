"""Indoor fine-tuning: a model of streets goes on learning from mined triplets of stations and shops (E. Chiavassa's
thesis, Politecnico di Torino, 2024, section 5.4), as the Deep VG benchmark trains (Berton et al., CVPR 2022).

    python -m jaxvpr.main --config=configs/cosplace.py            # what the embedded cities start from
    python -m jaxvpr.main --config=configs/indoor_finetune.py     # other embedded cities stand in for floors
    python -m jaxvpr.main --config=configs/indoor_finetune.py:gangnam_hyundai,init=eigenplaces_resnet50_2048.pth
    python -m jaxvpr.main --config=configs/indoor_finetune.py:gangnam_hyundai,init=...,objective.positive=2m,\
objective.soft=5m,objective.sets=merged
    python -m jaxvpr.main --config=configs/indoor_finetune.py:salad,init=dino_salad.ckpt

`init` takes any file that fits the model: an original's or one of ours, such as an imported or fine-tuned model. The
floors of NAVER LABS lie in data/naver_labs/{GangnamStation,HyundaiDepartmentStore}/FLOOR, Baidu Mall in data/baidu_mall
(docs/data_formats.md); `data=FOLDER` says otherwise. Each set serves one purpose as a whole, and every
threshold is printed with its upper bound, the share of queries that have a positive at all.

The thresholds tried are (2, 5), (5, 10) and (10, 25) metres: a positive lies within the first, a negative beyond the
second; degrees go with them as in `objective.positive=2m_30deg`. With Baidu Mall among the training sets an epoch has
500 queries, the fewest that any of them gives:

    ...:gangnam_hyundai,more_train_data.baidu.reader=baidu_mall,more_train_data.baidu.root=data/baidu_mall,\
objective.refresh=500,steps_per_epoch=125
"""

from ml_collections import ConfigDict

from configs import common, trainings

THRESHOLDS = ("1m", "5m", "10m", "25m")
FLOORS = {
    "gangnam_b1": "GangnamStation/B1",
    "gangnam_b2": "GangnamStation/B2",
    "hyundai_1f": "HyundaiDepartmentStore/1F",
    "hyundai_4f": "HyundaiDepartmentStore/4F",
    "hyundai_b1": "HyundaiDepartmentStore/B1",
}


def indoor() -> ConfigDict:
    """Modern embedded cities as floors, for the small network that `configs/cosplace.py` trained on an old town.

    Two are trained on in turn, database and queries of each; a third validates and tests. BatchNorm keeps its averages:
    the batches hold one query in any weather to six database images by day, and averages of such batches alone, with
    all weights as they were, brought R@1 within 5 m from 53.3 to 33.3 (measured on 2026-11-21). `init=` (nothing)
    starts from random weights, from which triplets at this rate learn next to nothing.

    Measured on 2026-11-21, one seed: R@1 of 300 queries within 1, 5, 10 and 25 m 6.0, 55.3, 60.7 and 64.0, from 5.7,
    53.3, 60.0 and 63.7 before; upper bounds 13.7, 99.7, 100 and 100.
    """
    config = trainings.in_city("indoor-city")
    config.init = "runs/cosplace-city/model.safetensors"
    config.model.backbone_options = ConfigDict({"frozen_bn": "all"})
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})  # as it was trained
    config.augment = common.base().augment
    floor = {"style": "modern", "train_years": (2013,), "train_spacing": 50.0, "test_queries": 300}
    config.city = ConfigDict({**floor, "seed": 3})
    config.train_data, other = (_stand_in(number, {**floor, "seed": number, "val_spacing": 50.0}) for number in (1, 2))
    config.more_train_data = ConfigDict({"floor_2": other})
    config.val_data = ConfigDict({"floor_3_val": _stand_in(3, {}, "val")})
    config.val_data.floor_3_val.thresholds = ("5m",)  # nearly no query of a city has a positive within 1 m
    config.test_data = ConfigDict({"floor_3": _stand_in(3, {})})
    config.objective = common.mined_triplets(
        mining="partial", positive="5m", soft="10m", negatives=5, pool=500, refresh=200, sets="in_turn"
    )
    config.batch, config.epochs, config.steps_per_epoch = 10, 8, 20
    config.optimizer = common.optimizer("adam", 1e-4)
    config.best.measure, config.best.patience = "R@5", 3
    return config


def gangnam() -> ConfigDict:
    """EigenPlaces (ResNet-50, 2048 dimensions) on floor B1 of Gangnam Station, validated on B1 of the store."""
    return _eigenplaces("indoor-gangnam", ("gangnam_b1",), "hyundai_b1")


def hyundai() -> ConfigDict:
    """The same on floor B1 of Hyundai Department Store, validated on B1 of the station."""
    return _eigenplaces("indoor-hyundai", ("hyundai_b1",), "gangnam_b1")


def gangnam_hyundai() -> ConfigDict:
    """The same on both floors in turn, one an epoch, validated on 4F of the store.

    Chiavassa's R@1 within 1, 5, 10 and 25 m on B2 of the station: 37.6, 61.0, 62.6, 71.2, and 30.8, 53.1, 54.3, 65.5
    without fine-tuning.
    """
    return _eigenplaces("indoor-gangnam-hyundai", ("gangnam_b1", "hyundai_b1"), "hyundai_4f")


def salad() -> ConfigDict:
    """SALAD (DINOv2-B, 8448 dimensions) on both floors merged into one, so that negatives cross them.

    Chiavassa had to make the images smaller, and does not tell to what; 224 is what SALAD was trained with.
    """
    config = _triplets("indoor-salad", ("gangnam_b1", "hyundai_b1"), "hyundai_4f")
    config.model.backbone = "dinov2_vitb14"
    config.model.backbone_options = ConfigDict({"train_blocks": 4})
    config.model.aggregator = "salad"
    config.image = common.image((224, 224), "pil_bilinear")
    config.objective.sets = "merged"
    return config


def _eigenplaces(name: str, train: tuple[str, ...], val: str) -> ConfigDict:
    """Images of 360 pixels, as in his published code; that keeps their aspect and crops squares to train on."""
    config = _triplets(name, train, val)
    config.model.backbone = "resnet50"
    config.model.aggregator_options = ConfigDict({"dim": 2048})
    config.image = common.image((360, 480), "pil_bilinear")
    return config


def _triplets(name: str, train: tuple[str, ...], val: str) -> ConfigDict:
    """What all runs share: 1000 queries an epoch and a plan, 4 a step; the best is that of R@5 within 1 m."""
    config = common.base()
    config.name = name
    config.train_data = _floor(train[0], "train")
    config.more_train_data = ConfigDict({floor: _floor(floor, "train") for floor in train[1:]})
    config.val_data = ConfigDict({val: _floor(val, "val")})
    tests = [floor for floor in ("gangnam_b2", "hyundai_1f", "hyundai_4f") if floor != val]
    mall = common.data("baidu_mall", "data/baidu_mall", thresholds=THRESHOLDS)
    config.test_data = ConfigDict({**{floor: _floor(floor, "val") for floor in tests}, "baidu_mall": mall})
    config.objective = common.mined_triplets(mining="partial", positive="10m", soft="25m", sets="in_turn")
    config.batch, config.epochs, config.steps_per_epoch = 4, 1000, 250
    config.optimizer = common.optimizer("adam", 1e-5)
    config.best.measure, config.best.patience = "R@5", 3
    return config


def _floor(floor: str, split: str) -> ConfigDict:
    """A floor with its published queries, those of validation; of its test queries the poses are not known."""
    return common.data("naver_labs", f"data/naver_labs/{FLOORS[floor]}", split, thresholds=THRESHOLDS)


def _stand_in(number: int, city: dict, split: str = "test") -> ConfigDict:
    data = common.data("minicity", f"data/minicity-floor-{number}", split, thresholds=THRESHOLDS)
    if city:
        data.options.city = ConfigDict(city)
    return data


PRESETS = {
    "indoor": indoor,
    "gangnam": gangnam,
    "hyundai": hyundai,
    "gangnam_hyundai": gangnam_hyundai,
    "salad": salad,
}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
