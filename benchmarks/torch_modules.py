"""Small PyTorch modules, one thing that networks are made of at a time; see torch_exports.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

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


def _cells(own: Any, x: Any, h: Any, c: Any) -> Any:
    out = []
    for t in range(x.shape[0]):
        h, c = own.layer(x[t], (h, c))
        out.append(h)
    return torch.stack(out)


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
module("index_put", lambda own, x, v: _iput(x, v), normal(5, 4), normal(2, 4))


def _iput(x: Any, v: Any) -> Any:
    y = x.clone()
    y[torch.tensor([0, 3])] = v
    return y


def _sl(x: Any, v: Any) -> Any:
    y = x.clone()
    y[:, 1:3] = v
    y[..., 0] = 0
    return y


module("slice_assign", lambda own, x, v: _sl(x, v), normal(2, 4, 6), normal(2, 2, 6))


def _ssl(x: Any) -> Any:
    y = x.clone()
    y[:, ::2, 1:-1] += 1
    return y


module("slice_add", lambda own, x: _ssl(x), normal(2, 4, 6))
module(
    "index_put_acc",
    lambda own, x, i, v: x.index_put((i,), v, accumulate=True),
    normal(5, 4),
    whole(5, 3),
    normal(3, 4),
)
module("mask_assign", lambda own, x: _ma(x), normal(3, 4))


def _ma(x: Any) -> Any:
    y = x.clone()
    y[y < 0] = 0.5
    return y


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
module("gumbel", lambda own, x: functional.one_hot(x.argmax(-1), 12), ROWS)
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
module("roll", lambda own, x: torch.roll(x, (2, -3), (2, 3)), PICTURE)
module("roll_flat", lambda own, x: torch.roll(x, 3), ROWS)
module("flip", lambda own, x: x.flip(2, 3), PICTURE)
module("rot90", lambda own, x: torch.rot90(x, 1, (2, 3)), PICTURE)
module("tril", lambda own, x: x.tril(-1) + x.triu(2), normal(2, 5, 6))
module("diag", lambda own, x: torch.diagonal(x, 0, 1, 2), normal(2, 5, 5))
module("diag_embed", lambda own, x: torch.diag_embed(x), normal(2, 5))
module("eye", lambda own, x: x + torch.eye(5), normal(2, 5, 5))
module(
    "meshgrid", lambda own, x: torch.stack(torch.meshgrid(x, x + 1, indexing="ij"), -1), normal(5)
)
module("linspace", lambda own, x: x * torch.linspace(-1, 1, x.shape[-1]), ROWS)
module("arange_f", lambda own, x: x + torch.arange(0, 6, 0.5), ROWS)
module(
    "full_like",
    lambda own, x: torch.full_like(x, 2) + torch.zeros_like(x) + torch.ones(x.shape[-1]),
    ROWS,
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
    "stft",
    lambda own, x: torch.view_as_real(
        torch.stft(x, 16, 4, window=torch.hann_window(16), return_complex=True)
    ),
    normal(1, 64),
)
module("istft_free", lambda own, x: torch.fft.rfft(x).abs(), normal(2, 16))
module("fft2", lambda own, x: torch.view_as_real(torch.fft.fft2(x)), normal(1, 4, 8))
module("irfft", lambda own, x: torch.fft.irfft(torch.fft.rfft(x) * 0.5), normal(2, 16))
module("fftshift", lambda own, x: torch.fft.fftshift(x), normal(4, 6))
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
module("histc", lambda own, x: functional.one_hot((x > 0).long(), 2).sum(1), ROWS)
module("nonzero", lambda own, x: torch.nonzero(x > 0), normal(3, 4))
module("masked_select", lambda own, x: x.masked_select(x > 0), normal(3, 4))
module("unique", lambda own, i: torch.unique(i), whole(5, 8))
module("bool_index", lambda own, x: x[x[:, 0] > 0], normal(6, 4))
module(
    "dropout",
    lambda own, x: (
        functional.dropout(x, 0.5, training=False) + functional.dropout2d(x, training=False)
    ),
    PICTURE,
)
module("flatten", lambda own, x: torch.flatten(x, 1) @ torch.ones(480, 3), PICTURE)
module("unflatten", lambda own, x: x.unflatten(1, (2, 3)).sum(1), PICTURE)
module("view_as", lambda own, x: x.reshape(x.shape[0], -1, x.shape[-1] // 2), ROWS)
module("squeeze", lambda own, x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1), PICTURE)
module("as_strided", lambda own, x: x.unfold(1, 4, 4).mean(-1), normal(2, 16))
module("numel", lambda own, x: x / x.numel() + x.shape[1], ROWS)
module(
    "triu_mask",
    lambda own, x: x.masked_fill(
        torch.triu(torch.ones(6, 6, dtype=torch.bool), 1), -1000000000.0
    ).softmax(-1),
    normal(2, 6, 6),
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


def rel(own: Any, q: Any) -> Any:
    r = torch.arange(5)[:, None] - torch.arange(5)[None] + 4
    return (q @ q.transpose(-1, -2) + own.e(r).permute(2, 0, 1)).softmax(-1)


module("relpos", rel, normal(1, 2, 5, 8), e=lambda: nn.Embedding(9, 2))


def swin(own: Any, x: Any) -> Any:
    b, h, w, c = x.shape
    x = torch.roll(x, (-1, -1), (1, 2))
    x = x.view(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
    x = own.layer(x)
    x = x.view(b, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
    return torch.roll(x, (1, 1), (1, 2))


module("swin", swin, normal(1, 4, 6, 8), layer=lambda: nn.Linear(8, 8))


def head(own: Any, x: Any) -> Any:
    y = own.c(x)
    b = y[:, :8].view(1, 4, 2, -1).softmax(2).mul(torch.arange(2.0).view(1, 1, 2, 1)).sum(2)
    g = torch.stack(
        torch.meshgrid(torch.arange(8.0) + 0.5, torch.arange(10.0) + 0.5, indexing="ij")[::-1]
    ).view(1, 2, -1)
    lt, rb = b.chunk(2, 1)
    bx = torch.cat(((g - lt + g + rb) / 2, rb + lt), 1) * 8
    return torch.cat((bx, y[:, 8:].flatten(2).sigmoid()), 1)


module("dfl_head", head, PICTURE, c=lambda: nn.Conv2d(6, 11, 1))


def v5(own: Any, x: Any) -> Any:
    y = own.c(x).view(1, 3, 7, 8, 10).permute(0, 1, 3, 4, 2).sigmoid()
    g = torch.stack(
        torch.meshgrid(torch.arange(8.0), torch.arange(10.0), indexing="ij")[::-1], -1
    ).view(1, 1, 8, 10, 2)
    xy = (y[..., :2] * 2 - 0.5 + g) * 8
    wh = (y[..., 2:4] * 2) ** 2 * torch.tensor([[10.0, 13], [16, 30], [33, 23]]).view(1, 3, 1, 1, 2)
    return torch.cat((xy, wh, y[..., 4:]), -1).view(1, -1, 7)


module("yolov5_head", v5, PICTURE, c=lambda: nn.Conv2d(6, 21, 1))


def ssd(own: Any, x: Any) -> Any:
    sc, bx = (
        own.a(x).permute(0, 2, 3, 1).reshape(1, -1, 3).softmax(-1),
        own.b(x).permute(0, 2, 3, 1).reshape(1, -1, 4),
    )
    t, i = sc[..., 1:].max(-1)[0].topk(10)
    return (bx.gather(1, i.unsqueeze(-1).expand(-1, -1, 4)), t, i)


module(
    "ssd_topk",
    ssd,
    PICTURE,
    a=lambda: nn.Conv2d(6, 6, 3, padding=1),
    b=lambda: nn.Conv2d(6, 8, 3, padding=1),
)


def center(own: Any, x: Any) -> Any:
    h = own.c(x).sigmoid()
    k = (functional.max_pool2d(h, 3, 1, 1) == h).float() * h
    v, i = k.flatten(1).topk(7)
    return (v, i // 80, i % 80 // 10, i % 10)


module("centernet", center, PICTURE, c=lambda: nn.Conv2d(6, 2, 3, padding=1))


def soft_argmax(own: Any, x: Any) -> Any:
    p = x.flatten(2).softmax(-1).view_as(x)
    return torch.stack(
        ((p.sum(2) * torch.arange(10.0)).sum(-1), (p.sum(3) * torch.arange(8.0)).sum(-1)), -1
    )


module("soft_argmax", soft_argmax, PICTURE)


def caps(own: Any, x: Any) -> Any:
    n = (x**2).sum(-1, keepdim=True)
    return n / (1 + n) * x / torch.sqrt(n + 1e-08)


module("squash", caps, normal(1, 5, 8))
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
module("mamba_scan", lambda own, x: _scan(x), normal(1, 6, 4))
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
module(
    "fourier",
    lambda own, x: torch.cat(
        (x, *[f(2.0**i * x) for i in range(3) for f in (torch.sin, torch.cos)]), -1
    ),
    normal(4, 3),
)
module(
    "moe",
    lambda own, x: _moe(own, x),
    normal(5, 8),
    g=lambda: nn.Linear(8, 3),
    e=lambda: nn.ModuleList(nn.Linear(8, 8) for _ in range(3)),
)


def _scan(x: Any) -> Any:
    h = torch.zeros_like(x[:, 0])
    o = []
    for t in range(x.shape[1]):
        h = h * 0.9 + x[:, t]
        o.append(h)
    return torch.stack(o, 1)


def _moe(own: Any, x: Any) -> Any:
    w, i = own.g(x).softmax(-1).topk(2, -1)
    return sum(
        (torch.where(i == k, w, 0 * w).sum(-1, keepdim=True) * e(x) for k, e in enumerate(own.e))
    )


def _mi(x: Any, v: Any) -> Any:
    y = x.clone()
    y[y < 0] = v
    return y


module("mask_scalar_t", lambda own, x, v: _mi(x, v), normal(3, 4), torch.tensor(0.7))


def _mr(x: Any, b: Any) -> Any:
    y = x.clone()
    y[b] = y[b] * 2
    return y


module(
    "mask_rows",
    lambda own, x, b: _mr(x, b),
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
