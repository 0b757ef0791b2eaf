"""Distillation: the two losses by hand, a teacher that rests, and a student that comes nearer to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common, distill
from jaxvpr import builders, families, models, weights
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.families.distillation import device_rule, teacher_size
from jaxvpr.models.resizing import resize
from jaxvpr.objectives.distillation import LOSSES, cosine, similarity
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.runs import model_file, which
from jaxvpr.training import logs, loop
from jaxvpr.training.checkpoint import Checkpoints

# One residual block: what takes time here is compiling.
SHALLOW = {"widths": (8, 8, 8, 8), "cut": "layer1"}


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory):
    """The folder of a teacher of 16 dimensions, and its weights."""
    folder, recipe = tmp_path_factory.mktemp("teacher"), common.base().unlock()
    recipe.model.update(backbone="resnet_small", backbone_options=ConfigDict(SHALLOW))
    recipe.model.aggregator_options = ConfigDict({"dim": 16})
    recipe.image, recipe.seed = common.image((32, 32), "area"), 5
    variables = builders.initial_variables(recipe.lock())
    model_file.save_model(folder, recipe, variables)
    return folder, variables


@pytest.fixture
def config(tiny_config, teacher_run):
    """A student of 8 dimensions."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective = distill.teacher(str(teacher_run[0]))
    config.model.update(backbone_options=ConfigDict(SHALLOW), aggregator_options=ConfigDict({"dim": 8}))
    config.epochs, config.steps_per_epoch, config.batch = 2, 10, 16
    config.optimizer = config.optimizer_extra = common.optimizer("adam", 2e-2)
    return config.lock()


def unit(rng, *shape):
    z = rng.normal(size=shape).astype(np.float32)
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def test_cosine_by_hand():
    student, teacher = np.eye(3, 2, dtype=np.float32), np.array([[0.6, 0.8], [0, -1], [1, 0]], np.float32)
    student[2] = [1, 0]
    for rows, wanted in (((1, 1, 1), (0.4 + 2 + 0) / 3), ((1, 0, 1), 0.2), ((0, 0, 0), 0)):
        loss = cosine(jnp.asarray(student), jnp.asarray(teacher), jnp.array(rows, bool))
        assert float(loss) == pytest.approx(wanted, rel=1e-6)


def test_similarity_pair_by_pair():
    rng = np.random.default_rng(1)
    student, teacher = unit(rng, 6, 3), unit(rng, 6, 5)
    for mask in (np.ones(6, bool), np.array([1, 0, 1, 1, 0, 1], bool), np.arange(6) == 2):
        known = np.flatnonzero(mask)
        pairs = [(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i in known for j in known if i != j]
        loss = similarity(jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(mask))
        assert float(loss) == pytest.approx(np.mean(pairs) if pairs else 0, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_length_of_descriptors_does_not_count(loss):
    rng = np.random.default_rng(4)
    student, teacher, mask = unit(rng, 6, 3), unit(rng, 6, 3), jnp.ones(6, bool)
    longer = rng.uniform(0.5, 9, (2, 6, 1)).astype(np.float32)
    value = LOSSES[loss](jnp.asarray(student), jnp.asarray(teacher), mask)
    other = LOSSES[loss](jnp.asarray(longer[0] * student), jnp.asarray(longer[1] * teacher), mask)
    assert float(other) == pytest.approx(float(value), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_whoever_equals_the_teacher_stays(loss):
    z, mask = jnp.asarray(unit(np.random.default_rng(2), 7, 4)), jnp.arange(7) != 3
    value, gradient = jax.value_and_grad(LOSSES[loss])(z, z, mask)
    assert float(value) == 0 and not np.any(gradient)
    away = jax.grad(LOSSES[loss])(z + 0.1, z, mask)
    assert np.all(np.any(away, axis=1) == mask), "padded rows pull at nothing"


def trained(config, folder, monkeypatch, devices=1):
    """The losses of a run without validation, and the objective's arrays in its last checkpoint."""
    saved, save = [], Checkpoints.save

    def watched(self, step, state, *rest):
        saved.append(jax.device_get((state.extra, state.aux)))
        return save(self, step, state, *rest)

    with monkeypatch.context() as patched, jax.numpy_dtype_promotion("standard"):
        patched.setattr(Checkpoints, "save", watched)
        mesh = make_mesh(devices=jax.devices()[:devices])
        recipe = families.recipe(config, mesh, [])._replace(validate=lambda variables, extra: {})
        loop.train(config, folder, recipe, mesh)
    return [record["loss"] for record in logs.read(folder) if "loss" in record], saved[-1]


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_a_smaller_student_learns_and_the_teacher_rests(config, teacher_run, tmp_path, monkeypatch):
    losses, (extra, aux) = trained(config, tmp_path / "run", monkeypatch)
    assert len(losses) == 20 and np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert extra["projection"].shape == (1, 16, 8)
    assert same(aux["teacher"], teacher_run[1])


@pytest.mark.long
def test_devices_do_not_matter(config, tmp_path, monkeypatch):
    config = config.copy_and_resolve_references().unlock()
    config.epochs, config.steps_per_epoch, config.objective.loss = 1, 3, "similarity"
    one, (extra, _) = trained(config.lock(), tmp_path / "one", monkeypatch)
    eight, _ = trained(config, tmp_path / "eight", monkeypatch, devices=8)
    assert extra == {} and len(one) == 3
    np.testing.assert_allclose(one, eight, rtol=2e-4)


def test_the_teacher_sees_its_own_size(config, teacher_run):
    config.objective.teacher_size = (48, 40)
    objective = families.recipe(config, make_mesh(), []).objective
    teacher, variables = which.named(teacher_run[0])
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    student = builders.fresh_variables(config)
    outputs, _ = objective.embed(
        student["params"], student["batch_stats"], {"teacher": variables}, {"image": images}, jax.random.key(0)
    )
    shown = resize(jnp.asarray(images), (48, 40), "tensor_linear_antialias")
    wanted = builders.model(teacher).apply(variables, shown)
    np.testing.assert_allclose(outputs["teacher"], wanted, atol=1e-6)
    assert outputs["student"].shape == (2, 8)


def test_sizes_and_rules():
    recipe, keys = common.base(), distill.teacher("")
    for size, multiple, asked, wanted in (
        ((512, 512), 1, (), (512, 512)),
        ((), 1, (), (64, 96)),
        ((), 14, (), (70, 98)),
        ((322, 322), 14, (200, 210), (196, 210)),
    ):
        recipe.image, keys.teacher_size = common.image(size, "area", multiple=multiple), asked
        assert teacher_size(recipe, keys, (64, 96)) == wanted
    assert device_rule("tensor_linear") == "tensor_linear"
    assert device_rule("pil_bicubic") == "tensor_bicubic_antialias"
    assert device_rule("area") == "tensor_linear_antialias"


def zeros(config):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), builders.shapes(config))


def test_a_published_method_is_named_with_its_file(tmp_path):
    config, file = load_config("configs/zoo.py:cosplace-resnet18-32"), tmp_path / "resnet18_32.safetensors"
    weights.write(file, weights.to_torch("cosplace", zeros(config)), {})
    named, variables = which.named(f"cosplace-resnet18-32:{file}")
    assert named.method == "cosplace-resnet18-32" and named.init == str(file)
    assert not np.any(variables["params"]["backbone"]["conv1"]["kernel"])
    with pytest.raises(UserError, match=r"cosplace-resnet18-32.*no weights.*init=FILE"):
        which.named("cosplace-resnet18-32:")
    with pytest.raises(UserError, match=r"absent\.pth.*no such file"):
        which.named("cosplace-resnet18-32:absent.pth")


MISTAKES = {
    "objective.teacher=": r"objective\.teacher\b.*empty.*METHOD:FILE",
    "objective.teacher=nowhere/model.safetensors": r"nowhere/model\.safetensors.*no such file.*METHOD:FILE",
    "objective.loss=huber": r"objective\.loss='huber'.*\['cosine', 'similarity'\]",
    "objective.loss=similarity,accumulate=2": r"accumulate=2\b.*objective\.loss=similarity.*accumulate=1\b",
    "objective.teacher_size=(32,)": r"objective\.teacher_size=\(32,\).*\(height, width\)",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, config):
    for one in change.split(",") if "size" not in change else [change]:
        override(config, *one.split("="))
    with pytest.raises(UserError, match=MISTAKES[change]):
        families.recipe(config, make_mesh(), [])


def test_without_a_projection_the_dimensions_are_the_same(config):
    config.objective.projection = False
    objective = families.recipe(config, make_mesh(), []).objective
    with pytest.raises(UserError, match=r"\b8\b.*\b16\b.*objective\.projection=True"):
        objective.init(jax.random.key(0), 8)
    assert objective.init(jax.random.key(0), 16)[0] == {}


SMALL = {"width": 16, "depth": 1, "heads": 2}


def teacher_file(folder, size, **model):
    recipe = common.base().unlock()
    recipe.model.update(ConfigDict(model))
    recipe.image = common.image((size, size), "area")
    return model_file.save_model(folder, recipe.lock(), zeros(recipe))


def test_a_teacher_of_patches_wants_whole_ones(config, tmp_path):
    file = teacher_file(tmp_path, 28, backbone="dinov2_vits14", backbone_options=SMALL, aggregator="cls")
    config.objective.teacher = str(file)
    assert families.recipe(config, make_mesh(), []).objective.load_aux()["teacher"]["params"]
    config.objective.teacher_size = (30, 28)
    with pytest.raises(UserError, match=r"\b30x28\b.*objective\.teacher_size=\(height,width\)"):
        families.recipe(config, make_mesh(), [])


def test_a_teacher_that_looks_across_the_batch_is_refused(config, tmp_path):
    head = {"layers": 1, "heads": 2, "hidden": 8}
    small = {"backbone_options": SMALL, "aggregator": "cricavpr", "aggregator_options": head}
    config.objective.teacher = str(teacher_file(tmp_path, 168, backbone="dinov2_vits14", **small))
    with pytest.raises(UserError, match=r"objective\.teacher=.*\bbatch\b"):
        families.recipe(config, make_mesh(), [])


@pytest.mark.parametrize("preset", distill.PRESETS)
def test_presets_name_a_teacher(preset):
    config = distill.get_config(preset)
    assert config.name == f"distill-{preset.replace('_', '-')}" and config.objective.name in families.FAMILIES
    assert builders.shapes(config)["params"]
    method, colon, _ = config.objective.teacher.partition(":")
    assert not colon or method in models.METHODS
