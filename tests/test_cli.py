"""Every command: what it prints on good input, and its one sentence on bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mdlc.cli import invoke

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
DIGITS = str(EXAMPLES / "digits_mobilenet.onnx")
DIGIT = str(EXAMPLES / "digit.png")
GRAY = ("--input-format", "gray8", "--mean", "128", "--std", "64")
Captured = pytest.CaptureFixture[str]


def failed(capsys: Captured, *arguments: str) -> str:
    """Runs a command that must be refused; returns its one line."""
    assert invoke(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("mdlc: ")
    assert shown.err.count("\n") == 1
    return shown.err


def succeeded(capsys: Captured, *arguments: str) -> str:
    """Runs a command that must succeed without a word on stderr; returns its stdout."""
    assert invoke(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def test_compile_is_the_default(capsys: Captured, tmp_path: Path) -> None:
    target = ("--target", "generic", "--name", "Digits")
    first = succeeded(capsys, DIGITS, *target, "-o", str(tmp_path / "a"))
    again = succeeded(capsys, "compile", DIGITS, *target, "-o", str(tmp_path / "b"))
    assert [Path(line) for line in first.splitlines()] == [
        tmp_path / "a" / Path(line).name for line in again.splitlines()
    ]
    assert (tmp_path / "a" / "Digits.cpp").read_bytes() == (
        tmp_path / "b" / "Digits.cpp"
    ).read_bytes()


def test_options_may_stand_first(capsys: Captured, tmp_path: Path) -> None:
    shown = succeeded(capsys, "--target", "generic", "-o", str(tmp_path), DIGITS)
    assert "DigitsMobilenet.h" in shown


def test_depfile_names_all(capsys: Captured, tmp_path: Path) -> None:
    dependencies = tmp_path / "digits.d"
    shown = succeeded(
        capsys,
        DIGITS,
        "--target",
        "generic",
        "-o",
        str(tmp_path / "out"),
        "--depfile",
        str(dependencies),
    )
    targets, _, sources = dependencies.read_text().strip().partition(": ")
    assert targets.split() == shown.split()
    assert sources == DIGITS


def test_bad_model_leaves_nothing(capsys: Captured, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(Path(DIGITS).read_bytes()[:5000])
    assert "not an ONNX model" in failed(
        capsys, str(bad), "-o", str(tmp_path / "out"), "--depfile", str(tmp_path / "x.d")
    )
    assert list(tmp_path.iterdir()) == [bad]


def test_missing_operators_are_all_named(capsys: Captured, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("TfIdfVectorizer", ["x"], ["a"], name="first"),
            helper.make_node("Whatever", ["a"], ["y"], name="second", domain="acme"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    told = failed(capsys, str(path), "-o", str(tmp_path / "out"))
    assert "TfIdfVectorizer" in told
    assert "'first'" in told
    assert "acme.Whatever" in told
    assert "'second'" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("absent.onnx",), "absent.onnx: there is no such file"),
        ((DIGITS, "--target", "z80"), "there is no target 'z80'"),
        ((DIGITS, "--name", "a-b"), "not a valid C++ class name"),
        ((DIGITS, "--shape", "image"), "write --shape input=1,3,224,224"),
        ((DIGITS, "--shape", "image=1,1,-2,2"), "is not a shape"),
        ((DIGITS, "--shape", "image=1,2,9,9"), "which the model fixes at 32"),
        ((DIGITS, "--mean", "1,2"), "--mean: 2 values for 1 channels"),
        ((DIGITS, "--input-format", "yuv"), "yuv"),
        ((DIGITS, "--no-such-option"), "--no-such-option"),
        ((DIGITS, "-o", DIGITS), "digits_mobilenet.onnx"),
        (("verify", DIGITS, "--inputs", str(ROOT / "tests")), "there are no pictures"),
        (("verify", "absent.onnx"), "no such file"),
        (("run", DIGITS), "--input"),
        (("run", DIGITS, "--input", "absent.png"), "absent.png: there is no such file"),
        (("run", DIGITS, "--input", DIGITS), "is not a readable picture"),
        (("run", DIGITS, "--input", DIGIT, "--labels", "absent"), "there is no file absent"),
        (("bench", "absent.onnx"), "no such file"),
        (("bench", DIGITS, "--threads", "0"), "--threads"),
        (("inspect", "absent.onnx"), "no such file"),
        (("inspect", DIGITS, "--stage", "nonsense"), "--stage"),
        (("explain", DIGITS, "--layer", "nonsense"), "--layer: there is no layer 'nonsense'"),
        (("targets", "more"), "more"),
        (("verify", DIGITS, "--seed", "-1"), "--seed"),
        (("bisect", DIGITS, "--seed", "-1"), "--seed"),
        (("accuracy", DIGITS, "--data", "absent"), "--data-labels"),
        (("bug-report", "absent.onnx"), "no such file"),
        (("demo", DIGITS, "--picture", "absent.png"), "absent.png: there is no such file"),
        (("package", "nonsense", DIGITS, "-o", "out"), "there is no kind of package 'nonsense'"),
        (("pipeline", DIGITS), "is not a readable text file"),
    ],
)
def test_bad_input_is_one_sentence(capsys: Captured, arguments: tuple[str, ...], told: str) -> None:
    assert told in failed(capsys, *arguments)


def test_run_recognises_the_digit(capsys: Captured, tmp_path: Path) -> None:
    result = tmp_path / "y.npz"
    shown = succeeded(
        capsys,
        "run",
        DIGITS,
        *GRAY,
        "--input",
        DIGIT,
        "--output",
        str(result),
        "--labels",
        str(EXAMPLES / "digits_labels.txt"),
    )
    lines = shown.splitlines()
    assert lines[0] == "logits float32[1, 10], with its softmax"
    assert len(lines) == 6
    assert lines[1].split()[-1] == "7"
    with np.load(result) as found:
        assert found.files == ["logits"]
        assert f"{found['logits'].max():.4f}" == lines[1].split()[0]


def test_run_takes_arrays(capsys: Captured, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "x.npz", image=x)
    succeeded(
        capsys,
        "run",
        DIGITS,
        "--target",
        "generic",
        "--input",
        str(tmp_path / "x.npz"),
        "--output",
        str(tmp_path / "y.npz"),
    )
    session = onnxruntime.InferenceSession(DIGITS, providers=["CPUExecutionProvider"])
    with np.load(tmp_path / "y.npz") as found:
        (expected,) = session.run(None, {"image": x})
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("more", [(), (*GRAY, "--inputs", str(EXAMPLES))])
def test_verify_compares_every_layer(capsys: Captured, more: tuple[str, ...]) -> None:
    shown = succeeded(capsys, "verify", DIGITS, *more)
    lines = shown.splitlines()
    compared = [line for line in lines if " ok" in line]
    # 13 convolutions (each with what is fused), pooling, classifier; then the output.
    assert len(compared) >= 16
    assert lines[-1].startswith("every layer is within its bound")


def test_verify_names_the_first_layer_that_is_off(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A bound that float32 cannot keep makes every layer that computes anything fail.
    monkeypatch.setattr("mdlc.checks.verification.UNIT_F32", 1e-12)
    monkeypatch.setattr("mdlc.checks.verification.CLOSE", 0.0)
    assert invoke(["verify", DIGITS]) == 1
    shown = capsys.readouterr()
    off = [line.split()[0] for line in shown.out.splitlines() if "OFF" in line]
    assert shown.err.startswith(f"mdlc: layer '{off[0]}' ")
    assert shown.err.count("\n") == 1


def test_bench(capsys: Captured) -> None:
    shown = succeeded(capsys, "bench", DIGITS, "--repeats", "5", "--json")
    found = json.loads(shown)
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"]) > 500_000
    assert sum(layer["microseconds"] for layer in found["layers"]) > 0
    assert 0 < found["gflops"] < 1.5 * found["peak_gflops"]
    assert found["arena_bytes"] > 0
    table = succeeded(capsys, "bench", DIGITS, "--repeats", "5")
    rows = table.splitlines()
    assert [line.split()[0] for line in rows[1 : len(found["layers"]) + 1]] == [
        layer["name"] for layer in found["layers"]
    ]
    assert rows[len(found["layers"]) + 1].startswith("sum of the layers ")


def test_inspect(capsys: Captured, tmp_path: Path) -> None:
    picture = tmp_path / "graph.svg"
    shown = succeeded(capsys, "inspect", DIGITS)
    succeeded(capsys, "inspect", DIGITS, "--svg", str(picture))
    model = onnx.load(DIGITS)
    computing = [node for node in model.graph.node if node.op_type != "Constant"]
    for node in computing:
        assert node.output[0] in shown
    root = ElementTree.parse(picture).getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    starts = [text.split()[0].rstrip(",") for text in texts if text]
    assert starts.count("BatchNormalization") == 13
    assert starts.count("Conv2D") == 13


def test_inspect_after_a_pass(capsys: Captured) -> None:
    before = succeeded(capsys, "inspect", DIGITS)
    after = succeeded(capsys, "inspect", DIGITS, "--stage", "lower_batch_norm")
    assert "BatchNormalization" in before
    assert "BatchNormalization(" not in after


def test_explain_marks_the_winner(capsys: Captured) -> None:
    shown = succeeded(capsys, "explain", DIGITS, "--target", "arm-neon")
    headings = [line for line in shown.splitlines() if " -> f32[" in line and ": " in line]
    winners = [line for line in shown.splitlines() if line.startswith("->  ")]
    assert len(headings) == len(winners) > 10
    layer = headings[0].split(":")[0]
    one = succeeded(capsys, "explain", DIGITS, "--target", "arm-neon", "--layer", layer)
    assert one.splitlines()[0] == headings[0]
    assert sum(line.startswith("->  ") for line in one.splitlines()) == 1


def test_targets(capsys: Captured) -> None:
    shown = succeeded(capsys, "targets")
    for target in ("arm-neon", "generic", "x86-avx2", "x86-avx512"):
        assert target in shown
    assert shown.count("(host)") == 1


def test_no_compiler_is_one_sentence(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("CXX", "MDLC_CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = failed(capsys, "run", DIGITS, *GRAY, "--input", DIGIT)
    assert "C++ compiler" in told
    assert "pip install ziglang" in told
    assert "missing" in succeeded(capsys, "targets")


def test_version_help_and_cmake(capsys: Captured) -> None:
    assert "0." in succeeded(capsys, "--version")
    assert "verify" in succeeded(capsys, "--help")
    folder = Path(succeeded(capsys, "--cmake-dir").strip())
    assert list(folder.glob("*.cmake"))


def test_quiet_when_piped(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mdlc", DIGITS, "-t", "generic", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_verbose_tells_the_stages(capsys: Captured, tmp_path: Path) -> None:
    assert invoke([DIGITS, "-t", "generic", "-o", str(tmp_path), "-v"]) == 0
    told = capsys.readouterr().err
    assert "reading the model" in told
    assert "fuse_pad: " in told
    assert "choosing kernels for generic" in told
    assert "MAC" in told


def test_shell_completion() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mdlc"],
        env={
            **os.environ,
            "_MDLC_COMPLETE": "bash_complete",
            "COMP_WORDS": "mdlc model.onnx --target x86",
            "COMP_CWORD": "3",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    names = ["plain,x86-avx2", "plain,x86-avx512", "plain,x86-avx512-vnni"]
    assert done.stdout.split() == names


def test_dump_and_check(capsys: Captured, tmp_path: Path) -> None:
    dump = tmp_path / "dump"
    succeeded(
        capsys, DIGITS, "-t", "generic", "-o", str(tmp_path / "out"), "--dump", str(dump), "--check"
    )
    texts = sorted(path.name for path in dump.glob("*.mdl"))
    assert texts[0] == "000_import.mdl"
    assert texts[-1].endswith("_assign_layout.mdl")
    assert len(texts) > 10
    assert "BatchNormalization" in (dump / texts[0]).read_text()
    assert "BatchNormalization" not in (dump / texts[-1]).read_text()


def test_torch_export_file(capsys: Captured, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    pytest.importorskip("onnxscript", reason="the torch extra is not installed")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Hardswish()).eval()
    x = torch.randn(1, 3, 9, 9)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
    np.savez(tmp_path / "x.npz", x=x.numpy())
    succeeded(
        capsys,
        "run",
        str(tmp_path / "net.pt2"),
        "--input",
        str(tmp_path / "x.npz"),
        "--output",
        str(tmp_path / "y.npz"),
    )
    with np.load(tmp_path / "y.npz") as found, torch.no_grad():
        (name,) = found.files
        np.testing.assert_allclose(found[name], module(x).numpy(), rtol=1e-4, atol=1e-5)


def test_bad_torch_export_file(capsys: Captured, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the torch extra is not installed")
    (tmp_path / "bad.pt2").write_bytes(b"PK\x03\x04")
    assert "torch.export.load" in failed(capsys, str(tmp_path / "bad.pt2"))


def test_open_dimensions_are_given_by_shape(capsys: Captured, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "h", "w"])],
    )
    path = tmp_path / "open.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    assert "--shape x=" in failed(capsys, str(path), "-o", str(tmp_path))
    shown = succeeded(capsys, "verify", str(path), "--shape", "x=1,3,5,7")
    assert shown.splitlines()[-1].startswith("every layer is within its bound")
