"""What other verbs write on two hosts is what they write on one, with as many devices; a sweep ends alike on both."""

import json
import shutil

import pytest
from family_recipes import __file__ as recipes
from host_processes import train

pytestmark = pytest.mark.long
TIMED = ("metrics.json", "report.html")  # which say how long it took


def written(folder):
    """{name: bytes} of the files below a folder, but for tensorboard's and those that tell the time; and results."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    metrics = [file for file in files.values() if file.name == "metrics.json"]
    results = {str(file.relative_to(folder)): json.loads(file.read_text())["results"] for file in metrics}
    found = {name: file.read_bytes() for name, file in files.items() if file.name not in TIMED}
    assert not any(name.endswith(".part") for name in found)
    return found | results


@pytest.fixture
def both(trained_run, tiny_recipe, photo_tree, environment, tmp_path, door):
    """A verb of one host in this process and of two, of four devices each: what their folders hold afterwards."""
    images = photo_tree / "images" / "test"

    def run(*commands):
        folders = [shutil.copytree(trained_run, tmp_path / name / "run") for name in ("one", "two")]
        for command in commands:
            for folder, hosts in zip(folders, (1, 2), strict=True):
                arguments = [
                    text.format(recipe=tiny_recipe, run=folder, out=folder.parent, images=images) for text in command
                ]
                if hosts == 1:
                    assert door(*arguments).status == 0
                else:
                    train(environment, hosts, 4, arguments)
        found = [written(folder.parent) for folder in folders]
        assert sorted(found[0]) == sorted(found[1])
        for name, content in found[0].items():
            assert found[1][name] == content, name
        return found[0]

    return run


RUN = ("--config={recipe}", "--workdir={run}")


def test_photos_are_described_and_localised_alike(both):
    extract = ("extract", *RUN, "--images={images}/database", "--out={out}/db.npy")
    found = both(
        extract,
        ("localize", *RUN, "--images={images}/queries", "--database={out}/db.npy", "--out={out}/answers"),
        ("localize", *RUN, "--images={images}/queries", "--track", "--database={out}/db.npy", "--out={out}/track"),
        ("extract", "--config={recipe},image.size=()", "--workdir={run}", "--images={images}", "--out={out}/own.npy"),
    )
    assert {"track/track.csv", "track/track.geojson", "track/track.html"} <= set(found)
    assert {"db.npy", "db.csv", "own.npy", "answers/predictions.csv"} <= set(found)
    assert sum(name.endswith(".png") for name in found) == 25


def test_checkpoints_are_measured_and_compressed_alike(both):
    found = both(
        ("evaluate", *RUN),
        ("evaluate", *RUN, "--database={images}/database", "--queries={images}/queries", "--out={out}/folders"),
        ("compress", "--config={recipe},pca.dim=8", "--workdir={run}", "--out={out}/small.safetensors"),
    )
    assert {"run/evaluate/metrics.json", "folders/metrics.json", "small.safetensors"} <= set(found)


def test_a_dry_run_draws_the_whole_batch_of_all_hosts(both):
    assert "run/first_batch.png" in both(("train", *RUN, "--dry-run"))


SWEEP = """
def get_sweep(preset):
    recipe = {recipes!r}
    runs = {{"refused": {{"recipe": recipe + ":cliques", "objective.memory": 16}}, "fine": {{}}}}
    return {{"name": "two", "recipe": recipe + ":memory", "runs": runs}}
"""


@pytest.fixture
def sweep(photo_tree, tmp_path):
    """The command of a sweep whose first run is refused while it is prepared."""
    (tmp_path / "photos").symlink_to(photo_tree)
    (tmp_path / "two.py").write_text(SWEEP.format(recipes=recipes))
    return ["sweep", f"--config={tmp_path / 'two.py'},data={tmp_path}", f"--workdir={tmp_path / 'swept'}"]


def test_a_run_of_a_sweep_that_fails_on_all_hosts_leaves_the_others_their_turn(sweep, environment, tmp_path):
    """The first host writes late what the others ask for: whether the last run has ended."""
    for said in train(environment, 2, 2, sweep, "slow to write", status=1):
        assert "refused failed: objective.memory=16 would" in said and "failed: fine" not in said
    runs = json.loads((tmp_path / "swept" / "sweep.json").read_text())["runs"]
    assert [run["state"] for run in runs] == ["failed", "finished"]


def test_a_failure_that_one_host_meets_alone_ends_the_sweep(sweep, environment, tmp_path):
    for said in train(environment, 2, 2, sweep, "alone", status=2):
        assert "no such photo" in said and "run 2 of 2" not in said
