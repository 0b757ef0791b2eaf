"""Layers that compute exactly what PyTorch's do, so that its weights give the same descriptors here.

All of them take and return NHWC arrays; parameters and statistics are float32 whatever the compute type.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models import max_pooling, winograd
from jaxvpr.models.weighted import weighted

# torchvision draws its residual networks with Kaiming's normal over the fan-out.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# torch.nn.Linear and Conv2d draw uniformly from ±1/sqrt(fan-in).
torch_default = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Of transformers. Originals truncate it at ±2, a hundred standard deviations away, which changes nothing.
small_normal = nn.initializers.normal(0.02)
# Of products that no option may make coarser. All others are as `PlaceModel` has them.
PRECISE = jax.lax.Precision.HIGHEST


def l2_normalise(x: jax.Array, eps: float = 1e-24) -> jax.Array:
    """`x` in float32, divided by its length along the last axis.

    A vector whose squared length is not above `eps` becomes zero and gets no gradient. `eps` is not simply added to the
    square: a network that weakens its signal layer by layer gives vectors so short (2e-5) that they would not become
    unit vectors.
    """
    x = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x), -1, keepdims=True)
    long = squares > eps
    return x * jnp.where(long, jax.lax.rsqrt(jnp.where(long, squares, 1)), 0)


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0, ceil: bool = False) -> jax.Array:
    """Max pooling of `[B, H, W, C]`; `ceil` keeps the last, partial window as `MaxPool2d(ceil_mode=True)` does."""
    sides = []
    for length in x.shape[1:3]:
        beyond = (length + 2 * padding - size) % stride
        extra = stride - beyond if ceil and beyond else 0
        sides.append((padding, padding + extra))
    return max_pooling.max_pool(x, max_pooling.Window(size, stride, tuple(sides)))


def frozen_in(module: nn.Module, name: str) -> tuple[str, ...]:
    """Patterns of the parameters that `module`, whose own name is `name`, does not train under its options.

    A module names them by a method `frozen_paths() -> patterns of the paths below it`; without that method all of it
    trains. Nothing stops their gradients: the trainer leaves them out of differentiation and decay.
    """
    return tuple(f"{name}/({pattern})" for pattern in getattr(module, "frozen_paths", tuple)())


# What a block keeps for the backward pass, beside its input, by JAX's names: the results of all products and
# convolutions, or of those with weights alone (not of attention's).
KEPT = ("dots_saveable", "dots_with_no_batch_dims_saveable")


def recomputed(block: type[nn.Module], remat: bool | str) -> type[nn.Module]:
    """A block that in the backward pass computes again what it does not keep: nothing, all, or all but one of `KEPT`.

    Raises:
      ValueError: for another word.
    """
    if isinstance(remat, str) and remat not in KEPT:
        raise ValueError(f"remat={remat!r} is none of False, True, {', '.join(KEPT)}")
    policy = partial(_kept, getattr(jax.checkpoint_policies, remat)) if isinstance(remat, str) else None
    return nn.remat(block, policy=policy) if remat else block


def _kept(policy: Callable[..., Any], primitive: Any, *operands: Any, **params: Any) -> Any:
    """What a policy says of an operation, or of those within one that has a gradient of its own (`weighted`)."""
    inner = params["call_jaxpr"].eqns if primitive.name == "custom_vjp_call" else ()
    within = [policy(e.primitive, *(v.aval for v in e.invars), **e.params) for e in inner]
    return any(within) or policy(primitive, *operands, **params)


class Linear(nn.Module):
    """`x W + b` in float32.

    Attributes:
      ones: sides of length 1 in front of the kernel `[in, features]`, as originals store it that use a convolution.
      precision: of the product, where it is not to be that of the whole head.
    """

    features: int
    ones: int = 0
    use_bias: bool = True
    kernel_init: Callable = torch_default
    bias_init: Callable = nn.initializers.zeros
    precision: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., in]` to `[..., features]`."""
        kernel = self.param("kernel", self.kernel_init, (*(1,) * self.ones, x.shape[-1], self.features))
        y = jnp.matmul(x, kernel.reshape(-1, self.features), precision=self.precision)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,))
            y = y + bias.reshape((1,) * (x.ndim - 1) + (-1,))
        return y


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; flax's own refuses bfloat16 under strict promotion.

    The variance is taken around the mean, in float32, so that large means do not cancel digits.
    """

    eps: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises each vector of `[..., C]`; result in `dtype`."""
        row = (1,) * (x.ndim - 1) + (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, row[-1:]).reshape(row)
        bias = self.param("bias", nn.initializers.zeros, row[-1:]).reshape(row)
        x = x.astype(jnp.float32)
        x = x - jnp.mean(x, -1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + self.eps)
        return (x * factor * scale + bias).astype(self.dtype)


class Conv(nn.Module):
    """A square convolution with PyTorch's symmetric padding; kernel `[k, k, in, out]`."""

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Callable = kaiming_fan_out

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, in]` to `[B, H', W', features]` in `dtype`."""
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        y = weighted(partial(_convolved, stride=self.stride, padding=self.padding), x, kernel, self.dtype)
        if self.use_bias:
            y = weighted(_plus, y, self.param("bias", nn.initializers.zeros, (self.features,)), self.dtype)
        return y


def _convolved(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    if len(kernel) == 1 and not padding:
        # A matrix product is the same sum; on CPU it describes 5 % more images a second in ResNet-50.
        return jnp.matmul(x[:, ::stride, ::stride], kernel[0, 0])
    if winograd.pays(x, kernel, stride, padding):
        return winograd.conv3x3(x, kernel)
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=axes)


def _plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class Dense(nn.Module):
    """`x W + b` in `dtype`, with the parameters of flax's own."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32
    kernel_init: Callable = torch_default

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, ..., in]` to `[B, ..., features]` in `dtype`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = weighted(jnp.matmul, x, kernel, self.dtype)
        if self.use_bias:
            y = weighted(_plus, y, self.param("bias", nn.initializers.zeros, (self.features,)), self.dtype)
        return y


def padded_same(x: jax.Array, size: int, stride: int) -> jax.Array:
    """`[B, H, W, C]` with zeros around it, so that a convolution gives `ceil(H / stride)` rows: TensorFlow's "SAME".

    Of an odd number of zeros the one more is behind: below and on the right.
    """
    totals = (max(0, (-(-length // stride) - 1) * stride + size - length) for length in x.shape[1:3])
    return jnp.pad(x, ((0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)))


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself; kernel `[k, k, 1, C]`, k odd.

    Attributes:
      same: pad as TensorFlow (`padded_same`), not symmetrically as PyTorch.
    """

    size: int
    stride: int = 1
    dtype: Any = jnp.float32
    same: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), C]` in `dtype`; sums in float32."""
        kernel = self.param("kernel", kaiming_fan_out, (self.size, self.size, 1, x.shape[-1]))
        height, width = (-(-length // self.stride) for length in x.shape[1:3])
        around = self.size // 2
        kernel = kernel.astype(self.dtype).astype(jnp.float32)
        x = x.astype(self.dtype)
        sides = ((0, 0), (around, around), (around, around), (0, 0))
        x = padded_same(x, self.size, self.stride) if self.same else jnp.pad(x, sides)
        # One product for each element of the kernel: on CPU it takes a fifth to a tenth of the time of XLA's grouped
        # convolution, and a half to a sixth with its gradient.
        taps = [
            x[:, i : i + self.stride * height : self.stride, j : j + self.stride * width : self.stride].astype(
                jnp.float32
            )
            * kernel[i, j].reshape(1, 1, 1, -1)
            for i in range(self.size)
            for j in range(self.size)
        ]
        return sum(taps[1:], taps[0]).astype(self.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation as PyTorch has it: normalises by the biased variance and remembers the unbiased one.

    flax's own remembers the biased variance. `momentum` is the share of the old average that is kept (PyTorch's 0.1 is
    0.9 here). Under one global-view `jit` the statistics are those of the global batch, unless `normalised_in_groups`.

    Attributes:
      average: use (and keep) the running averages instead of the batch's statistics.
    """

    average: bool
    dtype: Any = jnp.float32
    momentum: float = 0.9
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, images: int = 0) -> jax.Array:
        """Normalises `[..., C]` over all axes but the last; statistics in float32, result in `dtype`.

        With `images` each group of so many along the first axis has statistics of its own. The running averages then
        take the mean of the groups' means and of their variances.

        Raises:
          ValueError: if the first axis is no multiple of `images`.
        """
        if images and not self.average and not self.is_initializing():
            if x.shape[0] % images:
                raise ValueError(
                    f"batch_norm_images={images} must divide the {x.shape[0]} images of a (part of a) batch"
                )
            return self._normalised(x.reshape(-1, images, *x.shape[1:]), first=1).reshape(x.shape)
        return self._normalised(x, first=0)

    def _normalised(self, x: jax.Array, first: int) -> jax.Array:
        """Over all axes from `first` on but the last."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        row = (1,) * (x.ndim - 1) + (channels,)
        each = (*x.shape[:first], *row[first:])
        x = x.astype(jnp.float32)
        if self.average:
            centre, spread = mean.value, var.value
        else:
            # One pass over the data; taken around the running mean, so that large means do not cancel digits.
            shifted = x - mean.value.reshape(row)
            axes = tuple(range(first, x.ndim - 1))
            offset = jnp.mean(shifted, axes)
            spread = jnp.maximum(jnp.mean(jnp.square(shifted), axes) - jnp.square(offset), 0)
            centre = mean.value.reshape(row[-1 - first :]) + offset
            if not self.is_initializing():
                count = x.size // offset.size
                unbiased = spread * (count / max(count - 1, 1))
                new_mean, new_var = (jnp.mean(part, range(first)) for part in (centre, unbiased))
                mean.value = self.momentum * mean.value + (1 - self.momentum) * new_mean
                var.value = self.momentum * var.value + (1 - self.momentum) * new_var
        factor = scale.reshape(row[-spread.ndim :]) * jax.lax.rsqrt(spread + self.eps)
        return ((x - centre.reshape(each)) * factor.reshape(each) + bias.reshape(row)).astype(self.dtype)


def normalised_in_groups(images: int) -> AbstractContextManager[Any]:
    """A context in which every `BatchNorm` takes its batch in groups of so many images; 0: whole."""

    def of_module(call: Callable, args: Any, options: Any, context: nn.module.InterceptorContext) -> Any:
        grouped = isinstance(context.module, BatchNorm) and context.method_name == "__call__"
        return call(*args, **options, images=images) if grouped else call(*args, **options)

    return nn.intercept_methods(of_module) if images else nullcontext()
