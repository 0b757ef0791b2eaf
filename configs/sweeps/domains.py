"""Adaptation to another domain, method by method, and the grid of a thesis's gradient reversal (docs/results.md).

    python -m jaxvpr.main --config=configs/cosplace_grl.py:by_day       # what all of `city` and `grid` start from
    python -m jaxvpr.main sweep --config=configs/sweeps/domains.py      # 27 runs, each less than a minute on two cores
    python -m jaxvpr.main sweep --config=configs/sweeps/domains.py:grid
    python -m jaxvpr.main sweep --config=configs/sweeps/domains.py:sf_xs,init=cosplace_r18_512.pth,\
train_data.root=/data/sf_xl,target_data.root=/data/sf_xs,val_data.sf_xs.root=/data/sf_xs,test_data.sf_xs.root=/data/sf_xs
"""

from typing import Any

from configs import common

Runs = dict[str, dict[str, Any]]
METHODS: Runs = {
    "batchnorm": {"domain.method": "batchnorm"},
    "grl": {"domain.method": "grl"},
    "mmd": {"domain.method": "mmd"},
    "coral": {"domain.method": "coral"},
}


def city() -> dict[str, Any]:
    """From one network by day: to the same city's queries by night and in rain, and to another city's; three seeds."""
    return {
        "name": "domains-city",
        "recipe": "configs/cosplace_grl.py:night",
        "runs": {"source": {"domain.method": ""}}
        | {
            f"{target}-{method}": {**changes, **data}
            for target, data in (("night", {}), ("other", OTHER))
            for method, changes in METHODS.items()
        },
        "seeds": 3,
    }


def grid() -> dict[str, Any]:
    """The thesis's learning rates and weights at its middle gamma, to the queries by night and in rain."""
    return _grid("domains-grid", "configs/cosplace_grl.py:night", (10.0,))


def sf_xs() -> dict[str, Any]:
    """The thesis's grid from SF-XL to the queries of SF-XS: learning rate and weight by gamma."""
    return _grid("domains-sf-xs", "configs/cosplace_grl.py:sf_xs", (7.0, 10.0, 15.0))


def tokyo() -> dict[str, Any]:
    """Its second grid, from San Francisco to Tokyo 24/7: gamma alone."""
    return {
        "name": "domains-tokyo",
        "recipe": "configs/cosplace_grl.py:tokyo",
        "runs": {f"gamma-{gamma}": {"domain.gamma": float(gamma)} for gamma in range(5, 17)},
    }


def _grid(name: str, recipe: str, gammas: tuple[float, ...]) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": recipe,
        "rows": "learning rate, weight",
        "columns": "gamma",
        "runs": {
            f"mu{rate:g}-lambda{weight:g}+gamma{gamma:g}": {
                "optimizer_shared.rate": rate,
                "domain.weight": weight,
                "domain.gamma": gamma,
            }
            for rate in (1e-4, 1e-3, 1e-2)
            for weight in (0.1, 1.0, 10.0)
            for gamma in gammas
        },
    }


PRESETS = {"city": city, "grid": grid, "sf_xs": sf_xs, "tokyo": tokyo}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
