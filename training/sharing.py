"""Weight sharing with retraining: codebooks of k-means whose centroids are trained.

Han, Mao and Dally, "Deep Compression", arXiv 1510.00149, section 3: which weights share a value
stays as k-means had it; a centroid's gradient is the sum of those of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mdlc.codegen.weights.encoding import Encoding, quantise
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.training.network import Network
from mdlc.training.slimming import Batches, Loss, endless


def share_weights(
    graph: Graph,
    data: Batches,
    bits: int | Mapping[str, int],
    steps: int,
    *,
    rate: float = 1e-3,
    loss: Loss = F.cross_entropy,
    teacher: Graph | None = None,
    distil: float = 0.5,
) -> Graph:
    """The graph with at most 2^bits values in the weights of each layer, trained.

    Compiled with `--weights-encoding clustered:BITS`, nothing more is lost.

    Args:
        graph: as `trainable_graph` or `slim` gives it.
        bits: 2 to 8, of all layers or by the layer's name (8 for those not named).
        steps: of Adam, at `rate`, on the centroids and biases.
        teacher: whose outputs are a further target; distil: their share of the loss.

    Raises:
        MdlcError: bits do not fit.
    """
    network = Network(graph)
    guide = Network(teacher).eval() if teacher is not None and distil else None
    shared: dict[str, tuple[Any, Any]] = {}
    for node, key in network.layers().items():
        own = bits if isinstance(bits, int) else bits.get(node.name, 8)
        if not 2 <= own <= 8:
            raise MdlcError(f"{own} bits", node="bits", hint="choose 2 to 8")
        weights = network.parameters_of[f"{key}_weight"]
        value = weights.detach().numpy()
        found = quantise(value, np.zeros(value.shape, np.int64), Encoding("clustered", own), key)
        codes = torch.from_numpy(found.codes[0].astype(np.int64))
        shared[key] = (codes, torch.nn.Parameter(torch.from_numpy(found.table.copy())))
    biases = [p for name, p in network.parameters_of.items() if not name.endswith("_weight")]
    books = [book for _, book in shared.values()]
    zeros = {key: book.detach() == 0 for key, (_, book) in shared.items()}

    def place() -> None:
        with torch.no_grad():
            for key, (codes, book) in shared.items():
                book[zeros[key]] = 0  # what was pruned stays so
                network.parameters_of[f"{key}_weight"].copy_(book[codes])

    place()
    optimizer = torch.optim.Adam([*biases, *books], rate)
    for step, (x, labels) in zip(range(steps), endless(data), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        y = network(x)
        total = loss(y, labels)
        if guide is not None:
            with torch.no_grad():
                wanted = F.log_softmax(guide(x) / 2, 1)
            own_ = F.log_softmax(y / 2, 1)
            apart = 4 * F.kl_div(own_, wanted, log_target=True, reduction="batchmean")
            total = (1 - distil) * total + distil * apart
        network.zero_grad()
        total.backward()
        for key, (codes, book) in shared.items():
            gradient = network.parameters_of[f"{key}_weight"].grad
            book.grad = torch.zeros_like(book).index_add_(
                0, codes.reshape(-1), gradient.reshape(-1)
            )
        optimizer.step()
        place()
    return network.to_graph()
