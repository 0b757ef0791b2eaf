"""Files of `torch.save`: read without torch and without running anything, and written so that torch loads them."""

import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.errors import UserError
from jaxvpr.weights import read, write


class Attack:
    """Unpickled by Python's own unpickler, this would make a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def zip_file(path, content):
    """A file with the outside of `torch.save` and any pickle inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
        archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("place", ["top", "nested", "beside"])
def test_a_malicious_pickle_runs_nothing(tmp_path, place):
    folder = tmp_path / "executed"
    attack = Attack(folder)
    content = {"top": attack, "nested": OrderedDict(w=attack), "beside": {"state_dict": {}, "epoch": attack}}[place]
    path = zip_file(tmp_path / "evil.pth", content)
    with pytest.raises(UserError, match=r"evil\.pth.*no tensors.*((posix|nt)\.mkdir|'w'|'epoch')"):
        read(path)
    assert not folder.exists()
    pickle.loads(pickle.dumps(attack))
    assert folder.exists(), "the attack itself must work, or this test shows nothing"


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "torch.load", "numpy.load", "functools.partial"])
def test_what_a_pickle_names_is_neither_imported_nor_called(tmp_path, name):
    module, attribute = name.split(".")
    path = tmp_path / "evil.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", f"c{module}\n{attribute}\n(V1\ntR.".encode())
    with pytest.raises(UserError, match=rf"evil\.pth.*no tensors.*{re.escape(name)}"):
        read(path)


def test_a_file_without_tensors_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.pth.*\['epoch'\].*state_dict\(\)"):
        read(zip_file(tmp_path / "a.pth", {"epoch": 3}))
    with pytest.raises(UserError, match=r"b\.pth.*no such file"):
        read(tmp_path / "b.pth")
    (tmp_path / "c.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"c\.onnx.*\.pth.*\.safetensors"):
        read(tmp_path / "c.onnx")
    (tmp_path / "d.pth").write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(UserError, match=r"d\.pth.*pickle.*torch\.save"):
        read(tmp_path / "d.pth")
    (tmp_path / "e.pth").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"e\.pth.*not a file.*torch\.save"):
        read(tmp_path / "e.pth")


def saved(path, content):
    import torch

    torch.save(content, path)
    return path


@pytest.mark.torch
def test_every_type_stride_and_shared_storage_of_torch(tmp_path):
    import torch

    base = torch.arange(24.0).reshape(4, 6)
    state = OrderedDict(
        whole=base,
        turned=base.T,
        part=base[1:3, ::2],
        scalar=torch.tensor(7),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(base[0].clone()),
        half=base.half(),
        brain=base.bfloat16(),
        truth=base > 5,
        spread=torch.ones(1, 3).expand(2, 3),
    )
    back = read(saved(tmp_path / "w.pth", state))
    assert set(back) == set(state)
    for name, tensor in state.items():
        expected = tensor.detach().float().numpy()
        np.testing.assert_array_equal(back[name].astype(np.float32), expected, err_msg=name)
    assert back["half"].dtype == np.float16 and back["brain"].dtype == ml_dtypes.bfloat16
    assert back["scalar"].dtype == np.int64 and back["truth"].dtype == np.bool_
    back["part"][:] = -1
    assert back["whole"].min() == 0, "tensors that shared a storage must not share memory here"


@pytest.mark.torch
@pytest.mark.parametrize("nest", ["model_state_dict", "state_dict", "model"])
def test_training_files_keep_their_model_under_a_key(tmp_path, nest):
    import torch

    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimiser = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2, 3, 5, 5)).sum().backward()
    optimiser.step()
    content = {
        "epoch_num": 4,
        nest: OrderedDict((f"module.{name}", tensor) for name, tensor in layer.state_dict().items()),
        "optimizer_state_dict": optimiser.state_dict(),
        "optimizers_state_dict": [optimiser.state_dict()],
        "best_val_recall1": np.float64(67.5),
        "recalls": torch.Size([1, 5]),
    }
    back = read(saved(tmp_path / "last.pth", content))
    assert set(back) == set(layer.state_dict())
    np.testing.assert_array_equal(back["0.weight"], layer[0].weight.detach().numpy())


@pytest.mark.torch
@settings(deadline=None, max_examples=15)
@given(share=st.floats(0, 0.99))
def test_a_torch_file_cut_short_or_damaged_is_an_error(tmp_path_factory, share):
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.ones(50, 50)}, buffer)
    data = buffer.getvalue()
    path = tmp_path_factory.mktemp("w") / "w.pth"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"cut short|not a file of torch"):
        read(path)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        read(path)


@pytest.mark.torch
def test_a_tensor_that_reaches_past_its_storage_is_an_error(tmp_path):
    import torch

    path = saved(tmp_path / "w.pth", {"a": torch.ones(2, 2)})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    assert entries[pickled].count(b"K\x02K\x02\x86") == 1
    entries[pickled] = entries[pickled].replace(b"K\x02K\x02\x86", b"K\x63K\x02\x86")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match=r"refused.*\b197\b.*\b4\b"):
        read(path)


@pytest.mark.torch
def test_torch_loads_what_we_write_and_we_read_it_without_torch(tmp_path):
    import torch

    path = tmp_path / "w.pth"
    write(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.zeros((), np.int64)})
    back = torch.load(path, weights_only=True)
    assert back["a"].tolist() == [[0, 3], [1, 4], [2, 5]] and back["n"].dtype == torch.int64
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from jaxvpr.weights import read\n"
        f"assert read({str(path)!r})['a'].tolist() == [[0, 3], [1, 4], [2, 5]]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
