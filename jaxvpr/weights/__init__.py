"""Weights of PyTorch's originals, read and written, and files of weights without torch."""

from jaxvpr.weights.convert import family_for, from_torch, guess_family, init_from, left_out, to_torch
from jaxvpr.weights.files import read, read_metadata, write
from jaxvpr.weights.tables import FAMILIES

__all__ = [
    "FAMILIES",
    "family_for",
    "from_torch",
    "guess_family",
    "init_from",
    "left_out",
    "read",
    "read_metadata",
    "to_torch",
    "write",
]
