"""The Android module: its Kotlin compiled against stand-ins for the Android classes that it uses,
its native library built by its own CMake and run by the JVM, which checks every call of JNI."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from mdlc.codegen.frame.frame import Frame
from mdlc.package.write import write_package
from tests.emitted_code import DRIVERS, require
from tests.test_packages import detector

STANDINS = DRIVERS / "android"
OTHERS: tuple[dict[str, Any], ...] = (
    *({"kind": kind} for kind in ("classes", "keypoints", "mask", "embedding")),
    {"answer": None},
    {"answer": None, "frame": False, "embed_weights": True},
    {"frame": False, "mean": None, "std": None},
)
# What grows with the first calls: the JVM's compiled code, not the calls' memory.
GROWN = 8 << 10


def _run(*command: object, **options: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout + done.stderr)


def test_the_module_runs_on_a_jvm_that_checks_jni(tmp_path: Path) -> None:
    javac, kotlinc, cmake = require("javac"), require("kotlinc"), require("cmake")
    java_home = Path(os.path.realpath(javac)).parent.parent
    compiled = detector()
    module = tmp_path / "module"
    write_package("android", compiled, module)

    # The native library, aligned to pages of 16 KB.
    includes = f"-I{java_home}/include -I{java_home}/include/linux"
    flags = f"-DCMAKE_CXX_FLAGS={includes} -Wall -Wextra -Werror"
    build = tmp_path / "build"
    _run(cmake, "-G", "Ninja", "-S", module / "src/main/cpp", "-B", build, flags)
    _run(cmake, "--build", build)
    headers = _run(require("readelf"), "-lW", build / "libmdlc_net.so")
    aligned = re.findall(r"^ +LOAD .* (0x[0-9a-f]+)$", headers, re.MULTILINE)
    assert aligned
    assert set(aligned) == {"0x4000"}

    # An app, of stand-ins and the module's Kotlin; and the Kotlin of every other answer.
    classes = tmp_path / "classes"
    _run(javac, "-d", classes, *sorted(STANDINS.glob("*.java")))
    kotlin = [module / "src/main/kotlin/Net.kt", STANDINS / "Main.kt"]
    for number, options in enumerate(OTHERS):
        other = detector(**{"name": f"Other{number}"} | options)
        folder = tmp_path / other.name
        write_package("android", other, folder)
        kotlin.append(folder / "src/main/kotlin" / f"{other.name}.kt")
        cpp = folder / "src/main/cpp"
        words = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *includes.split())
        _run(require("g++"), *words, f"-I{cpp}/include", cpp / f"{other.name}_jni.cpp")
    environment = dict(os.environ, JAVA_OPTS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    words = (kotlinc, "-Werror", "-cp", classes, "-d", classes, *kotlin)
    _run(*words, env=environment)

    weights = module / "src/main/assets/Net.weights"
    bytes_ = weights.read_bytes()
    (tmp_path / "package").write_bytes(bytes(12348) + bytes_ + b"more")
    pixels = np.random.default_rng(0).integers(0, 256, (31, 20, 4), np.uint8)
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    library = Path(os.path.realpath(kotlinc)).parent.parent / "lib" / "kotlin-stdlib.jar"
    said = _run(
        "java", "-Xcheck:jni", "-Xmx64m", "-XX:+UseSerialGC",
        "--add-opens", "java.base/java.io=ALL-UNNAMED", f"-Djava.library.path={build}",
        "-cp", f"{classes}:{library}", "MainKt", tmp_path / "package", 12348, len(bytes_),
        weights, tmp_path / "pixels", 20, 40_000,
    )  # fmt: skip
    assert "WARNING" not in said
    assert "FATAL" not in said
    assert said.endswith("done\n")
    (grown,) = re.findall(r"^grown (-?\d+) planes 3$", said, re.MULTILINE)
    assert int(grown) < GROWN

    def shown(what: str) -> list[list[float]]:
        found = re.findall(rf"^{what} (.*)$", said, re.MULTILINE)
        return [[float(word) for word in line.split()] for line in found]

    def expected(answer: np.void) -> list[list[float]]:
        names = ("left", "top", "right", "bottom", "score", "label")
        boxes = answer["box"][: answer["count"]]
        return [[float(np.float32(str(box[name]))) for name in names] for box in boxes]

    executable = compiled.build()
    tensor = np.frombuffer(pixels.tobytes()[: 8 * 12 * 3], np.uint8).reshape(1, 8, 12, 3)
    bitmap = Frame("RGBA", 20, 31, (pixels.ravel(),), (80,), rotation=180, mirror=True)
    luma, chroma = pixels[..., 0].ravel(), pixels[..., 1].ravel()[: 20 * 16 - 1]
    image = Frame(
        "YUV_420_888", 20, 31, (luma, chroma, chroma), (20, 20, 20), (1, 2, 2),
        rotation=90, crop=(1, 2, 16, 28),
    )  # fmt: skip
    for what, answer in (
        ("tensor", executable.answer({"x": tensor})),
        ("read", executable.answer({"x": tensor})),
        ("bitmap", executable.answer_frame(bitmap)),
        ("image", executable.answer_frame(image)),
    ):
        boxes = expected(answer)
        assert boxes, what
        np.testing.assert_allclose(shown(what), boxes, rtol=1e-6)
