"""Principal components: as NumPy finds them, within their memory, and the same as a layer of the model."""

from pathlib import Path

import faiss
import jax
import numpy as np
import pytest

from data_pipelines.places import Paths
from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.fitting import pca as compress
from jaxvpr.fitting.pca import (
    Pca,
    affordable,
    fit,
    fold,
    last_part,
    peak_bytes,
    sample_size,
    sampled_descriptors,
    unfold,
    with_projection,
)
from jaxvpr.models import depends_on_batch, join
from jaxvpr.retrieval.extract import Described


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of these small matrices would wait for each other, for seconds where other tests run beside."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


SHAPES = {"more images than numbers": (300, 24), "more numbers than images": (40, 90)}


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def drawn(count, length, seed=0):
    """Unit vectors far from the origin, whose variance falls from direction to direction."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(length, length)))
    return unit(rng.normal(size=(count, length)) * 0.8 ** np.arange(length) @ turn + 3 * turn[0])


def eigen(x, dim):
    """Mean, the leading eigenvectors of the covariance and all eigenvalues, in float64."""
    values, vectors = np.linalg.eigh(np.cov(x.astype(np.float64).T))
    return x.mean(0, dtype=np.float64), vectors[:, ::-1][:, :dim].T, values[::-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_components_are_the_leading_eigenvectors_of_the_covariance(shape):
    x = drawn(*SHAPES[shape])
    mean, vectors, values = eigen(x, 5)
    pca = fit(x.copy(), 5)
    assert pca.weight.dtype == pca.bias.dtype == np.float32
    cosines = np.sum(pca.weight * vectors, 1)
    np.testing.assert_allclose(np.abs(cosines), 1, atol=1e-4)
    largest = np.abs(pca.weight).argmax(1)
    assert (pca.weight[np.arange(5), largest] > 0).all(), "the sign of a component is fixed"
    np.testing.assert_allclose(x @ pca.weight.T + pca.bias, (x - mean) @ pca.weight.T, atol=1e-5)
    np.testing.assert_allclose(np.var(x @ pca.weight.T, 0, ddof=1), values[:5], rtol=1e-3)
    assert pca.kept == pytest.approx(values[:5].sum() / values.sum(), abs=1e-4) and 0.3 < pca.kept < 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_whitened_components_have_a_variance_of_one_each_and_nothing_in_common(shape):
    x = drawn(*SHAPES[shape])
    plain, white = fit(x.copy(), 6), fit(x.copy(), 6, whiten=True)
    np.testing.assert_allclose(np.cov((x @ white.weight.T + white.bias).T), np.eye(6), atol=2e-3)
    np.testing.assert_allclose((x @ white.weight.T + white.bias).mean(0), 0, atol=1e-4)
    spread = np.std(x @ plain.weight.T, 0, ddof=1)
    np.testing.assert_allclose(white.weight * spread[:, None], plain.weight, atol=1e-3)


def test_by_hand():
    """Points on a cross with arms of 2 and 1 around (5, 7): its axes, turned so that each points up or right."""
    x = np.array([[7, 7], [3, 7], [5, 8], [5, 6]], np.float32)
    pca = fit(x.copy(), 1)
    np.testing.assert_allclose([*pca.weight[0], *pca.bias], [1, 0, -5], atol=1e-6)
    assert pca.kept == pytest.approx(8 / 10)
    white = fit(x.copy(), 1, whiten=True)
    # Variance 8 / 3 over three degrees of freedom.
    np.testing.assert_allclose([*white.weight[0], *white.bias], np.array([1, 0, -5]) / np.sqrt(8 / 3), atol=1e-6)


def test_again_is_the_same_to_the_bit_and_all_rows_count():
    """FAISS would draw 1000 rows for each number of a descriptor; the mean of these 2 x 1100 differs from theirs."""
    x = drawn(2500, 2)
    one, two = fit(x.copy(), 1), fit(x.copy(), 1)
    assert one.weight.tobytes() == two.weight.tobytes() and one.bias.tobytes() == two.bias.tobytes()
    np.testing.assert_allclose((x @ one.weight.T + one.bias).mean(), 0, atol=1e-6)
    _, vectors, _ = eigen(x, 1)
    np.testing.assert_allclose(np.abs(one.weight), np.abs(vectors), atol=1e-5)


def test_what_cannot_be_fitted():
    x = drawn(30, 8)
    with pytest.raises(UserError, match=r"\b30 descriptors.*\b40 numbers.*\b30 components"):
        fit(drawn(30, 40), 30)
    with pytest.raises(UserError, match=r"\b30 descriptors.*\b8 numbers.*\b9 components"):
        fit(x.copy(), 9)
    for whiten in (False, True):
        with pytest.raises(UserError, match=r"\b40 images.*\b3 directions.*pca\.dim=4\b"):
            fit(np.repeat(drawn(4, 8), 10, 0), 4, whiten=whiten)
    with pytest.raises(UserError, match=r"\b0 directions.*pca\.dim=2\b"):
        fit(np.ones((9, 4), np.float32), 2)
    x[3, 1] = np.nan
    with pytest.raises(UserError, match=r"descriptors.*finite"):
        fit(x, 2)


@pytest.mark.parametrize("whiten", [False, True])
def test_a_sketch_finds_the_same_components(whiten, monkeypatch):
    x = drawn(170, 400)
    exact = fit(x.copy(), 10, whiten=whiten)
    monkeypatch.setattr(compress, "EXACT", 100)
    assert compress.sketched(*x.shape[:1], 10, 400) == 74, "of 170 images"
    sketch = fit(x.copy(), 10, whiten=whiten)
    np.testing.assert_allclose(sketch.weight, exact.weight, atol=1e-3 * np.abs(exact.weight).max())
    np.testing.assert_allclose(sketch.bias, exact.bias, atol=1e-3 * np.abs(exact.bias).max())
    assert sketch.kept == pytest.approx(exact.kept, rel=1e-5) and sketch.weight.tobytes() != exact.weight.tobytes()
    again = fit(x.copy(), 10, whiten=whiten)
    assert again.weight.tobytes() == sketch.weight.tobytes()


def test_when_a_sketch_comes_first():
    assert compress.sketched(2**14, 512, 2**14) == 576 and compress.sketched(2**14, 4096, 2**16) == 4608
    assert compress.sketched(2**14, 512, 2048) == compress.sketched(2048, 512, 2**14) == 0, "FAISS needs seconds"
    assert compress.sketched(2**14, 2048, 4096) == 0, "2304 columns of 4096 would save nothing"


@pytest.mark.parametrize("length", [1, 60, 1024, 16384, 65536])
def test_as_many_images_as_the_memory_holds_and_no_more(length):
    for mib in (1, 100, 4096, 300_000):
        for images in (10, 2**14):
            count = affordable(images, 8, length, mib)
            assert 0 <= count <= images and (count == 0 or peak_bytes(count, 8, length) <= mib * 2**20)
            assert count == images or peak_bytes(count + 1, 8, length) > mib * 2**20


def test_the_benchmarks_descriptors_and_settings():
    """4096 MiB hold its 2^14 images of 16384 numbers, and 12430 of ResNet-50's 65536."""
    sizes = {"images": 2**14, "memory_mib": 4096}
    assert sample_size(50_000, dim=4096, length=2**14, **sizes) == 2**14
    assert affordable(2**14, 512, 1024, 4096) == 2**14
    # 2^32 = 4 n 65536 + 8 n 1152 + 12 65536 1152 + 12 1152^2
    assert sample_size(50_000, dim=1024, length=2**16, **sizes) == (2**32 - 12 * 2**16 * 1152 - 12 * 1152**2) // (
        2**18 + 8 * 1152
    )
    with pytest.raises(UserError, match=r"pca\.dim=99\b.*\b64 numbers.*\b64\b"):
        sample_size(1000, dim=99, length=64, **sizes)
    with pytest.raises(UserError, match=r"pca\.dim=64\b.*\b50 training images.*pca\.images=.*\b50\b"):
        sample_size(50, dim=64, length=64, **sizes)
    with pytest.raises(UserError, match=r"pca\.memory_mib=4\b.*\b21 descriptors.*\b16384\b"):
        sample_size(9000, dim=64, length=16384, images=2**14, memory_mib=4)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux counts it")
@pytest.mark.parametrize(("count", "length", "exact"), [(400, 16000, 2048), (3000, 600, 2048), (1200, 9000, 1024)])
def test_the_fit_holds_what_is_counted(count, length, exact, monkeypatch):
    """The largest memory of the process during a fit, above that before its descriptors were made."""

    def memory(which):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))

    monkeypatch.setattr(compress, "EXACT", exact)
    fit(drawn(30, 20), 3)  # threads of the linear algebra and their buffers are there already
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    x = np.empty((count, length), np.float32)
    np.random.default_rng(0).standard_normal(out=x, dtype=np.float32)
    fit(x, 8)
    assert memory("VmHWM") - before < 1.1 * peak_bytes(count, 8, length) + 8 * 2**20


class Recorder:
    """A describer whose descriptor of an image is its own number; some files cannot be read."""

    def __init__(self, unreadable=()):
        self.unreadable, self.asked = unreadable, []

    def __call__(self, variables, paths):
        rows = [int(Path(path).stem) for path in paths]
        self.asked.append(rows)
        x = np.tile(np.array(rows, np.float32)[:, None], (1, 3))
        missing = np.array([i for i, row in enumerate(rows) if row in self.unreadable], np.int64)
        x[missing] = 0
        return Described(x, missing)


def test_which_images_serve():
    paths = Paths.of([f"{i}.jpg" for i in range(200)], ".")
    sizes = {"dim": 2, "length": 3}
    describer = Recorder(unreadable=set(range(0, 200, 2)))
    x = sampled_descriptors(describer, None, paths, images=50, seed=4, **sizes)
    (asked,) = describer.asked
    assert len(set(asked)) == 50 and asked == sorted(asked) and max(asked) > 100, "random images, each once"
    np.testing.assert_array_equal(x[:, 0], [row for row in asked if row % 2])
    again, other = Recorder(), Recorder()
    sampled_descriptors(again, None, paths, images=50, seed=4, **sizes)
    sampled_descriptors(other, None, paths, images=50, seed=5, **sizes)
    assert again.asked == describer.asked != other.asked
    everything = Recorder()
    sampled_descriptors(everything, None, paths, **sizes)
    assert everything.asked == [list(range(200))]


def test_fewer_images_are_told(caplog):
    paths = Paths.of([f"{i}.jpg" for i in range(200)], ".")
    caplog.set_level("INFO", "jaxvpr")
    with pytest.raises(ValueError, match="broadcast"):  # a describer of 3 numbers
        np.broadcast_to(sampled_descriptors(Recorder(), None, paths, dim=2, length=4000, memory_mib=1), (200, 3))
    assert "the PCA takes 21 images: 200 would not fit in pca.memory_mib=1" in caplog.text


INNER = {
    "gem": {},
    "spoc": {},
    "netvlad": {"clusters": 3},
    "convap": {"dim": 4, "rows": 2, "columns": 1},
    "fc": {"inner": {"aggregator": "gem", "aggregator_options": {"p": 2.0}}, "dim": 9},
}
BACKBONE = {"backbone": "resnet18", "backbone_options": {"sizes": [1], "widths": [6], "cut": "layer1", "stem": "small"}}


def random_variables(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    rng = np.random.default_rng(1)
    made = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)
    return {**made, "batch_stats": jax.tree.map(np.square, made.get("batch_stats", {}))}


# Among the long ones, which are compiled as for users: without optimisations XLA rounds more than is allowed here.
@pytest.mark.long
@pytest.mark.parametrize("l2_after", [True, False])
@pytest.mark.parametrize("aggregator", INNER)
def test_a_folded_model_describes_as_the_pca_of_the_models_descriptors(aggregator, l2_after):
    options = {**BACKBONE, "aggregator": aggregator, "aggregator_options": INNER[aggregator], "l2_after": l2_after}
    model = join(**options)
    variables = random_variables(model)
    images = np.random.default_rng(2).integers(0, 256, (12, 32, 32, 3), np.uint8)
    plain = np.asarray(jax.jit(model.apply)(variables, images))
    for whiten in (False, True):
        pca = fit(plain.copy(), 4, whiten=whiten)
        folded_options, folded = with_projection(options, 4), fold(variables, pca)
        compressed = jax.jit(join(**folded_options).apply)
        expected = plain @ pca.weight.T + pca.bias
        expected = unit(expected) if l2_after else expected
        # Whitening enlarges the rounding of a descriptor by up to a thousand.
        size = np.linalg.norm(plain, axis=1).max()
        np.testing.assert_allclose(compressed(folded, images), expected, atol=1e-3 if whiten else 2e-5 * size)
    again = unfold(folded)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


HEADS: dict[str, dict] = {"cat": {}, "fc": {"frames": 2, "dim": 9}, "seqgem": {}}


@pytest.mark.parametrize("l2_after", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_behind_a_head_it_is_the_pca_of_clips_descriptors(head, l2_after):
    options = {**BACKBONE, "aggregator": "gem", "sequence": head, "sequence_options": HEADS[head], "l2_after": l2_after}
    model, rng = join(**options), np.random.default_rng(2)
    clips = rng.integers(0, 256, (9, 2, 16, 16, 3), np.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), clips)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype(np.float32), shapes)
    plain = np.asarray(model.apply(variables, clips))
    # By NumPy's SVD in float64, whose components have the sign that makes their largest number positive.
    centred = plain.astype(np.float64) - plain.mean(0, np.float64)
    components = np.linalg.svd(centred)[2][:3]
    expected = centred @ (components * np.sign(np.take_along_axis(components, abs(components).argmax(1)[:, None], 1))).T
    folded_options = with_projection(options, 3, frames=2)
    folded = fold(variables, fit(plain.copy(), 3), last_part(options))
    compressed = join(**folded_options)
    size = abs(expected).max()
    found = compressed.apply(folded, clips)
    np.testing.assert_allclose(found, unit(expected) if l2_after else expected, atol=1e-3 if l2_after else 1e-3 * size)
    again = unfold(folded, last_part(options))
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    made = jax.eval_shape(compressed.init, jax.random.key(0), clips)
    assert jax.tree.map(np.shape, folded) == jax.tree.map(np.shape, dict(made))
    if head != "seqgem":
        with pytest.raises(ValueError, match=r"a clip of 1 frames, but .* takes 2 frames"):
            compressed.apply(folded, clips[:, :1])


def test_statistics_and_a_look_across_the_batch_stay_where_the_inner_aggregator_finds_them():
    layer = Pca(np.ones((2, 4), np.float32), np.zeros(2, np.float32), 1.0)
    variables = {"params": {"backbone": {"a": 1}}, "batch_stats": {"backbone": {"b": 2}, "aggregator": {"c": 3}}}
    folded = fold(variables, layer)
    assert folded["batch_stats"] == {"backbone": {"b": 2}, "aggregator": {"inner": {"c": 3}}}
    assert set(folded["params"]["aggregator"]) == {"fc"} and folded["params"]["backbone"] == {"a": 1}
    assert unfold(folded) == variables
    across = {"backbone": "dinov2_vits14", "aggregator": "supervlad", "aggregator_options": {"layers": 1}}
    assert depends_on_batch(join(**across)) and depends_on_batch(join(**with_projection(across, 2)))
    alone = {**across, "aggregator_options": {"layers": 1, "cross_image": False}}
    assert not depends_on_batch(join(**with_projection(alone, 2)))


@pytest.mark.parametrize(
    ("family", "backbone", "layer", "shape"),
    [
        ("sfrs", "vgg16", "pca_layer", (5, 24, 1, 1)),
        ("netvlad_pytorch", "resnet18", "WPCA.0", (5, 18, 1, 1)),
        ("deep_vg", "resnet18", "aggregation.1", (5, 18)),
    ],
)
def test_a_compressed_netvlad_is_written_in_the_names_of_originals_with_such_a_layer(family, backbone, layer, shape):
    """SFRS and the port of NetVLAD keep it as a 1x1 convolution, the Deep VG benchmark as its fully connected layer."""
    own = BACKBONE if backbone == "resnet18" else {"backbone": "vgg16", "backbone_options": {"widths": (4, 4, 6, 8, 8)}}
    options = {**own, "aggregator": "netvlad", "aggregator_options": {"clusters": 3}}
    variables = random_variables(join(**options))
    rng = np.random.default_rng(3)
    pca = Pca(rng.normal(size=shape[:2]).astype(np.float32), rng.normal(size=5).astype(np.float32), 0.9)
    folded = fold(variables, pca)
    tensors = weights.to_torch(family, folded)
    assert tensors[f"{layer}.weight"].shape == shape
    np.testing.assert_array_equal(tensors[f"{layer}.weight"].reshape(shape[:2]), pca.weight)
    np.testing.assert_array_equal(tensors[f"{layer}.bias"], pca.bias)
    jax.tree.map(np.testing.assert_array_equal, weights.from_torch(family, tensors, folded), folded)
    if family == "deep_vg":
        assert weights.family_for(folded) == family
