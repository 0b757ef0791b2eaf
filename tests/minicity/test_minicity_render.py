"""Geometry of the renderer against hand-worked numbers, and what conditions and headings may change."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from data_pipelines.minicity import CONDITIONS, CityConfig
from data_pipelines.minicity.city import City, Shot
from data_pipelines.minicity.houses import FLAT, GABLE
from data_pipelines.minicity.layout import Things
from data_pipelines.minicity.lens import CAMERA, HORIZON, lens_of
from data_pipelines.minicity.rays import cast
from data_pipelines.minicity.render import cut, panorama, strip, views
from data_pipelines.minicity.scene import TexturePool, halve

SIZE = 64
# Mean grey of the four quarters of one view of the default city.
FROZEN = {
    "day": [129.2, 129.3, 104.3, 99.7],
    "dusk": [80.5, 76.7, 85.7, 70.5],
    "night": [73.8, 56.4, 94.1, 67.7],
    "rain": [86.0, 88.9, 74.2, 68.9],
    "fog": [115.1, 122.1, 98.5, 95.6],
    "snow": [120.5, 134.7, 141.1, 140.6],
}


@pytest.fixture(scope="module")
def city():
    return City(CityConfig(blocks=1, size=SIZE))


def some_walls(*rows):
    """A scene of walls (x0, y0, x1, y1, height, rise, roof)."""
    rows = np.array(rows, np.float32)
    along = rows[:, 2:4] - rows[:, :2]
    return SimpleNamespace(
        start=rows[:, :2], along=along, length=np.linalg.norm(along, axis=1), eaves=rows[:, 4], rise=rows[:, 5],
        roof=rows[:, 6].astype(int), walls=SimpleNamespace(face=np.zeros(len(rows), int)),
    )  # fmt: skip


def test_cast_meets_a_wall_ahead_at_its_distance():
    # Ten metres north of the camera, from 4 m east to 4 m west, looked at from the south: its right side.
    scene = some_walls((-4, 10, 4, 10, 8, 0, FLAT))
    azimuth = np.radians([0.0, 15.0, -15.0, 30.0, 180.0])
    hits = cast(scene, np.zeros(2), azimuth)
    np.testing.assert_allclose(hits.distance[0, :3], 10 / np.cos(azimuth[:3]), rtol=1e-5)
    assert np.isinf(hits.distance[0, 3:]).all()
    np.testing.assert_allclose(
        hits.u[0, :3], [4, 4 + 10 * np.tan(np.radians(15)), 4 - 10 * np.tan(np.radians(15))], rtol=1e-4
    )
    np.testing.assert_allclose(hits.top[0, 0], (8 - CAMERA) / 10, rtol=1e-5)
    np.testing.assert_allclose(hits.cosine[0, :3], np.cos(azimuth[:3]), rtol=1e-4)


def test_cast_skips_backs_and_keeps_only_what_rises_above():
    scene = some_walls(
        (4, 5, -4, 5, 30, 0, FLAT),  # turned away
        (-4, 10, 4, 10, 6, 0, FLAT),
        (-4, 20, 4, 20, 7, 0, FLAT),  # slope 4.9 / 20 lies below 3.9 / 10
        (-4, 30, 4, 30, 20, 4, GABLE),
    )
    hits = cast(scene, np.zeros(2), np.zeros(1))
    assert hits.wall[:2, 0].tolist() == [1, 3]
    np.testing.assert_allclose(hits.distance[:2, 0], [10, 30], rtol=1e-5)
    np.testing.assert_allclose(hits.top[1, 0], (24 - CAMERA) / 30, rtol=1e-5)
    assert np.isinf(hits.distance[2, 0])


@pytest.mark.parametrize(("distance", "height"), [(10.0, 6.0), (20.0, 12.0)])
def test_a_wall_appears_where_the_pinhole_camera_puts_it(city, distance, height):
    """The picture with the wall differs from the one without in just the rectangle that the projection gives."""
    north = np.array([100.0, 100.0 + distance])
    walls = city.layout.walls
    scene = replace(
        city.scene(2016),
        start=(north + [-4, 0])[None].astype(np.float32), along=np.array([[8, 0]], np.float32),
        length=np.array([8.0], np.float32), eaves=np.array([height], np.float32), rise=np.zeros(1, np.float32),
        roof=np.zeros(1, int), walls=SimpleNamespace(face=walls.face[:1]),
    )  # fmt: skip
    bare = City(city.config)
    nothing = {f: getattr(bare.layout.things, f)[:0] for f in ("kind", "xy", "heading", "key")}
    bare.layout = replace(bare.layout, things=Things(**nothing))
    away = replace(scene, start=scene.start + np.float32(5000))
    pictures = []
    for one in (scene, away):
        bare.scenes[2016] = one
        pictures.append(views(bare, Shot(np.array([100.0, 100.0]), 2016, "day", 5), 0.0, 1)[0].astype(int))
    changed = np.abs(pictures[0] - pictures[1]).sum(-1) > 12
    rows, columns = np.flatnonzero(changed.mean(1) > 0.1), np.flatnonzero(changed.mean(0) > 0.1)
    scale = SIZE / 2 / np.tan(np.radians(45))
    expected = SIZE / 2 - 4 / distance * scale, SIZE / 2 + 4 / distance * scale
    assert abs(columns[0] - expected[0]) <= 1.5 and abs(columns[-1] + 1 - expected[1]) <= 1.5
    top = HORIZON * SIZE - (height - CAMERA) / distance * scale
    foot = HORIZON * SIZE + CAMERA / distance * scale
    assert abs(rows[0] - max(0, top)) <= 1.5 and abs(rows[-1] + 1 - foot) <= 1.5


def test_turning_the_camera_shifts_the_columns(city):
    lens, xy = city.lens, city.layout.camera_lines()[0][0] + [0.5, 9.0]
    azimuth = np.arange(120) * lens.pitch
    a = strip(city, Shot(xy, 2016, "day", 3), azimuth)
    b = strip(city, Shot(xy, 2016, "day", 3), azimuth + 16 * lens.pitch)
    assert np.abs(a[:, 16:].astype(int) - b[:, :-16]).mean() < 1
    assert np.abs(a[:, 16:].astype(int) - b[:, 16:]).mean() > 4


def test_views_of_a_panorama_equal_single_views(city):
    xy = city.layout.camera_lines()[0][0] + [0.0, 12.0]
    around = views(city, Shot(xy, 2016, "day", 3), 0.0, 12)
    assert around.shape == (12, SIZE, SIZE, 3)
    for number, heading in ((0, 0.0), (3, 90.0), (11, 330.0)):
        alone = views(city, Shot(xy, 2016, "day", 3), heading, 1)[0]
        assert np.abs(around[number].astype(int) - alone).mean() < 4  # noise of its own, same scene
    assert np.abs(around[0].astype(int) - around[3]).mean() > 8
    whole = panorama(city, Shot(xy, 2016, "day", 3), 0.0)
    np.testing.assert_array_equal(cut(city, whole, Shot(xy, 2016, "day", 3), 12), around)


def test_conditions_change_the_pixels_but_not_the_walls(city):
    xy = city.layout.camera_lines()[0][0] + [0.0, 12.0]
    pictures = {c: views(city, Shot(xy, 2018, c, 3), 0.0, 1)[0].astype(int) for c in CONDITIONS}
    for a in CONDITIONS:
        for b in CONDITIONS:
            assert a == b or np.abs(pictures[a] - pictures[b]).mean() > 5, (a, b)
    light = {c: picture.mean() for c, picture in pictures.items()}
    assert light["night"] < light["dusk"] < light["day"]
    assert light["night"] > 30  # never nearly black
    ground = {c: picture[-SIZE // 8 :].mean() for c, picture in pictures.items()}
    assert ground["snow"] > ground["day"] + 20


def test_fog_hides_what_is_far(city):
    """Contrast of distant walls (around the horizon) falls, that of the sky and the near ground aside."""
    line = city.layout.camera_lines()[0]
    xy, heading = line[0], np.degrees(np.arctan2(*(line[1] - line[0])))
    day, fog = (views(city, Shot(xy, 2016, c, 3), heading, 1)[0].astype(float) for c in ("day", "fog"))
    middle = slice(int(SIZE * 0.4), int(SIZE * 0.6)), slice(SIZE // 2 - 6, SIZE // 2 + 6)
    assert fog[middle].std() < 0.75 * day[middle].std()


@pytest.mark.parametrize(
    ("size", "fov", "headings"), [(64, 90, 12), (128, 90, 12), (96, 75, 7), (256, 60, 8), (33, 90, 1)]
)
def test_lens_keeps_whole_columns_between_headings_and_covers_its_view(size, fov, headings):
    lens = lens_of(size, fov, headings)
    assert lens.columns % (2 * headings) == 0 and lens.wide % 2 == 0
    assert np.isclose(lens.columns * lens.pitch, 2 * np.pi)
    column, row = lens.map_x[..., 0], lens.map_x[..., 1]
    assert column.min() >= 0 and column.max() <= lens.wide - 2
    assert row.min() >= -1 and row.max() <= len(lens.slope) - 1


def test_halving_means_colours_and_keeps_codes():
    texture = np.zeros((2, 4, 4), np.uint8)
    texture[0, :2, 0] = 100
    texture[..., 3] = [[5, 5, 9, 9], [5, 5, 9, 9]]
    small = halve(texture)
    assert small.shape == (1, 2, 4)
    assert small[0, 0].tolist() == [50, 0, 0, 5] and small[0, 1].tolist() == [0, 0, 0, 9]


def test_a_full_texture_pool_starts_anew_and_gives_the_same_texels(city):
    scene = city.scene(2016)
    roomy, narrow = TexturePool(city.config, 4.0), TexturePool(city.config, 4.0, capacity=40_000)
    for walls in (np.arange(10), np.arange(10, 20), np.arange(5)):
        wide, tight = roomy.slots_of(scene, walls), narrow.slots_of(scene, walls)
        for a, b in zip(wide, tight, strict=True):
            n = roomy.columns[a, 0] * roomy.rows[a, 0]
            first, second = roomy.first[a, 0], narrow.first[b, 0]
            np.testing.assert_array_equal(roomy.texels[first : first + n], narrow.texels[second : second + n])
    assert len(narrow.slots) < len(roomy.slots)


def test_the_default_city_looks_as_when_its_difficulty_was_measured():
    """Whoever changes these pictures must raise `config.VERSION`, and measure thumbnails and results anew."""
    config = CityConfig()
    city, found = City(config), {}
    for condition in CONDITIONS:
        picture = views(city, Shot(np.array([128.0, 100.0]), 2018, condition, 1), 90.0, 1)[0]
        found[condition] = picture.reshape(2, 32, 2, 32, 3).mean((1, 3, 4)).round(1).ravel().tolist()
    assert (config.digest(), config.test_digest()) == ("0da4bc6b923775dc", "d293f7ed88f7f488")
    for condition, expected in FROZEN.items():
        np.testing.assert_allclose(found[condition], expected, atol=1.5, err_msg=condition)
