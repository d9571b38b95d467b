"""mdlc compress: what comes out, its ledger, going on after a kill, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

import mdlc
from mdlc.checks.accuracy import accuracy, class_map, mean_iou
from mdlc.cli import invoke
from mdlc.compiler.onnx_export import export_onnx
from mdlc.compiler.types import Array
from tests.emitted_code import block_model
from tests.shared_data import model_inputs, model_path, needs_shared, onnxruntime_outputs


@pytest.fixture
def block(tmp_path: Path) -> Path:
    path = tmp_path / "block.onnx"
    onnx.save(block_model(), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixty images, labelled with what the network says of them."""
    images = np.random.default_rng(0).standard_normal((60, 3, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(block_model().SerializeToString())
    labels = [int(session.run(None, {"image": image[None]})[0].argmax()) for image in images]
    path = tmp_path / "data.npz"
    np.savez(path, image=images, labels=np.array(labels))
    return path


def _run(model: onnx.ModelProto, image: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"image": image})
    return np.asarray(found)


def test_the_pruned_network_runs_elsewhere_and_here(
    block: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, report = tmp_path / "small.onnx", tmp_path / "report.html"
    arguments = ["compress", str(block), "--prune-channels", "0.5", "--calibrate", str(data),
                 "--test", str(data), "--weights-encoding", "int8+huffman", "-t", "generic",
                 "--work", str(tmp_path / "work"), "--report", str(report),
                 "-o", str(small)]  # fmt: skip
    assert invoke(arguments) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    model = onnx.load(small)
    onnx.checker.check_model(model, full_check=True)
    image = np.load(data)["image"][:1]
    expected = _run(model, image)
    executable = mdlc.compile(small, "generic").build()
    np.testing.assert_allclose(executable(image=image)["logits"], expected, rtol=1e-4, atol=1e-5)

    ledger = json.loads((tmp_path / "report.json").read_text())
    stages = {stage["stage"]: stage for stage in ledger["stages"]}
    assert list(stages) == ["original", "pruned", "refitted", "int8+huffman"]
    assert stages["original"]["top1"] == stages["original"]["agreement"] == 1.0
    assert stages["pruned"]["macs"] < 0.7 * stages["original"]["macs"]
    assert stages["refitted"]["disk_bytes"] < stages["original"]["disk_bytes"]
    assert stages["int8+huffman"]["disk_bytes"] < stages["refitted"]["disk_bytes"]
    assert stages["int8+huffman"]["weight_error"] < 0.01
    assert stages["refitted"]["top1"] > 0.3
    page = report.read_text()
    for name in stages:
        assert name in printed
        assert page.count(name) >= 2  # in the table and in the plot


def test_zeroed_filters_come_out_smaller_with_fewer_macs() -> None:
    model = block_model()
    for tensor in model.graph.initializer:
        if tensor.name in ("stem_w", "stem_b", "dw_w", "dw_b", "pw_w", "pw_b"):
            values = numpy_helper.to_array(tensor).copy()
            values[3:9] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    before = mdlc.compile(block_model(), "generic", name="Block")
    after = mdlc.compile(model, "generic", name="Block")
    assert after.plan.macs < 0.7 * before.plan.macs
    assert after.plan.weight_bytes < 0.75 * before.plan.weight_bytes
    assert after.plan.arena_bytes < before.plan.arena_bytes
    image = np.random.default_rng(0).standard_normal((1, 3, 16, 16)).astype(np.float32)
    found = after.build()(image=image)["logits"]
    np.testing.assert_allclose(found, _run(model, image), rtol=1e-4, atol=1e-5)


def test_a_killed_run_goes_on(
    block: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mdlc.compress.compression as compression

    work, report = tmp_path / "work", tmp_path / "report"
    arguments = ["compress", str(block), "--prune-channels", "0.5", "--calibrate", str(data),
                 "-t", "generic", "--work", str(work), "--report", str(report)]  # fmt: skip

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    whole = compression.refit
    monkeypatch.setattr(compression, "refit", killed)
    assert invoke(arguments) == 130
    assert not report.with_suffix(".json").exists()
    times = {p: p.stat().st_mtime_ns for p in work.iterdir()}
    assert any(p.name.startswith("pruned-") for p in times)
    monkeypatch.setattr(compression, "refit", whole)
    assert invoke(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in times} == times
    first = report.with_suffix(".json").read_bytes()
    monkeypatch.setattr(compression, "refit", killed)  # all is there
    assert invoke(arguments) == 0
    assert report.with_suffix(".json").read_bytes() == first
    monkeypatch.setattr(compression, "refit", whole)
    other = [*arguments[:3], "0.4", *arguments[4:]]
    assert invoke(other) == 0
    assert len(list(work.glob("refitted-*.onnx"))) == 2


def _grouped(path: Path) -> None:
    """A network all of whose channels are tied to its input."""
    weights = numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w")
    shape = (1, 8, 4, 4)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="c"),
        helper.make_node("Add", ["c", "x"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [weights],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL"], "there is nothing to do"),
        (["MODEL", "--prune-channels", "1"], "would empty every layer"),
        (["MODEL", "--prune-channels", "0"], "would cut nothing"),
        (["TIED", "--prune-channels", "0.5"], "all are tied to inputs, outputs"),
        (["MODEL", "--prune-channels", "0.5", "--target-macs", "0.5"], "contradict each other"),
        (["MODEL", "--target-macs", "1.5"], "is not a share of the multiply-adds"),
        (["MODEL", "--target-macs", "0.001"], "cutting channels cannot leave only 0.001"),
        (["MODEL", "--prune-channels", "0.5", "--method", "reconstruct"], "needs inputs"),
        (["MODEL", "--prune-channels", "0.5", "--skip-layer", "nope"], "no layer 'nope'"),
        (["MODEL", "--prune-channels", "0.5", "--test", "missing"], "no such file or folder"),
        (["MODEL", "--prune-channels", "0.5", "--test", "FEW"], "labels of shape [3]"),
        (["MODEL", "--prune-channels", "0.5", "--test", "HIGH"], "labels go from 0 to 10"),
        (
            ["MODEL", "--prune-channels", "0.5", "--test-labels", "x.csv"],
            "labels need pictures",
        ),
        (["MODEL", "--encodings", "int3"], "'int3' is not an encoding"),
        (["MODEL", "--weights-encoding", "auto"], "auto needs a size to fit into"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    arguments: list[str],
    message: str,
    block: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tied = tmp_path / "tied.onnx"
    _grouped(tied)
    images = np.zeros((11, 3, 16, 16), np.float32)
    np.savez(tmp_path / "few.npz", image=images, labels=np.arange(3))
    np.savez(tmp_path / "high.npz", image=images, labels=np.arange(11))
    names = {"MODEL": block, "TIED": tied, "FEW": tmp_path / "few.npz",
             "HIGH": tmp_path / "high.npz"}  # fmt: skip
    out = tmp_path / "out"
    given = [str(names.get(a, a)) for a in arguments]
    work = ["--work", str(tmp_path / "work"), "-o", str(out), "-t", "generic"]
    assert invoke(["compress", *given, *work]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_accuracy_by_hand() -> None:
    scores = [np.float32([[0.1, 0.9, 0, 0, 0, 0]]), np.float32([[0.5, 0.1, 0.2, 0.3, 0.4, 0]])]
    other = [scores[0], scores[0]]
    found = accuracy(scores, other, np.array([1, 1]))
    assert (found.top1, found.top5, found.agreement) == (0.5, 1.0, 0.5)
    shifted = accuracy(scores, scores, np.array([0, 4]), offset=1)
    assert (shifted.top1, shifted.top5) == (0.5, 0.5)
    a, b = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert mean_iou(a, b) == pytest.approx((1 / 2 + 2 / 3) / 2)
    maps = np.zeros((1, 2, 2, 3), np.float32)
    maps[0, 1, 0] = 1
    assert class_map(maps).tolist() == [[[1, 1, 1], [0, 0, 0]]]


@needs_shared
@pytest.mark.parametrize(
    "name",
    ["resnet20_cifar10", "mobilenet_vww", "fastestdet", "ultraface_rfb320", "mnist_cntk",
     "portrait_segmentation"],
)  # fmt: skip
def test_exported_graphs_agree_with_the_networks_they_came_from(name: str) -> None:
    compiled = mdlc.compile(model_path(name), "generic")
    model = export_onnx(compiled.graph)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for inputs in model_inputs(name, 2):
        expected = onnxruntime_outputs(name, inputs)
        found = dict(zip(compiled.graph.output_names, session.run(None, inputs), strict=True))
        for output, value in expected.items():
            scale = np.abs(value).max()
            assert np.abs(found[output] - value).max() <= 1e-4 * scale + 1e-6


@needs_shared
@pytest.mark.parametrize("name", ["mobilenet_vww", "fastestdet", "resnet20_cifar10"])
def test_real_networks_lose_work_everywhere(name: str) -> None:
    from mdlc.compiler.onnx_import import import_model
    from mdlc.passes.prune_channels import macs, prune_channels
    from mdlc.pipeline import optimise

    before = optimise(import_model(model_path(name)), stop_after="remove_dead_channels")
    after = prune_channels(before, 0.5, multiple=1).graph
    assert macs(after) < 0.45 * macs(before)
    small = mdlc.compile(export_onnx(after), "generic", name="Small")
    (inputs,) = model_inputs(name, 1)
    found = small.build()(inputs)
    session = onnxruntime.InferenceSession(export_onnx(after).SerializeToString())
    for output, value in zip(after.output_names, session.run(None, inputs), strict=True):
        assert np.abs(found[output] - value).max() <= 1e-4 * np.abs(value).max() + 1e-6
