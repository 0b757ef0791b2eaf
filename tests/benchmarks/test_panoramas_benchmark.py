"""The benchmark of panoramas, run in this process on the smallest round."""

import json
import sys

from benchmarks import panoramas
from data_pipelines.images import decode


def test_every_way_reads_and_the_views_are_those_of_the_panoramas(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(panoramas, "FILES", 2)
    monkeypatch.setattr(panoramas, "BATCH", 4)
    whole, views = panoramas.write_images(tmp_path)
    # Bearing 0 is the middle of a panorama of yaw 0; the view was written as a JPEG once more.
    middle = decode(whole[1])[:, 1664 - 256 : 1664 + 256].astype(int)
    assert abs(decode(views[1]) - middle).mean() < 5
    out = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["x", "--sizes", "32", "--rounds", "1", "--steps", "2", "--out", str(out)])
    panoramas.main()
    [result] = json.loads(out.read_text())["results"]
    assert json.loads(capsys.readouterr().out)["results"] == [result]
    ways = {"cut, reduced", "cut, every pixel", "512 x 512 files"}
    assert set(result["median_views_per_second"]) == set(result["cpu_ms_per_view"]) == ways
    assert min(result["median_views_per_second"].values()) > 0 and result["views_per_round"] == 8
