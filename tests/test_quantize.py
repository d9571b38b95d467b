"""mdlc --quantize int8, from the command line and from Python, on a trained network."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.datasets import load_digits

import mdlc
from mdlc.checks.integer_verification import accuracy, integer_layers
from mdlc.cli import cli, invoke
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.interpreter import run
from mdlc.compiler.types import Array
from mdlc.quantization.table import load_table
from mdlc.reports.sections import HISTOGRAMS
from tests.shared_data import model_path, needs_shared

DIGITS = Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx"
PREPROCESS = {"input_format": "gray8", "mean": 128, "std": 64}
OPTIONS = ["--input-format", "gray8", "--mean", "128", "--std", "64", "-t", "host"]


# Whatever is fastest on the machine that runs the tests.
INT8 = ["--quantize", "int8", "--placement", "everywhere"]


def everywhere(calibrate: object) -> mdlc.Quantize:
    return mdlc.Quantize(calibrate, placement="everywhere")  # type: ignore[arg-type]


def digits(count: int, first: int = 0) -> tuple[Array, Array]:
    """Pictures as the network takes them, uint8 [N, H, W, 1], and their classes."""
    from PIL import Image

    compiled = mdlc.compile(DIGITS, "generic", **PREPROCESS)
    _, height, width, _ = compiled.graph.inputs[0].shape
    data = load_digits()
    pictures = [
        np.asarray(
            Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
        for image in data.images[first : first + count]
    ]
    return np.stack(pictures)[..., None], data.target[first : first + count]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibration and test sets as files."""
    made = tmp_path_factory.mktemp("digits")
    for name, first in (("calibration", 0), ("test", 1000)):
        pictures, classes = digits(64, first)
        np.savez(made / f"{name}.npz", input=pictures)
        (made / f"{name}.csv").write_text("".join(f"{c}\n" for c in classes))
    return made


@pytest.fixture(scope="module")
def compiled(folder: Path) -> mdlc.CompiledModel:
    return mdlc.compile(
        DIGITS, "host", quantize=everywhere(folder / "calibration.npz"), **PREPROCESS
    )


def frames(folder: Path, name: str = "test") -> list[dict[str, Array]]:
    with np.load(folder / f"{name}.npz") as data:
        (values,) = (data[key] for key in data.files)
    (port,) = mdlc.compile(DIGITS, "generic", **PREPROCESS).plan.inputs
    return [{port.name: value[None]} for value in values]


def test_weights_are_a_quarter_and_the_answers_stay(
    compiled: mdlc.CompiledModel, folder: Path
) -> None:
    exact = mdlc.compile(DIGITS, "host", **PREPROCESS)
    bytes_ = [
        sum(n.type.nbytes for n in made.graph.order() if n.constant is not None)
        for made in (compiled, exact)
    ]
    assert bytes_[0] < 0.35 * bytes_[1]
    inputs = frames(folder)
    _, labels = digits(64, 1000)
    found = accuracy(compiled, inputs, labels.tolist())
    assert found.runs == 64
    assert found.found is not None
    assert found.trained is not None
    assert found.agree >= 0.95
    assert found.found >= found.trained - 0.03


def test_every_layer_has_the_integers_of_the_reference(
    compiled: mdlc.CompiledModel, folder: Path
) -> None:
    found = integer_layers(compiled, frames(folder)[:3])
    assert found.first_off is None
    assert found.runs == 3
    convolutions = [layer for layer in found.layers if layer.kind == "QuantizedConv2D"]
    assert len(convolutions) >= 8
    assert all(layer.snr_db is None or layer.snr_db > 15 for layer in found.layers)
    assert sum(layer.snr_db is not None for layer in convolutions) >= len(convolutions) // 2


def test_the_reference_computes_the_same_outputs(
    compiled: mdlc.CompiledModel, folder: Path
) -> None:
    values = frames(folder)[0]
    wanted, found = run(compiled.graph, values), compiled.build()(values)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def test_the_same_set_gives_the_same_bytes(compiled: mdlc.CompiledModel, folder: Path) -> None:
    again = mdlc.compile(
        DIGITS, "host", quantize=everywhere(folder / "calibration.npz"), **PREPROCESS
    )
    assert again.files() == compiled.files()


def test_the_header_says_how_it_was_made(compiled: mdlc.CompiledModel) -> None:
    header = compiled.files()[f"{compiled.name}.h"].decode()
    text = " ".join(header.replace("//", " ").replace("*", " ").split())
    assert "--quantize int8 --calibrate calibration.npz --calibration minmax" in text


def mdlc_run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), standalone_mode=False)


def test_a_table_is_kept_and_read(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    result = mdlc_run(
        str(DIGITS), *OPTIONS, "-o", str(tmp_path / "a"), *INT8, "--calibrate",
        str(folder / "calibration.npz"), "--calibration", "minmax", "--rounding", "nearest",
        "--calibration-table", str(table),
    )  # fmt: skip
    assert result.exception is None, result.exception
    assert load_table(table).runs == 64
    result = mdlc_run(
        str(DIGITS), *OPTIONS, "-o", str(tmp_path / "b"), *INT8, "--calibrate",
        str(table), "--rounding", "nearest",
    )  # fmt: skip
    assert result.exception is None, result.exception
    (weights,) = (tmp_path / "a").glob("*.weights")
    assert weights.read_bytes() == (tmp_path / "b" / weights.name).read_bytes()


def test_a_report_is_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdlc.reports.page.bundle", lambda: "/* the bundle */")
    result = mdlc_run(
        str(DIGITS), *OPTIONS, "-o", str(tmp_path), *INT8, "--calibrate",
        str(folder / "calibration.npz"), "--quantization-report", str(tmp_path / "report"),
        "--per-tensor", "--rounding", "adaptive",
    )  # fmt: skip
    assert result.exception is None, result.exception
    layers = json.loads((tmp_path / "report" / "layers.json").read_text())
    # Nothing lost at all has no finite figure.
    own = [math.inf if layer["own_snr_db"] is None else layer["own_snr_db"] for layer in layers]
    assert own == sorted(own)
    assert len(layers) >= 8
    assert all(sum(layer["histogram"]) > 0 for layer in layers)
    text = (tmp_path / "report" / "layers.txt").read_text()
    assert all(layer["layer"] in text for layer in layers)
    page = (tmp_path / "report" / "layers.html").read_text()
    assert page.count('<div class="chart">') == 1 + min(len(layers), HISTOGRAMS)
    assert all(layer["layer"] in page for layer in layers)


def test_a_budget_keeps_layers_in_float(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = invoke(
        ["compile", str(DIGITS), *OPTIONS, "-o", str(tmp_path), *INT8,
         "--calibrate", str(folder / "calibration.npz"), "--accuracy-drop", "0",
         "--calibrate-labels", str(folder / "calibration.csv"), "--per-tensor",
         "--rounding", "nearest"]
    )  # fmt: skip
    told = capsys.readouterr().err
    assert code == 0, told
    assert "layers stay in float for accuracy, " in told
    assert "points of top-1 are lost" in told


def test_verify_counts_answers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = invoke(
        ["verify", str(DIGITS), *OPTIONS, *INT8,
         "--calibrate", str(folder / "calibration.npz"), "--inputs", str(folder / "test.npz"),
         "--quantized", "--input-labels", str(folder / "test.csv")]
    )  # fmt: skip
    told = capsys.readouterr().out
    assert code == 0
    assert "every layer is what the reference computes (3 inputs)" in told
    assert "of 64 inputs" in told
    assert "points lost" in told


BAD = {
    "no inputs": (["--quantize", "int8"], "give --calibrate a folder"),
    "no quantize": (["--calibrate", "x.npz"], "--calibrate: needs --quantize"),
    "missing": (["--quantize", "int8", "--calibrate", "nowhere"], "no such file or folder"),
    "layer": (
        ["--quantize", "int8", "--calibrate", "{set}", "--keep-float", "nothing"],
        "--keep-float: there is no layer 'nothing'",
    ),
    "budget": (
        ["--quantize", "int8", "--calibrate", "{set}", "--accuracy-drop", "-1"],
        "--accuracy-drop: -1 is out of range",
    ),
    "labels": (
        ["--quantize", "int8", "--calibrate", "{set}", "--calibrate-labels", "x.csv"],
        "--calibrate-labels: labels are only used to count lost answers",
    ),
    "table": (["--quantize", "int8", "--calibrate", "{table}"], "is not a calibration table"),
    "zeros": (["--quantize", "int8", "--calibrate", "{zeros}"], "only zeros"),
    "shape": (["--quantize", "int8", "--calibrate", "{shape}"], "has shape"),
    "damaged": (["--quantize", "int8", "--calibrate", "{damaged}"], "not a readable NPZ file"),
    "empty": (["--quantize", "int8", "--calibrate", "{folder}"], "no pictures in this folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, reason = BAD[name]
    files = {
        "set": folder / "calibration.npz",
        **{key: tmp_path / f"{key}.npz" for key in ("zeros", "shape", "damaged")},
        "table": tmp_path / "table.json",
        "folder": tmp_path / "folder",
    }
    pictures, _ = digits(2)
    np.savez(files["zeros"], input=np.zeros_like(pictures))
    np.savez(files["shape"], input=pictures[:, 1:])
    files["damaged"].write_bytes(b"PK")
    files["table"].write_text("{}")
    files["folder"].mkdir()
    out = tmp_path / "out"
    filled = [a.format(**{k: str(v) for k, v in files.items()}) for a in arguments]
    code = invoke([str(DIGITS), *OPTIONS, "-o", str(out), *filled])
    told = capsys.readouterr()
    assert code == 2
    assert reason in told.err
    assert told.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"calibration": "median"}, "there is no calibration 'median'"),
        ({"rounding": "up"}, "no rounding 'up'"),
        ({"calibrate": "t.json", "accuracy_drop": 1.0}, "holds no pictures"),
    ],
)
def test_bad_requests_of_the_library(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(MdlcError, match=reason):
        mdlc.Quantize(**{"calibrate": "x.npz", **fields})  # type: ignore[arg-type]


def test_a_network_without_products_is_refused(tmp_path: Path) -> None:
    import onnx

    node = onnx.helper.make_node("Sigmoid", ["x"], ["y"])
    value = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"
    ]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    with pytest.raises(MdlcError, match="no layer of this network"):
        mdlc.compile(model, quantize=everywhere([{"x": np.ones((1, 4), np.float32)}]))


def test_what_stands_in_the_environment_does_not_matter(folder: Path) -> None:
    """The library writes nothing beside the build cache."""
    before = set(os.listdir())
    mdlc.compile(DIGITS, "generic", quantize=everywhere(frames(folder)[:8]), **PREPROCESS)
    assert set(os.listdir()) == before


@needs_shared
@pytest.mark.parametrize(
    ("name", "count", "points"),
    [("resnet8_cifar10", 400, 2.0), ("mobilenet_v1_075_imagenet", 40, 5.0)],
)
def test_trained_networks_keep_their_accuracy(name: str, count: int, points: float) -> None:
    """A few inputs: benchmarks/quantization.py counts all. One answer of 40 is 2.5 points."""
    from benchmarks.quantization import calibration_set, counted_set

    inputs, right = counted_set(name, count)
    options = mdlc.Quantize(calibration_set(name)[::4], rounding="nearest", placement="everywhere")
    compiled = mdlc.compile(model_path(name), "host", quantize=options)
    found = accuracy(compiled, inputs, right)
    assert found.trained is not None
    assert found.found is not None
    assert found.trained > 0.7
    assert 100 * (found.trained - found.found) <= points
    assert found.agree > 0.9
