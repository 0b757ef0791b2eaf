"""The device check: what its runner does with measurements of every kind, and that each of them runs at tiny shapes.

Nothing here is fast or slow: that is for the machine with a GPU which the check is made for.
"""

import json
import os
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import device_check
from benchmarks.device import machine, program, runner, summary
from benchmarks.device.plan import PEAK, PLAN
from benchmarks.device.runner import At, Measurement, run

ROOT = Path(__file__).resolve().parents[2]
HIGHEST = jax.lax.Precision.HIGHEST


def scripts(**sources):
    """A plan of Python scripts, and the command of each."""
    plan = [Measurement(name, "host", seconds, lambda at: {}) for name, (seconds, _) in sources.items()]
    return plan, lambda one: [sys.executable, "-c", sources[one.name][1]]


def prints(wrong="", **figures):
    found = {"figures": figures, "wrong": wrong, "device": "a device", "versions": {"python": "3"}}
    return f"print('something else'); print({json.dumps(found)!r})"


def test_whatever_happens_to_a_measurement_the_others_go_on(tmp_path):
    # This one starts a process that would write a file after a while, if it were left alive.
    child = f"import time, pathlib; time.sleep(2.5); pathlib.Path({str(tmp_path / 'alive')!r}).touch()"
    hangs = f"""
import subprocess, sys, time
print("near", file=sys.stderr, flush=True)
subprocess.Popen([sys.executable, "-c", {child!r}])
time.sleep(60)
"""
    plan, command = scripts(
        good=(20, prints(rate=3)),
        fails=(20, "import sys; print('x' * 5000, file=sys.stderr); sys.exit('the last words')"),
        hangs=(1, hangs),
        mute=(20, "import os; os._exit(3)"),
        babbles=(20, "print('no figures')"),
        strange=(20, prints("its loss is NaN", loss=0)),
    )
    lines = list(run(plan, command, 100))
    assert [line["name"] for line in lines] == [one.name for one in plan]
    keys = {"name", "seconds", "status", "device", "versions", "figures"}
    assert all(keys <= set(line) <= keys | {"reason"} for line in lines)
    good, fails, hangs, mute, babbles, strange = lines
    assert (good["status"], good["figures"], good["device"]) == ("ok", {"rate": 3}, "a device")
    assert good["versions"] == {"python": "3"} and "reason" not in good
    assert fails["status"] == "failed" and fails["reason"] == "the last words"
    assert hangs["status"] == "timeout" and hangs["reason"] == "not done after 1 s. near" and 1 <= hangs["seconds"] < 10
    assert mute["status"] == "failed" and "status 3" in mute["reason"]
    assert babbles["status"] == "failed" and "no figures" in babbles["reason"]
    assert (strange["status"], strange["reason"], strange["figures"]) == ("wrong", "its loss is NaN", {"loss": 0})
    subprocess.run([sys.executable, "-c", "import time; time.sleep(2)"], check=True)
    assert not (tmp_path / "alive").exists(), "what a measurement had started outlived it"


def test_what_no_longer_fits_is_left_out_and_named(monkeypatch):
    monkeypatch.setattr(runner, "LEAST", 1.0)
    sleeps = "import time; time.sleep(60)"
    plan, command = scripts(long=(50, sleeps), short=(1, prints(rate=1)), late=(50, sleeps))
    lines = list(run(plan, command, 1.5))
    # The first gets what there is, not its 50 seconds; nothing is left for the others.
    assert [line["status"] for line in lines] == ["timeout", "left out", "left out"]
    assert lines[0]["seconds"] == pytest.approx(1.5, abs=1)
    assert lines[1]["reason"] == lines[2]["reason"] == "0 s were left of 1.5"


def test_a_short_one_starts_where_a_long_one_does_not():
    plan, command = scripts(long=(50, "import sys; sys.exit(1)"), short=(1, prints(rate=1)))
    assert [line["status"] for line in run(plan, command, 10)] == ["left out", "ok"]


def test_the_plan_begins_with_what_matters_and_names_each_thing_once():
    names = [one.name for one in PLAN]
    assert len(set(names)) == len(names)
    assert names[0] == "imports and compiles" and PLAN[0].flags == ("-W", "error")
    places = [names.index(name) for name in (PEAK, "train cosplace: jaxvpr", "train cosplace: pytorch at its best")]
    assert places == sorted(places)
    # PyTorch's sides start from weights that ours write.
    for one in PLAN:
        if one.side == "pytorch":
            assert names.index(one.name.partition(": ")[0] + ": jaxvpr") < names.index(one.name)


def line(name, status="ok", reason="", **figures):
    return {"name": name, "status": status, "figures": figures, "reason": reason}


def test_the_summary_has_ratios_and_shares_of_the_measured_peak():
    def rates(rate, **more):
        return {"images_per_second": rate, "from_host_images_per_second": rate - 1, "peak_mib": 2048.5, **more}

    lines = [
        line(PEAK, **{"size": 8, "bfloat16 TFLOP/s": 800.0}),
        # 4000 images of 50 GFLOP are 200 of 800 TFLOP/s.
        line("train x: jaxvpr", **rates(4000.0, gflop_per_image=50)),
        line("train x: pytorch at its best", **rates(5000.0)),
        line("train y: pytorch at its best", **rates(7.0, peak_mib=None)),
        line("train y: jaxvpr", "timeout", "not done after 75 s"),
    ]
    table = summary.table(lines, PEAK)
    assert "| train x | jaxvpr | 4,000.0 | 3,999.0 | 1.00 | 25.0% | 2048.5 |" in table
    assert "| train x | pytorch at its best | 5,000.0 | 4,999.0 | 0.80 | 31.2% | 2048.5 |" in table
    assert "| train y | pytorch at its best | 7.0 | 6.0 | - | - | - |" in table
    assert "- matrix product: size 8, bfloat16 TFLOP/s 800.0" in table
    assert table.endswith("- train y: jaxvpr: timeout. not done after 75 s")
    assert "| - |" in summary.table(lines[1:2], PEAK), "without a peak there is no share"


def test_flops_are_counted_by_type_and_precision():
    def work(x, w, image, kernel):
        exact = jnp.matmul(x, w, precision=HIGHEST)  # 3 x 4 x 5
        coarse = x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)
        looped, _ = jax.lax.scan(lambda y, _: (jax.jit(jnp.matmul)(y, w[:, :4]), None), x, None, 7)  # 3 x 4 x 4
        made = jax.lax.conv_general_dilated(image, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return exact.sum() + coarse.sum().astype(jnp.float32) + looped.sum() + made.sum()

    shapes = (3, 4), (4, 5), (2, 6, 6, 3), (2, 2, 3, 8)
    arrays = [jnp.ones(shape) for shape in shapes]
    forward = program.flops(jax.make_jaxpr(work)(*arrays))
    conv = 2 * (2 * 3 * 3 * 8) * (2 * 2 * 3)
    assert forward == {
        "float32 HIGHEST": 2 * 60,
        "bfloat16": 2 * 60,
        "float32": 7 * 2 * 48 + conv,
    }
    # By the image and by the kernel: each as much work as forward, zeros between the strides left out.
    gradient = program.flops(jax.make_jaxpr(jax.grad(work, argnums=(2, 3)))(*arrays))
    assert gradient["float32"] - 7 * 2 * 48 == pytest.approx(3 * conv, rel=0.35)
    assert gradient["float32"] > 2.5 * conv


def test_of_ways_by_platform_that_of_all_others_is_counted():
    def work(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x[:2] @ x.T, default=lambda x: (x @ x.T)[:2])

    assert program.flops(jax.make_jaxpr(work)(jnp.ones((3, 5)))) == {"float32": 2 * 3 * 5 * 3}


def test_cudnns_attention_is_counted_as_its_products(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn  # asks a GPU for what is said here

    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91200)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda _: True)
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda _: False)

    def attend(kind, *qkv):
        return jax.nn.dot_product_attention(*qkv, implementation=kind).astype(jnp.float32).sum()

    query, key = jnp.ones((2, 8, 3, 16), jnp.bfloat16), jnp.ones((2, 4, 3, 16), jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        fused, plain = (
            program.flops(jax.make_jaxpr(jax.grad(partial(attend, kind), (0, 1, 2)))(query, key, key))
            for kind in ("cudnn", "xla")
        )
    assert fused == {"bfloat16": 6 * 2 * (2 * 3 * 8 * 4 * 16)} and plain.total() == fused.total()


def test_a_part_that_warns_is_named_and_those_behind_it_are_looked_at(monkeypatch, tmp_path):
    modules = {"silent": "x = 1\n", "old": "import warnings\nwarnings.warn('goes away', DeprecationWarning)\n"}
    for name, source in modules.items():
        (tmp_path / f"device_check_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(machine, "IMPORTS", ("device_check_old", "device_check_missing", "device_check_silent"))
    monkeypatch.setattr(machine, "_compiled", lambda at: None)
    with warnings.catch_warnings(record=True):  # what is printed once more stays out of the tests' own summary
        warnings.simplefilter("error")
        found = machine.imports_and_compiles(At(tmp_path, True))
    assert found["complaints"] == {
        "device_check_old": "DeprecationWarning: goes away",
        "device_check_missing": "ModuleNotFoundError: No module named 'device_check_missing'",
    }
    assert found["parts"] == 4 and "goes away" in found["wrong"]


WITHOUT = """
import json, sys, tempfile
from pathlib import Path
optional = "grain", "array_record", "faiss", "simplejpeg", "tensorboardX", "ml_collections"
sys.modules.update(dict.fromkeys(optional))
from benchmarks.device.plan import PLAN
from benchmarks.device.runner import At, report
def figures(*names):
    for one in PLAN:
        if one.name in names:
            print(json.dumps([one.name, report(one, At(Path(folder), True))]))
with tempfile.TemporaryDirectory() as folder:
    figures("matrix product", "mining")
    del sys.modules["ml_collections"]  # recipes are made of it
    figures("train cosplace: jaxvpr")
"""


@pytest.fixture
def as_a_user(monkeypatch):
    """Processes that are started have one device and mixed types, as a user has it."""
    for key in [key for key in os.environ if key.startswith("JAX_NUMPY_")]:
        monkeypatch.delenv(key)
    monkeypatch.delenv("XLA_FLAGS")


@pytest.mark.long
@pytest.mark.usefixtures("as_a_user")
def test_measurements_run_without_the_packages_they_do_not_need():
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert set(found) == {"matrix product", "mining", "train cosplace: jaxvpr"}
    assert not any(one["wrong"] for one in found.values())
    assert all(one["device"] == "cpu" and one["versions"]["jax"] for one in found.values())
    assert found["matrix product"]["figures"]["bfloat16 TFLOP/s"] > 0
    assert len(found["mining"]["figures"]["seconds"]) == 3
    step = found["train cosplace: jaxvpr"]["figures"]
    assert min(step["images_per_second"], step["from_host_images_per_second"], step["gflop_per_image"]) > 0
    assert {"bfloat16 HIGHEST", "float32 HIGHEST"} <= set(step["gflop_per_image_by_type"])


@pytest.mark.usefixtures("as_a_user")
def test_the_command_writes_lines_and_a_summary(monkeypatch, capsys, tmp_path):
    # PyTorch's side has no weights to start from where ours did not run.
    names = ["loader, one arena", "train salad: pytorch as published"]
    out = tmp_path / "a" / "b"
    monkeypatch.setattr(sys, "argv", ["device_check", "--tiny", "--only", *names, "--out", str(out)])
    device_check.main()
    printed = capsys.readouterr().out
    lines = [json.loads(text) for text in (out / "device_check.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == names and [line["status"] for line in lines] == ["ok", "failed"]
    assert lines[0]["device"] == "host" and min(lines[0]["figures"]["images_per_second"].values()) > 0
    assert "Error" in lines[1]["reason"]
    assert printed.startswith(json.dumps(lines[0])) and printed.endswith((out / "device_check.md").read_text())


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["device_check", "--only", "nonsense"])
    with pytest.raises(SystemExit, match="2"):
        device_check.main()
    assert "contains any of ['nonsense']" in capsys.readouterr().err


# Another case of what is measured anyway, or a ViT-B, which is never tiny.
ALIKE = (
    "dinov2",
    "float32: ",
    "train salad: pytorch",
    "train mixvpr: pytorch at its best",
    "train mixvpr: jaxvpr, heads",
)


@pytest.mark.torch
@pytest.mark.long
@pytest.mark.usefixtures("as_a_user")
def test_every_kind_of_measurement_runs_at_tiny_shapes(tmp_path):
    plan = [one for one in PLAN if not any(text in one.name for text in ALIKE)]
    lines = device_check.check(plan, 3000, True, tmp_path)
    assert [line["name"] for line in lines] == [one.name for one in plan]
    assert not [line for line in lines if line["status"] != "ok"]
    losses = {line["name"]: line["figures"]["first_loss"] for line in lines if line["name"].startswith("train ")}
    for case in ("cosplace", "salad", "mixvpr"):
        sides = [loss for name, loss in losses.items() if name.startswith(f"train {case}: ")]
        # A CPU computes our own variants alike; PyTorch's side never to the bit.
        other = any("pytorch" in name for name in losses if name.startswith(f"train {case}: "))
        assert len(sides) >= 2 and (np.ptp(sides) > 0 or not other) and np.ptp(sides) < 0.02 * sides[0], losses
