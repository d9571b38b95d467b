"""Compression with retraining, in PyTorch (the `torch` extra): `slim` and the network it trains."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdlc.training.network import Network
    from mdlc.training.pruning import prune_weights
    from mdlc.training.sharing import share_weights
    from mdlc.training.slimming import Slimmed, slim

__all__ = ["Network", "Slimmed", "prune_weights", "share_weights", "slim"]

_HOMES = {
    "Network": "network",
    "Slimmed": "slimming",
    "prune_weights": "pruning",
    "share_weights": "sharing",
    "slim": "slimming",
}


def __getattr__(name: str) -> Any:
    """Loads a name when it is first used: torch takes seconds to import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mdlc.training' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"mdlc.training.{_HOMES[name]}"), name)
    return value
