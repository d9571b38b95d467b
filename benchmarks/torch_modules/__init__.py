"""Small PyTorch modules, one thing that networks are made of at a time; see torch_exports.py."""

from benchmarks.torch_modules import (  # noqa: F401
    arithmetic,
    detectors,
    layers,
    lengths,
    movement,
    resampling,
    sequences,
)
from benchmarks.torch_modules.module import MODULES

__all__ = ["MODULES"]
