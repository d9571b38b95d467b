"""Camera frames: a 1920x1080 NV21 frame turned by 90 degrees, to 224x224 and to 640x640 letterbox.

    python -m benchmarks.frames [--target TARGET] [--repeats N]
    python -m benchmarks.frames --instructions [--cpu cortex-a72]

Beside OpenCV's cvtColor, rotate, resize, copyMakeBorder and subtraction of the mean (one thread),
inference by inference in turns, so that a busy machine slows both; the ratio is that of medians.
mdlc's time is until the picture lies in the network's input, whose mean the first layer takes off.

With --instructions, AArch64 instructions under qemu, exact on any machine, beside those of ncnn's
wheel: from_pixels_resize and substract_mean_normalize of a picture that is RGB and upright already
(the wheel does not export yuv420sp2rgb and kanna_rotate, which would come first).
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEIGHT = 1920, 1080
CASES = ((224, "stretch"), (640, "letterbox"))
FILTERS = (("opencv", "bilinear"), ("pillow", "bilinear"), ("opencv", "area"))
BEGIN = "FRAME BEGINS"


def passthrough(size: int) -> Any:
    """A network that hands its picture through: what it takes is the reading."""
    from onnx import TensorProto, helper

    dims = [1, 3, size, size]
    values = [helper.make_tensor_value_info(n, TensorProto.UINT8, dims) for n in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "passthrough", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def planes() -> tuple[np.ndarray, np.ndarray]:
    """Luma and V, U pairs of a random frame."""
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
    return luma, rng.integers(0, 256, (HEIGHT // 2, WIDTH)).astype(np.uint8)


def with_opencv(size: int, fit: str) -> Callable[[], np.ndarray]:
    import cv2

    cv2.setNumThreads(1)
    nv21 = np.concatenate(planes())

    def run() -> np.ndarray:
        picture = cv2.rotate(cv2.cvtColor(nv21, cv2.COLOR_YUV2RGB_NV21), cv2.ROTATE_90_CLOCKWISE)
        if fit == "letterbox":
            width = round(size * HEIGHT / WIDTH)
            left = (size - width) // 2
            picture = cv2.resize(picture, (width, size))
            right = size - width - left
            fill = (114, 114, 114)
            picture = cv2.copyMakeBorder(
                picture, 0, 0, left, right, cv2.BORDER_CONSTANT, value=fill
            )
        else:
            picture = cv2.resize(picture, (size, size))
        return cv2.subtract(picture.astype(np.float32), (127.5, 127.5, 127.5, 0.0))

    return run


def ncnn_worker(size: int, fit: str) -> None:
    """Inside the emulated machine: ncnn's part three times, a mark before each."""
    import ncnn

    width = round(size * HEIGHT / WIDTH) if fit == "letterbox" else size
    picture = np.random.default_rng(0).integers(0, 256, (WIDTH, HEIGHT, 3)).astype(np.uint8)
    for _ in range(3):
        os.write(2, f"{BEGIN}\n".encode())
        time.clock_gettime(time.CLOCK_MONOTONIC)
        time.clock_gettime(time.CLOCK_MONOTONIC)
        mat = ncnn.Mat.from_pixels_resize(
            picture, ncnn.Mat.PixelType.PIXEL_RGB, HEIGHT, WIDTH, width, size
        )
        mat.substract_mean_normalize([127.5] * 3, [1 / 127.5] * 3)
        time.clock_gettime(time.CLOCK_MONOTONIC)


def times(target: str, repeats: int) -> Any:
    from rich.table import Table

    import mdlc
    from mdlc.codegen.frame.frame import Frame

    luma, chroma = planes()
    frame = Frame(
        "NV21", WIDTH, HEIGHT, (luma.ravel(), chroma.ravel()), (WIDTH, WIDTH), rotation=90
    )
    table = Table("input", "filter", "mdlc ms", "OpenCV bilinear ms", "ratio")
    for size, fit in CASES:
        opencv = with_opencv(size, fit)
        opencv()
        for match, resample in FILTERS:
            how = {"frame": True, "fit": fit, "match": match, "resample": resample}
            executable = mdlc.compile(passthrough(size), target, name="Net", **how).build()
            ours, theirs = [], []
            for _ in range(repeats):
                ours.append(executable.time_reading(frame, 5) / 1e6)
                rounds = []
                for _ in range(5):
                    start = time.perf_counter()
                    opencv()
                    rounds.append((time.perf_counter() - start) * 1e3)
                theirs.append(statistics.median(rounds))
            one, two = statistics.median(ours), statistics.median(theirs)
            name = f"{match} {resample}"
            table.add_row(f"{size} {fit}", name, f"{one:.2f}", f"{two:.2f}", f"{one / two:.2f}")
    return table


def instructions(cpu: str) -> Any:
    from rich.table import Table

    import mdlc
    from benchmarks import arm_machine
    from mdlc.codegen.frame.frame import Frame
    from mdlc.codegen.run.instruction_counts import PLUGIN, WORD
    from mdlc.codegen.run.qemu_plugins import minus, readings, watch

    machine = arm_machine.find()
    luma, chroma = planes()
    table = Table("input", "filter", "rotation", "mdlc, M", "ncnn, M (its part)")
    for size, fit in CASES:
        command = machine.python("benchmarks.frames", ["--worker", str(size), fit])
        lines = watch(PLUGIN, machine.qemu(cpu), command, environment=machine.environment())
        start = max(i for i, line in enumerate(lines) if line.endswith(BEGIN))
        first, second, third = readings(lines[start:], WORD)[:3]
        ncnn = minus(minus(third, second), minus(second, first))[0] / 1e6
        for match, resample in FILTERS:
            how = {"frame": True, "fit": fit, "match": match, "resample": resample}
            executable = mdlc.compile(passthrough(size), "arm-neon", name="Net", **how).build()
            for rotation in (90, 0):
                frame = Frame(
                    "NV21", WIDTH, HEIGHT, (luma.ravel(), chroma.ravel()), (WIDTH, WIDTH),
                    rotation=rotation,
                )  # fmt: skip
                with tempfile.TemporaryDirectory() as folder:
                    source = Path(folder) / "in"
                    source.write_bytes(executable.packed_frames([frame], {}))
                    command = [str(executable.program), "reading", "3"]
                    command += [str(executable.directory / "Net.weights"), str(source)]
                    command += [str(Path(folder) / "out")]
                    seen = readings(watch(PLUGIN, executable.toolchain.runner, command), WORD)
                # The clock is read before an inference, and when its input is there.
                ours = minus(seen[3], seen[2])[0] / 1e6
                shown = f"{ncnn:.2f}" if (match, rotation) == ("opencv", 90) else ""
                table.add_row(f"{size} {fit}", f"{match} {resample}", str(rotation),
                              f"{ours:.2f}", shown)  # fmt: skip
    return table


def main() -> None:
    """Time beside OpenCV, or AArch64 instructions beside ncnn."""
    import argparse

    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="host")
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--cpu", default="cortex-a72")
    given = parser.parse_args()
    counted = instructions(given.cpu) if given.instructions else None
    Console().print(counted or times(given.target, given.repeats))


# The emulated machine has NumPy and ncnn alone: everything else is imported where it is used.
if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        ncnn_worker(int(sys.argv[2]), sys.argv[3])
    else:
        main()
