"""Are the classes of networks right on every target? Each is compiled, run and judged.

    python -m benchmarks.shared_models --target generic --target x86-avx2
    python -m benchmarks.shared_models --target x86-avx2 exported/*.onnx

Without files: all networks of the shared folder, on real input where there is any, else on
random values. A line for each says whether it is right, refused (why), wrong (the first layer
that is off) or stopped mdlc, and how many seconds of processor time that took, building
included. Each runs in a process of its own, so that none can stop the others.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import mdlc
from mdlc.checks.integer_verification import computes_in_bytes, integer_layers
from mdlc.checks.verification import verify
from mdlc.codegen.target import target_of
from mdlc.commands.verify import FEW_RUNS, MANY_MACS, RANDOM_RUNS
from mdlc.inputs.pictures import random_inputs
from tests.shared_data import HALF, MODELS, SHARED, UNIT, Array, photographs

TARGETS = ("generic", "x86-avx2", "x86-avx512", "arm-neon")
SECONDS = 900


def _stretched(width: int, height: int, **how: Any) -> Callable[[int], list[Array]]:
    return photographs(width, height, first="grace_hopper.png", **how)


def _with_alpha(count: int) -> list[Array]:
    pictures = photographs(320, 320, channels_last=True)(count)
    return [np.concatenate([p, np.ones_like(p[..., :1])], -1) for p in pictures]


def _sound(samples: int) -> Callable[[int], list[Array]]:
    """Gliding tones in place of speech: the shared folder has no sound."""
    seconds = np.arange(samples) / 16000
    tones = sum(np.sin(2 * np.pi * (f + 300 * seconds) * seconds) for f in (150, 470, 1210))
    return lambda count: [(0.1 * (n + 1) * tones)[None].astype(np.float32) for n in range(count)]


# Inputs of networks that tests/shared_data.py does not have: name and loader.
INPUTS: dict[str, tuple[str, Callable[[int], list[Array]]]] = {
    "blazeface_back": ("l_x_", _stretched(256, 256, mean=HALF, std=HALF)),
    "deeplab_dm05_u8": (
        "MobilenetV2/MobilenetV2/input",
        photographs(513, 513, channels_last=True, dtype=np.uint8, first="dog_segmentation.png"),
    ),
    "hand_landmark_lite": ("input_1", photographs(224, 224, std=UNIT, channels_last=True)),
    "kwt1": ("input_1", _sound(16000)),
    "mlsd_tiny": ("input_image_with_alpha:0", _with_alpha),
    "movenet": (
        "serving_default_input:0",
        _stretched(192, 192, channels_last=True, dtype=np.uint8),
    ),
    "nanodet_m": ("input.1", photographs(320, 320, mean=(103.5, 116.3, 123.7), std=(57.4,) * 3)),
    "openseeface_lm0": ("input", _stretched(224, 224, mean=HALF, std=HALF)),
    "openwakeword_melspectrogram": ("input", _sound(5120)),
    "pfld": ("input", _stretched(112, 112, std=UNIT)),
    # Classes, boxes to keep, overlap and score.
    "nms_yolov8": ("config", lambda count: [np.array([80, 100, 0.45, 0.25], np.float32)] * count),
    "ppocr_v3_det": ("x", photographs(320, 320, mean=HALF, std=HALF)),
    "ppocr_v4_rec": ("x", photographs(320, 48, mean=HALF, std=HALF)),
    "silero_vad_16k": ("input", _sound(512)),
    "silero_vad_ifless": ("input", _sound(512)),
    "yolo11n_random": ("images", photographs(640, 640, std=UNIT)),
    "yolo26n_random": ("images", photographs(640, 640, std=UNIT)),
    "yolox_nano": ("images", photographs(416, 416)),
    "yunet_n": ("input", _stretched(320, 320, bgr=True)),
}
INPUTS |= {name: (model.input, model.load) for name, model in MODELS.items()}

# What has to be fixed.
OPTIONS: dict[str, dict[str, Any]] = {
    "nms_yolov8": {"shapes": {"detection": (1, 84, 2100)}},
    "openwakeword_melspectrogram": {"shapes": {"input": (1, 5120)}},
    "ppocr_v3_det": {"shapes": {"x": (1, 3, 320, 320)}},
    "ppocr_v4_rec": {"shapes": {"x": (1, 3, 48, 320)}},
    "silero_vad_16k": {
        "shapes": {"input": (1, 512), "state": (2, 1, 128)},
        "fix": {"sr": 16000},
    },
    "silero_vad_ifless": {
        "shapes": {"input": (1, 512), "state": (2, 1, 128)},
        "fix": {"sr": 16000},
    },
}


def judged(path: Path, target: str) -> dict[str, Any]:
    """Whether a network is right on a target, and why not."""
    try:
        compiled = mdlc.compile(path, target, **OPTIONS.get(path.stem, {}))
        slow = target_of(compiled.plan).emulated or compiled.plan.macs > MANY_MACS
        runs = FEW_RUNS if slow else RANDOM_RUNS
        inputs = [random_inputs(compiled.graph, compiled.how, seed) for seed in range(runs)]
        if path.stem in INPUTS:
            name, load = INPUTS[path.stem]
            real = zip(inputs, load(runs), strict=True)
            inputs = [{**random, name: value} for random, value in real]
        if computes_in_bytes(compiled):
            layer = integer_layers(compiled, inputs).first_off
            why = "" if layer is None else f"{layer.differing} of {layer.elements} elements"
            step = "" if layer is None else layer.step
        else:
            found = verify(compiled, inputs).first_off
            why, step = ("", "") if found is None else (found.fault, found.step)
    except mdlc.MdlcError as error:
        return {"outcome": "refused", "why": str(error)}
    except Exception:
        return {"outcome": "stopped", "why": traceback.format_exc(limit=-3)}
    return {"outcome": "wrong" if step else "right", "why": f"{step}: {why}" if step else ""}


def _in_a_process(path: Path, target: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.shared_models", "--one", str(path)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    try:
        done = subprocess.run(
            [*command, "--target", target],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"outcome": "stopped", "why": f"over {SECONDS} s", "seconds": float(SECONDS)}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any]
    if done.returncode:
        found = {"outcome": "stopped", "why": done.stderr[-300:] or f"exit code {done.returncode}"}
    else:
        found = json.loads(done.stdout.splitlines()[-1])
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found | {"seconds": used, "wall": time.monotonic() - began}


def _line(name: str, target: str, found: Mapping[str, Any]) -> str:
    why = " ".join(str(found["why"]).split())
    return f"{name:32} {target:12} {found['outcome']:8} {found['seconds']:7.1f} s  {why}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(judged(given.one, given.target[0])))
        return
    files = given.files or sorted((SHARED / "models").glob("*.onnx"))
    counted: Counter[tuple[str, str]] = Counter()
    for path in files:
        for target in given.target or TARGETS:
            found = _in_a_process(path, target)
            counted[target, found["outcome"]] += 1
            print(_line(path.stem, target, found), flush=True)
    for (target, outcome), count in sorted(counted.items()):
        print(f"{target:12} {outcome:8} {count}")


if __name__ == "__main__":
    main()
