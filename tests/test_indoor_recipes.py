"""The recipes of indoor fine-tuning against the tables of E. Chiavassa's thesis (2024), and the upper bound beside a
recall."""

from pathlib import Path

import numpy as np
import pytest

from configs import common, indoor_finetune
from data_pipelines.places import Paths, Places
from jaxvpr.cli import recipes
from jaxvpr.families.triplets import settings
from jaxvpr.retrieval.evaluator import Evaluated, Measured, benchmark
from jaxvpr.retrieval.recall import recall
from jaxvpr.verbs import results

FILE = Path(indoor_finetune.__file__)
# Table 5.9: trained on, validated on, tested on; B2 of the station and the mall are never trained on.
SPLITS = {
    "gangnam": ({"GangnamStation/B1"}, {"HyundaiDepartmentStore/B1"}, {"GB2", "H1F", "H4F", "BAI"}),
    "hyundai": ({"HyundaiDepartmentStore/B1"}, {"GangnamStation/B1"}, {"GB2", "H1F", "H4F", "BAI"}),
    "gangnam_hyundai": (
        {"GangnamStation/B1", "HyundaiDepartmentStore/B1"}, {"HyundaiDepartmentStore/4F"}, {"GB2", "H1F", "BAI"},
    ),
    "salad": ({"GangnamStation/B1", "HyundaiDepartmentStore/B1"}, {"HyundaiDepartmentStore/4F"}, {"GB2", "H1F", "BAI"}),
}  # fmt: skip
NAMES = {
    "GB2": "data/naver_labs/GangnamStation/B2",
    "H1F": "data/naver_labs/HyundaiDepartmentStore/1F",
    "H4F": "data/naver_labs/HyundaiDepartmentStore/4F",
    "BAI": "data/baidu_mall",
}


def roots(specs):
    return {spec.root for spec in specs}


@pytest.mark.parametrize("preset", SPLITS)
def test_the_data_sets_of_table_5_9(preset):
    config = recipes.load_config(f"{FILE}:{preset}")
    train, val, test = SPLITS[preset]
    trained = [config.train_data, *config.more_train_data.values()]
    assert roots(trained) == {f"data/naver_labs/{floor}" for floor in train} and len(trained) == len(train)
    assert roots(config.val_data.values()) == {f"data/naver_labs/{floor}" for floor in val}
    assert roots(config.test_data.values()) == {NAMES[name] for name in test}
    for spec in config.test_data.values():
        assert tuple(spec.thresholds) == ("1m", "5m", "10m", "25m")
    keys, mining = config.objective, settings(config)
    assert (keys.mining, keys.positive, keys.soft, keys.negatives, keys.pool) == ("partial", "10m", "25m", 10, 1000)
    assert mining.steps == config.steps_per_epoch == 250  # so that a data set has its turn for an epoch
    assert keys.sets == ("merged" if preset == "salad" else "in_turn")
    assert (config.best.measure, config.best.patience, config.optimizer.rate) == ("R@5", 3, 1e-5)


def test_no_embedded_city_is_trained_on_and_tested():
    config = recipes.load_config(f"{FILE}")
    trained = [config.train_data, *config.more_train_data.values()]
    assert not roots(trained) & roots([*config.val_data.values(), *config.test_data.values()])
    seeds = [spec.options.city.seed for spec in trained] + [config.city.seed]
    assert len(set(seeds)) == 3 and settings(config).steps == config.steps_per_epoch


def test_the_upper_bound_stands_beside_the_recall(capsys):
    """Of four queries 100 m apart, two stand within 1 m of their database image, three within 5 m, all within 25 m."""
    north = np.arange(4) * 100.0
    database = Places.create("floor", Paths.of("abcd"), east=0.0, north=north, role=0)
    queries = Places.create("floor", Paths.of("efgh"), east=[0.5, 0.9, 4.0, 20.0], north=north, role=1)
    bench = benchmark("floor", Places.concat([database, queries]), "val", ("1m", "5m", "25m"))
    predictions = np.array([[0, 1], [1, 0], [0, 2], [3, 2]])
    recalls = {text: recall(predictions, positives, (1, 2)) for text, positives in bench.positives.items()}
    measured = Measured(predictions, predictions.astype(np.float32), recalls, 8, 0, 1.0, 1.0)
    results._print(common.base(), Evaluated(bench, measured, {}))
    printed = capsys.readouterr().out
    assert "floor val | 4 queries (2 without positive) | 4 database images | 1m" in printed
    assert "upper bound 50.0; of the 2 queries with a positive: R@1 100.0" in printed
    assert "upper bound 75.0; of the 3 queries with a positive: R@1  66.7  R@2 100.0" in printed
    assert "upper bound 100" not in printed and printed.count("upper bound") == 2
