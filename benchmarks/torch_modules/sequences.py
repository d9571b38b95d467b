"""Sequences: attention, transformers, recurrent cells, scans."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.torch_modules.module import PICTURE, module, normal

module(
    "mha_self",
    lambda own, x: own.layer(x, x, x),
    normal(1, 5, 16),
    layer=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
)
module(
    "mha_cross",
    lambda own, x, y: own.layer(x, y, y, need_weights=False)[0],
    normal(5, 1, 16),
    normal(7, 1, 16),
    layer=lambda: nn.MultiheadAttention(16, 2),
)
module(
    "mha_mask",
    lambda own, x, k: own.layer(x, x, x, key_padding_mask=k)[0],
    normal(1, 5, 16),
    torch.tensor([[False, False, False, True, True]]),
    layer=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
)
module(
    "sdpa",
    lambda own, q, k, v: functional.scaled_dot_product_attention(q, k, v),
    normal(1, 2, 5, 8),
    normal(1, 2, 6, 8),
    normal(1, 2, 6, 8),
)
module(
    "sdpa_causal",
    lambda own, q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    normal(1, 2, 5, 8),
    normal(1, 2, 5, 8),
    normal(1, 2, 5, 8),
)
module(
    "sdpa_mask",
    lambda own, q, k, v, b: functional.scaled_dot_product_attention(q, k, v, attn_mask=b),
    normal(1, 2, 5, 8),
    normal(1, 2, 6, 8),
    normal(1, 2, 6, 8),
    normal(5, 6) > -0.5,
)
module(
    "enc_layer",
    lambda own, x: own.layer(x),
    normal(1, 6, 16),
    layer=lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu").eval(),
)
module(
    "enc_layer_mask",
    lambda own, x, k: own.layer(x, src_key_padding_mask=k),
    normal(1, 6, 16),
    torch.tensor([[False] * 4 + [True] * 2]),
    layer=lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True).eval(),
)
module(
    "dec_layer",
    lambda own, x, y: own.layer(
        x, y, tgt_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1])
    ),
    normal(1, 6, 16),
    normal(1, 4, 16),
    layer=lambda: nn.TransformerDecoderLayer(16, 4, 32, batch_first=True).eval(),
)
module("lstm", lambda own, x: own.layer(x), normal(5, 1, 6), layer=lambda: nn.LSTM(6, 8))
module(
    "lstm_bi2",
    lambda own, x: own.layer(x)[0],
    normal(2, 5, 6),
    layer=lambda: nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True),
)
module(
    "lstm_state",
    lambda own, x, h, c: own.layer(x, (h, c)),
    normal(5, 1, 6),
    normal(1, 1, 8),
    normal(1, 1, 8),
    layer=lambda: nn.LSTM(6, 8),
)
module(
    "lstm_proj",
    lambda own, x: own.layer(x)[0],
    normal(5, 1, 6),
    layer=lambda: nn.LSTM(6, 8, proj_size=4),
)
module(
    "gru_state",
    lambda own, x, h: own.layer(x, h),
    normal(1, 5, 6),
    normal(2, 1, 8),
    layer=lambda: nn.GRU(6, 8, 2, batch_first=True),
)
module(
    "rnn_relu",
    lambda own, x: own.layer(x)[0],
    normal(5, 1, 6),
    layer=lambda: nn.RNN(6, 8, nonlinearity="relu"),
)
module(
    "grucell",
    lambda own, x, h: own.layer(x, h),
    normal(2, 6),
    normal(2, 8),
    layer=lambda: nn.GRUCell(6, 8),
)
module(
    "lstmcell",
    lambda own, x, h, c: own.layer(x, (h, c)),
    normal(2, 6),
    normal(2, 8),
    normal(2, 8),
    layer=lambda: nn.LSTMCell(6, 8),
)
module(
    "triu_mask",
    lambda own, x: x.masked_fill(
        torch.triu(torch.ones(6, 6, dtype=torch.bool), 1), -1000000000.0
    ).softmax(-1),
    normal(2, 6, 6),
)
module(
    "pos_embed",
    lambda own, x: own.layer(x.flatten(2).transpose(1, 2) + torch.arange(80).view(1, 80, 1) / 80),
    PICTURE,
    layer=lambda: nn.Linear(6, 4),
)


def rope(own: Any, x: Any) -> Any:
    f = torch.outer(torch.arange(x.shape[2]).float(), 1 / 100 ** (torch.arange(0, 8, 2) / 8))
    c, si = (f.cos(), f.sin())
    a, b = (x[..., ::2], x[..., 1::2])
    return torch.stack((a * c - b * si, a * si + b * c), -1).flatten(-2)


module("rope", rope, normal(1, 2, 5, 8))


def relative_positions(own: Any, q: Any) -> Any:
    r = torch.arange(5)[:, None] - torch.arange(5)[None] + 4
    return (q @ q.transpose(-1, -2) + own.e(r).permute(2, 0, 1)).softmax(-1)


module("relpos", relative_positions, normal(1, 2, 5, 8), e=lambda: nn.Embedding(9, 2))


def swin(own: Any, x: Any) -> Any:
    b, h, w, c = x.shape
    x = torch.roll(x, (-1, -1), (1, 2))
    x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    x = own.layer(x)
    x = x.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
    return torch.roll(x, (1, 1), (1, 2))


module("swin", swin, normal(1, 4, 6, 8), layer=lambda: nn.Linear(8, 8))


def scan(x: Any) -> Any:
    h = torch.zeros_like(x[:, 0])
    o = []
    for t in range(x.shape[1]):
        h = h * 0.9 + x[:, t]
        o.append(h)
    return torch.stack(o, 1)


module("mamba_scan", lambda own, x: scan(x), normal(1, 6, 4))
module(
    "linear_attn",
    lambda own, q, k, v: (
        (functional.elu(q) + 1)
        @ ((functional.elu(k) + 1).transpose(-1, -2) @ v)
        / ((functional.elu(q) + 1) * (functional.elu(k) + 1).sum(-2, keepdim=True)).sum(
            -1, keepdim=True
        )
    ),
    normal(1, 2, 5, 4),
    normal(1, 2, 5, 4),
    normal(1, 2, 5, 4),
)


def mixture(own: Any, x: Any) -> Any:
    w, i = own.g(x).softmax(-1).topk(2, -1)
    return sum(
        (torch.where(i == k, w, 0 * w).sum(-1, keepdim=True) * e(x) for k, e in enumerate(own.e))
    )


module(
    "moe",
    lambda own, x: mixture(own, x),
    normal(5, 8),
    g=lambda: nn.Linear(8, 3),
    e=lambda: nn.ModuleList(nn.Linear(8, 8) for _ in range(3)),
)
