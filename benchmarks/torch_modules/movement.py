"""Values moved: indexing, scatters, sorts, repeats, pads, views."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from benchmarks.torch_modules.module import MATRIX, PICTURE, ROWS, module, normal, whole


def rows_assigned(x: Any, v: Any) -> Any:
    y = x.clone()
    y[torch.tensor([0, 3])] = v
    return y


module("index_put", lambda own, x, v: rows_assigned(x, v), normal(5, 4), normal(2, 4))


def slices_assigned(x: Any, v: Any) -> Any:
    y = x.clone()
    y[:, 1:3] = v
    y[..., 0] = 0
    return y


module("slice_assign", lambda own, x, v: slices_assigned(x, v), normal(2, 4, 6), normal(2, 2, 6))


def slice_added(x: Any) -> Any:
    y = x.clone()
    y[:, ::2, 1:-1] += 1
    return y


module("slice_add", lambda own, x: slice_added(x), normal(2, 4, 6))
module(
    "index_put_acc",
    lambda own, x, i, v: x.index_put((i,), v, accumulate=True),
    normal(5, 4),
    whole(5, 3),
    normal(3, 4),
)


def negative_assigned(x: Any) -> Any:
    y = x.clone()
    y[y < 0] = 0.5
    return y


module("mask_assign", lambda own, x: negative_assigned(x), normal(3, 4))
module(
    "scatter", lambda own, x, i, v: x.scatter(1, i, v), normal(3, 5), whole(5, 3, 1), normal(3, 1)
)
module(
    "scatter_add",
    lambda own, x, i, v: x.scatter_add(1, i, v),
    normal(3, 5),
    whole(5, 3, 4),
    normal(3, 4),
)
module(
    "scatter_reduce",
    lambda own, x, i, v: x.scatter_reduce(1, i, v, "amax"),
    normal(3, 5),
    whole(5, 3, 4),
    normal(3, 4),
)
module("gather", lambda own, x, i: x.gather(1, i), normal(3, 5), whole(5, 3, 2))
module("index_select", lambda own, x, i: x.index_select(1, i), normal(3, 5, 2), whole(5, 4))
module("take_along", lambda own, x, i: torch.take_along_dim(x, i, 1), normal(3, 5), whole(5, 3, 2))
module("fancy", lambda own, x, i, j: x[i, :, j], normal(3, 5, 4), whole(3, 6), whole(4, 6))
module("fancy2", lambda own, x, i: x[:, i], normal(3, 5, 4), whole(5, 2, 3))
module("neg_index", lambda own, x: x[:, -1] + x[:, -2], ROWS)
module("topk", lambda own, x: x.topk(3, -1), ROWS)
module("topk_small", lambda own, x: x.topk(3, 1, largest=False), ROWS)
module("sort", lambda own, x: x.sort(-1), ROWS)
module("sort_desc", lambda own, x: torch.sort(x, 1, descending=True)[1], ROWS)
module("argsort", lambda own, x: x.argsort(-1), ROWS)
module("gumbel", lambda own, x: functional.one_hot(x.argmax(-1), 12), ROWS)
module("roll", lambda own, x: torch.roll(x, (2, -3), (2, 3)), PICTURE)
module("roll_flat", lambda own, x: torch.roll(x, 3), ROWS)
module("flip", lambda own, x: x.flip(2, 3), PICTURE)
module("rot90", lambda own, x: torch.rot90(x, 1, (2, 3)), PICTURE)
module("tril", lambda own, x: x.tril(-1) + x.triu(2), normal(2, 5, 6))
module("diag", lambda own, x: torch.diagonal(x, 0, 1, 2), normal(2, 5, 5))
module("diag_embed", lambda own, x: torch.diag_embed(x), normal(2, 5))
module(
    "meshgrid", lambda own, x: torch.stack(torch.meshgrid(x, x + 1, indexing="ij"), -1), normal(5)
)
module("repeat", lambda own, x: x.repeat(1, 2, 3), ROWS)
module("repeat_interleave", lambda own, x: x.repeat_interleave(3, 1), ROWS)
module("expand", lambda own, x: x.unsqueeze(1).expand(-1, 4, -1), MATRIX)
module("tile", lambda own, x: torch.tile(x, (2, 2)), MATRIX)
module("chunk", lambda own, x: torch.cat(x.chunk(5, 2)[::-1], 2), ROWS)
module("split", lambda own, x: x.split([3, 4, 5], -1)[1], ROWS)
module("tensor_split", lambda own, x: torch.tensor_split(x, 3, 1)[0], ROWS)
module("unbind", lambda own, x: sum(x.unbind(1)), ROWS)
module("stack", lambda own, x, y: torch.stack((x, y), -1), ROWS, normal(2, 7, 12))
module("hstack", lambda own, x: torch.hstack((x, x)), ROWS)
module("movedim", lambda own, x: x.movedim(1, -1), PICTURE)
module("swap", lambda own, x: x.transpose(-1, -2).contiguous().view(1, -1), PICTURE)
module("pad_reflect", lambda own, x: functional.pad(x, (2, 1, 1, 3), mode="reflect"), PICTURE)
module("pad_replicate", lambda own, x: functional.pad(x, (2, 1, 1, 3), mode="replicate"), PICTURE)
module("pad_circular", lambda own, x: functional.pad(x, (2, 1, 1, 3), mode="circular"), PICTURE)
module("pad_neg", lambda own, x: functional.pad(x, (-1, 2, 0, -3), value=3.0), PICTURE)
module("pad1d", lambda own, x: functional.pad(x, (3, 3), mode="reflect"), ROWS)
module("fftshift", lambda own, x: torch.fft.fftshift(x), normal(4, 6))
module("histc", lambda own, x: functional.one_hot((x > 0).long(), 2).sum(1), ROWS)
module("flatten", lambda own, x: torch.flatten(x, 1) @ torch.ones(480, 3), PICTURE)
module("unflatten", lambda own, x: x.unflatten(1, (2, 3)).sum(1), PICTURE)
module("view_as", lambda own, x: x.reshape(x.shape[0], -1, x.shape[-1] // 2), ROWS)
module("squeeze", lambda own, x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1), PICTURE)
module("as_strided", lambda own, x: x.unfold(1, 4, 4).mean(-1), normal(2, 16))


def masked_assigned(x: Any, v: Any) -> Any:
    y = x.clone()
    y[y < 0] = v
    return y


module("mask_scalar_t", lambda own, x, v: masked_assigned(x, v), normal(3, 4), torch.tensor(0.7))
