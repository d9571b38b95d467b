"""Arithmetic: sums of products, reductions, types, comparisons, transforms of Fourier."""

from __future__ import annotations

import torch
from torch.nn import functional

from benchmarks.torch_modules.module import PICTURE, ROWS, module, normal, whole

module(
    "einsum_bij",
    lambda own, a, b: torch.einsum("bij,bjk->bik", a, b),
    normal(2, 3, 4),
    normal(2, 4, 5),
)
module(
    "einsum_attn",
    lambda own, a, b: torch.einsum("bhid,bhjd->bhij", a, b),
    normal(1, 2, 5, 4),
    normal(1, 2, 6, 4),
)
module(
    "einsum_nchw",
    lambda own, a, b: torch.einsum("nctw,vw->nctv", a, b),
    normal(1, 4, 3, 5),
    normal(6, 5),
)
module("einsum_outer", lambda own, a, b: torch.einsum("i,j->ij", a, b), normal(4), normal(5))
module("einsum_diag", lambda own, a: torch.einsum("bii->bi", a), normal(2, 4, 4))
module("cumsum", lambda own, x: x.cumsum(1), ROWS)
module("cumsum_neg", lambda own, x: torch.flip(torch.flip(x, [2]).cumsum(-1), [2]), ROWS)
module("cumprod", lambda own, x: x.cumprod(1), ROWS)
module("logcumsumexp", lambda own, x: x.logcumsumexp(1), ROWS)
module("where", lambda own, x: torch.where(x > 0, x, x * 0.1), ROWS)
module(
    "where_scalar", lambda own, x: torch.where(x > 0.5, torch.tensor(1.0), torch.tensor(0.0)), ROWS
)
module(
    "masked_fill",
    lambda own, x, k: x.masked_fill(k, float("-inf")).softmax(-1),
    normal(2, 3, 4),
    torch.tensor([[[True, False, False, False]]]).expand(2, 3, 4).clone(),
)
module("median", lambda own, x: x.median(-1)[0], ROWS)
module("kth", lambda own, x: x.kthvalue(2, -1)[0], ROWS)
module("std", lambda own, x: x.std(-1), ROWS)
module("var", lambda own, x: x.var((1, 2), unbiased=False), ROWS)
module("std_mean", lambda own, x: torch.std_mean(x, 1, keepdim=True), ROWS)
module("var_mean", lambda own, x: torch.var_mean(x, [-1], correction=0), ROWS)
for p in (1, 2, 3, float("inf"), -float("inf"), 0):
    module(
        f"norm_{str(p).replace('-', 'n').replace('.', '_')}",
        lambda own, x, p=p: torch.linalg.vector_norm(x, p, -1),
        ROWS,
    )
module("norm_fro", lambda own, x: x.norm(), ROWS)
module("normalize", lambda own, x: functional.normalize(x, dim=1), ROWS)
module("cosine", lambda own, x, y: functional.cosine_similarity(x, y, -1), ROWS, normal(2, 7, 12))
module("cdist", lambda own, x, y: torch.cdist(x, y), normal(1, 4, 3), normal(1, 5, 3))
module(
    "pdist2",
    lambda own, x, y: ((x[:, None] - y[None]) ** 2).sum(-1).sqrt(),
    normal(4, 3),
    normal(5, 3),
)
module("logsumexp", lambda own, x: x.logsumexp((1, 2)), ROWS)
module("log_softmax", lambda own, x: x.log_softmax(1), PICTURE)
module("softmin", lambda own, x: functional.softmin(x, 1), ROWS)
module("eye", lambda own, x: x + torch.eye(5), normal(2, 5, 5))
module("linspace", lambda own, x: x * torch.linspace(-1, 1, x.shape[-1]), ROWS)
module("arange_f", lambda own, x: x + torch.arange(0, 6, 0.5), ROWS)
module(
    "full_like",
    lambda own, x: torch.full_like(x, 2) + torch.zeros_like(x) + torch.ones(x.shape[-1]),
    ROWS,
)
module(
    "stft",
    lambda own, x: torch.view_as_real(
        torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True)
    ),
    normal(1, 64),
)
module("istft_free", lambda own, x: torch.fft.rfft(x).abs(), normal(2, 16))
module("fft2", lambda own, x: torch.view_as_real(torch.fft.fft2(x)), normal(1, 4, 8))
module("irfft", lambda own, x: torch.fft.irfft(torch.fft.rfft(x) * 0.5), normal(2, 16))
module(
    "complex_mul",
    lambda own, x: torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(x)),
    normal(3, 4, 2),
)
module("bool_ops", lambda own, x, y: (x > 0) & (y < 0) | ~(x > y), ROWS, normal(2, 7, 12))
module("isfinite", lambda own, x: torch.isfinite(1 / x) & ~torch.isnan(x), ROWS)
module("any_all", lambda own, x: ((x > 2).any(-1), (x > -2).all(1)), ROWS)
module("cmp_int", lambda own, i: (i == 3).float() * 2 + (i != i.flip(0)).float(), whole(6, 3, 4))
module("nan_to_num", lambda own, x: torch.nan_to_num(x / 0.0), ROWS)
module("sign", lambda own, x: x.sign() + x.frac() + x.trunc(), ROWS)
module("floor_div", lambda own, i: i // 3 + i % 4, whole(20, 3, 4))
module("fmod", lambda own, x: torch.fmod(x, 0.7) + torch.remainder(x, 0.6), ROWS)
module(
    "floor_div_f",
    lambda own, x: torch.floor_divide(x, 0.3) + torch.div(x, 0.7, rounding_mode="trunc"),
    ROWS,
)
module("pow_int", lambda own, i: i**2 + 2**i, whole(6, 3, 4))
module("rsqrt", lambda own, x: torch.rsqrt(x.abs() + 1), ROWS)
module("atan2", lambda own, x, y: torch.atan2(x, y), ROWS, normal(2, 7, 12))
module(
    "trig",
    lambda own, x: x.sin() + x.cos() + x.tan() + x.asinh() + x.atan() + x.sinh() + x.cosh(),
    ROWS,
)
module(
    "erf",
    lambda own, x: (
        torch.erf(x)
        + torch.erfc(x)
        + torch.expm1(x)
        + torch.log1p(x.abs())
        + torch.exp2(x)
        + torch.log2(x.abs() + 1)
        + torch.log10(x.abs() + 1)
    ),
    ROWS,
)
module(
    "lerp",
    lambda own, x, y: (
        torch.lerp(x, y, 0.3) + torch.addcmul(x, x, y, value=0.5) + torch.addcdiv(x, x, y.abs() + 1)
    ),
    ROWS,
    normal(2, 7, 12),
)
module(
    "baddbmm",
    lambda own, x, y, z: torch.baddbmm(z, x, y, beta=0.5, alpha=2),
    normal(2, 3, 4),
    normal(2, 4, 5),
    normal(2, 3, 5),
)
module(
    "addmm",
    lambda own, x, y, z: torch.addmm(z, x, y, alpha=0.5),
    normal(3, 4),
    normal(4, 5),
    normal(5),
)
module("outer", lambda own, x, y: torch.outer(x, y) + x @ x.view(-1, 1), normal(4), normal(5))
module("kron", lambda own, x, y: torch.kron(x, y), normal(2, 3), normal(2, 2))
module("mv", lambda own, x, y: x @ y, normal(3, 4), normal(4))
module("matmul_b", lambda own, x, y: x @ y, normal(2, 1, 3, 4), normal(5, 4, 2))
module(
    "tensordot",
    lambda own, x, y: torch.tensordot(x, y, dims=([1], [0])),
    normal(3, 4, 2),
    normal(4, 5),
)
module("cross", lambda own, x, y: torch.cross(x, y, dim=-1), normal(4, 3), normal(4, 3))
module("inverse3", lambda own, x: torch.linalg.det(x), normal(2, 3, 3))
module("clamp_t", lambda own, x, y: torch.clamp(x, -y.abs(), y.abs()), ROWS, normal(2, 7, 12))
module(
    "minmax",
    lambda own, x: (
        torch.maximum(x, -x)
        - torch.minimum(x, x * 2)
        + x.amax(1, keepdim=True)
        + x.amin((1, 2), keepdim=True)
    ),
    ROWS,
)
module("max_dim", lambda own, x: x.max(1), ROWS)
module("min_all", lambda own, x: x.min(), ROWS)
module("argmin", lambda own, x: x.argmin(1, keepdim=True), ROWS)
module("argmax_flat", lambda own, x: x.argmax(), ROWS)
module("prod", lambda own, x: x.prod(-1), ROWS)
module("sum_bool", lambda own, x: (x > 0).sum(-1), ROWS)
module("mean_all", lambda own, x: x.mean(), ROWS)
module("count", lambda own, x: torch.count_nonzero(x > 0, 1), ROWS)
module("half", lambda own, x: x.half().float() * 2, ROWS)
module("bf16", lambda own, x: x.bfloat16().float() * 2, ROWS)
module("double", lambda own, x: (x.double() ** 2).float(), ROWS)
module("to_int", lambda own, x: (x * 10).to(torch.int32).to(torch.int8).float(), ROWS)
module(
    "uint8in",
    lambda own, x: x.permute(0, 3, 1, 2).float().div(255).sub(0.5),
    whole(255, 1, 4, 5, 3).to(torch.uint8),
)
module("type_bool", lambda own, x: x.bool().int(), whole(2, 3, 4))
module("bitwise", lambda own, i: i & 5 | i ^ 3, whole(16, 3, 4))
module("shift", lambda own, i: i << 2 >> 1, whole(16, 3, 4))
module("round_d", lambda own, x: torch.round(x, decimals=2), ROWS)
module("bucketize", lambda own, x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])), ROWS)
module("searchsorted", lambda own, x: torch.searchsorted(torch.tensor([-1.0, 0.0, 1.0]), x), ROWS)
module("numel", lambda own, x: x / x.numel() + x.shape[1], ROWS)
module(
    "fourier",
    lambda own, x: torch.cat(
        (x, *[f(2.0**i * x) for i in range(3) for f in (torch.sin, torch.cos)]), -1
    ),
    normal(4, 3),
)
