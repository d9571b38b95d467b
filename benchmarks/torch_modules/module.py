"""How a small PyTorch module is written down, and the inputs that many of them have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Made = tuple[Callable[[], Any], tuple[Any, ...]]
MODULES: dict[str, Made] = {}


class Net(nn.Module):  # type: ignore[misc, name-defined]
    """A function as a module, with the layers that it uses."""

    def __init__(self, function: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *given: Any) -> Any:
        return self.function(self, *given)


def module(name: str, function: Callable[..., Any], *inputs: Any, **layers: Any) -> None:
    """Notes a module: what it computes of itself and its inputs, and how its layers are made."""

    def made():
        return Net(function, **{key: each() for key, each in layers.items()})

    MODULES[name] = (made, inputs)


def normal(*shape: int) -> Any:
    return torch.randn(shape)


def uniform(*shape: int) -> Any:
    return torch.rand(shape)


def whole(limit: int, *shape: int) -> Any:
    return torch.randint(0, limit, shape)


torch.manual_seed(0)

PICTURE = normal(1, 6, 8, 10)
ROWS = normal(2, 7, 12)
MATRIX = normal(5, 9)
