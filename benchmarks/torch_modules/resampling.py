"""Resampling: patches, interpolation, sampling on a grid, pixels that become channels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_modules.module import PICTURE, ROWS, module, normal, uniform

module("unfold", lambda own, x: functional.unfold(x, 3, padding=1, stride=2), PICTURE)
module(
    "fold", lambda own, x: functional.fold(x, (6, 8), 3, padding=1, stride=2), normal(1, 4 * 9, 12)
)
module("tensor_unfold", lambda own, x: x.unfold(2, 3, 2), PICTURE)
for mode, ac in (
    ("nearest", None),
    ("nearest-exact", None),
    ("bilinear", True),
    ("bilinear", False),
    ("bicubic", True),
    ("bicubic", False),
    ("area", None),
):
    for size in ((13, 7), (4, 5)):
        module(
            f"interp_{mode}_{ac}_{size[0]}".replace("-", "_"),
            lambda own, x, mode=mode, ac=ac, size=size: functional.interpolate(
                x, size=size, mode=mode, align_corners=ac
            ),
            PICTURE,
        )
    if mode != "area":
        module(
            f"interp_{mode}_{ac}_sc".replace("-", "_"),
            lambda own, x, mode=mode, ac=ac: functional.interpolate(
                x, scale_factor=(1.7, 0.6), mode=mode, align_corners=ac
            ),
            PICTURE,
        )
module(
    "interp_bilinear_recompute",
    lambda own, x: functional.interpolate(
        x, scale_factor=1.7, mode="bilinear", recompute_scale_factor=True
    ),
    PICTURE,
)
module(
    "interp_antialias",
    lambda own, x: functional.interpolate(x, size=(4, 5), mode="bilinear", antialias=True),
    PICTURE,
)
module(
    "interp_linear1d",
    lambda own, x: functional.interpolate(x, size=20, mode="linear", align_corners=False),
    ROWS,
)
module(
    "interp_trilinear",
    lambda own, x: functional.interpolate(x, scale_factor=2, mode="trilinear"),
    normal(1, 2, 3, 4, 5),
)
module("pixel_shuffle", lambda own, x: functional.pixel_shuffle(x, 2), normal(1, 8, 4, 5))
module("pixel_unshuffle", lambda own, x: functional.pixel_unshuffle(x, 2), normal(1, 3, 4, 6))
module("channel_shuffle", lambda own, x: functional.channel_shuffle(x, 3), PICTURE)
for mode in ("bilinear", "nearest", "bicubic"):
    for pm in ("zeros", "border", "reflection"):
        module(
            f"grid_{mode}_{pm}",
            lambda own, x, g, mode=mode, pm=pm: functional.grid_sample(
                x, g, mode=mode, padding_mode=pm, align_corners=False
            ),
            PICTURE,
            uniform(1, 5, 4, 2) * 2.4 - 1.2,
        )
module(
    "affine_grid",
    lambda own, x, t: functional.grid_sample(
        x, functional.affine_grid(t, (1, 6, 7, 5), align_corners=False), align_corners=False
    ),
    PICTURE,
    normal(1, 2, 3),
)
module(
    "warp",
    lambda own, x, f: functional.grid_sample(
        x,
        torch.stack(
            torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 10), indexing="ij")[
                ::-1
            ],
            -1,
        )[None]
        + f.permute(0, 2, 3, 1) * 0.1,
        align_corners=True,
        padding_mode="border",
    ),
    PICTURE,
    normal(1, 2, 8, 10),
)
module(
    "corr",
    lambda own, x, y: torch.cat(
        [
            (x * functional.pad(y, (1, 1, 1, 1))[:, :, i : i + 8, j : j + 10]).mean(1, True)
            for i in range(3)
            for j in range(3)
        ],
        1,
    ),
    PICTURE,
    normal(1, 6, 8, 10),
)
module(
    "wavelet",
    lambda own, x: torch.cat(
        (x[..., ::2, ::2] + x[..., 1::2, ::2], x[..., ::2, 1::2] - x[..., 1::2, 1::2]), 1
    ),
    PICTURE,
)
module(
    "focus",
    lambda own, x: own.c(
        torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)
    ),
    PICTURE,
    c=lambda: nn.Conv2d(24, 8, 3, padding=1),
)
