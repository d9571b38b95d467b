"""Packages: what all kinds have in common, and CMake's and Python's, built by their own tools."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import mdlc
from mdlc.cli import invoke
from mdlc.codegen.frame.frame import of_pixels
from mdlc.compiler.errors import MdlcError
from mdlc.package.kind import find_kind, kinds
from mdlc.package.write import MANIFEST, package_files, write_package
from tests.answers.test_class import ANSWERS, maps_model
from tests.emitted_code import block_model, run
from tests.test_sizes import SIZES, open_model

DIGITS = Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx"


def detector(kind: str = "boxes", target: str = "generic", **options: object) -> mdlc.CompiledModel:
    """A class Net with frames and an answer, for any machine."""
    how = {"answer": ANSWERS[kind], "frame": True, "mean": 128, "std": 4, "c_api": True}
    return mdlc.compile(maps_model(), target, **{"name": "Net"} | how | options)


@pytest.fixture(scope="module")
def boxes() -> mdlc.CompiledModel:
    return detector()


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_lists_what_it_is_and_says_it_shortly(kind: str) -> None:
    finder = detector(name="Finder")
    files = package_files(kind, finder)
    assert files == package_files(kind, detector(name="Finder"))
    manifest = json.loads(files.pop(MANIFEST))
    assert (manifest["kind"], manifest["class"]) == (kind, "Finder")
    assert manifest["files"] == {
        path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in files.items()
    }
    readme = [line for line in files["README.md"].decode().splitlines() if line]
    assert len(readme) <= 10
    for step in find_kind(kind).lines(finder):
        assert f"    {step}" in readme
    for path, data in files.items():
        assert "NAME" not in path
        assert "PACKAGE" not in path
        if path.endswith(".py"):
            ast.parse(data)
        if path.endswith(".json"):
            json.loads(data)


@pytest.mark.parametrize(
    ("kind", "target"),
    [("npm", "arm-neon"), ("android", "wasm-simd128"), ("swift", "generic,wasm-simd128")],
)
def test_packages_are_for_machines_that_they_are_built_for(kind: str, target: str) -> None:
    compiled = mdlc.compile(block_model(), target, name="Net", c_api=True)
    with pytest.raises(MdlcError, match=f"of kind {kind} is not built for") as caught:
        package_files(kind, compiled)
    assert caught.value.node == "--target"


def test_packages_and_loaded_classes_have_one_size() -> None:
    sizes = {"x": SIZES[:2]}
    compiled = mdlc.compile(open_model(), "generic", name="Net", shapes=sizes, c_api=True)
    with pytest.raises(MdlcError, match="has one size of its inputs"):
        package_files("cmake", compiled)
    with pytest.raises(MdlcError, match="is not loaded into a process"):
        compiled.load()


def test_only_what_mdlc_wrote_is_written_over(boxes: mdlc.CompiledModel, tmp_path: Path) -> None:
    paths = write_package("cmake", boxes, tmp_path)
    assert all(path.exists() for path in paths)
    assert write_package("cmake", boxes, tmp_path) == paths
    # What another class or kind leaves behind goes, unless somebody changed it.
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(MdlcError, match=r"README\.md was changed since mdlc wrote it"):
        write_package("cmake", boxes, tmp_path)
    (tmp_path / "README.md").unlink()
    (tmp_path / "conanfile.py").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    write_package("python", boxes, tmp_path)
    assert (tmp_path / "conanfile.py").read_text() == "mine"
    assert (tmp_path / "notes.txt").exists()
    assert not (tmp_path / "CMakeLists.txt").exists()
    with pytest.raises(MdlcError, match=r"conanfile\.py was not written by mdlc package"):
        write_package("cmake", boxes, tmp_path)
    (tmp_path / "setup.py").write_text("mine")
    with pytest.raises(MdlcError, match=r"setup\.py was changed"):
        write_package("python", boxes, tmp_path)


def test_a_manifest_that_names_files_elsewhere_is_not_believed(
    boxes: mdlc.CompiledModel, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "package"
    folder.mkdir()
    digest = hashlib.sha256(b"mine").hexdigest()
    listed = {"../outside": {"sha256": digest}, str(outside): {"sha256": digest}}
    (folder / MANIFEST).write_text(json.dumps({"files": listed}))
    write_package("cmake", boxes, folder)
    assert outside.exists()
    (folder / MANIFEST).write_text("{")
    with pytest.raises(MdlcError, match="not a manifest of mdlc"):
        write_package("cmake", boxes, folder)


def test_a_recipe_names_its_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(DIGITS, tmp_path / "digits.onnx")
    recipe = tmp_path / "digits.toml"
    recipe.write_text('model = "digits.onnx"\n[input]\nframe = true\nmean = [128]\nstd = [64]\n')
    words = ["package", "cmake", str(recipe), "-t", "generic", "-o", str(tmp_path / "out")]
    assert invoke(words) == 0
    said = capsys.readouterr().out
    assert "cmake -S . -B build" in said
    assert "find_package(Digits REQUIRED)" in said
    assert "Frame" in (tmp_path / "out" / "src" / "Digits.h").read_text()
    # Frames are read by a class for one target: that of Android's devices.
    out = tmp_path / "android"
    assert invoke(["package", "android", str(recipe), "-o", str(out)]) == 0
    assert "Digits(context).use { it.infer(image) }" in capsys.readouterr().out
    assert 'listOf("arm64-v8a")' in (out / "build.gradle.kts").read_text()
    assert (out / "src/main/cpp/Digits_arm_neon.cpp").exists()
    assert invoke(["package", "android", str(DIGITS), "-o", str(tmp_path / "every")]) == 0
    built = (tmp_path / "every" / "build.gradle.kts").read_text()
    assert 'listOf("arm64-v8a", "armeabi-v7a", "x86_64")' in built
    capsys.readouterr()
    recipe.write_text("[input]\nframe = true\n")
    assert invoke(words) == 2
    assert 'write model = "FILE.onnx"' in capsys.readouterr().err
    assert invoke(["package", "cmak", str(recipe), "-o", str(tmp_path / "out")]) == 2
    assert "did you mean cmake" in capsys.readouterr().err


USER = """
cmake_minimum_required(VERSION 3.16)
project(user C CXX)
find_package(Net 1.0 REQUIRED)
add_executable(user user.c)
target_link_libraries(user PRIVATE Net::Net)
target_compile_definitions(user PRIVATE WEIGHTS="${Net_WEIGHTS}")
"""
USER_C = """
#include <stdio.h>
#include "Net_c.h"
int main(void) {
  NetHandle* net = Net_create();
  int error = Net_init(net, WEIGHTS, NULL);
  puts(Net_error_text(error));
  Net_destroy(net);
  return error == NetOk ? 0 : 1;
}
"""


def test_cmake_finds_what_was_installed(tmp_path: Path) -> None:
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("ninja") is None:
        pytest.skip("needs CMake and Ninja")
    compiled = mdlc.compile(block_model(), "generic", name="Net", threads=2, c_api=True)
    write_package("cmake", compiled, tmp_path / "package")
    prefix, user = tmp_path / "prefix", tmp_path / "user"
    run(cmake, "-G", "Ninja", "-S", tmp_path / "package", "-B", tmp_path / "build")
    run(cmake, "--build", tmp_path / "build")
    words = ("--install", tmp_path / "build", "--prefix", prefix, "--component", "Net")
    run(cmake, *words)
    installed = {path.name for path in prefix.rglob("*") if path.is_file()}
    assert {"Net.h", "Net_c.h", "libNet.a", "Net.weights", "NetConfig.cmake"} <= installed
    user.mkdir()
    (user / "CMakeLists.txt").write_text(USER)
    (user / "user.c").write_text(USER_C)
    moved = prefix.rename(tmp_path / "moved")
    run(cmake, "-G", "Ninja", "-S", user, "-B", user / "b", f"-DCMAKE_PREFIX_PATH={moved}")
    run(cmake, "--build", user / "b")
    assert run(user / "b" / "user") == "no error\n"


PYTHON = """
import sys, threading
import numpy as np
import net
from net import Net, NetError

data = np.load(sys.argv[1])
with Net() as network:
    assert network.target == "generic"
    out = network.infer(data["x"])
    answer = network.answer(x=data["x"])
    framed = network.infer_frame(data["picture"])
    found = network.answer_frame(data["picture"], rotation=90)
    grown = []
    threads = [
        threading.Thread(target=lambda: grown.append(network.infer(data["x"])["maps"]))
        for _ in range(4)
    ]
    for each in threads: each.start()
    for each in threads: each.join()
    assert all((each == out["maps"]).all() for each in grown) and len(grown) == 4
    for bad in (data["x"][:, :1], data["x"].astype(np.float32)):
        try: network.infer(bad)
        except ValueError as error: assert "not uint8 [1, 8, 12, 3]" in str(error)
        else: raise SystemExit("taken")
    try: network.answer_frame(data["picture"], rotation=45)
    except NetError as error: assert error.code == -19, error
    else: raise SystemExit("taken")
    try: network.infer(y=data["x"])
    except TypeError as error: assert "the inputs are x" in str(error)
    else: raise SystemExit("taken")
    import net._native as native
    try: native.infer(network._network, (b"short",), (bytearray(4), bytearray(4)))
    except ValueError as error: assert "too short" in str(error)
    else: raise SystemExit("taken")
try: network.infer(data["x"])
except ValueError as error: assert "closed" in str(error)
else: raise SystemExit("taken")
try: Net("nowhere")
except NetError as error: assert error.code == -1
else: raise SystemExit("taken")
np.savez(sys.argv[2], **out, framed=framed["maps"], answer=answer, found=found)
"""


def test_pip_builds_the_wheel_and_numpy_goes_in_and_out(
    boxes: mdlc.CompiledModel, tmp_path: Path
) -> None:
    write_package("python", boxes, tmp_path / "package")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    run(*pip, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", tmp_path / "dist",
         where=tmp_path / "package")  # fmt: skip
    (wheel,) = (tmp_path / "dist").iterdir()
    assert "cp311-abi3" in wheel.name
    site = tmp_path / "site"
    run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel)
    rng = np.random.default_rng(0)
    given = {
        "x": rng.integers(0, 256, (1, 8, 12, 3), np.uint8),
        "picture": rng.integers(0, 256, (40, 25, 3), np.uint8),
    }
    np.savez(tmp_path / "given.npz", **given)
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{PYTHON}"
    run(sys.executable, "-c", program, tmp_path / "given.npz", tmp_path / "found.npz")
    found = np.load(tmp_path / "found.npz")
    executable = boxes.build()
    expected = executable({"x": given["x"]})
    np.testing.assert_array_equal(found["maps"], expected["maps"])
    np.testing.assert_array_equal(found["vector"], expected["vector"])
    (framed,) = executable.run_frames([of_pixels(given["picture"])])
    np.testing.assert_array_equal(found["framed"], framed.outputs["maps"])
    for name, record in (
        ("answer", executable.answer({"x": given["x"]})),
        ("found", executable.answer_frame(of_pixels(given["picture"], rotation=90))),
    ):
        count = int(found[name]["count"])
        assert count == record["count"]
        assert count > 0
        for field in ("left", "bottom", "score", "label"):
            np.testing.assert_array_equal(
                found[name]["box"][field][:count], record["box"][field][:count]
            )
