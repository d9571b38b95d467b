"""The peers: how each converts a network, loads it and runs one inference.

Needs nothing but NumPy and the runtime's own package, so that the Python of an emulated machine
can import it too (benchmarks/arm.py).
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Session = Callable[[], object]
"""One inference on the example input, output and all."""


def example_input() -> Array:
    """1x3x224x224, seeded, float32 in -1..1."""
    return np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of the packages that this Python lacks."""
    return [package for package in packages if importlib.util.find_spec(package) is None]


def _home(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent


def _run(command: list[str | Path], what: str, made: Path) -> None:
    made.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, cwd=made.parent, check=False)
    if not made.exists():
        raise RuntimeError(f"{what} made no {made.name}: {(done.stderr or done.stdout)[-300:]}")


def convert_ncnn(model: Path) -> None:
    """model.onnx to model.ncnn.param and .bin, by pnnx, weights in float32."""
    arguments = [str(model), "inputshape=[1,3,224,224]", "fp16=0"]
    made = model.with_name(f"{model.stem}.ncnn.bin")
    _run([_home("pnnx") / "pnnx", *arguments], "pnnx", made)


def convert_mnn(model: Path) -> None:
    """model.onnx to model.mnn, by MNN's converter."""
    made = model.with_suffix(".mnn")
    arguments = ["-f", "ONNX", "--modelFile", str(model), "--MNNModel", str(made)]
    _run([*_mnn_tool("mnnconvert"), *arguments, "--bizCode", "mdlc"], "mnnconvert", made)


def _mnn_tool(name: str) -> list[str | Path]:
    """A tool of the MNN package, past its command line: that installs packages and reports home."""
    return [sys.executable, "-c", f"import sys, _tools; _tools.{name}(sys.argv)"]


def convert_ncnn_int8(model: Path) -> None:
    """model.onnx to model.ncnn.param and .bin in 8 bits."""
    from benchmarks import ncnn_int8

    convert_ncnn(model)
    made = [model.with_name(f"{model.stem}.ncnn.{end}") for end in ("param", "bin")]
    exact = [file.rename(file.with_suffix(f"{file.suffix}.float32")) for file in made]
    ncnn_int8.convert(*exact, *made)


def convert_mnn_int8(model: Path) -> None:
    """model.onnx to model.mnn in 8 bits, by MNN's tool, calibrated on noise like the input."""
    from PIL import Image

    convert_mnn(model)
    made = model.with_suffix(".mnn")
    exact = made.rename(made.with_suffix(".float32.mnn"))
    pictures = model.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for number in range(8):
        drawn = np.random.default_rng(number).integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(drawn).save(pictures / f"{number}.png")
    settings = {
        "format": "RGB",
        "mean": [127.5] * 3,
        "normal": [1 / 127.5] * 3,
        "width": 224,
        "height": 224,
        "path": f"{pictures}/",
        "used_sample_num": 8,
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
    }
    asked = model.with_name("mnn.json")
    asked.write_text(json.dumps(settings))
    _run([*_mnn_tool("mnnquant"), exact, made, asked], "mnnquant", made)


def convert_litert_int8(model: Path) -> None:
    """model.onnx to model.tflite in 8 bits, over the form of ONNX Runtime's quantiser."""
    from benchmarks.int8_models import quantize_onnx
    from benchmarks.litert_model import convert_litert

    quantized = model.with_name(f"{model.stem}.qdq.onnx")
    quantize_onnx(model, quantized)
    convert_litert(quantized)
    quantized.with_suffix(".tflite").rename(model.with_suffix(".tflite"))


def onnxruntime_session(model: Path, threads: int) -> Session:
    """ONNX Runtime, CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    given = {"input": example_input()}
    return lambda: session.run(None, given)[0]


def openvino_session(model: Path, threads: int) -> Session:
    """OpenVINO, CPU device, latency hint, float32."""
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(str(model), "CPU", config).create_infer_request()
    given = {"input": example_input()}
    return lambda: request.infer(given)[0]


def ncnn_session(model: Path, threads: int, *, half: bool = False) -> Session:
    """ncnn, float32 storage and arithmetic, or half precision in both."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = half
    net.opt.use_bf16_storage = False
    net.load_param(str(model.with_name(f"{model.stem}.ncnn.param")))
    net.load_model(str(model.with_name(f"{model.stem}.ncnn.bin")))
    given = example_input()[0]
    mat = ncnn.Mat(given).clone()  # of its own: the array does not outlive this function

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input("in0", mat)
        return extractor.extract("out0")[1]

    return run


def mnn_session(model: Path, threads: int, *, half: bool = False) -> Session:
    """MNN's session interface, precision high, or low: half precision."""
    import MNN

    interpreter = MNN.Interpreter(str(model.with_suffix(".mnn")))
    session = interpreter.createSession(
        {"numThread": threads, "precision": "low" if half else "high", "backend": "CPU"}
    )
    given = interpreter.getSessionInput(session)
    shape, kind, order = (1, 3, 224, 224), MNN.Halide_Type_Float, MNN.Tensor_DimensionType_Caffe
    values = example_input()
    host = MNN.Tensor(shape, kind, values, order)
    found = interpreter.getSessionOutput(session)

    def run(values: Array = values) -> object:  # which `host` may refer to
        # Every time, because a session may reuse the memory of its input.
        given.copyFrom(host)
        interpreter.runSession(session)
        return found

    return run


def litert_session(model: Path, threads: int) -> Session:
    """LiteRT's interpreter with XNNPACK, its default on CPUs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model.with_suffix(".tflite")), num_threads=threads)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    found = interpreter.get_output_details()[0]["index"]
    values = np.ascontiguousarray(example_input().transpose(0, 2, 3, 1))

    def run() -> object:
        interpreter.set_tensor(given, values)
        interpreter.invoke()
        return interpreter.get_tensor(found)

    return run


def output_of(result: object) -> Array:
    """What a session returned, as an array of 1000 numbers."""
    if hasattr(result, "copyToHostTensor"):
        import MNN

        count = int(np.prod(result.getShape()))  # type: ignore[attr-defined]
        values = np.zeros((1, count), np.float32)
        host = MNN.Tensor((1, count), MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe)
        result.copyToHostTensor(host)
        return np.array(host.getNumpyData()).reshape(-1)
    return np.array(result).reshape(-1)


PEERS: dict[str, tuple[tuple[str, ...], Callable[[Path], None] | None]] = {
    "onnxruntime": (("onnxruntime",), None),
    "openvino": (("openvino",), None),
    "ncnn": (("ncnn", "pnnx"), convert_ncnn),
    "mnn": (("MNN",), convert_mnn),
}
"""By name: the packages that it takes, and its converter where it does not read ONNX."""

INT8_PEERS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "litert": (("ai_edge_litert", "flatbuffers"), convert_litert_int8),
    "ncnn": (("ncnn", "pnnx"), convert_ncnn_int8),
    "mnn": (("MNN",), convert_mnn_int8),
}
"""The same of networks in 8 bits, for benchmarks/arm.py."""

SESSIONS: dict[str, Callable[[Path, int], Session]] = {
    "onnxruntime": onnxruntime_session,
    "openvino": openvino_session,
    "ncnn": ncnn_session,
    "mnn": mnn_session,
    "litert": litert_session,
    "ncnn-fp16": partial(ncnn_session, half=True),
    "mnn-fp16": partial(mnn_session, half=True),
}
