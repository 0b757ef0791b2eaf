"""GeoCLIP's released heads give the package's own embeddings, and go back unchanged."""

# ruff: noqa: E402

import importlib.util
import warnings

import jax
import numpy as np
import pytest

for needed in ("geoclip", "transformers", "pandas", "geopy"):  # it asks for the others where it is imported
    if importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed", allow_module_level=True)
torch = pytest.importorskip("torch")

from beside_torch import load

from jaxvpr import weights
from jaxvpr.cli import weight_source
from jaxvpr.models import join
from jaxvpr.models.positions import Gallery, GeoCLIP, area, coding_with, located, with_gallery
from jaxvpr.weights.files import read, write

load("transformers", "CLIPModel")
with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of torch, over the package's scripts
    package = load("geoclip.model.location_encoder")
pytestmark = [pytest.mark.torch, pytest.mark.long]

GLOBE = area((-90, -180, 90, 180))
# A pole's longitude, the ends of the date line, a gallery's finest digits.
AWKWARD = [(90, 0), (90, 77), (-90, 0), (0, 180), (0, -180), (0, 0), (89.99999, 179.99999), (-45, -180), (1e-6, -1e-6)]


@pytest.fixture(scope="module")
def gallery():
    file = weight_source.package_folder("geoclip") / "model" / "gps_gallery" / "coordinates_100K.csv"
    return np.loadtxt(file, delimiter=",", skiprows=1)


@pytest.fixture(scope="module")
def coordinates(gallery):
    some = np.random.default_rng(0).choice(len(gallery), 1000, replace=False)
    return np.concatenate([gallery[some], AWKWARD])


def normalised(coordinates):
    return np.stack(GLOBE.normalised(coordinates[:, 0], coordinates[:, 1]), -1)


@pytest.fixture(scope="module")
def head():
    return GeoCLIP(Gallery(GLOBE, size=1009))


@pytest.fixture(scope="module")
def shapes(head):
    made = jax.eval_shape(head.init, jax.random.key(0), np.zeros((1, 768), np.float32))
    return {collection: {"position": made[collection]} for collection in made}


@pytest.fixture(scope="module")
def released(shapes, coordinates):
    read_in = weights.init_from(shapes, weight_source.parse("pip:geoclip").file)
    return with_gallery(read_in, normalised(coordinates))


def exactly(coordinates):
    """The package's embeddings with float64 throughout, before they are of unit length."""
    encoder = package.LocationEncoder().double()
    with torch.no_grad():
        projected = package.equal_earth_projection(torch.from_numpy(coordinates))
        return sum(getattr(encoder, f"LocEnc{number}")(projected) for number in range(3)).numpy()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_locations_are_embedded_as_there(head, released, coordinates):
    """The finest scale turns up to 300 times over the globe, so that float32 angles are right to 1e-4 of a turn."""
    with torch.no_grad():
        theirs = unit(package.LocationEncoder()(torch.tensor(coordinates, dtype=torch.float32)).numpy())
    exact, ours = unit(exactly(coordinates)), coding_with(head, released).embeddings
    assert np.std(exact) > 0.03
    off, of_theirs = (np.abs(found - exact) for found in (ours, theirs))
    assert off.max() < 2e-4 and np.sqrt(np.mean(off**2)) < 1e-5
    assert np.sqrt(np.mean(off**2)) < 1.1 * np.sqrt(np.mean(of_theirs**2)), "no further from float64 than they are"
    np.testing.assert_allclose(ours, theirs, atol=4e-4)


def test_images_are_embedded_and_answered_as_there(head, released, coordinates):
    images = np.random.default_rng(1).normal(0, 0.5, (20, 768)).astype(np.float32)
    mlp = torch.nn.Sequential(torch.nn.Linear(768, 768), torch.nn.ReLU(), torch.nn.Linear(768, 512))
    folder = weight_source.parse("pip:geoclip").file
    mlp.load_state_dict(torch.load(folder / "image_encoder_mlp_weights.pth", weights_only=True))
    scale = float(torch.load(folder / "logit_scale_weights.pth", weights_only=True).exp())
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(mlp(torch.from_numpy(images)), dim=1).numpy()
    own = {collection: released[collection]["position"] for collection in released}
    raw = np.asarray(jax.jit(head.apply)(own, images))
    np.testing.assert_allclose(raw, scale * embedded, rtol=2e-5, atol=2e-5)
    logits = torch.from_numpy(scale * embedded @ unit(exactly(coordinates)).T)
    wanted = torch.topk(logits.softmax(-1), 5)
    at, probability = coding_with(head, released).best(raw, 5)
    np.testing.assert_allclose(probability, wanted.values.numpy(), rtol=2e-3)
    north, east = GLOBE.placed(at[..., 0], at[..., 1])
    np.testing.assert_allclose(np.stack([north, east], -1), coordinates[wanted.indices.numpy()], rtol=0, atol=2e-5)
    answers = located(coding_with(head, released), raw)
    np.testing.assert_array_equal(answers.north, north[:, 0])
    np.testing.assert_allclose(answers.confidence, probability[:, 0])


def test_names_go_both_ways_and_the_releases_single_file_is_the_same(released, shapes, tmp_path):
    back = weights.to_torch("geoclip_heads", released)
    whole = read(weight_source.parse("pip:geoclip").file)
    assert back.keys() == whole.keys() and len(whole) == 32
    for name, tensor in whole.items():
        np.testing.assert_array_equal(back[name].view(np.uint32), tensor.view(np.uint32))
    write(tmp_path / "model.safetensors", whole)
    again = weights.init_from(shapes, tmp_path / "model.safetensors")
    assert weights.guess_family(whole, shapes) == "geoclip_heads"
    leaves = zip(jax.tree.leaves(again["params"]), jax.tree.leaves(released["params"]), strict=True)
    assert all(np.array_equal(one, other) for one, other in leaves)


def test_a_whole_model_is_read_as_the_package_saves_its_own():
    """`GeoCLIP().state_dict()`, with a CLIP of another size: its queue of coordinates and its texts are left out."""
    from test_parity_clip import SMALL, original, tensors

    clip = {f"image_encoder.CLIP.{name}": tensor for name, tensor in tensors(original(3)).items()}
    heads = read(weight_source.parse("pip:geoclip").file)
    heads |= {"image_encoder.mlp.0.weight": np.zeros((768, 24), np.float32), "gps_queue": np.zeros((2, 4096))}
    options = {"area": (-90, -180, 90, 180), "size": 10, "hidden": 768}
    model = join(
        backbone="clip_vitl14", aggregator="cls", backbone_options=SMALL, position="geoclip", position_options=options
    )
    made = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 56, 56, 3), np.uint8))
    assert weights.guess_family({**clip, **heads, "gps_queue_ptr": np.zeros(1)}, made) == "geoclip"


def test_the_packages_gallery_is_that_of_the_globe(gallery):
    assert gallery.shape == (100_000, 2) and GLOBE.holds(gallery[:, 0], gallery[:, 1]).all()
