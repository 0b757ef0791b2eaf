"""Small data sets whose places the tests of batches and of cliques are drawn from."""

import numpy as np

from data_pipelines.places import Paths, Places
from data_pipelines.readers import notes

CITIES = [notes.first_place(city) for city in (b"Rome", b"Oslo", b"Turin")]


def make(place, east=0.0, north=0.0, *, zone=32, name="set"):
    paths = Paths.of([f"{k}.jpg" for k in range(len(place))])
    return Places.create(name, paths, place=np.asarray(place), east=east, north=north, zone=zone)


def grid(images, *, side=10.0, cities=1, name="set"):
    """Places on a line, `side` metres apart, with the given numbers of images; every place in turn is of the next
    city. Rows are shuffled."""
    images = np.asarray(images)
    number = np.repeat(np.arange(len(images)), images)
    number = np.random.default_rng(0).permutation(number)
    place = np.array(CITIES)[number % cities] + number
    return make(place, east=side * number, north=5e6, name=name)


def rng(*seed):
    return np.random.default_rng(seed or 0)
