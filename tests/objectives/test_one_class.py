"""Data of a single class or place: no loss of classification or of pairs learns from it, so it is refused."""

from functools import partial

import numpy as np
import pytest

from data_pipelines.eigen import Views
from data_pipelines.partitions import label_cells
from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.objectives.cells import cells_objective
from jaxvpr.objectives.distillation import Teacher, distillation_objective
from jaxvpr.objectives.eigenplaces import eigenplaces_objective
from jaxvpr.objectives.place_heads import Choice
from jaxvpr.objectives.places import places_objective
from jaxvpr.objectives.pretraining import pretraining_objective
from jaxvpr.objectives.prototypes import check_classes

ONE = np.zeros(75, np.int64)
VIEWS = Views(label_cells(ONE), np.zeros(75, np.float32))


@pytest.mark.parametrize(
    "objective",
    [
        partial(cells_objective, VIEWS.cells),
        partial(pretraining_objective, None, VIEWS.cells, width=3),
        partial(eigenplaces_objective, VIEWS, VIEWS),
    ],
)
def test_a_classifier_needs_two(objective):
    with pytest.raises(UserError, match=r"\b75\b.*\bone class\b.*train_data\.root=FOLDER"):
        objective(batch=4, steps=1)


def test_a_group_of_one_class_is_said(caplog):
    check_classes(np.array([1, 3]), 75)
    assert "1 of 2 groups have one class alone" in caplog.text


def test_a_batch_needs_two_places():
    places = Places.create("one", Paths.of([f"{n}.jpg" for n in range(75)]), place=ONE)
    objective = partial(places_objective, place_table(places, K=4), P=1, steps=1)
    with pytest.raises(UserError, match=r"\b75\b.*\bone class\b"):
        objective(Choice("cosface"))
    with pytest.raises(UserError, match=r"objective\.P=1\b.*at least 2"):
        objective(Choice("contrastive"))
    assert objective(Choice("contrastive"), memory=8), "a memory has other places"


def test_similarities_need_two_images():
    teacher = Teacher(None, {}, 4)
    for sizes in ({"images": 9, "batch": 1}, {"images": 1, "batch": 4}):
        with pytest.raises(UserError, match=r"objective\.loss='similarity'.*no pair"):
            distillation_objective(None, teacher, **sizes, steps=1, loss="similarity")
