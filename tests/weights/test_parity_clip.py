"""CLIP's vision transformer gives the features of Hugging Face's, and its names go both ways."""

# ruff: noqa: E402

import importlib.util
from functools import partial

import jax
import numpy as np
import pytest

if importlib.util.find_spec("transformers") is None:
    pytest.skip("transformers is not installed", allow_module_level=True)
torch = pytest.importorskip("torch")

from beside_torch import load
from PIL import Image
from torch_models import randomise

from data_pipelines.images import resize
from jaxvpr import weights
from jaxvpr.models import join
from jaxvpr.models.costs import parameter_count

transformers = load("transformers", "CLIPModel")
pytestmark = [pytest.mark.torch, pytest.mark.long]

# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SIDE = 4
SMALL = {"width": 64, "depth": 2, "heads": 4, "side": SIDE, "projection": 24}


def original(seed, **changes):
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {**sizes, "image_size": 14 * SIDE, "patch_size": 14, "projection_dim": 24, **changes}
    text = {**sizes, "hidden_size": 32, "intermediate_size": 64, "vocab_size": 100, "bos_token_id": 0}
    config = transformers.CLIPConfig(projection_dim=24, vision_config=vision, text_config={**text, "eos_token_id": 2})
    return randomise(transformers.CLIPModel(config), seed).eval()


def model(**options):
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    aggregator = {"backbone": "clip_vitl14", "aggregator": "cls", "l2_after": False}
    return join(**aggregator, backbone_options={**SMALL, **options}, mean=mean, std=std)


def shapes(made):
    return jax.eval_shape(made.init, jax.random.key(0), np.zeros((1, 56, 56, 3), np.uint8))


def tensors(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("size", [(56, 56), (42, 98)])
def test_features_are_hugging_faces_at_the_size_of_the_weights_and_at_others(size):
    theirs, ours = original(1), model()
    variables = weights.from_torch("huggingface_clip", tensors(theirs), shapes(ours))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (ours.mean, ours.std))
    shown = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        tokens = theirs.vision_model(shown, interpolate_pos_encoding=True).last_hidden_state
        found = theirs.get_image_features(pixel_values=shown, interpolate_pos_encoding=True)
    found = found if isinstance(found, torch.Tensor) else found.pooler_output
    np.testing.assert_allclose(jit(ours.apply)(variables, pixels), found.numpy(), rtol=2e-5, atol=2e-5)
    features = jit(partial(ours.apply, method="features"))(variables, pixels)
    np.testing.assert_allclose(features.map.reshape(2, -1, 64), tokens[:, 1:].numpy(), rtol=2e-5, atol=1e-4)
    assert np.std(features.map) > 0.5 and np.std(features.token) > 0.1


def test_files_go_out_as_they_came_and_lack_nothing_of_the_vision_part():
    theirs = original(2)
    variables = weights.from_torch("huggingface_clip", tensors(theirs), shapes(model()))
    back = weights.to_torch("huggingface_clip", variables)
    alone = transformers.CLIPVisionModelWithProjection(theirs.config.vision_config)
    alone.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in back.items()}, strict=True)
    for name, tensor in tensors(alone).items():
        np.testing.assert_array_equal(tensors(theirs)[name].view(np.uint32), tensor.view(np.uint32))
    assert weights.guess_family(tensors(theirs), shapes(model())) == "huggingface_clip"
    old = {**tensors(theirs), "vision_model.embeddings.position_ids": np.arange(17)[None]}
    assert weights.guess_family(old, shapes(model(projection=0))) == "huggingface_clip"


@pytest.mark.parametrize("shape", [(240, 321), (333, 224), (224, 224), (100, 77)])
def test_images_are_cut_and_resized_as_there(shape):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    theirs = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)(Image.fromarray(pixels))["pixel_values"][0]
    ours = resize(pixels, (224, 224), "pil_bicubic_middle")
    np.testing.assert_array_equal(ours, np.asarray(theirs).transpose(1, 2, 0))


def test_published_sizes_have_the_originals_names_and_shapes():
    ours = join(backbone="clip_vitl14", aggregator="cls")
    made = jax.eval_shape(ours.init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.uint8))
    variables = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), made)
    config = transformers.CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
        projection_dim=768,
    )  # fmt: skip
    with torch.device("meta"):
        wanted = transformers.CLIPVisionModelWithProjection(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in wanted.state_dict().items()}
    assert {name: tensor.shape for name, tensor in weights.to_torch("huggingface_clip", variables).items()} == shapes
    assert parameter_count(variables) == 303_966_208
