"""Gradual pruning: weights go a few at a time, and what is left learns to do without them.

The share of zeros rises along a cubic curve, steeply at first (Zhu and Gupta, "To Prune, or Not to
Prune", arXiv 1710.01878); for the last third of the steps it stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from mdlc.compiler.ir import Graph
from mdlc.passes.prune_weights import check_pruning, prunable_layers, weight_mask
from mdlc.training.network import Network
from mdlc.training.operators import Tensor
from mdlc.training.slimming import Batches, Loss, Schedule, Trainer

# Times that the masks are chosen anew.
_CUTS = 100


def prune_weights(
    graph: Graph,
    data: Batches,
    ratio: float,
    steps: int,
    *,
    block: int = 1,
    skip: Sequence[str] = (),
    schedule: Schedule | None = None,
    loss: Loss = F.cross_entropy,
    teacher: Graph | None = None,
    seed: int = 0,
) -> Graph:
    """The graph with a share of the weights of every layer zero, trained meanwhile.

    Args:
        graph: as `trainable_graph`, `slim` or `train` gives it.
        data: batches (inputs, labels), see slim.
        ratio: share of zeros in the end, 0 < ratio < 1.
        steps: of training.
        block: output channels that are kept or pruned together (1xN blocks).
        skip: names of layers that keep their weights; layers that read fewer than
            FEWEST_CHANNELS channels do anyway.
        schedule: rate, momentum, decay and distil of it are used.
        teacher: whose outputs are a further target; `graph` itself if None.

    Raises:
        MdlcError: arguments do not fit, a layer would be emptied, or training diverged.
    """
    check_pruning(ratio, block)
    torch.manual_seed(seed)
    schedule = schedule or Schedule()
    guide = Network(teacher or graph).eval() if schedule.distil else None
    layers = prunable_layers(graph, skip)
    trainer = Trainer(graph, data, schedule, loss, guide)
    keys = trainer.network.layers()
    weights = {node: trainer.network.parameters_of[f"{keys[node]}_weight"] for node in layers}
    masks: dict[str, Tensor] = {}
    rising = max(1, steps * 2 // 3)
    every = max(1, rising // _CUTS)

    def prune(step: int) -> None:
        done = min(1.0, (step + 1) / rising)
        share = ratio * (1 - (1 - done) ** 3)
        again = step % every == 0 or step + 1 in (rising, steps)
        with torch.no_grad():
            for node, weight in weights.items():
                if (again and step < rising) or node.name not in masks:
                    found = weight_mask(weight.detach().numpy(), share, block, node.name)
                    masks[node.name] = torch.from_numpy(found)
                weight.mul_(masks[node.name])

    trainer.train(steps, after=prune)
    return trainer.network.to_graph()
