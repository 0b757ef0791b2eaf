"""Forms of files that published weights have: of before PyTorch 1.6, lone tensors, a library's principal components."""

import pickle
import sys
from types import ModuleType

import jax
import numpy as np
import pytest

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import join
from jaxvpr.weights import read

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch
RNG = np.random.default_rng(0)


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


class Harm:
    """Unpickled by Python's own unpickler, this would end the program."""

    def __reduce__(self):
        return sys.exit, ("harmed",)


@pytest.fixture
def sklearn_pca(monkeypatch):
    """A class of scikit-learn's name that fails when its code runs, and is gone before the file is read."""

    class PCA:
        def __init__(self, **fields):
            self.__dict__.update(fields)

        def __setstate__(self, state):
            raise AssertionError("code of the file was run")

    PCA.__module__, PCA.__qualname__ = "sklearn.decomposition.pca", "PCA"
    for name in ("sklearn", "sklearn.decomposition", "sklearn.decomposition.pca"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["sklearn.decomposition.pca"].PCA = PCA
    yield PCA


def test_a_file_of_before_zips_reads_as_one_of_after(tmp_path):
    whole = torch.arange(20.0)
    model = {
        "module.turned": torch.randn(3, 4).T,
        "module.part": whole[5:9],
        "module.whole": whole,
        "module.count": torch.tensor(7),
        "module.half": torch.randn(3).half(),
        "module.learned": torch.nn.Parameter(torch.randn(2, 2)),
    }
    content = {"epoch": 3, "state_dict": model, "optimizer": {"lr": 1e-3, "betas": (0.9, 0.999), "state": {}}}
    torch.save(content, tmp_path / "new.pth")
    old, new = read(save_old(content, tmp_path / "old.pth.tar")), read(tmp_path / "new.pth")
    assert set(old) == {name.removeprefix("module.") for name in model}
    for name, tensor in new.items():
        assert old[name].dtype == tensor.dtype
        np.testing.assert_array_equal(old[name], tensor)
        np.testing.assert_array_equal(tensor, model[f"module.{name}"].detach())


def test_an_old_file_runs_nothing_and_tells_what_is_wrong(tmp_path):
    evil = save_old({"a": Harm(), "b": torch.ones(2)}, tmp_path / "evil.pth")
    np.testing.assert_equal(read(evil), {"b": np.ones(2, np.float32)})
    with pytest.raises(SystemExit, match="harmed"):
        pickle.loads(pickle.dumps(Harm()))
    path = save_old({"a": torch.randn(50), "b": torch.randn(3)}, tmp_path / "w.pth")
    data = path.read_bytes()
    for length in range(1, len(data), len(data) // 40):
        path.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"w\.pth.*damaged"):
            read(path)


def test_a_lone_tensor_is_named_by_its_file_and_fills_a_vocabulary(tmp_path):
    words = RNG.normal(size=(3, 8)).astype(np.float32)
    torch.save(torch.from_numpy(words), tmp_path / "c_centers.pt")
    model = join(
        backbone="resnet18",
        aggregator="vlad",
        backbone_options={"widths": (8,), "sizes": (1,), "cut": "layer1"},
        aggregator_options={"clusters": 3},
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    started = weights.init_from(variables, tmp_path / "c_centers.pt")
    np.testing.assert_array_equal(started["params"]["aggregator"]["centroids"], words)
    np.testing.assert_equal(started["params"]["backbone"], variables["params"]["backbone"])


@pytest.mark.parametrize("save", [torch.save, save_old], ids=["zip", "old"])
def test_principal_components_are_read_without_their_library(tmp_path, sklearn_pca, monkeypatch, save):
    mean, components = RNG.normal(size=8).astype(np.float32), np.asfortranarray(RNG.normal(size=(6, 8)))
    pca = sklearn_pca(
        mean_=mean,
        components_=components,
        explained_variance_=mean[:6] ** 2,
        noise_variance_=np.float64(0.5),
        whiten=True,
        random_state=None,
    )
    content = {"state_dict": {"module.fc.weight": torch.ones(2, 2)}, "pca": {"Landmarks_clean": pca}, "iter": 3}
    save(content, tmp_path / "apgem.pt")
    for name in ("sklearn.decomposition.pca", "sklearn.decomposition", "sklearn"):
        monkeypatch.delitem(sys.modules, name)
    found = read(tmp_path / "apgem.pt")
    prefix = "pca.Landmarks_clean."
    assert set(found) == {"fc.weight", *(prefix + name for name in ("mean_", "components_", "explained_variance_"))}
    np.testing.assert_array_equal(found[prefix + "mean_"], mean)
    np.testing.assert_array_equal(found[prefix + "components_"], components)
    np.testing.assert_array_equal(found[prefix + "explained_variance_"], mean[:6] ** 2)
