"""Tables of coordinates, and what is wrong with others."""

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.readers.coordinates import coordinates


def test_coordinates_of_a_table(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("LON,name,LAT\n-180,x,90\n2.5,y,-1e-3\n")
    np.testing.assert_array_equal(coordinates(file), [[90, -180], [-0.001, 2.5]])
    file.write_text("Latitude,Longitude\n1,2\n")
    np.testing.assert_array_equal(coordinates(file), [[1, 2]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("LAT,EAST\n1,2\n", r"no column LON among \['LAT', 'EAST'\]"),
        ("LAT,LON\n1,2\n1,x\n", "line 3: .*'x'"),
        ("LAT,LON\n1,2\n91,2\n", r"line 3: \(91\.0, 2\.0\) is no latitude"),
        ("LAT,LON\nnan,2\n", "line 2: .*is no latitude"),
        ("LAT,LON\n1,2,3\n", "line 2: 3 fields"),
        ("LAT,LON\n", "has no rows"),
    ],
)
def test_what_is_no_such_table(tmp_path, text, said):
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=said):
        coordinates(file)
