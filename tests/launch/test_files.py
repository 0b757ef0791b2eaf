"""The files of launch/, as the tools of their kind see them, and what is said about them."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from jaxvpr.parallel import environment

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
FILES = sorted(path for path in LAUNCH.iterdir() if path.is_file() and path.name != "README.md")
SCRIPTS = [path for path in FILES if path.suffix == ".sh"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_has_an_example_and_says_what_to_change_and_the_page_has_it(path):
    head = path.read_text().partition("\n\n" if path.suffix == ".py" else "\nset ")[0]
    example = rf"(?m)^(#  |   ) .*\b(launch/{re.escape(path.name)})"
    assert re.search(example, path.read_text()), "an example that can be copied"
    assert path.suffix == ".py" or re.search(r"(?m)^# Change: ", head)
    page = (LAUNCH / "README.md").read_text()
    assert f"| `{path.name}` |" in page and page.count(path.name) >= 2


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_that_stops_at_errors(path):
    assert path.read_text().startswith("#!/usr/bin/env bash\n") and path.stat().st_mode & 0o111
    assert "\nset -euo pipefail\n" in path.read_text() and "launch/restart.py" in path.read_text()
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.long
def test_shellcheck_finds_nothing(tool):
    done = subprocess.run([tool("shellcheck"), *SCRIPTS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.long
def test_hadolint_finds_nothing(tool):
    done = subprocess.run([tool("hadolint"), LAUNCH / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_has_all_that_is_installed_and_started():
    text = (LAUNCH / "Containerfile").read_text()
    copied = {name for line in re.findall(r"(?m)^COPY (.*) \S+$", text) for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    packages = re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())[1]
    assert {name.strip('"*') for name in packages.split(", ")} | {"launch"} <= copied
    assert 'ENTRYPOINT ["python", "launch/restart.py", "--", "python", "-m", "jaxvpr.main"]' in text


@pytest.mark.parametrize(("extra", "what"), [("", "."), ("cuda", ".[cuda]"), ("tpu", ".[tpu]")])
def test_the_image_installs_what_the_extra_asks_for(tmp_path, extra, what):
    """Its line, by the shell of the image; pip refuses `.[]`."""
    (command,) = re.findall(r"(?m)^RUN (.*)$", (LAUNCH / "Containerfile").read_text())
    (tmp_path / "pip").write_text('#!/bin/sh\nfor last; do :; done\necho "$last"\n')
    (tmp_path / "pip").chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "EXTRA": extra}
    assert subprocess.run(["sh", "-c", command], env=path, capture_output=True, text=True).stdout == f"{what}\n"


@pytest.fixture
def jobset():
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


@pytest.mark.long
def test_the_jobset_has_the_fields_of_its_schema(jobset):
    """As JobSet's own definition has them; a field that is none of it would be lost on the way."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    assert models.JobsetV1alpha2JobSet.from_dict(jobset).to_dict() == jobset


def test_the_pods_of_the_jobset_are_one_run(jobset):
    """What a pod's variables are when Kubernetes has filled them in, and which of the processes that makes it."""
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    coordinator = f"jaxvpr-{job['name']}-0-0.jaxvpr"  # <jobset>-<job>-<its index>-<index of the pod>.<jobset>
    variables = {"JOB_COMPLETION_INDEX": "1", "KUBERNETES_SERVICE_HOST": "192.0.2.1"}
    for variable in container["env"]:
        if "valueFrom" in variable:
            field = variable["valueFrom"]["fieldRef"]["fieldPath"]
            assert field == "metadata.annotations['jobset.sigs.k8s.io/coordinator']"
            variables[variable["name"]] = coordinator
        else:
            variables[variable["name"]] = variable["value"].replace("$(COORDINATOR)", coordinator)
    assert jobset["spec"]["coordinator"] == {"replicatedJob": job["name"]}
    assert environment.seat(variables) == (f"{coordinator}:8476", spec["parallelism"], 1)
    assert spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    assert environment.gpus(variables) == [] and "--coordinator=auto" in container["args"]
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
