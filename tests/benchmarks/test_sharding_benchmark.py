"""What a device holds of ten million classes, as compiled for simulated devices."""

import pytest

from benchmarks import side_by_side


@pytest.mark.long
def test_ten_million_classes_take_less_of_each_device_the_more_there_are(monkeypatch):
    monkeypatch.setenv("JAX_NUMPY_DTYPE_PROMOTION", "standard")

    def on(devices):
        case = "10M classes x 512, model=0"
        return side_by_side.in_own_process("benchmarks.sharding", "--side", case, "--devices", devices)

    few, many = on(4), on(64)
    table = 10_000_384 * 512 * 4 / 2**20
    assert few["state_mib"] == pytest.approx(3 * table / 4, rel=1e-3), "prototypes and two moments of Adam"
    for part in ("state_mib", "temp_mib"):
        assert many[part] == pytest.approx(few[part] / 16, rel=0.01)
    assert sum(kind["mib"] for kind in many["collectives"].values()) < 4, "the table is not sent"
