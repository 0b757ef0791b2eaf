"""The plan: blocks between streets, cameras on asphalt, houses that change by themselves, a city that is closed."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.minicity import CityConfig
from data_pipelines.minicity.canvas import SIGN, WINDOW
from data_pipelines.minicity.facades import facade
from data_pipelines.minicity.ground import GARDEN, KERB, PAVEMENT, ground_of
from data_pipelines.minicity.houses import CHANGE, FIRST_YEAR, GABLE, MANSARD, House, houses_of, outline, version
from data_pipelines.minicity.layout import BACK, FRONT, STYLE, inset_polygon, plan
from data_pipelines.minicity.poses import cameras
from data_pipelines.minicity.rays import cast
from data_pipelines.minicity.scene import scene_of


@pytest.fixture(scope="module", params=["old_town", "modern"])
def city(request):
    config = CityConfig(style=request.param, blocks=1, test_queries=50, val_queries=10)
    return config, plan(config)


def area(corners):
    x, y = corners.T
    return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2


def test_inset_of_a_rectangle_by_hand():
    corners = np.array([[0.0, 0], [10, 0], [10, 6], [0, 6]])
    moved = inset_polygon(corners, np.array([1.0, 2, 1, 3]))
    np.testing.assert_allclose(moved, [[3, 1], [8, 1], [8, 5], [3, 5]])


def test_blocks_run_counter_clockwise_and_have_the_size_of_the_style(city):
    config, layout = city
    areas = np.array([area(corners) for corners in layout.blocks])
    low = (STYLE[config.style].block[0] * 0.6 - 15) ** 2
    assert len(areas) == 9 and (areas > low).all()


def test_cameras_stand_on_the_road(city):
    config, layout = city
    ground = ground_of(config, layout)
    xy = cameras(config, layout).xy
    kind = ground.at(xy[:, 0], xy[:, 1]) // 8
    assert not np.isin(kind, [GARDEN, PAVEMENT, KERB]).any()


def test_fronts_are_as_long_as_the_blocks_edges_and_backs_look_the_other_way(city):
    _, layout = city
    walls = layout.walls
    inner = sum(np.linalg.norm(np.roll(c, -1, 0) - c, axis=1).sum() for c in layout.blocks)
    fronts = np.linalg.norm(walls.end - walls.start, axis=1)[walls.face == FRONT]
    across = (layout.nodes[-1, -1] - layout.nodes[0, 0]).sum()
    ring = 2 * across + layout.street[:, [0, -1]].sum()
    np.testing.assert_allclose(fronts.sum(), inner + ring)
    along = (walls.end - walls.start)[walls.face == FRONT]
    behind = (walls.end - walls.start)[walls.face == BACK]
    np.testing.assert_allclose(along, -behind, atol=1e-9)


def test_no_ray_leaves_the_city(city):
    config, layout = city
    scene = scene_of(config, layout.walls, 2016)
    xy = cameras(config, layout).xy[::7]
    for origin in xy:
        distance = cast(scene, origin, np.radians(np.arange(0, 360, 1.7))).distance[0]
        assert np.isfinite(distance).mean() > 0.99  # a ray may slip between two corners


def test_histories_of_structure_paint_and_sign_are_independent_and_never_go_back():
    houses = np.arange(4000)
    for kind, rate in CHANGE.items():
        early, late = version(kind, 5, houses, 2010), version(kind, 5, houses, 2019)
        assert (late >= early).all()
        expected = rate * (2019 - FIRST_YEAR + 1)
        assert abs(late.mean() - expected) < 5 * np.sqrt(expected / len(houses))
    new = {k: version(k, 5, houses, 2019) > version(k, 5, houses, 2010) for k in CHANGE}
    both = (new["paint"] & new["sign"]).mean()
    assert abs(both - new["paint"].mean() * new["sign"].mean()) < 0.02


def test_a_house_keeps_its_height_when_only_the_sign_changes():
    houses, width = np.arange(500), np.full(500, 9.0)
    a, b = (houses_of(5, "old_town", houses, width, year) for year in (2013, 2019))
    same = a.structure == b.structure
    assert 0.9 < same.mean() < 1 and (a.sign != b.sign).any()
    np.testing.assert_array_equal(a.eaves[same], b.eaves[same])
    assert (a.eaves[~same] != b.eaves[~same]).all()


def test_outline_of_a_gable_by_hand():
    np.testing.assert_allclose(outline(np.full(3, GABLE), np.array([0, 0.25, 0.5])), [0, 0.5, 1])
    np.testing.assert_allclose(outline(np.full(2, MANSARD), np.array([0.1, 0.9])), 1)


def house(**changes):
    base = House(
        seed=1, style="old_town", house=7, structure=0, paint=0, sign=0, gap=False, floors=4, ground_height=3.5,
        floor_height=3.0, eaves=13.1, roof=0, rise=0.0,
    )  # fmt: skip
    return replace(base, **changes)


def test_a_new_sign_changes_only_the_shop_and_new_paint_leaves_the_windows_where_they_are():
    found = 0
    for number in range(12):
        old = facade(house(house=number), FRONT, 9.0, 8.0)
        assert old.shape == (round(13.1 * 8), 72, 4)
        painted = facade(house(house=number, paint=1), FRONT, 9.0, 8.0)
        np.testing.assert_array_equal(old[..., 3] >= WINDOW, painted[..., 3] >= WINDOW)
        assert np.abs(old.astype(int) - painted).mean() > 1
        signed = facade(house(house=number, sign=1), FRONT, 9.0, 8.0)
        if (old[..., 3] == SIGN).any():
            found += 1
            assert (old != signed).any()
            assert (old[:10] == signed[:10]).all()
    assert found >= 4
