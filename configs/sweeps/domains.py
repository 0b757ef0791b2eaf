"""Adaptation to another domain, method by method, and the grid of E. Chiavassa's gradient reversal
(thesis, Politecnico di Torino, 2024; docs/results.md).

python -m jaxvpr.main --config=configs/cosplace_grl.py:by_day            # what the first three start from
python -m jaxvpr.main sweep --config=configs/sweeps/domains.py           # 18 runs, less than a minute each
python -m jaxvpr.main sweep --config=configs/sweeps/domains.py:other     # the same to another city
python -m jaxvpr.main sweep --config=configs/sweeps/domains.py:grid      # 9 runs
python -m jaxvpr.main sweep --config=configs/sweeps/domains.py:sf_xs,data=/data,init=cosplace_r18_512.pth
"""

from typing import Any

from configs import common

Runs = dict[str, dict[str, Any]]
# "shown": nothing is reversed, so that the target's images only enter the averages of BatchNorm, as they do with every
# method, and a classifier watches. Squared covariances of unit vectors are tiny, hence the weight of CORAL.
METHODS: Runs = {
    "batchnorm": {"domain.method": "batchnorm"},
    "shown": {"domain.gamma": 0.0},
    "grl": {},
    "mmd": {"domain.method": "mmd", "domain.weight": 1.0},
    "coral": {"domain.method": "coral", "domain.weight": 1e5},
}


def night() -> dict[str, Any]:
    """From one network by day: to the same city's queries by night and in rain; three seeds."""
    return _methods("domains-night", "configs/cosplace_grl.py:night")


def other() -> dict[str, Any]:
    """From the same network to another city's queries; three seeds."""
    return _methods("domains-other", "configs/cosplace_grl.py:other")


def _methods(name: str, recipe: str) -> dict[str, Any]:
    return {"name": name, "recipe": recipe, "runs": {"source": {"domain.method": ""}, **METHODS}, "seeds": 3}


def grid() -> dict[str, Any]:
    """Chiavassa's learning rates and weights at its middle gamma, to the queries by night and in rain."""
    return _grid("domains-grid", "configs/cosplace_grl.py:night", (10.0,))


def sf_xs() -> dict[str, Any]:
    """Chiavassa's grid from SF-XL to the queries of SF-XS: learning rate and weight by gamma."""
    return _grid("domains-sf-xs", "configs/cosplace_grl.py:sf_xs", (7.0, 10.0, 15.0))


def tokyo() -> dict[str, Any]:
    """His second grid, from San Francisco to Tokyo 24/7: gamma alone."""
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


PRESETS = {"night": night, "other": other, "grid": grid, "sf_xs": sf_xs, "tokyo": tokyo}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
