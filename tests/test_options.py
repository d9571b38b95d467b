"""Options of compile: one entry each, for the library, the command line and the header."""

from __future__ import annotations

import shlex
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mdlc
from mdlc.cli import cli, invoke
from mdlc.codegen.target import find_target
from mdlc.commands.options import Job, takes_model
from mdlc.option import Group, option, options_of, words
from mdlc.options import CompileOptions

DIGITS = Path(__file__).parent.parent / "examples" / "digits_mobilenet.onnx"
GENERIC = find_target("generic")


def parsed(line: str) -> CompileOptions:
    """The options that a command line of `mdlc MODEL ...` asks for."""
    found: list[Job] = []

    @takes_model(frozenset(Group))
    def command(job: Job) -> None:
        found.append(job)

    import click

    click.command(command).main(args=shlex.split(line)[1:], standalone_mode=False)
    return found[0].options


QUANTIZE = st.builds(
    mdlc.Quantize,
    st.just("pictures"),
    st.sampled_from(["minmax", "mse"]),
    st.booleans(),
    st.lists(st.sampled_from(["conv1", "fc7"]), max_size=2, unique=True),
    st.none() | st.sampled_from([0.5, 1.0, 7.25]),
    rounding=st.sampled_from(["adaptive", "nearest"]),
    equalise=st.booleans(),
    placement=st.sampled_from(["cost", "everywhere"]),
)
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "name": st.none() | st.just("Digits"),
    "shapes": st.none() | st.just({"b": (2, 3), "a": (1, 3, 8, 8)}),
    "input_format": st.sampled_from([None, "rgb8", "float"]),
    "mean": st.sampled_from([None, 127.5, (1.0, -2.0, 3.0), "1,2,3"]),
    "std": st.sampled_from([None, 2, (1.5, 2.5)]),
    "channel_order": st.sampled_from(["rgb", "bgr"]),
    "core": st.none() | st.just("x"),
    "threads": st.integers(1, 64),
    "tuned": st.sampled_from([None, (), "a.json", ("a.json", "b.json")]),
    "embed_weights": st.booleans(),
    "fallback": st.sampled_from([None, "cpu"]),
    "calibrate": st.sampled_from([None, "inputs.npz"]),
}
WAYS = st.one_of(
    st.builds(dict, quantize=QUANTIZE, calibrate=st.none()),
    st.builds(dict, precision=st.sampled_from(["fp16", "bf16"])),
    st.builds(dict, weights_encoding=st.sampled_from(["raw", "int8", "clustered:4+huffman"])),
    st.builds(dict, weights_encoding=st.just("auto"), max_size=st.integers(1, 10**9)),
)


@settings(deadline=None)
@given(st.fixed_dictionaries(PLAIN), WAYS)
def test_the_command_line_says_the_same_again(plain: dict[str, Any], way: dict[str, Any]) -> None:
    options = CompileOptions(**{**plain, **way, "target": "generic"})
    line = options.command_line("model.onnx", [GENERIC])
    again = parsed(line)
    assert again.command_line("model.onnx", [GENERIC]) == line
    for field, entry in options_of(CompileOptions):
        if entry.shows is not None and field.name not in ("shapes", "quantize"):
            assert (getattr(again, field.name) or None) == (getattr(options, field.name) or None)


def test_every_field_is_an_option() -> None:
    for cls in (CompileOptions, mdlc.Quantize):
        assert [field.name for field in fields(cls)] == [field.name for field, _ in options_of(cls)]
        for _, entry in options_of(cls):
            assert entry.help.endswith(".")
            assert entry.flag.startswith("--")


def test_options_are_frozen() -> None:
    options = CompileOptions("generic")
    with pytest.raises(FrozenInstanceError):
        options.threads = 2  # type: ignore[misc]
    assert replace(options, threads=2).threads == 2


def test_compile_takes_options_and_keywords() -> None:
    options = CompileOptions("generic", threads=2)
    compiled = mdlc.compile(DIGITS, options, name="Digits")
    assert compiled.name == "Digits"
    assert compiled.plan.threads == 2
    line = "mdlc digits_mobilenet.onnx --target generic --name Digits --threads 2"
    assert compiled.info.command == line
    keywords = mdlc.compile(DIGITS, target="generic", name="Digits", threads=2)
    positional = mdlc.compile(DIGITS, "generic", name="Digits", threads=2)
    assert compiled.files() == keywords.files() == positional.files()


def test_an_unknown_keyword_is_named() -> None:
    with pytest.raises(TypeError, match="there is no option 'thread'; did you mean threads"):
        mdlc.compile(DIGITS, thread=2)
    with pytest.raises(TypeError, match="the target is given twice"):
        mdlc.compile(DIGITS, "generic", target="host")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"threads": 65}, "--threads: 65 is out of range; choose a number from 1 to 64"),
        ({"threads": "2"}, "--threads: '2' is out of range"),
        ({"precision": "fp8"}, "--precision: there is no precision 'fp8'; choose one of fp32"),
        ({"input_format": "rgb"}, "--input-format: there is no input format 'rgb'; did you mean"),
        ({"fallback": "gpu"}, "--fallback: there is no fallback 'gpu'; write cpu"),
        ({"weights_encoding": "auto"}, "--weights-encoding: auto needs a size to fit into"),
        ({"max_size": 9}, "--max-size: only --weights-encoding auto uses it"),
        ({"precision": "fp16", "weights_encoding": "int8"}, "stored as fp16 already"),
        ({"precision": "bf16", "quantize": mdlc.Quantize("x")}, "contradicts --quantize"),
        ({"target": "metal", "threads": 2}, "--threads: target metal computes on the GPU"),
        ({"target": "metal", "embed_weights": True}, "always has its weights in a file"),
        ({"target": "metal", "weights_encoding": "int8"}, "the one form that its kernels read"),
        ({"target": "metal", "quantize": mdlc.Quantize("x")}, "has no 8-bit kernels"),
        ({"target": "metal", "precision": "fp16"}, "computes in half precision"),
        ({"target": "generic", "fallback": "cpu"}, "all layers on the processor already"),
        ({"target": "generic", "calibrate": "x"}, "needs --quantize, or --precision fp16"),
        ({"target": "Android"}, "there is no target 'Android'; did you mean android, or one of"),
        ({"target": "generick"}, "--target: there is no target 'generick'; did you mean generic"),
    ],
)
def test_contradictions_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(mdlc.MdlcError) as caught:
        mdlc.compile(DIGITS, **given)
    assert told in str(caught.value)


# Groups of options that mean nothing to a command: what its help must not show.
ABSENT = {
    "compile": (),
    "run": ("--embed-weights", "Labels of the calibration set"),
    "verify": ("--embed-weights",),
    "bench": ("--embed-weights",),
    "explain": ("--embed-weights",),
    "tune": ("--embed-weights", "--tuned", "--no-tuned"),
    "compress": ("--embed-weights", "--quantize", "--precision"),
    "inspect": ("--target", "--threads", "--weights-encoding", "--tuned", "--quantize", "--name"),
}


@pytest.mark.parametrize("command", sorted(ABSENT))
def test_help_shows_the_groups_that_concern(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in cli.commands
    assert invoke([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"\n  {Group.INPUT.value} " in shown
    said = shown.split()
    for absent in ABSENT[command]:
        assert f"\n  {absent} " not in shown
        assert absent not in said
    assert "MODEL" in said


def test_a_new_option_is_one_entry() -> None:
    """A field with its metadata is a keyword, a flag and words of the header."""

    @dataclass(frozen=True)
    class More(CompileOptions):
        unroll: int = option(
            1, "--unroll", group=Group.CODE, number=int, bounds=(1, 8), help="How far."
        )

    assert words(More("generic", unroll=4)) == ["--target", "generic", "--unroll", "4"]
    assert words(More("generic")) == ["--target", "generic"]
