"""Out of device memory: what is said, and that the batch it names is the largest that fits."""

import jax
import jax.numpy as jnp
import pytest

from jaxvpr.errors import UserError
from jaxvpr.parallel import device_memory

OF_A_GPU = (
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 98765432100 bytes.\nBufferAssignment OOM Debugging."
)


@jax.jit
def table(x):
    """[n] -> [n, n]: 4 n^2 bytes and the 4 n of its argument."""
    return jnp.outer(x, x)


def takes(n):
    return device_memory.taken(table.lower(jax.ShapeDtypeStruct((n,), jnp.float32)).compile())


def test_a_real_want_of_memory_is_told():
    assert takes(1024) == 4 * 1024**2 + 4 * 1024
    words = r"^the table needs more memory.*\(Out of memory allocating 17592186044416\b.*\. A smaller one$"
    with pytest.raises(UserError, match=words), device_memory.told("the table", lambda: "A smaller one"):
        table(jnp.ones(1 << 21)).block_until_ready()


def test_other_errors_pass():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), device_memory.told("it", lambda: ""):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
    told = device_memory.told("it", lambda: "What to do")
    with pytest.raises(UserError, match=r"allocate 98765432100 bytes\)\. What to do"), told:
        raise jax.errors.JaxRuntimeError(OF_A_GPU)


def test_the_largest_half_that_fits(monkeypatch):
    monkeypatch.setattr(device_memory, "limit", lambda: 3 * 2**20)
    fits, found = device_memory.that_fits(takes, "batch", 2048, 8)
    assert fits == 512 and found == (
        "As compiled, batch=2048 takes 0.0156 GiB, batch=1024 takes 0.00391 GiB, batch=512 takes 0.000978 GiB; "
        "a device has 0.00293 GiB"
    )
    fits, found = device_memory.that_fits(takes, "batch", 2048, 1024)
    assert fits == 0 and "batch=512" not in found, "a batch of 512 is no multiple of 1024"


def test_what_failed_though_it_should_fit_is_not_named_again(monkeypatch):
    """Another process may hold the memory, or it is in pieces."""
    monkeypatch.setattr(device_memory, "limit", lambda: 2**40)
    assert device_memory.that_fits(takes, "batch", 24, 8)[0] == 0
    assert device_memory.that_fits(takes, "batch", 32, 8)[0] == 16


def test_a_compiler_that_says_itself_what_does_not_fit(monkeypatch):
    def compiler(n):
        if n > 100:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory")
        return n

    monkeypatch.setattr(device_memory, "limit", lambda: 2**30)
    fits, found = device_memory.that_fits(compiler, "batch", 256, 1)
    assert fits == 64 and "batch=128 takes too much, batch=64 takes" in found
