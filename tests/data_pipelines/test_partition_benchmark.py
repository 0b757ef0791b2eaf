"""The benchmark of partitions runs, and ours and the peer's find the same classes and read the same numbers."""

import json
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "benchmarks" / "partition.py"


def test_ours_and_the_peer_agree():
    command = [sys.executable, str(FILE), "--rows", "24000"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=FILE.parents[1]).stdout)
    assert report["cells_agree"] and report["names_agree"]
    assert report["cells"]["rows"] == report["peer_cells"]["rows"] == 24000
    assert report["cells"]["groups"] > 8 and 0 < report["cells"]["images_in_classes"] <= 24000
    assert all(report[stage]["peak_mib"] > 0 for stage in ("cells", "peer_cells", "names", "peer_names"))
