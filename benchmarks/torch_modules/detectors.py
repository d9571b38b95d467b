"""Heads of detectors and of key points."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_modules.module import PICTURE, module


def distribution_head(own: Any, x: Any) -> Any:
    y = own.c(x)
    b = y[:, :8].view(1, 4, 2, -1).softmax(2).mul(torch.arange(2.0).view(1, 1, 2, 1)).sum(2)
    g = torch.stack(
        torch.meshgrid(torch.arange(8.0) + 0.5, torch.arange(10.0) + 0.5, indexing="ij")[::-1]
    ).view(1, 2, -1)
    lt, rb = b.chunk(2, 1)
    bx = torch.cat(((g - lt + g + rb) / 2, rb + lt), 1) * 8
    return torch.cat((bx, y[:, 8:].flatten(2).sigmoid()), 1)


module("dfl_head", distribution_head, PICTURE, c=lambda: nn.Conv2d(6, 11, 1))


def anchor_head(own: Any, x: Any) -> Any:
    y = own.c(x).view(1, 3, 7, 8, 10).permute(0, 1, 3, 4, 2).sigmoid()
    g = torch.stack(
        torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")[::-1], -1
    ).view(1, 1, 8, 10, 2)
    xy = (y[..., :2] * 2 - 0.5 + g) * 8
    wh = (y[..., 2:4] * 2) ** 2 * torch.tensor([[10.0, 13], [16, 30], [33, 23]]).view(1, 3, 1, 1, 2)
    return torch.cat((xy, wh, y[..., 4:]), -1).view(1, -1, 7)


module("yolov5_head", anchor_head, PICTURE, c=lambda: nn.Conv2d(6, 21, 1))


def ssd_head(own: Any, x: Any) -> Any:
    sc, bx = (
        own.a(x).permute(0, 2, 3, 1).reshape(1, -1, 3).softmax(-1),
        own.b(x).permute(0, 2, 3, 1).reshape(1, -1, 4),
    )
    t, i = sc[..., 1:].max(-1)[0].topk(10)
    return (bx.gather(1, i.unsqueeze(-1).expand(-1, -1, 4)), t, i)


module(
    "ssd_topk",
    ssd_head,
    PICTURE,
    a=lambda: nn.Conv2d(6, 6, 3, padding=1),
    b=lambda: nn.Conv2d(6, 8, 3, padding=1),
)


def centres(own: Any, x: Any) -> Any:
    h = own.c(x).sigmoid()
    k = (functional.max_pool2d(h, 3, 1, 1) == h).float() * h
    v, i = k.flatten(1).topk(7)
    return (v, i // 80, i % 80 // 10, i % 10)


module("centernet", centres, PICTURE, c=lambda: nn.Conv2d(6, 2, 3, padding=1))


def soft_argmax(own: Any, x: Any) -> Any:
    p = x.flatten(2).softmax(-1).view_as(x)
    return torch.stack(
        ((p.sum(2) * torch.arange(10.0)).sum(-1), (p.sum(3) * torch.arange(8.0)).sum(-1)), -1
    )


module("soft_argmax", soft_argmax, PICTURE)
