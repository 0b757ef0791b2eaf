"""Models of clips describe as their originals do, and their weights go there and back unchanged."""

# ruff: noqa: E402

from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_cct
import torch_models as nets
import torch_pooling as heads
import torch_sequences as originals
import torch_vits
from torch import nn

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import join
from jaxvpr.models.non_local import KINDS, NonLocal
from jaxvpr.models.sequences.ordered import ClipEncoder, TemporalConv
from jaxvpr.models.sequences.pooling import Delta

pytestmark = pytest.mark.torch

# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
FRAMES, SIZES, WIDTHS = 3, (1, 1, 1, 1), (8, 8, 12, 16)
RESNET = {"backbone": "resnet18", "backbone_options": {"sizes": SIZES, "widths": WIDTHS, "cut": "layer1"}}
WHOLE_RESNET = {"backbone": "resnet18", "backbone_options": {"sizes": SIZES, "widths": WIDTHS}}
CCT = {
    "backbone": "cct14_224",
    "backbone_options": {"size": 64, "width": 24, "depth": 2, "heads": 3, "mlp_ratio": 2, "stem_width": 8},
}
SMALL = {"width": 24, "heads": 2, "depth": 2, "side": 4}
VIT = {"backbone": "vit_b16", "backbone_options": {**SMALL, "eps": 1e-12, "antialias": False, "pooler": True}}
TIME = {"backbone": "timesformer_b16", "backbone_options": {**SMALL, "frames": 2}, "aggregator": "cls"}


def resnet():
    return nn.Sequential(*list(nets.ResNet(nets.BasicBlock, SIZES, WIDTHS).children())[:5])


def cct():
    return torch_cct.CCT(64, 24, 2, 3, 2, 8)


def vit():
    return torch_vits.HuggingFaceViT(24, 2, 2, 16, 4)


def timesformer():
    return originals.TimeSformer(24, 2, 2, 16, 4, 2)


def clips(*parts, **options):
    return originals.Clips(*parts, FRAMES, **options)


def fc(inside):
    return nn.Sequential(nn.Flatten(), nn.Linear(FRAMES * inside, 7))


def gem():
    return nn.Sequential(nets.L2Norm(), nets.GeM(), nn.Flatten())


def jist(how):
    network = nets.ResNet(nets.BasicBlock, SIZES, WIDTHS)
    return originals.Jist(nets.CosPlaceNet(network, WIDTHS[-1], 10), how, FRAMES, 10)


def ours(backbone, aggregator, sequence, aggregator_options=None, l2_frames=False, **options):
    options = {"l2_frames": l2_frames, **options} if sequence != "joint" else options
    own = {"aggregator_options": aggregator_options or {}, "sequence": sequence, "sequence_options": options}
    return {**backbone, "aggregator": aggregator, "l2_after": False, **own}


GEM, NETVLAD, TOKENS = {"l2_before": True}, {"clusters": 5}, {"clusters": 5, "tokens": True}
OF_JIST = {"backbone": WHOLE_RESNET, "aggregator": "cosplace", "aggregator_options": {"dim": 10}, "l2_frames": True}
# family, the original, ours
CASES = {
    "seqvlad": (
        "vg_transformers",
        lambda: clips(resnet(), nn.Identity(), heads.NetVLAD(8, 5), joint=True),
        ours(RESNET, "netvlad", "joint", NETVLAD),
    ),
    "seqvlad of cct": (
        "vg_transformers_cct",
        lambda: clips(cct(), nn.Identity(), torch_cct.TokenNetVLAD(24, 5), joint=True),
        ours(CCT, "netvlad", "joint", TOKENS),
    ),
    "seqvlad of vit": (
        "vg_transformers_vit",
        lambda: clips(
            vit(), nn.Identity(), torch_cct.TokenNetVLAD(24, 5), joint=True,
            take=lambda found: found[0].flatten(2).transpose(1, 2),
        ),
        ours(VIT, "netvlad", "joint", TOKENS),
    ),
    "gem, cat": ("vg_transformers", lambda: clips(resnet(), gem(), nn.Identity()), ours(RESNET, "gem", "cat", GEM)),
    "gem, fc": (
        "vg_transformers",
        lambda: clips(resnet(), gem(), fc(8)),
        ours(RESNET, "gem", "fc", GEM, frames=FRAMES, dim=7),
    ),
    "netvlad, cat": (
        "vg_transformers_pooling",
        lambda: clips(resnet(), heads.NetVLAD(8, 5), nn.Identity()),
        ours(RESNET, "netvlad", "cat", NETVLAD),
    ),
    "cct, fc": (
        "vg_transformers_cct",
        lambda: pooled_by_itself(clips(cct(), nn.Identity(), fc(24))),
        ours(CCT, "seqpool", "fc", frames=FRAMES, dim=7),
    ),
    "vit, cat": (
        "vg_transformers_vit",
        lambda: clips(vit(), nn.Identity(), nn.Identity(), take=lambda found: found[1]),
        ours(VIT, "cls", "cat"),
    ),
    "timesformer": (
        "vg_transformers_timesformer",
        lambda: originals.VideoModel(timesformer(), FRAMES, encoder=True),
        {**TIME, "l2_after": False},
    ),
    "timesformer alone": (
        "timesformer", lambda: originals.VideoModel(timesformer(), FRAMES), {**TIME, "l2_after": False}
    ),
    "jist": ("jist", lambda: jist("seqgem"), ours(sequence="seqgem", **OF_JIST)),
    "jist, conv1d": ("jist", lambda: jist("conv1d"), ours(sequence="conv", width=FRAMES, **OF_JIST)),
    "jist, simplefc": ("jist", lambda: jist("simplefc"), ours(sequence="fc", frames=FRAMES, bias=False, **OF_JIST)),
    "jist, concat": ("jist", lambda: jist("concat"), ours(sequence="cat", frames=FRAMES, **OF_JIST)),
    "jist, mean": ("jist", lambda: jist("mean"), ours(sequence="mean", **OF_JIST)),
    "jist, max": ("jist", lambda: jist("max"), ours(sequence="max", **OF_JIST)),
}  # fmt: skip


def pooled_by_itself(model):
    """vg-transformers' `use_all_tokens`: CCT gives its attention pooling's vector."""
    model.take = model.encoder.classifier.pool
    return model


def some_clips(frames=FRAMES):
    """Fine and coarse noise: clips of the same statistics would look alike to a network of random weights."""
    found = np.random.default_rng(0).integers(0, 256, (2, frames, 64, 64, 3), np.uint8)
    found[1] = found[1, :, ::16, ::16].repeat(16, 1).repeat(16, 2)
    return found


def of_frames(shown):
    return nets.normalised(shown.reshape(-1, *shown.shape[2:]))


def blank(model, shown=None):
    shapes = jax.eval_shape(model.init, jax.random.key(0), some_clips() if shown is None else shown)
    return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_describes_as_the_original_and_goes_back(case, monkeypatch):
    family, make, options = CASES[case]
    table = weights.FAMILIES[family]
    unused = tuple((name, tuple(24 if n == 384 else n for n in shape)) for name, shape in table.unused)
    monkeypatch.setitem(weights.FAMILIES, family, table._replace(unused=unused))
    original, model = nets.randomise(make(), 1), join(**options)
    tensors = arrays(original)
    variables = weights.from_torch(family, tensors, blank(model))
    with torch.no_grad():
        expected = original(of_frames(some_clips())).numpy()
    found = np.asarray(jit(model.apply)(variables, some_clips()))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3, "the clips differ, and so must their descriptors"

    back = weights.to_torch(family, variables)
    make().load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in back.items()}, strict=True)
    idle = {name for name, _ in unused} if options["aggregator"] != "seqpool" else set()
    for name, tensor in tensors.items():
        if not name.endswith("num_batches_tracked") and name not in idle:
            np.testing.assert_array_equal(back[name].view(np.uint32), tensor.view(np.uint32))
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}  # as several GPUs save them
    guessed = weights.guess_family(tensors, blank(model))
    np.testing.assert_equal(weights.from_torch(guessed, tensors, blank(model)), variables)
    assert weights.guess_family(wrapped, blank(model)) == guessed


def test_a_timesformer_starts_from_a_vit_and_is_that_vit_for_one_frame(tmp_path):
    vit = nets.randomise(torch_vits.ViT(24, 2, 2, 16, 4), 1)
    file = tmp_path / "vit.safetensors"
    weights.write(file, arrays(vit))
    model = join(**TIME)
    fresh = jax.device_get(jax.jit(model.init)(jax.random.key(0), some_clips()))
    started = weights.init_from(fresh, file)
    block, original = started["params"]["backbone"]["blocks_1"], vit.blocks[1]
    np.testing.assert_array_equal(block["temporal_attn"]["qkv"]["kernel"].T, original.attn.qkv.weight.detach())
    np.testing.assert_array_equal(block["temporal_norm1"]["scale"], original.norm1.weight.detach())
    assert not block["temporal_fc"]["kernel"].any() and not started["params"]["backbone"]["time_embed"].any()

    # The same from what a training of our ViT leaves, whole or its backbone; a TimeSformer's own file keeps its own.
    images = join(backbone="vit_b16", backbone_options=SMALL, aggregator="cls")
    read = weights.init_from(blank(images, some_clips()[:, 0]), file)
    weights.write(own := tmp_path / "model.safetensors", weights.to_torch("jaxvpr", read))
    for pattern in (None, "backbone"):
        np.testing.assert_equal(weights.init_from(fresh, own, pattern), started)
    later = jax.tree.map(lambda leaf: leaf + 1, started)
    weights.write(own, weights.to_torch("jaxvpr", later))
    np.testing.assert_equal(weights.init_from(fresh, own, "backbone"), later)

    # A frame is described as the ViT does it, and a clip of one frame three times like that frame.
    frame = some_clips()[:, :1]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(vit(of_frames(frame))[1]).numpy()
    describe = jit(model.apply)
    for shown in (frame[:, 0], frame, frame.repeat(3, 1)):
        np.testing.assert_allclose(describe(started, shown), expected, atol=1e-5)
    with pytest.raises(UserError, match="timm_vit_over_time is read alone"):
        weights.to_torch("timm_vit_over_time", started)
    with pytest.raises(UserError, match=r"no name for.*temporal"):
        weights.to_torch("timm_vit", started)


@pytest.mark.parametrize("kind", KINDS)
def test_non_local_blocks(kind):
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 8)).astype(np.float32)
    blocks = {over: nets.randomise(originals.NonLocal(8, 4, 2.0, over), 1) for over in KINDS[kind]}
    params = {
        over: {
            name: {"kernel": part.weight.detach().numpy()[:, :, 0, 0, 0].T, "bias": part.bias.detach().numpy()}
            for name, part in block.named_children()
        }
        for over, block in blocks.items()
    }
    x = torch.from_numpy(maps).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        for block in blocks.values():
            x = block(x)
    ours = NonLocal(kind, bottleneck=4, weight=2.0)
    np.testing.assert_allclose(jit(ours.apply)({"params": params}, maps), x.permute(0, 2, 3, 4, 1), atol=1e-5)
    started = ours.init(jax.random.key(0), maps)
    np.testing.assert_array_equal(ours.apply(started, maps), maps)


def test_seqnet_and_its_names():
    original = nets.randomise(originals.SeqNet(6, 4, 3), 1)
    shown = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    tensors, head = arrays(original), TemporalConv(width=3, dim=4)
    made = {"params": {"sequence": head.init(jax.random.key(0), shown)["params"]}}
    variables = weights.from_torch("seqnet", tensors, made)
    found = np.asarray(jit(head.apply)({"params": variables["params"]["sequence"]}, shown))
    with torch.no_grad():
        expected = original(torch.from_numpy(shown)).numpy()
    np.testing.assert_allclose(found / np.linalg.norm(found, axis=1, keepdims=True), expected, atol=1e-6)
    np.testing.assert_equal(weights.to_torch("seqnet", variables), tensors)


@pytest.mark.parametrize("frames", [2, 5])
def test_delta_descriptors(frames):
    """`Delta` of SeqNet's code: -2 / F for the first floor(F / 2) frames, 2 / F for the others."""
    shown = np.random.default_rng(0).normal(size=(2, frames, 6)).astype(np.float32)
    factors = torch.ones(frames) / (frames / 2)
    factors[: frames // 2] *= -1
    expected = torch.from_numpy(shown).permute(0, 2, 1) @ factors
    np.testing.assert_allclose(Delta().apply({}, shown), expected, atol=1e-6)


def test_the_encoder_is_pytorchs_behind_a_class_token():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    original = nets.randomise(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 1)
    shown = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    head = ClipEncoder(layers=2, heads=2, hidden=16, frames=3)
    params = jax.tree.map(np.asarray, head.init(jax.random.key(0), shown)["params"])
    for i, torch_layer in enumerate(original.layers):
        for name, tensor in torch_layer.state_dict().items():
            *path, leaf = name.split(".")
            ours = params["encoder"][f"layers_{i}"]
            for part in path:
                ours = ours[part]
            key = leaf if leaf in ours else {"weight": "kernel" if "kernel" in ours else "scale"}[leaf]
            ours[key] = tensor.numpy().T if key == "kernel" else tensor.numpy()
    tokens = np.concatenate(
        [np.broadcast_to(params["encoder"]["cls_token"], (2, 1, 8)), shown + params["positions"]], 1
    )
    with torch.no_grad():
        expected = original(torch.from_numpy(tokens))[:, 0].numpy()
    np.testing.assert_allclose(jit(head.apply)({"params": params}, shown), expected, atol=1e-5)
