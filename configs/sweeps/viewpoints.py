"""CosPlace against EigenPlaces where queries stand beside the line that the database's cameras drive along
(docs/results.md).

    python -m jaxvpr.main sweep --config=configs/sweeps/viewpoints.py    # 7 runs, some three minutes each on two cores
"""

from typing import Any

from configs import common


def city() -> dict[str, Any]:
    """The recipes of the embedded city, three seeds each where views are read, one where they are cut out of panoramas.

    600 queries stand up to 0, 2 (the usual test) and 5 m aside, turned by up to 10 degrees.
    """
    recipes = {
        "cosplace": "configs/cosplace.py:city",
        "eigenplaces": "configs/eigenplaces.py:city",
        "eigenplaces-panoramas": "configs/eigenplaces.py:city_panoramas",
    }
    tests = {key: value for metres in (0, 5) for key, value in _aside(metres).items()}
    return {
        "name": "viewpoints-city",
        "recipe": recipes["cosplace"],
        "runs": {name: {"recipe": recipe, "eval.baselines": False, **tests} for name, recipe in recipes.items()},
        "seeds": {"cosplace": 3, "eigenplaces": 3},
    }


def _aside(metres: int) -> dict[str, Any]:
    """A test set of the same city, whose queries stand up to so far beside the line; with few training images."""
    city = {"query_shift": float(metres), "query_turn": 10.0, "train_years": (2016,), "train_spacing": 50.0}
    data = {"reader": "minicity", "root": f"data/minicity-aside-{metres}m", "split": "test", "options": {"city": city}}
    return {f"test_data.aside_{metres}m.{key}": value for key, value in data.items()}


PRESETS = {"city": city}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
