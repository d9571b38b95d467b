"""Tensors whose length depends on the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.torch_modules.module import module, normal, whole

module("nonzero", lambda own, x: torch.nonzero(x > 0), normal(3, 4))
module("masked_select", lambda own, x: x.masked_select(x > 0), normal(3, 4))
module("unique", lambda own, i: torch.unique(i), whole(5, 8))
module("bool_index", lambda own, x: x[x[:, 0] > 0], normal(6, 4))


def masked_rows(x: Any, b: Any) -> Any:
    y = x.clone()
    y[b] = y[b] * 2
    return y


module(
    "mask_rows",
    lambda own, x, b: masked_rows(x, b),
    normal(5, 4),
    torch.tensor([True, False, True, True, False]),
)
module("nz_sum", lambda own, x: x[x > 0].sum(), normal(3, 4))
module("nz_mean", lambda own, x: x[x > 0].mean(), normal(3, 4))
module("nz_gather", lambda own, x: x[torch.nonzero(x[:, 0] > 0).squeeze(1)] * 2, normal(6, 4))
module("nz_where", lambda own, x: torch.where(x > 0)[0], normal(3, 4))
module("nz_cat", lambda own, x: torch.cat((x[x[:, 0] > 0], x[:2])), normal(6, 4))
module("nz_slice", lambda own, x: x[x[:, 0] > 0][:3], normal(6, 4))
module(
    "nz_linear",
    lambda own, x: own.layer(x[x[:, 0] > 0]),
    normal(6, 4),
    layer=lambda: nn.Linear(4, 3),
)
module("nz_arange", lambda own, x: torch.arange((x > 0).sum().item()), normal(6, 4))
module(
    "nz_masked_scatter",
    lambda own, x, k, v: x.masked_scatter(k, v),
    normal(3, 4),
    normal(3, 4) > 0,
    normal(12),
)
module("nz_count_div", lambda own, x: (x * (x > 0)).sum() / (x > 0).sum(), normal(3, 4))
module("nz_zeros", lambda own, x: torch.zeros(x[x[:, 0] > 0].shape[0], 2) + 1, normal(6, 4))
module("nz_max", lambda own, x: x[x[:, 0] > 0].max(1)[0], normal(6, 4))
module("nz_topk", lambda own, x: x[x[:, 0] > -9].sum(1), normal(6, 4))
