"""The library as a build system uses it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import mdlc
from mdlc.checks.verification import verify
from mdlc.inputs.pictures import random_inputs
from mdlc.output import depfile, write_files
from tests.emitted_code import block_model

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits_mobilenet.onnx"
GRAY = {"input_format": "gray8", "mean": 128, "std": 64}


@pytest.fixture(scope="module")
def compiled() -> mdlc.CompiledModel:
    return mdlc.compile(DIGITS, "generic", name="Digits")


def test_files_and_manifest_agree(compiled: mdlc.CompiledModel, tmp_path: Path) -> None:
    paths = compiled.write(tmp_path / "new" / "folder")
    assert {path.name for path in paths} == set(compiled.files())
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    manifest = json.loads((tmp_path / "new" / "folder" / "Digits.json").read_text())
    assert manifest["model"] == {
        "file": DIGITS.name,
        "sha256": hashlib.sha256(DIGITS.read_bytes()).hexdigest(),
    }
    for name, said in manifest["files"].items():
        data = (tmp_path / "new" / "folder" / name).read_bytes()
        assert said == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert {
        "Digits.h",
        "Digits.cpp",
        "Digits_internal.h",
        "Digits_generic.cpp",
        "Digits.weights",
        "main.cpp",
        "CMakeLists.txt",
    } == set(manifest["files"])


def test_outputs_are_those_of_onnx_runtime(compiled: mdlc.CompiledModel) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    session = onnxruntime.InferenceSession(DIGITS, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": x})
    np.testing.assert_allclose(
        compiled.build()({"image": x})["logits"], expected, rtol=1e-4, atol=1e-4
    )


def test_normalisation_inside(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1)).astype(np.uint8)
    session = onnxruntime.InferenceSession(DIGITS, providers=["CPUExecutionProvider"])
    x = (pixels.reshape(1, 1, 32, 32).astype(np.float32) - 128) / 64
    (expected,) = session.run(None, {"image": x})
    executable = mdlc.compile(DIGITS, "host", **GRAY).build()
    np.testing.assert_allclose(
        executable({"image": pixels})["logits"], expected, rtol=1e-3, atol=1e-3
    )


def test_every_kind_of_source_gives_the_same_network() -> None:
    model = onnx.load(DIGITS)
    plans = [
        mdlc.compile(source, "generic", name="Digits").plan
        for source in (DIGITS, str(DIGITS), DIGITS.read_bytes(), model)
    ]
    assert len({plan.digest() for plan in plans}) == 1


def test_torch_module() -> None:
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    pytest.importorskip("onnxscript", reason="the torch extra is not installed")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    )
    x = torch.randn(1, 3, 9, 11)
    executable = mdlc.compile(module, "host", example_inputs=(x,)).build()
    (port,) = executable.plan.inputs
    (result,) = executable({port.name: x.numpy()}).values()
    assert module.training, "the module is left as it was"
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_torch_module_needs_example_inputs() -> None:
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    with pytest.raises(mdlc.MdlcError, match="needs example inputs"):
        mdlc.compile(torch.nn.Conv2d(3, 8, 3))


def test_twice_the_same_bytes(compiled: mdlc.CompiledModel) -> None:
    assert mdlc.compile(DIGITS, "generic", name="Digits").files() == compiled.files()


@pytest.mark.parametrize("seed", ["0", "1", "12345"])
def test_same_bytes_under_another_hash_seed_and_folder(
    compiled: mdlc.CompiledModel, tmp_path: Path, seed: str
) -> None:
    copy = tmp_path / "elsewhere" / DIGITS.name
    copy.parent.mkdir()
    copy.write_bytes(DIGITS.read_bytes())
    script = (
        "import mdlc, sys; mdlc.compile(sys.argv[1], 'generic', name='Digits').write(sys.argv[2])"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(copy), str(tmp_path / seed)],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=tmp_path,
        check=True,
    )
    written = {path.name: path.read_bytes() for path in (tmp_path / seed).iterdir()}
    assert written == compiled.files()


def test_threads_compile_at_once(compiled: mdlc.CompiledModel) -> None:
    def work(number: int) -> dict[str, bytes]:
        target = ("generic", "arm-neon")[number % 2]
        return mdlc.compile(DIGITS, target, name="Digits").files()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(8)))
    assert all(files == compiled.files() for files in results[::2])
    assert all(files == results[1] for files in results[1::2])


def test_embedded_weights_need_no_file() -> None:
    files = mdlc.compile(DIGITS, "generic", embed_weights=True).files()
    assert not any(name.endswith(".weights") for name in files)
    assert "--embed-weights" in files["DigitsMobilenet.h"].decode()


def test_the_header_says_where_it_comes_from() -> None:
    header = mdlc.compile(DIGITS, "x86-avx2", **GRAY).files()["DigitsMobilenet.h"].decode()
    assert hashlib.sha256(DIGITS.read_bytes()).hexdigest() in header
    unwrapped = " ".join(header.replace("//", " ").split())
    assert "digits_mobilenet.onnx --target x86-avx2" in unwrapped
    assert "--input-format gray8 --mean=128 --std=64" in unwrapped
    assert str(ROOT) not in header


def test_report(compiled: mdlc.CompiledModel) -> None:
    report = compiled.report()
    assert report.macs == compiled.plan.macs == sum(layer.macs for layer in report.layers)
    assert report.arena_bytes >= report.arena_lower_bound > 0
    lines = str(report).splitlines()
    assert len(lines) == 2 + len(compiled.plan.steps)
    assert lines[0].startswith("Digits for generic:")


def test_write_is_all_or_nothing(compiled: mdlc.CompiledModel, tmp_path: Path) -> None:
    (tmp_path / "Digits.weights").mkdir()  # in the way of the last file
    with pytest.raises(mdlc.MdlcError, match="cannot write"):
        compiled.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["Digits.weights"]


def test_files_replace_old_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old and longer")
    assert write_files(tmp_path, {"a": b"new"}) == [tmp_path / "a"]
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_depfile_escapes() -> None:
    text = depfile([Path("out/a b.h"), Path("out/c.cpp")], [Path("$x/m#1.onnx")])
    assert text == b"out/a\\ b.h out/c.cpp: $$x/m\\#1.onnx\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": 3}, "a int is no model"),
        ({"model": b"nonsense"}, "not an ONNX model"),
        ({"model": "absent.onnx"}, "absent.onnx: there is no such file"),
        ({"model": DIGITS, "target": "z80"}, "--target: there is no target 'z80'; choose one of"),
        ({"model": DIGITS, "name": "1st"}, "--name: '1st' is not a valid C\\+\\+ class name"),
        ({"model": DIGITS, "name": "class"}, "'class' is a reserved word of C\\+\\+"),
        ({"model": DIGITS, "shapes": {"x": (1,)}}, "--shape: the model has no input 'x'"),
        ({"model": DIGITS, "mean": "a"}, "--mean: 'a' is not a list of numbers"),
        ({"model": DIGITS, "input_format": "rgb8"}, "--input-format: rgb8 does not fit"),
    ],
)
def test_errors_are_one_sentence(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(mdlc.MdlcError, match=told) as caught:
        mdlc.compile(**{"target": "generic", **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("position", [0, 5, -1])
def test_verify_finds_the_layer_with_wrong_weights(
    compiled: mdlc.CompiledModel, position: int
) -> None:
    steps = list(compiled.plan.steps)
    with_weights = [i for i, step in enumerate(steps) if step.weights]
    chosen = with_weights[position]
    step = steps[chosen]
    field, array = next(iter(step.weights.items()))
    wrong = array.copy()
    wrong.reshape(-1)[np.flatnonzero(wrong)[0]] *= 1.5
    steps[chosen] = replace(step, weights={**step.weights, field: wrong})
    damaged = replace(compiled, plan=replace(compiled.plan, steps=tuple(steps)))
    found = verify(damaged, [random_inputs(compiled.graph, compiled.how)])
    assert found.first_off is not None
    assert found.first_off.step == step.name
    assert verify(compiled, [random_inputs(compiled.graph, compiled.how)]).ok


def test_an_executable_says_how_to_give_it_what_it_takes() -> None:
    executable = mdlc.compile(block_model(), "generic").build()
    array = np.zeros((1, 3, 16, 16))
    with pytest.raises(mdlc.MdlcError, match=r"write executable\(\{'image': array\}\)"):
        executable(array)
    with pytest.raises(
        mdlc.MdlcError, match=r"is float64 .*; convert it with \.astype\('float32'\)"
    ):
        executable({"image": array})
    with pytest.raises(mdlc.MdlcError, match=r"; give an array of shape \[1, 3, 16, 16\]"):
        executable({"image": array[0]})
