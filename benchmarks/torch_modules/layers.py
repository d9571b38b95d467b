"""Layers: norms, embeddings, activations, convolutions, pools, and small blocks of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_modules.module import PICTURE, ROWS, module, normal, whole

module("group_norm", lambda own, x: own.layer(x), PICTURE, layer=lambda: nn.GroupNorm(3, 6))
module("group_norm_1", lambda own, x: own.layer(x), ROWS, layer=lambda: nn.GroupNorm(7, 7))
module(
    "instance_norm",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.InstanceNorm2d(6, affine=True),
)
module("instance_norm1d", lambda own, x: own.layer(x), ROWS, layer=lambda: nn.InstanceNorm1d(7))
module(
    "layer_norm_multi", lambda own, x: own.layer(x), PICTURE, layer=lambda: nn.LayerNorm((8, 10))
)
module("rms_norm", lambda own, x: own.layer(x), ROWS, layer=lambda: nn.RMSNorm(12))
module(
    "local_response", lambda own, x: own.layer(x), PICTURE, layer=lambda: nn.LocalResponseNorm(3)
)
module("batch_norm1d", lambda own, x: own.layer(x), ROWS, layer=lambda: nn.BatchNorm1d(7))
module(
    "weight_norm",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 4, 3)),
)
module("embedding", lambda own, i: own.layer(i), whole(10, 2, 5), layer=lambda: nn.Embedding(10, 6))
module(
    "embedding_pad",
    lambda own, i: own.layer(i),
    whole(10, 2, 5),
    layer=lambda: nn.Embedding(10, 6, padding_idx=0, max_norm=None),
)
for mo in ("sum", "mean", "max"):
    module(
        f"embedding_bag_{mo}",
        lambda own, i: own.layer(i),
        whole(10, 3, 5),
        layer=lambda mo=mo: nn.EmbeddingBag(10, 6, mode=mo),
    )
module("glu", lambda own, x: functional.glu(x, 1), PICTURE)
for a in (
    "gelu",
    "silu",
    "mish",
    "elu",
    "selu",
    "celu",
    "softplus",
    "softsign",
    "hardtanh",
    "hardsigmoid",
    "hardswish",
    "logsigmoid",
    "tanhshrink",
    "softshrink",
    "hardshrink",
    "relu6",
    "leaky_relu",
):
    module(f"act_{a}", lambda own, x, a=a: getattr(functional, a)(x * 3), PICTURE)
module("gelu_tanh", lambda own, x: functional.gelu(x, approximate="tanh"), ROWS)
module("prelu", lambda own, x: own.layer(x), PICTURE, layer=lambda: nn.PReLU(6))
module("rrelu", lambda own, x: functional.rrelu(x), ROWS)
module("threshold", lambda own, x: functional.threshold(x, 0.1, 20), ROWS)
module(
    "conv_circular",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
)
module(
    "conv_same",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.Conv2d(6, 4, (4, 3), padding="same", dilation=(1, 2)),
)
module(
    "conv1d",
    lambda own, x: own.layer(x),
    ROWS,
    layer=lambda: nn.Conv1d(7, 5, 3, stride=2, padding=1, dilation=2),
)
module(
    "conv1d_dw",
    lambda own, x: own.layer(x),
    ROWS,
    layer=lambda: nn.Conv1d(7, 14, 5, padding=2, groups=7),
)
module(
    "conv3d",
    lambda own, x: own.layer(x),
    normal(1, 2, 4, 5, 6),
    layer=lambda: nn.Conv3d(2, 4, 3, padding=1),
)
module(
    "conv3d_g",
    lambda own, x: own.layer(x),
    normal(1, 4, 4, 5, 6),
    layer=lambda: nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1), groups=4),
)
module(
    "convT",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1),
)
module(
    "convT_g",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.ConvTranspose2d(6, 6, 4, 2, 1, groups=6, bias=False),
)
module(
    "convT1d", lambda own, x: own.layer(x), ROWS, layer=lambda: nn.ConvTranspose1d(7, 5, 4, 2, 1)
)
module(
    "convT_d",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.ConvTranspose2d(6, 3, 3, 3, dilation=2, groups=3),
)
module(
    "convT3d",
    lambda own, x: own.layer(x),
    normal(1, 2, 3, 4, 5),
    layer=lambda: nn.ConvTranspose3d(2, 3, 2, 2),
)
module(
    "conv_g",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.Conv2d(6, 9, 3, groups=3, padding=1),
)
module(
    "conv_big",
    lambda own, x: own.layer(x),
    PICTURE,
    layer=lambda: nn.Conv2d(6, 4, (7, 1), padding=(3, 0)),
)
module(
    "conv_dyn", lambda own, x, w: functional.conv2d(x, w, padding=1), PICTURE, normal(3, 6, 3, 3)
)
module(
    "bilinear_l",
    lambda own, x, y: own.layer(x, y),
    normal(3, 4),
    normal(3, 5),
    layer=lambda: nn.Bilinear(4, 5, 6),
)
module("maxpool_ceil", lambda own, x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True), PICTURE)
module("maxpool_dil", lambda own, x: functional.max_pool2d(x, 3, 1, 1, dilation=2), PICTURE)
module("maxpool_idx", lambda own, x: functional.max_pool2d(x, 2, return_indices=True), PICTURE)
module(
    "unpool",
    lambda own, x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
    PICTURE,
)
module(
    "avgpool_cip",
    lambda own, x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    PICTURE,
)
module("avgpool_ceil", lambda own, x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True), PICTURE)
module("avgpool_div", lambda own, x: functional.avg_pool2d(x, 2, divisor_override=3), PICTURE)
module("lppool", lambda own, x: functional.lp_pool2d(x.abs(), 2, 3, 2), PICTURE)
module("adaptive_avg", lambda own, x: functional.adaptive_avg_pool2d(x, (4, 5)), PICTURE)
module("adaptive_avg_odd", lambda own, x: functional.adaptive_avg_pool2d(x, (3, 7)), PICTURE)
module("adaptive_max", lambda own, x: functional.adaptive_max_pool2d(x, (2, 5)), PICTURE)
module("adaptive_max1", lambda own, x: functional.adaptive_max_pool1d(x, 1), ROWS)
module("avgpool1d", lambda own, x: functional.avg_pool1d(x, 3, 2), ROWS)
module(
    "pool3d",
    lambda own, x: functional.max_pool3d(x, 2) + functional.avg_pool3d(x, 2),
    normal(1, 2, 4, 6, 6),
)
module(
    "gem",
    lambda own, x: functional.avg_pool2d(x.clamp(min=1e-06).pow(3), (8, 10)).pow(1 / 3),
    PICTURE,
)
module(
    "dropout",
    lambda own, x: (
        functional.dropout(x, 0.5, training=False) + functional.dropout2d(x, training=False)
    ),
    PICTURE,
)
module(
    "se",
    lambda own, x: x * own.b(functional.relu(own.a(x.mean((2, 3), keepdim=True)))).sigmoid(),
    PICTURE,
    a=lambda: nn.Conv2d(6, 3, 1),
    b=lambda: nn.Conv2d(3, 6, 1),
)
module(
    "cbam",
    lambda own, x: x * own.c(torch.cat([x.mean(1, True), x.amax(1, True)], 1)).sigmoid(),
    PICTURE,
    c=lambda: nn.Conv2d(2, 1, 7, padding=3),
)
module(
    "involution",
    lambda own, x: (
        own.k(x).view(1, 1, 9, 8, 10) * functional.unfold(x, 3, padding=1).view(1, 6, 9, 8, 10)
    ).sum(2),
    PICTURE,
    k=lambda: nn.Conv2d(6, 9, 1),
)


def squash(own: Any, x: Any) -> Any:
    n = (x**2).sum(-1, keepdim=True)
    return n / (1 + n) * x / torch.sqrt(n + 1e-08)


module("squash", squash, normal(1, 5, 8))
module("gram", lambda own, x: torch.bmm(x.flatten(2), x.flatten(2).transpose(1, 2)) / 480, PICTURE)
module(
    "adain",
    lambda own, x, y: (
        (x - x.mean((2, 3), True))
        / (x.std((2, 3), keepdim=True) + 1e-05)
        * y.std((2, 3), keepdim=True)
        + y.mean((2, 3), True)
    ),
    PICTURE,
    normal(1, 6, 4, 5),
)
