"""Data of visual place recognition as NumPy: readers, partitions, samplers, images, loaders. Never imports jax."""
