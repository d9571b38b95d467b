"""Slimming and sharing in torch, on a small network for a few steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import mdlc
from mdlc.compiler.errors import MdlcError
from tests.shared_data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SHARED,
    model_inputs,
    model_path,
    needs_shared,
    normalised,
    onnxruntime_outputs,
)

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("onnxscript", reason="torch's exporter needs onnxscript")

from mdlc.passes.prune_weights import prunable_layers, sparsity  # noqa: E402
from mdlc.passes.prune_weights import prune_weights as prune_at_once  # noqa: E402
from mdlc.training import Network, prune_weights, share_weights, slim  # noqa: E402
from mdlc.training.slimming import Schedule, train, trainable_graph  # noqa: E402

QUICK = Schedule(rounds=2, sparse_steps=12, tune_steps=12, final_steps=12, norm_batches=4)


class Small(torch.nn.Module):  # type: ignore[misc]
    """A residual block, a concat, a depthwise layer and a shuffle: 3x16x16 -> 4."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.b = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.d = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1, groups=32), nn.BatchNorm2d(32))
        self.e = nn.Sequential(nn.Conv2d(32, 24, 1), nn.BatchNorm2d(24), nn.Hardswish())
        self.fc = nn.Linear(24, 4)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = torch.relu(self.a(x) + x)
        x = torch.cat([x, self.b(x)], 1)
        n, c, h, w = x.shape
        x = x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = self.e(self.d(x))
        return self.fc(x.mean((2, 3)))


def _data(batches: int = 8) -> list[tuple[Any, Any]]:
    """Four classes that are told by where a bright square stands."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(batches):
        labels = torch.randint(4, (32,), generator=generator)
        x = torch.randn(32, 3, 16, 16, generator=generator) * 0.3
        for i, label in enumerate(labels.tolist()):
            row, column = divmod(label, 2)
            x[i, label % 3, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] += 1
        found.append((x, labels))
    return found


@pytest.fixture(scope="module")
def small() -> Any:
    torch.manual_seed(0)
    module = Small()
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(3):
        for x, labels in _data():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), labels).backward()
            optimizer.step()
    return module.eval()


def _accuracy(graph: Any) -> float:
    network = Network(graph).eval()
    with torch.no_grad():
        right = [(network(x).argmax(1) == labels).float().mean() for x, labels in _data(12)[8:]]
    return float(torch.stack(right).mean())


def test_networks_compute_what_the_module_does(small: Any) -> None:
    network = Network(trainable_graph(small, (torch.zeros(1, 3, 16, 16),))).eval()
    x = _data(1)[0][0]
    with torch.no_grad():
        torch.testing.assert_close(network(x), small(x), rtol=1e-4, atol=1e-4)
        network.add_norms([x])
        network.eval()
        torch.testing.assert_close(network(x), small(x), rtol=1e-3, atol=1e-3)
        assert len(network.scales()) == 5
        folded = Network(network.to_graph()).eval()
        torch.testing.assert_close(folded(x), small(x), rtol=1e-3, atol=1e-3)


@needs_shared
@pytest.mark.parametrize(
    "name", ["resnet20_cifar10", "fastestdet", "mnist_cntk", "cifar10_winml_tutorial"]
)
def test_real_networks_agree_with_onnxruntime(name: str) -> None:
    graph = trainable_graph(model_path(name))
    network = Network(graph).eval()
    (inputs,) = model_inputs(name, 1)
    with torch.no_grad():
        found = network(*(torch.from_numpy(inputs[node.name]) for node in graph.inputs))
    found = found if isinstance(found, tuple) else (found,)
    expected = onnxruntime_outputs(name, inputs)
    for output, value in zip(graph.output_names, found, strict=True):
        scale = float(np.abs(expected[output]).max())
        assert np.abs(value.numpy() - expected[output]).max() <= 1e-4 * scale + 1e-6


def test_slimming_cuts_the_work_and_keeps_the_task(small: Any) -> None:
    example = (torch.zeros(1, 3, 16, 16),)
    found = slim(small, _data(), share=0.5, schedule=QUICK, example_inputs=example)
    assert len(found.shares) == 2
    assert found.shares[1] <= 0.5 < found.shares[0] <= 0.5**0.5
    assert _accuracy(found.graph) > 0.6  # four classes
    again = slim(small, _data(), share=0.5, schedule=QUICK, example_inputs=example)
    assert found.onnx().SerializeToString() == again.onnx().SerializeToString()
    x = _data(1)[0][0][:1].numpy()
    session = onnxruntime.InferenceSession(found.onnx().SerializeToString())
    name = found.graph.inputs[0].name
    (expected,) = session.run(None, {name: x})
    compiled = mdlc.compile(found.onnx(), "generic", name="Slim")
    (emitted,) = compiled.build()({name: x}).values()
    np.testing.assert_allclose(emitted, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("of", ["params", "latency"])
def test_other_measures(small: Any, of: str) -> None:
    short = Schedule(rounds=1, sparse_steps=2, tune_steps=2, final_steps=0, norm_batches=1)
    found = slim(
        small, _data(2), share=0.6, of=of, schedule=short, target="arm-neon",
        example_inputs=(torch.zeros(1, 3, 16, 16),), multiple=4,
    )  # fmt: skip
    assert found.shares[0] <= 0.6


def test_a_killed_run_goes_on(small: Any, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def batches(limit: int) -> Any:
        class Data:
            taken = 0

            def __iter__(self) -> Any:
                for batch in _data():
                    self.taken += 1
                    if self.taken > limit:
                        raise Killed
                    yield batch

        return Data()

    example = (torch.zeros(1, 3, 16, 16),)
    arguments = {"share": 0.5, "schedule": QUICK, "example_inputs": example, "folder": tmp_path}
    with pytest.raises(Killed):
        slim(small, batches(45), **arguments)
    assert (tmp_path / "round_1.onnx").exists()
    counted = batches(10**6)
    found = slim(small, counted, **arguments)
    assert counted.taken < 50  # the first round is not trained again
    assert len(found.shares) == 2
    untouched = batches(0)
    assert slim(small, untouched, **{**arguments, "schedule": QUICK}).shares == found.shares


def test_gradual_pruning_learns_to_do_without(small: Any) -> None:
    graph = trainable_graph(small, (torch.zeros(1, 3, 16, 16),))
    quick = Schedule(rate=0.02, norm_batches=4)
    found = prune_weights(graph, _data(), 0.8, 45, block=4, schedule=quick)
    at_once = prune_at_once(graph, 0.8, 4)
    layers = {node.name for node in prunable_layers(graph)}
    assert len(layers) == 4
    for node in found.order():
        if type(node.op).__name__ in ("Conv2D", "Dense") and node.name in layers:
            weights = np.asarray(node.inputs[1].constant)
            assert abs(sparsity(node) - 0.8) < 0.02, node.name
            used = (weights != 0).reshape(len(weights) // 4, 4, -1)
            assert (used.all(1) == used.any(1)).all()  # whole blocks
    assert _accuracy(found) > max(_accuracy(at_once) + 0.1, 0.7)
    again = prune_weights(graph, _data(), 0.8, 45, block=4, schedule=quick)
    for a, b in zip(found.order(), again.order(), strict=True):
        assert a.constant is None or np.array_equal(a.constant, b.constant)
    shared = share_weights(found, _data(), 4, 6)
    zeros = {
        n.name: np.asarray(n.inputs[1].constant) == 0 for n in shared.order() if n.name in layers
    }
    for node in found.order():
        if node.name in layers:
            pruned = np.asarray(node.inputs[1].constant) == 0
            assert zeros[node.name][pruned].all()
    with pytest.raises(MdlcError, match="would empty it"):
        prune_weights(graph, _data(1), 0.999, 1, schedule=quick)
    with pytest.raises(MdlcError, match="not a share of the weights"):
        prune_weights(graph, _data(1), 1.0, 1)


def test_bfloat16_trains_as_well(small: Any) -> None:
    graph = trainable_graph(small, (torch.zeros(1, 3, 16, 16),))
    tuned = train(graph, _data(), 12, schedule=Schedule(rate=0.01, bfloat16=True), teacher=graph)
    assert all(n.type.dtype.numpy == np.float32 for n in tuned.order() if n.constant is not None)
    assert _accuracy(tuned) > _accuracy(graph) - 0.05


def test_shared_weights_are_few_and_survive_encoding(small: Any) -> None:
    graph = trainable_graph(small, (torch.zeros(1, 3, 16, 16),))
    before = _accuracy(graph)
    shared = share_weights(graph, _data(), 3, 24, teacher=graph)
    for node in shared.order():
        if type(node.op).__name__ in ("Conv2D", "Dense"):
            assert len(np.unique(node.inputs[1].constant)) <= 8
    assert _accuracy(shared) > before - 0.1
    from mdlc.compiler.onnx_export import export_onnx

    compiled = mdlc.compile(
        export_onnx(shared), "generic", name="S", weights_encoding="clustered:3+huffman"
    )
    assert all(w.error == 0 for w in compiled.plan.encoded.values())


def test_what_cannot_be_done_is_said(small: Any) -> None:
    example = (torch.zeros(1, 3, 16, 16),)
    with pytest.raises(MdlcError, match="is not a share"):
        slim(small, _data(1), share=1.0, example_inputs=example)
    with pytest.raises(MdlcError, match="no measure"):
        slim(small, _data(1), of="watts", example_inputs=example)
    with pytest.raises(MdlcError, match="no batches"):
        slim(small, [], schedule=QUICK, example_inputs=example)
    with pytest.raises(MdlcError, match="cannot be reached"):
        slim(small, _data(1), share=1e-6, schedule=Schedule(rounds=1, sparse_steps=0, distil=0),
             example_inputs=example)  # fmt: skip
    with pytest.raises(MdlcError, match="bits"):
        share_weights(trainable_graph(small, example), _data(1), 9, 1)


@needs_shared
def test_resnet20_keeps_its_accuracy_for_a_few_steps() -> None:
    with np.load(SHARED / "data" / "cifar10" / "cifar10_subset.npz") as data:
        chosen = np.random.default_rng(0).permutation(len(data["train_images"]))[:512]
        images, labels = data["train_images"][chosen], data["train_labels"][chosen]
    x = np.concatenate([normalised(image, IMAGENET_MEAN, IMAGENET_STD) for image in images])
    batches = [
        (torch.from_numpy(x[i : i + 64]), torch.from_numpy(labels[i : i + 64].astype(np.int64)))
        for i in range(0, 512, 64)
    ]
    graph = trainable_graph(model_path("resnet20_cifar10"))
    tuned = train(graph, batches, 6, schedule=Schedule(rate=1e-3, norm_batches=8), teacher=graph)
    with torch.no_grad():
        network = Network(tuned).eval()
        right = [float((network(a).argmax(1) == b).float().mean()) for a, b in batches]
    assert np.mean(right) > 0.75
