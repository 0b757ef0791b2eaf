"""Sweeps: what a file must say, that one failure stops nothing, and that nothing is trained twice."""

import json
import re
import signal

import pytest

from jaxvpr.cli import recipes, sweep_file
from jaxvpr.errors import UserError
from jaxvpr.retrieval import metrics
from jaxvpr.runs import workdir
from jaxvpr.training import logs
from jaxvpr.verbs import train

SWEEP = """
def get_sweep(preset=""):
    return {"name": "three", "recipe": RECIPE, **REST}
"""


@pytest.fixture
def write(tiny_recipe, tmp_path):
    """A sweep file of the tiny recipe: write(runs, **other keys) -> its path."""

    def make(runs, **rest):
        file = tmp_path / "three.py"
        rest = {"runs": runs, **rest}
        file.write_text(SWEEP.replace("RECIPE", repr(str(tiny_recipe))).replace("REST", repr(rest)))
        return file

    return make


SHORT = {"epochs": 1, "steps_per_epoch": 2}


def test_runs_take_the_changes_in_order(write):
    file = write({"a": {**SHORT, "batch": 16}, "b": {"optimizer.rate": 1}}, seeds={"a": 2})
    found = sweep_file.load(f"{file},epochs=3", [("steps_per_epoch", "4")])
    assert [(run.folder, run.seed) for run in found.runs] == [("a", 0), ("a-seed1", 1), ("b", 0)]
    first, second, third = (run.config for run in found.runs)
    assert (first.epochs, first.steps_per_epoch, first.batch, first.name) == (3, 4, 16, "a"), (
        "the line has the last word"
    )
    assert second.seed == 1 and third.batch == 8 and third.optimizer.rate == 1.0 and third.is_locked
    assert found.runs[0].changes == {**SHORT, "batch": 16} and (found.name, found.rows) == ("three", "")
    assert [run.seed for run in sweep_file.load(f"{file},seed=5").runs] == [5, 6, 5]


def test_a_run_may_have_another_recipe(write):
    file = write({"a": SHORT, "b": {**SHORT, "recipe": "configs/eigenplaces.py:tiny,batch=4", "epochs": 3}})
    a, b = sweep_file.load(str(file)).runs
    assert (a.config.objective.name, b.config.objective.name) == ("cells", "eigenplaces")
    assert (b.config.batch, b.config.epochs, b.config.name) == (4, 3, "b") and b.changes["recipe"].startswith(
        "configs/"
    )


def test_another_loss_leaves_the_options_of_the_first(tmp_path):
    file = tmp_path / "x.py"
    runs = {
        "a": {"objective.loss_options.margin": 0.3, "objective.loss": "triplet"},
        "b": {"objective.loss": "multi_similarity", "objective.loss_options.base": 0.5},
        "c": {"objective.loss_options": {"base": 0.25}, "objective.miner": "pair_margin"},
    }
    rest = {"name": "x", "recipe": "configs/gsv_cities.py:tiny", "runs": runs}
    file.write_text(f"def get_sweep(preset):\n    return {rest!r}\n")
    a, b, c = (run.config.objective for run in sweep_file.load(str(file)).runs)
    assert (a.loss, a.loss_options.to_dict()) == ("triplet", {"margin": 0.3})
    assert b.loss_options.to_dict() == {"alpha": 1.0, "beta": 50.0, "base": 0.5}
    assert c.loss_options.to_dict() == {"base": 0.25} and c.miner_options.to_dict() == {}


MISTAKES = {
    "key": ({"runs": {"good": {}, "bad": {"bach": 3}}}, r"'bad'.*config\.bach\b.*\bbatch\b"),
    "value": ({"runs": {"bad": {"batch": "many"}}}, r"'bad'.*config\.batch='many'.*\bint\b"),
    "meaning": ({"runs": {"bad": {"batch": 0}}}, r"'bad'.*config\.batch=0\b.*\b1\b"),
    "no runs": ({"runs": {}}, r"\bruns\b.*\{name: \{key: value"),
    "changes that are none": ({"runs": {"a": 3}}, r"\bruns\b.*\{name: \{key: value"),
    "other keys": ({"runs": {"a": {}}, "sedes": 3}, r"\bname, recipe.*\bruns\b.*'sedes'"),
    "the same configuration": ({"runs": {"a": {}, "b": {"batch": 8}}}, "'a'.*'b'.*configuration"),
    "the same folder": ({"runs": {"a": {}, "A": {"batch": 16}}}, "'a'.*'A'.*folder"),
    "a seed as another run": (
        {"runs": {"a": {}, "b": {"seed": 1}}, "seeds": 2},
        "'a-seed1'.*'b'.*configuration",
    ),
    "a name that is no folder": ({"runs": {"../a": {}}}, r"'\.\./a'.*folder"),
    "no cell": ({"runs": {"a": {}}, "rows": "x", "columns": "y"}, r"'a'.*ROW\+COLUMN"),
    "one axis": ({"runs": {"a": {}}, "rows": "x"}, r"\brows\b.*\bcolumns\b.*\baxes\b"),
    "seeds": ({"runs": {"a": {}}, "seeds": 0}, r"seeds.*'a'.*\b1\b.*\b0\b"),
    "seeds of no run": ({"runs": {"a": {}}, "seeds": {"b": 2}}, r"seeds.*\['b'\].*\['a'\]"),
    "nothing to compare by": ({"runs": {"a": {"test_data": {}}}}, r"'a'.*no test_data\b"),
    "a title that is no text": ({"runs": {"a": {}}, "name": 3}, r"\bname=3\b"),
}


@pytest.mark.parametrize(("rest", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_of_a_file(write, rest, said):
    with pytest.raises(UserError, match=said):
        sweep_file.load(str(write(rest["runs"], **{key: rest[key] for key in rest if key != "runs"})))


def test_a_recipe_is_no_sweep(refused, tiny_recipe, write, tmp_path):
    said = refused("sweep", f"--config={tiny_recipe}", f"--workdir={tmp_path}")
    assert re.search(r"get_sweep\(preset\).*\btrain\b", said)
    said = refused("train", f"--config={write({'a': {}})}", f"--workdir={tmp_path}")
    assert re.search(r"get_config\(preset\).*\bsweep\b", said)
    said = refused("sweep", f"--config={write({'a': {}, 'b': {'batch': 16}})}", "--config.batch=16")
    assert re.search("'a'.*'b'.*configuration.*command line", said)


@pytest.mark.parametrize("name", ["losses.py", "losses.py:gsv_xs", "optimisers.py", "optimisers.py:gsv_xs",
                                  "optimisers.py:mixvpr_xs"])  # fmt: skip
def test_shipped_sweeps_are_valid(name):
    found = sweep_file.load(f"configs/sweeps/{name}")
    assert len({run.name for run in found.runs}) >= 12
    if found.rows:
        cells = {tuple(run.name.split("+")) for run in found.runs}
        empty = {(row, column) for row, _ in cells for _, column in cells} - cells
        assert {row for row, _ in empty} <= {"arcface", "cosface"}, (
            "only prototypes, which cannot mine, leave cells empty"
        )
    with pytest.raises(UserError, match=r"preset.*'town'"):
        sweep_file.load(f"configs/sweeps/{name.partition(':')[0]}:town")


STARTING = ("domains.py:night", "domains.py:other", "domains.py:grid", "domains.py:sf_xs", "domains.py:tokyo",
            "mining.py:city", "mining.py:pitts30k", "viewpoints.py")  # fmt: skip


@pytest.mark.parametrize("name", STARTING)
def test_shipped_sweeps_that_may_start_from_weights(name, tmp_path):
    weights = tmp_path / "weights.pth"
    weights.touch()
    found = sweep_file.load(f"configs/sweeps/{name},init={weights}")
    assert len({run.name for run in found.runs}) >= 3 and {run.config.init for run in found.runs} == {str(weights)}


RUNS = {"bad": {"objective.partition.min_images": 1000}, "good": {"eval.baselines": False}}


def test_all_names_of_all_runs_are_checked_before_the_first_is_trained(refused, write, tmp_path):
    runs = {name: {"objective.loss": name, "optimizer.name": "lion"} for name in ("a", "b", "cosface")}
    said = refused("sweep", f"--config={write(runs)}", f"--workdir={tmp_path / 'out'}").splitlines()
    assert said[0].startswith("3 mistakes in the runs of three") and not (tmp_path / "out").exists()
    losses = "does not exist; there are ['arcface', 'cosface', 'easy_arcface']"
    assert said[1].startswith("  a, b, cosface: config.optimizer.name='lion' does not exist; there are ['adam'")
    assert said[2:] == [f"  {name}: config.objective.loss={name!r} {losses}" for name in ("a", "b")]


def states(folder):
    return {run["folder"]: run["state"] for run in json.loads((folder / "sweep.json").read_text())["runs"]}


def test_a_failure_stops_nothing_and_nothing_is_trained_twice(door, refused, write, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ("sweep", f"--config={write(RUNS)}", f"--workdir={out}")
    status, printed, err = door(*command)
    assert status == 1 and "1 of 2 runs failed; the same command tries them again" in err, err
    assert "failed: bad (" in err and "sweep.html" in printed
    assert states(out) == {"bad": "failed", "good": "finished"}
    bad, good = json.loads((out / "sweep.json").read_text())["runs"]
    (entry,) = metrics.read_metrics(out / "good" / "metrics.json")["results"]
    assert good["test"] == [
        {"dataset": "test", "threshold": "25m", "queries": 25, "recall": entry["recall"]["25m"],
         "interval95": entry["interval95"]["25m"]}
    ]  # fmt: skip
    assert good["validation"] == [record for record in logs.read(out / "good") if "epoch" in record]
    assert [line["epoch"] for line in good["validation"]] == [1, 2]
    assert good["changes"] == RUNS["good"] and good["failure"] is None and good["domain_accuracy"] is None
    assert good["seconds"] > good["planning_seconds"] > 0
    assert "1000" in bad["failure"] and "Traceback" not in bad["failure"]
    assert "Traceback (most recent call last)" in (out / "bad" / "failure.txt").read_text()
    assert not (out / "good" / "checkpoints").exists() and (out / "good" / "model.safetensors").is_file()
    assert not (out / ".compiled").exists()

    written = (out / "good" / "metrics.json").stat().st_mtime_ns
    trained, run = [], train.run
    monkeypatch.setattr(train, "run", lambda config, folder: trained.append(config.name) or run(config, folder))
    status, _, err = door(*command)
    assert status == 1 and trained == ["bad"] and "2 runs, 1 of them finished already" in err
    assert (out / "good" / "metrics.json").stat().st_mtime_ns == written
    said = refused(*command, "--config.optimizer.momentum=0.5")
    assert re.search(r"(?s)\bgood\b.*configuration.*optimizer\.momentum.*\b0\.9\b.*\b0\.5\b", said)
    assert "test_data.test.split" in refused(*command, "--config.test_data.test.split=val"), "another test and figure"
    assert trained == ["bad"]


def test_a_killed_run_goes_on(door, refused, write, tmp_path, monkeypatch):
    """What a run does of its own is tested with the loop; here, that the sweep stops with it and starts it again."""
    command = ("sweep", f"--config={write({'a': {}, 'b': {'batch': 16}})}", f"--workdir={tmp_path}")
    resumed = []

    def leaves_at_six(config, folder):
        resumed.append((config.name, workdir.has_checkpoints(folder)))
        workdir.claim(folder, config)
        (folder / "checkpoints" / "6").mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").write_text('{"step": 6, "epoch": 1, "val/R@1": 8.0}\n{"step": 6, "lo')  # cut short

    monkeypatch.setattr(train, "run", leaves_at_six)
    status, _, err = door(*command)
    assert status == 75 and "stopped before the end; the same command resumes" in err
    assert states(tmp_path) == {"a": "begun", "b": "waiting"}
    (begun, _) = json.loads((tmp_path / "sweep.json").read_text())["runs"]
    assert [line["val/R@1"] for line in begun["validation"]] == [8.0]
    assert door(*command).status == 75 and resumed == [("a", False), ("a", True)]
    assert re.search(r"(?s)/a\b.*configuration.*\bepochs\b.*\b7\b", refused(*command, "--config.epochs=7"))


def test_interrupted_beside_the_training(door, write, tmp_path, monkeypatch):
    command = ("sweep", f"--config={write({'a': {}, 'b': {'batch': 16}})}", f"--workdir={tmp_path}")
    trained = []

    def told(config, folder):
        trained.append(config.name)
        signal.raise_signal(signal.SIGTERM)
        return {}

    monkeypatch.setattr(train, "run", told)
    assert door(*command).status == 75 and trained == ["a"], "told while it measured: the run is brought to its end"

    def interrupted(config, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    assert door(*command).status == 130 and states(tmp_path) == {"a": "waiting", "b": "waiting"}
    monkeypatch.setattr(train, "run", lambda config, folder: 1 / 0)
    status, _, err = door(*command)
    assert status == 1 and "a failed: ZeroDivisionError: division by zero" in err and "2 of 2 runs failed" in err
    assert states(tmp_path) == {"a": "failed", "b": "failed"}


def test_sweeps_of_one_document_mine_by_the_same_margins():
    """On the cosine, those of GSV-Cities: 0.2 and 0.8, the miner's own, are of Euclidean distances."""
    for name in ("losses.py:tiny", "losses.py:gsv_xs", "optimisers.py:mixvpr_xs"):
        runs = recipes.run_file(f"configs/sweeps/{name}", "get_sweep")[0]["runs"].values()
        mined = [changes for changes in runs if changes.get("objective.miner") == "pair_margin"]
        margins = [[run[f"objective.miner_options.{key}"] for key in ("positive", "negative")] for run in mined]
        assert margins and all(pair == [0.7, 0.3] for pair in margins), name
