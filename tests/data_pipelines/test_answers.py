"""Published answers travel with a table, and are dropped where they would be wrong."""

from itertools import pairwise

import numpy as np
import pytest

from data_pipelines.answers import Answers
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from data_pipelines.readers import read

# Rows 0, 2, 3 and 5 are the database (positions 0 to 3), rows 1, 4 and 6 the queries (0 to 2); row 7 is neither.
ROLES = [0, 1, 0, 0, 1, 0, 1, -1]
LISTS = [[0, 3], [], [1, 2, 3]]


def answers(lists):
    indptr = np.cumsum([0] + [len(one) for one in lists])
    return Answers(indptr, np.array([position for one in lists for position in one], np.int64))


def table(roles=ROLES, lists=LISTS, name="some"):
    places = Places.create(name, Paths.of(f"{name}{k}" for k in range(len(roles))), role=roles)
    return places if lists is None else places.with_answers(answers(lists))


def lists(places):
    indptr, indices = places.answers
    assert indptr.dtype == indices.dtype == np.int64
    return [indices[a:b].tolist() for a, b in pairwise(indptr)]


def test_a_choice_of_queries_keeps_their_answers():
    assert lists(table().take(np.arange(8))) == LISTS
    assert lists(table().take(np.array([0, 2, 3, 5, 6, 1]))) == [[1, 2, 3], [0, 3]], "in the order of the queries"
    assert lists(table().take(np.array([6, 6, 0, 2, 3, 5]))) == [[1, 2, 3], [1, 2, 3]]
    mask = np.array([True, False, True, True, True, True, True, False])
    assert lists(table().take(mask)) == [[], [1, 2, 3]]
    assert lists(table().take(np.array([-2, 0, 2, 3, -3]))) == [[1, 2, 3]], "rows from the end"


def test_a_choice_of_the_database_renumbers_them():
    """The database rows 5, 0, 2: position 3 becomes 0, 0 becomes 1, 1 becomes 2, and 2 is gone."""
    assert lists(table().take(np.array([5, 1, 0, 4, 6, 2]))) == [[1, 0], [], [2, 0]]


def test_answers_that_would_be_wrong_are_dropped():
    places = table()
    assert places.select(role="query").answers is None and places.select(role="database").answers is None
    assert places.take(np.array([0, 0, 1, 2])).answers is None, "one database image twice"
    assert table(lists=None).take(np.arange(3)).answers is None


def test_joined_tables_keep_answers_only_of_a_lone_database():
    neither = Places.create("more", Paths.of("ab"), role=[-1, 2])
    assert lists(Places.concat([neither, table(), neither])) == LISTS
    assert Places.concat([table(), table(name="other")]).answers is None
    assert Places.concat([table(), table([0], None, "distractor")]).answers is None
    assert Places.concat([table(), table([1], None, "query")]).answers is None
    halves = [table().select(role=role) for role in ("database", "query")]
    assert Places.concat(halves).answers is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[0], [1]], r"some.*\b2 queries\b.*rows up to 1\b.*\b3 queries and 4 database"),
        ([[0], [4], []], r"some.*rows up to 4\b.*\b4 database"),
        ([[0], [-1], []], r"list of positives.*-1"),
    ],
)
def test_a_list_of_other_images_is_refused(given, said):
    with pytest.raises(DataError, match=said):
        table(lists=given)


def test_a_list_that_is_none_is_refused():
    with pytest.raises(DataError, match="ascend"):
        table(lists=None).with_answers(Answers(np.array([0, 2, 1, 3]), np.arange(3)))


def test_pairs_bring_their_list(tmp_path):
    for folder, count in (("query", 3), ("ref", 2)):
        (tmp_path / folder).mkdir()
        for k in range(count):
            (tmp_path / folder / f"{k}.jpg").write_bytes(b"")
    assert read("pairs", tmp_path).answers is None
    (tmp_path / "ground_truth.csv").write_text("query,references\n1,1 0\n")
    assert lists(read("pairs", tmp_path)) == [[], [0, 1], []], "what the list leaves out has none"
    for text, said in (
        ("1,2", r"ground_truth\.csv.*line 2.*\[2\].*2 database"),
        ("3,0", r"ground_truth\.csv, line 2.*query 3\b.*3 queries"),
    ):
        (tmp_path / "ground_truth.csv").write_text(f"query,references\n{text}\n")
        with pytest.raises(DataError, match=said):
            read("pairs", tmp_path)
