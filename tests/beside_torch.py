"""Imports what stands on torchvision, also beside a torch that torchvision's compiled part was not built for."""

import importlib
import re
import sys
from types import ModuleType

import torch

DECLARED = torch.library.Library("torchvision", "FRAGMENT")


def load(name: str, *parts: str) -> ModuleType:
    """The module `name`, of which `parts` are imported too (a package may do so only when they are asked for).

    Torchvision then asks for the names of operators that nothing here uses, which are declared here.
    """
    for _ in range(20):
        try:
            module = importlib.import_module(name)
            for part in parts:
                getattr(module, part)
            return module
        except (RuntimeError, ImportError) as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", f"{error} {error.__cause__}")
            if missing is None:
                raise
            DECLARED.define(f"{missing[1]}(Tensor x) -> Tensor")
            for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == "torchvision"]:
                del sys.modules[loaded]
    raise RuntimeError("torchvision asks for ever more operators")
