"""The command line: what it understands, and that a mistake is answered by name with what exists."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import objectives
from data_pipelines.progress import _Unbroken
from jaxvpr import families
from jaxvpr.cli import checks
from jaxvpr.cli.arguments import parse
from jaxvpr.cli.overrides import override
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.cli.recipes import load_config
from jaxvpr.cli.verbs import VERBS, flags_of
from jaxvpr.errors import UserError
from jaxvpr.main import runs

ROOT = Path(__file__).resolve().parents[2]


def test_verb_flags_and_changes(tiny_recipe):
    command = parse(
        ["evaluate", f"--config={tiny_recipe},batch=16", "--workdir", "some/where", "--config.optimizer.rate=1",
         "--config.image.size", "(48,64)", "--config.eval.recalls=5", "--config.val_data.val.thresholds=25m,10m",
         "--config.loader.on_error=skip", "--config.model.backbone_options.frozen_bn=fixed"]
    )  # fmt: skip
    config = command.config
    assert (command.verb, command.workdir, command.hosts) == ("evaluate", Path("some/where"), ("", 0, -1))
    absent = {"database": (), "queries": (), "reader": Reader(), "threshold": None, "out": None, "overwrite": False}
    assert command.flags == {"checkpoint": "best", **absent, "clips": None, "dry_run": False}
    assert parse([f"--config={tiny_recipe}", "--dry-run"]).flags == {"dry_run": True}
    assert (config.batch, config.image.size, config.eval.recalls) == (16, (48, 64), (5,))
    assert config.optimizer.rate == 1.0 and isinstance(config.optimizer.rate, float)
    assert config.val_data.val.thresholds == ("25m,10m",) and config.loader.on_error == "skip"
    assert config.model.backbone_options.frozen_bn == "fixed", "a group of free options takes a new key"
    assert config.is_locked and config.model.backbone_options.is_locked
    assert parse([f"--config={tiny_recipe}"]).verb == "train"
    several = ["--coordinator=a:1", "--processes=2", "--process", "1"]
    assert parse([f"--config={tiny_recipe}", *several]).hosts == ("a:1", 2, 1)


def test_values_of_flags_have_their_types(tiny_recipe):
    folders = ["--database=d", "--queries=q", "--threshold=10m", "--threshold=2m_30deg"]
    assert parse(["evaluate", f"--config={tiny_recipe}", *folders]).flags["threshold"] == ["10m", "2m_30deg"]
    flags = parse(["localize", f"--config={tiny_recipe}", "--images=i", "--database=d.npy", "--top", "3"]).flags
    given = {"images": ["i"], "reader": Reader(), "database": Path("d.npy"), "top": 3}
    photos = {"track": False, "every": None, "speed": None}
    assert flags == {"checkpoint": "best", "out": None, "overwrite": False, **given, **photos}
    given = {"images": ["i"], "reader": Reader(), "out": Path("d.npy"), "overwrite": True}
    switched = parse(["extract", f"--config={tiny_recipe}", "--overwrite", "--images=i", "--out=d.npy"])
    assert switched.flags == {"checkpoint": "best", "clips": None, "dry_run": False, **given}
    several = ["--images=i", "--images=j", "--out=o.npy", "--reader=csv,columns.path=7,columns.lat=Y,file=8,zone=33"]
    flags = parse(["extract", f"--config={tiny_recipe}", *several]).flags
    assert flags["images"] == ["i", "j"]
    assert flags["reader"] == Reader("csv", {"columns": {"path": "7", "lat": "Y"}, "file": "8", "zone": 33})
    one = ["--images=i", "--out=o.npy", "--reader=at_names,folders=database"]
    read = parse(["extract", f"--config={tiny_recipe}", *one]).flags["reader"]
    assert read == Reader("at_names", {"folders": ("database",)})
    sweep = parse(["sweep", "--config=configs/sweeps/mining.py:city,init=,seed=5", "--config.image.size=(32,32)"])
    assert sweep.config.name == "mining-city" and {run.config.image.size for run in sweep.config.runs} == {(32, 32)}
    assert [run.seed for run in sweep.config.runs[:3]] == [5, 6, 7]


def test_every_verb_takes_its_flags():
    """`main` calls each by the names of its flags."""
    table = runs()
    assert set(table) == set(VERBS)
    for verb, run in table.items():
        parameters = list(inspect.signature(run).parameters.values())
        assert parameters[0].name == ("sweep" if verb == "sweep" else "config") and parameters[1].name == "folder"
        assert [one.name for one in parameters[2:]] == [flag.key for flag in VERBS[verb].flags], verb
        needed = {one.name for one in parameters[2:] if one.default is inspect.Parameter.empty}
        assert needed >= {flag.key for flag in VERBS[verb].flags if flag.required}


def test_shipped_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/cosplace.py:tiny", "cosplace.py:tiny"):
        assert load_config(name).name == "cosplace-tiny"


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["--config=configs/cosplace.py", "--help"]])
def test_help_lists_the_verbs_and_needs_nothing(door, arguments):
    status, out, err = door(*arguments)
    assert status == 0 and not err
    for verb, described in VERBS.items():
        assert re.search(rf"^ +{verb}\s+{described.summary.split()[0]}", out, re.M), verb
    assert "configs/cosplace.py" in out and "configs/sweeps/losses.py" in out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_says_what_it_does_its_flags_and_an_example(door, verb):
    status, out, _ = door(verb, "--help")
    assert status == 0 and " ".join(out.split()).count(VERBS[verb].summary) == 1
    assert all(f"--{flag.name} " in out for flag in flags_of(verb)) and VERBS[verb].example in out
    others = {flag.name for other in VERBS for flag in flags_of(other)} - {flag.name for flag in flags_of(verb)}
    assert not any(f"  --{name} " in out for name in others)


def test_an_example_of_a_verb_is_a_command_that_makes_sense(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").touch()
    for verb, described in VERBS.items():
        assert parse(described.example.split()[1:]).verb == verb


def test_a_mistake_is_answered_without_jax():
    """Of every verb, and of none."""
    program = (
        "import sys; from jaxvpr.main import main; found = [main(one.split('|')) for one in sys.argv[1:]]; "
        "print(found, {'jax', 'flax', 'torch', 'scipy'} & set(sys.modules))"
    )
    wrong = ["trian", "--config=configs/cosplace.py|--config.bach=3", "evaluate|--config=x.py"]
    wrong += [f"{verb}|--a=3" for verb in VERBS]
    command = [sys.executable, "-c", program, *wrong]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stdout == f"{[2] * len(wrong)} set()\n" and done.stderr.count("error: ") == len(wrong), done.stderr


EXTRACT = ("extract", "--config=R", "--images=i", "--out=o.npy")
MISTAKES = {
    "verb": (["trian"], r"'trian': did you mean train\? There are train, evaluate, extract, loc"),
    "two verbs": (["train", "extract", "--config=R"], "'extract' is not expected.*one verb"),
    "verb behind flags": (["--config=R", "extract"], "'extract' is not expected.*verb comes first"),
    "flag": (["--confg=R"], r"--confg: did you mean --config\? There are --config, --workdir"),
    "flag of one verb": (["evaluate", "--config=R", "--top=3"], "evaluate has no flag --top; localize has it"),
    "flag of others": (["--config=R", "--out=x"], "train has no flag --out; evaluate, extract, .*smoothness have it"),
    "shortened flag": (["--config=R", "--work=x"], "--work: did you mean --workdir"),
    "flag without value": (["--config"], "--config: needs a value"),
    "change without a value": (["--config=R", "--config.seed"], "--config.seed=VALUE"),
    "flag with nothing": (["--config=R", "--workdir="], "--workdir: needs a value"),
    "flag eats no other flag": (["--workdir", "--config=R"], "--workdir: needs a value"),
    "no recipe": (["train"], r"--config=FILE.*configs/cosplace\.py"),
    "no images": (["extract", "--config=R", "--out=x.npy"], "extract needs --images=FOLDER"),
    "one folder": (["evaluate", "--config=R", "--queries=x"], "--database.*--queries.*together"),
    "threshold of a recipe": (["evaluate", "--config=R", "--threshold=1m"], r"--database.*test_data\.NAME\.thresholds"),
    "reader": ([*EXTRACT, "--reader=csb"], r"--reader: no reader 'csb'; there are \['at_names'.*'csv'"),
    "reader's option": (
        [*EXTRACT, "--reader=csv,fil=a.csv"],
        r"--reader: the reader csv has no option \['fil'\].*'file'",
    ),
    "option without value": ([*EXTRACT, "--reader=csv,file"], r"--reader: expected OPTION=VALUE .*'file'"),
    "option of another type": ([*EXTRACT, "--reader=csv,columns=a"], r"columns='a' is not names and their values"),
    "part of an option": ([*EXTRACT, "--reader=frames,every.a=1"], r"every=.* is not an integer"),
    "zone": ([*EXTRACT, "--reader=csv,zone=33U"], r"there is no UTM zone '33U': expected .* 33north"),
    "reader of a recipe": (["evaluate", "--config=R", "--reader=csv"], r"--database.*test_data\.NAME\.reader=csv"),
    "recipe": (["--config=cosplce.py"], r"'cosplce\.py'.*: did you mean configs/cosplace\.py\? There are conf"),
    "recipe like none": (["--config=no.py"], r"'no\.py'.*package\. There are configs/apgem\.py"),
    "preset": (["--config=configs/cosplace.py:cty"], r"preset 'cty': did you mean city\? There are city, tiny"),
    "key": (["--config=R,bach=3"], r"config\.bach: did you mean batch\? There are accumulate"),
    "key with another word": (["--config=R,weight=a.pth"], r"config\.weight: did you mean weights\? There are acc"),
    "method": (["--config=configs/zoo.py:salad"], r"'salad': did you mean salad-dinov2s or .*There are netvlad-vgg16"),
    "open bracket": (["--config=R,image.size=(32,32"], r"closing \) is missing in image\.size=\(32,32;"),
    "open quote": (["--config=R,frozen=('a"], r"closing ' is missing in frozen=\('a;"),
    "set to drop": (["--config=R,val_data.vla={}"], r"config\.val_data\.vla to drop: did you mean val\?"),
    "key of a new set": (["--config=R,test_data.x.rot=a"], r"config\.test_data\.x\.rot: did you mean root\?"),
    "key in a set as a dict": (["--config=R,train_data={'rot':1}"], r"config\.train_data\.rot: did you mean root\?"),
    "inner key": (["--config=R", "--config.model.backbon=x"], r"config\.model\.backbon\b.*\bbackbone\b"),
    "outer key": (["--config=R", "--config.modle.backbone=x"], r"config\.modle\b.*\bmodel\b.* There are acc"),
    "key below a value": (["--config=R", "--config.batch.size=3"], r"\bkey\b.*config\.batch\.size"),
    "value of another type": (["--config=R", "--config.batch=many"], r"config\.batch='many'.*\bint\b"),
    "bool for a number": (["--config=R", "--config.batch=true"], r"config\.batch='true'.*\bint\b"),
    "a tuple cut short": (["--config=R", "--config.image.size=(48,48"], r"image\.size='\(48,48' is not a tuple of int"),
    "a dict without its quotes": (
        ["--config=R", "--config.optimizer.options={nesterov:True}"],
        r"optimizer\.options=\{nesterov:True\} is not a dict.*single ones",
    ),
    "patterns that are none": (["--config=R", "--config.frozen=3"], r"config\.frozen=\(3,\) must be patterns.*got 3"),
    "a factor in words": (
        ["--config=R", "--config.optimizer.factors=(('a','b'),)"],
        r"config\.optimizer\.factors must be pairs.*\('a', 'b'\)",
    ),
    "a rate below 0": (["--config=R", "--config.optimizer.rate=-1"], r"config\.optimizer\.rate=-1\.0.*at least 0"),
    "a warm-up below 0": (
        ["--config=R", "--config.objective.margin_warmup=-1"],
        r"config\.objective\.margin_warmup=-1\.0 must be from 0 to 1",
    ),
    "no name": (["--config=R", "--config.name="], r"config\.name=''.*folder in runs/"),
    "a name that is a path": (["--config=R", "--config.name=../x"], r"config\.name='\.\./x'.*without slashes"),
    "items of another type": (["--config=R", "--config.image.size=('a',3)"], r"config\.image\.size='a'.*\bint\b"),
    "a whole group": (["--config=R", "--config.loader=3"], r"config\.loader\b.*\['on_error'"),
    "change without value": (["--config=R,seed"], "key=value.*'seed'"),
    "too small": (["--config=R", "--config.accumulate=0"], r"config\.accumulate=0\b.*\b1\b"),
    "one number for a size": (
        ["--config=R", "--config.image.size=32"],
        r"config\.image\.size=\(32,\).*\(height, width\)",
    ),
    "three numbers for a size": (
        ["--config=R", "--config.image.size=(32,32,3)"],
        r"config\.image\.size=\(32, 32, 3\).*\(height, width\)",
    ),
    "resize rule": (
        ["--config=R", "--config.image.resize=tensor_cubic"],
        r"config\.image\.resize.*'tensor_cubic'.*pil_bilinear, .*, tensor_bicubic_antialias",
    ),
    "multiple": (["--config=R", "--config.image.multiple=0"], r"config\.image\.multiple=0\b.*\b1\b"),
    "too small to crop": (
        ["--config=R", "--config.image.size=(20,9)", "--config.image.multiple=14", "--config.image.crop=true"],
        r"config\.image\.crop=True.*\b14\b.*config\.image\.size=\(20, 9\)",
    ),
    "colours": (["--config=R", "--config.image.mean=0.5"], r"config\.image\.mean=\(0\.5,\).*\[0, 1\]"),
    "no spread": (
        ["--config=R", "--config.image.std=(1.0,0.0,1.0)"],
        r"config\.image\.std=\(1\.0, 0\.0, 1\.0\) must be above 0",
    ),
    "no recall": (["--config=R", "--config.eval.recalls=()"], r"config\.eval\.recalls=\(\).*recall@N"),
    "crop beyond the image": (["--config=R", "--config.augment.scale=(2,3)"], r"config\.augment\.scale=\(2"),
    "measure": (
        ["--config=R", "--config.best.measure=val/R@4"],
        r"config\.best\.measure='val/R@4'.*val/R@1, val/R@5, val/R@10.*\bR@N",
    ),
    "measure of another set": (
        ["--config=R", "--config.best.measure=test/R@5"],
        r"config\.best\.measure='test/R@5'.*val/R@1",
    ),
    "patience": (["--config=R", "--config.best.patience=-1"], r"config\.best\.patience=-1\b.*\b0\b"),
    "weights": (["--config=R", "--config.init=no.pth"], r"config\.init=no\.pth: no such file"),
    "broken pattern": (["--config=R", "--config.frozen=('(',)"], r"config\.frozen.*'\('.*regular expression"),
    "factors that are no pairs": (
        ["--config=R", "--config.optimizer.factors=('a',2)"],
        r"config\.optimizer\.factors.*pairs.*'a'",
    ),
    "number": (["localize", "--config=R", "--images=x", "--database=y", "--top=few"], "--top: 'few' is not an integer"),
    "hosts that would train alone": (["--config=R", "--processes=2", "--process=1"], "need --coordinator=HOST:PORT"),
    "hosts that auto would count": (["--config=R", "--coordinator=auto", "--processes=2"], "leave them out"),
    "no address": (
        ["--config=R", "--coordinator=a", "--processes=2", "--process=0"],
        "--coordinator=a must be HOST:PORT",
    ),
    "a path that is none": (["--config=R", "--workdir=a\0b"], r"'--workdir=a\\x00b' holds a NUL"),
    "a seed without end": (["--config=R", f"--config.seed={10**20}"], r"config\.seed must be at most 4294967295"),
    "brackets without end": (["--config=R", f"--config.batch={'-' * 10**5}1"], r"config\.batch='-+ is not of type int"),
    "not finite": (["--config=R", "--config.optimizer.rate=1e999"], r"config\.optimizer\.rate=inf must be finite"),
    "an option out of range": (["--config=R", "--config.optimizer.options.b1=2"], r"options\.b1=2 must be .*below 1"),
    "a scale below 0": (
        ["--config=R", "--config.objective.scale=-3"],
        r"objective\.scale=-3\.0 must be above 0",
    ),
    "steps without end": (
        ["--config=R", f"--config.epochs={2**31}"],
        r"epochs x config\.steps_per_epoch = \d+ must",
    ),
    "a key of options that is none": (
        ["--config=R", "--config.model.backbone_options={'a.b': 1}"],
        r"config\.model\.backbone_options: 'a\.b' is no key",
    ),
    "no threshold": (
        ["--config=R", "--config.val_data.val.thresholds=()"],
        r"val_data\.val\.thresholds=\(\).*25m",
    ),
    "several at once": (
        ["--config=R,batch=0,optimizer.rate=-1", "--config.name=a/b"],
        r"3 mistakes(?s:.)*batch=0(?s:.)*rate=-1\.0(?s:.)*config\.name='a/b'",
    ),
    "hosts": (["--config=R", "--coordinator=localhost:1"], r"--coordinator=localhost:1\b.*--processes=N.*--process=0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_by_name(mistake, refused, tiny_recipe):
    arguments, answer = MISTAKES[mistake]
    said = refused(*(argument.replace("=R", f"={tiny_recipe}", 1) for argument in arguments))
    assert re.search(answer, said), said


def test_what_ends_a_run_is_looked_at_where_one_is_trained(tiny_recipe):
    for measure in ("", "R@5", "val/R@10"):
        assert parse([f"--config={tiny_recipe},best.measure={measure}"]).config.best.measure == measure
    assert parse(["evaluate", f"--config={tiny_recipe},best.measure=R@5,eval.recalls=1"]).config.eval.recalls == (1,)
    config = load_config(f"{tiny_recipe},best.patience=3").unlock()
    checks.check_training(config)
    config.val_data = ConfigDict({})
    with pytest.raises(UserError, match=r"config\.best\.patience=3\b.*val_data"):
        checks.check_training(config)
    config.best.patience, config.best.measure = 0, "R@5"
    with pytest.raises(UserError, match=r"'R@5'.*val_data"):
        checks.check_training(config)


MADE = "from configs import common\ndef get_config(preset):\n    config = common.base().unlock()\n    "
NO_RECIPES = {
    "import nothere": "'nothere'",
    "def get_config(:": r"Python.*\bsyntax\b",
    "x = 1": r"get_config\(preset\)",
    "get_config = 3": r"get_config\(preset\)",
    "1 / 0": r", line 1: ZeroDivisionError: division by zero",
    "def get_config(preset):\n    return {}['x']": r", line 2: KeyError: 'x'",
    "def get_config(preset):\n    raise SystemExit": r", line 2: SystemExit",
    "def get_config(): return 1": r"TypeError: get_config\(\) takes 0.*1 was given",
    "def get_config(preset): return 3": r"must return a ConfigDict.*common\.base\(\), not 3",
    f"{MADE}config.bach = 3": r"must return a ConfigDict.*not None",
    f"{MADE}config.batch = 'x'": r", line 4: TypeError: .*'batch'",
    f"{MADE}config.lock().bach = 3": r', line 4: AttributeError: .*"bach"',
    f"{MADE}del config['optimizer'], config.image['size']\n    return config": r"lacks image\.size, optimizer;",
}


@pytest.mark.parametrize("text", NO_RECIPES)
def test_recipes_that_are_none(refused, tmp_path, text):
    file = tmp_path / "recipe.py"
    file.write_text(text)
    said = refused(f"--config={file}")
    assert said.startswith(str(file)) and re.search(NO_RECIPES[text], said), said


def test_a_float_takes_an_integer_and_text_stays_text():
    config = ConfigDict({"rate": 0.5, "name": "x", "flag": False, "options": {}, "none": ()}).lock()
    for key, text in (("rate", "2"), ("name", "7"), ("flag", "True"), ("options.deep", "[1, 2]"), ("none", "a")):
        override(config, key, text)
    assert config.to_dict() == {"rate": 2.0, "name": "7", "flag": True, "options": {"deep": [1, 2]}, "none": ("a",)}
    with pytest.raises(UserError, match=r"\bkey\b.*config\.new\b"):
        override(config, "new", "1")


def test_a_family_of_ones_own_may_bring_the_measures_that_end_a_run(tiny_recipe):
    config = load_config(f"{tiny_recipe},best.patience=3,best.measure=R@5,val_data={{}}").unlock()
    config.objective = ConfigDict({"name": "mine"})
    checks.check_training(config)
    assert set(objectives.SHIPPED) == set(families.FAMILIES)


def run_by(*arguments, **streams):
    command = [sys.executable, "-m", "jaxvpr.main", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, text=True, **streams)


def test_a_reader_that_left_stops_nothing():
    """As `| head -1`: no traceback, and the status is that of the work."""
    reads, writes = os.pipe()
    os.close(reads)
    helped = run_by("--help", stdout=writes, stderr=subprocess.PIPE)
    assert (helped.returncode, helped.stderr) == (0, "")
    with os.fdopen(writes, "w") as stream:
        kept = _Unbroken(stream)
        for _ in range(3):
            print("x" * 100_000, file=kept, flush=True)
        assert not kept.isatty() and kept.encoding == stream.encoding


@pytest.mark.long
def test_no_cluster_is_found(tiny_recipe):
    done = run_by(f"--config={tiny_recipe}", "--coordinator=auto", capture_output=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    message = r"(?s)--coordinator=auto found no cluster.*SLURM.*--coordinator=HOST:PORT"
    assert re.search(message, done.stderr), done.stderr
