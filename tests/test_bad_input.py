"""Models that are wrong or not supported: one sentence that says what, where and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mdlc.compiler.errors import MdlcError
from mdlc.compiler.onnx_import import import_model
from tests.onnx_models import model, node, value, weight

HALF, INT64, STRING = TensorProto.FLOAT16, TensorProto.INT64, TensorProto.STRING


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(MdlcError) as caught:
        import_model(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return message


def relu(**more: Any) -> onnx.ModelProto:
    return model([node("Relu", "x", "y", name="act")], **more)


# Files


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert refusal(path) == f"{path}: there is no such file; check the path"


def test_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path}: this is a folder, not a model; give the .onnx file in it"
    )


def test_ill_formed_path() -> None:
    assert refusal("a\0b") == (r"'a\x00b': cannot be read: the path is malformed; check the path")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()
    assert refusal(path) == f"{path}: the file is empty; export the model again"


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0 JPEG", b"PK\x03\x04 zip", b"import torch\n"])
def test_other_format(data: bytes) -> None:
    assert refusal(data) == (
        "the model: not an ONNX model: truncated, damaged or another format; export the model "
        "again, or convert it to ONNX"
    )


def test_truncated_file() -> None:
    assert "not an ONNX model: truncated, damaged" in refusal(relu().SerializeToString()[:-9])


def test_protobuf_of_something_else() -> None:
    assert refusal(weight("w", [1.0]).SerializeToString()).startswith("the model: not an ONNX")
    assert refusal(onnx.ModelProto(ir_version=8)) == (
        "the model: not an ONNX model: it has no graph or no operator set; export the model "
        "again, or convert it to ONNX"
    )


@pytest.mark.parametrize("opset", [0, onnx.defs.onnx_opset_version() + 1])
def test_operator_set(opset: int) -> None:
    newest = onnx.defs.onnx_opset_version()
    assert refusal(relu(opset=opset)) == (
        f"the model: operator set {opset} is not supported; export it with one from 1 to {newest}"
    )


def test_text_that_is_not_utf8() -> None:
    data = relu().SerializeToString().replace(b"Relu", b"Re\xffu")
    assert refusal(data) == (
        "the model: the field 'op_type' in it is not UTF-8 text; export the model again"
    )


def test_no_outputs() -> None:
    proto = relu()
    del proto.graph.output[:]
    assert refusal(proto) == "the model: the model has no outputs; export the model again"


# Operators


def test_all_missing_operators_are_named() -> None:
    proto = model(
        [
            node("BeamSearch", "x", "a", domain="com.microsoft", name="beam"),
            node("StringConcat", "a", "b"),
            node("StringConcat", "b", "c", name="second"),
            node("Nonsense", "c", "y"),
        ],
        opsets=[helper.make_opsetid("com.microsoft", 1)],
    )
    assert refusal(proto) == (
        "operators that mdlc does not have: Nonsense (1x: 'y'); StringConcat (2x: 'b', 'second'); "
        "com.microsoft.BeamSearch (1x: 'beam'); export the model with standard operators, without "
        "those of 'com.microsoft'; export the model without them, or cut it before them"
    )


def test_missing_operators_come_before_all_else() -> None:
    proto = model([node("StringConcat", "undefined", "y")], [value("x", ("N", "M"))])
    assert "StringConcat (1x: 'y')" in refusal(proto)


@pytest.mark.parametrize(
    ("op", "hint"),
    [
        (node("StringConcat", "x", "y"), "export the model without them, or cut it before them"),
        (node("BeamSearch", "x", "y", domain="com.microsoft"), "with standard operators"),
        (
            node("Gradient", "x", "y", domain="ai.onnx.preview.training"),
            "for inference, not for training",
        ),
    ],
)
def test_hints_for_missing_operators(op: onnx.NodeProto, hint: str) -> None:
    assert hint in refusal(model([op]))


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([node("SequenceConstruct", "x x", "y")], "output 'y': is a sequence, not a tensor"),
        (
            [node("SequenceConstruct", "x x", "s"), node("Relu", "s", "y")],
            "node 'y' (Relu): reads a sequence",
        ),
    ],
)
def test_sequences_where_tensors_belong(nodes: list[onnx.NodeProto], sentence: str) -> None:
    assert refusal(model(nodes)) == f"{sentence}; export the model with tensors only"


def test_training_mode() -> None:
    numbers = [weight(n, np.ones(4)) for n in "sbmv"]
    proto = model([node("BatchNormalization", "x s b m v", "y m2 v2", training_mode=1, name="bn")],
                  weights=numbers)  # fmt: skip
    assert refusal(proto).startswith("node 'bn' (BatchNormalization): ")


def test_operator_newer_than_the_operator_set() -> None:
    assert refusal(model([node("Mish", "x", "y")], opset=13)) == (
        "node 'y' (Mish): there is no such operator in operator set 13; export the model with a "
        "newer operator set"
    )


def test_branches_of_different_types() -> None:
    """A condition at run time chooses between two tensors of one type."""
    bodies = {
        key: helper.make_graph([op], key, [], [value(key, None)])
        for key, op in (
            ("then_branch", node("Relu", "x", "then_branch")),
            ("else_branch", node("Concat", "x x", "else_branch", axis=0)),
        )
    }
    proto = model([node("If", "go", "y", name="choice", **bodies)],
                  [value("x"), value("go", (), TensorProto.BOOL)])  # fmt: skip
    assert refusal(proto) == (
        "node 'choice' (If): its condition is computed at run time, and its branches give "
        "different types; fix the input or the dimensions that the condition depends on, with "
        "--shape or --fix"
    )


def loop(reads: str, **more: Any) -> onnx.ModelProto:
    boolean = TensorProto.BOOL
    body = helper.make_graph(
        [node("Relu", "a", "b"), node("Identity", "on", "still")], "body",
        [value("i", (), INT64), value("on", (), boolean), value("a")],
        [value("still", (), boolean), value("b")],
    )  # fmt: skip
    return model([node("Loop", reads, "y", name="loop", body=body)], **more)


@pytest.mark.parametrize(
    ("reads", "kind", "what"),
    [("n _ x", INT64, "its trip count"), ("_ n x", TensorProto.BOOL, "its condition")],
)
def test_loops_whose_length_is_unknown(reads: str, kind: int, what: str) -> None:
    assert refusal(loop(reads, inputs=[value("x"), value("n", (), kind)])) == (
        f"node 'loop' (Loop): {what} is computed at run time; give what it is computed from with "
        "--fix n=VALUE, or export the model without control flow"
    )


def test_loops_of_absurd_length() -> None:
    assert refusal(loop("n _ x", weights=[weight("n", 1 << 40, np.int64)])) == (
        "node 'loop' (Loop): its 1099511627776 iterations would become 2199023255552 nodes; at "
        "most 200000 are unrolled"
    )
    assert refusal(model([node("Loop", "x", "y")])) == (
        "node 'y' (Loop): its body is missing; export the model again"
    )


def test_functions_that_call_themselves() -> None:
    own = helper.make_function("mine", "F", ["a"], ["b"], [node("F", "a", "b", domain="mine")],
                               [helper.make_opsetid("mine", 1)])  # fmt: skip
    proto = model([node("F", "x", "y", domain="mine")], functions=[own],
                  opsets=[helper.make_opsetid("mine", 1)])  # fmt: skip
    assert "its local functions call themselves" in refusal(proto)


def test_functions_that_explode() -> None:
    """Each calls the next twice: a few lines stand for 2^40 nodes."""
    opsets = [helper.make_opsetid("mine", 1), helper.make_opsetid("", 17)]
    functions = [
        helper.make_function(
            "mine", f"F{i}", ["a"], ["b"],
            [node(f"F{i + 1}", "a", "m", domain="mine"), node(f"F{i + 1}", "m", "b", domain="mine")]
            if i < 40 else [node("Relu", "a", "b")],
            opsets,
        )
        for i in range(41)
    ]  # fmt: skip
    proto = model([node("F0", "x", "y", domain="mine")], functions=functions, opsets=opsets[:1])
    assert "its local functions stand for" in refusal(proto)


# The graph


def test_cycle() -> None:
    proto = model([node("Add", "x b", "a", name="up"), node("Relu", "a", "b"),
                   node("Neg", "b", "y")])  # fmt: skip
    assert "the graph has a cycle" in refusal(proto)
    assert "reads" not in refusal(model([node("Add", "x y", "y", name="own")]))


def test_undefined_tensor() -> None:
    assert refusal(model([node("Add", "x ghost", "y", name="sum")])) == (
        "node 'sum' (Add): reads the tensor 'ghost', which no operator computes; "
        "export the model again"
    )


def test_undefined_output() -> None:
    proto = model([node("Relu", "x", "y")], outputs=[value("y"), value("ghost")])
    assert refusal(proto) == "output 'ghost': is computed by no operator; export the model again"


@pytest.mark.parametrize("name", ["y", "x", "w"])
def test_tensors_made_twice(name: str) -> None:
    proto = model([node("Relu", "x", "y"), node("Neg", "x", name, name="again")],
                  weights=[weight("w", [1.0])])  # fmt: skip
    assert refusal(proto) == (
        f"node 'again' (Neg): tensor {name!r} is computed twice; export the model again"
    )


def test_weights_defined_twice() -> None:
    proto = model([node("Add", "x w", "y")], weights=[weight("w", [1.0]), weight("w", [2.0])])
    assert refusal(proto) == "weight 'w': is defined twice; export the model again"


def test_inputs_and_outputs_listed_twice() -> None:
    proto = relu(inputs=[value("x"), value("x")])
    assert refusal(proto) == "input 'x': is listed twice; export the model again"
    proto = relu(outputs=[value("y"), value("y")])
    assert refusal(proto) == "output 'y': is listed twice; export the model again"


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (node("Relu", "x x", "y"), "has 2 inputs, where the operator takes 1"),
        (node("Einsum", "x x", "y", equation="ab,cdd"), "'cdd' does not fit f32[1,4]"),
        (node("Conv", "x", "y"), "has 1 input, where the operator takes 2 to 3"),
        (node("Add", "_ x", "y"), "input 0 (A) is missing"),
        (node("Relu", "x", "y more"), "has 2 outputs, where the operator has 1"),
        (node("Relu", "x", "y", depth=3), "attribute 'depth' is unknown to operator set 17"),
        (node("LeakyRelu", "x", "y", alpha="much"), "attribute 'alpha' has the wrong type; it must "
         "be float"),
        (node("Cast", "x", "y"), "attribute 'to' is missing"),
        (node("Transpose", "x", "y", perm=[0, 7]), ""),
        (node("Concat", "x x", "y", axis=9), ""),
        (node("Flatten", "x", "y", axis=-9), "axis -9 is outside"),
        (node("And", "x x", "y"), "input 0 (A) must not be f32"),
        (node("Reshape", "x x", "y"), "input 1 (shape) must not be f32"),
        (node("Add", "x whole", "y"), "input 0 is f32 and input 1 is i64; the two must have one "
         "element type"),
        (node("Concat", "x whole", "y", axis=0), "input 0 is f32 and input 1 is i64"),
        (node("Reshape", "x whole", "y"), "does not reshape"),
        (node("MatMul", "x x", "y"), ""),
        (node("Conv", "x x", "y"), "convolution of a rank-2 input"),
        (node("ReduceMean", "x", "y", axes=[5]), ""),
        (node("Split", "x", "y z", axis=1, num_outputs=2), "is unknown to operator set 17"),
    ],
)  # fmt: skip
def test_nodes_that_do_not_fit_their_operator(op: onnx.NodeProto, reason: str) -> None:
    op.name = "bad"
    message = refusal(model([op], weights=[weight("whole", [3, 3], np.int64)]))
    assert message.startswith(f"node 'bad' ({op.op_type}): ")
    assert reason in message
    assert not message.endswith("()")


# Weights


def test_weight_of_another_size() -> None:
    bad = weight("w", np.ones((4, 4)))
    bad.raw_data = bad.raw_data[:-4]
    assert refusal(model([node("MatMul", "x w", "y")], weights=[bad])) == (
        "weight 'w': its data does not fit element type FLOAT and shape [4, 4]; export the model "
        "again"
    )
    typed = TensorProto(name="w", dims=[2, 4], data_type=TensorProto.FLOAT, float_data=[1.0] * 7)
    assert "does not fit" in refusal(model([node("Add", "x w", "y")], weights=[typed]))


@pytest.mark.parametrize(
    ("dims", "reason"),
    [
        ((-1, 4), "has a dimension below 1"),
        ((1 << 20, 1 << 20), "is far too large"),
        ((1 << 62, 1 << 62, 0), "is far too large"),
    ],
)
def test_weights_of_absurd_shape(dims: tuple[int, ...], reason: str) -> None:
    bad = TensorProto(name="w", dims=dims, data_type=TensorProto.FLOAT, raw_data=b"\0" * 16)
    assert reason in refusal(model([node("Add", "x w", "y")], weights=[bad]))


@pytest.mark.parametrize("kind", ["COMPLEX64", "COMPLEX128", "STRING"])
def test_weights_of_unsupported_types(kind: str) -> None:
    number = TensorProto.DataType.Value(kind)
    bad = TensorProto(name="w", dims=[4], data_type=number, raw_data=b"\0" * 32)
    assert refusal(model([node("Add", "x w", "y")], weights=[bad])) == (
        f"weight 'w': element type {kind} is not supported; export the model in float32"
    )


def test_sparse_weights() -> None:
    sparse = helper.make_sparse_tensor(weight("w", [1.0]), weight("i", [2], np.int64), [4])
    proto = model([node("Add", "x w", "y")], sparse_initializer=[sparse])
    assert refusal(proto) == (
        "weight 'w': sparse weights are not supported; export the weights dense"
    )


def external(**place: str) -> onnx.ModelProto:
    tensor = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT,
                         data_location=TensorProto.EXTERNAL)  # fmt: skip
    for key, text in place.items():
        tensor.external_data.add(key=key, value=text)
    return model([node("Add", "x w", "y")], weights=[tensor])


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ({"location": "absent.bin"}, "external data 'absent.bin' is missing; keep it beside"),
        ({"location": "short.bin"}, "external data 'short.bin' is too short; export the model"),
        ({"location": "long.bin", "offset": "100"}, "external data 'long.bin' is too short"),
        ({"location": "long.bin", "length": "8"}, "external data 'long.bin' is too short"),
        ({"location": "long.bin", "offset": "-4"}, "has a malformed location"),
        ({"location": "long.bin", "offset": "99999999999999999999"}, "is missing"),
        ({"location": "long.bin", "offset": "four"}, "has a malformed location"),
        ({"location": "../secret.bin"}, "external data '../secret.bin' lies outside the model's"),
        ({"location": "/etc/passwd"}, "lies outside the model's folder"),
        ({"location": "link.bin"}, "lies outside the model's folder"),
        ({"location": "."}, "is missing"),
        ({"location": "a\0b"}, "external data 'a\\x00b' has a malformed location"),
        ({}, "external data '' lies outside"),
    ],
)
def test_external_data(tmp_path: Path, place: dict[str, str], reason: str) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100))
    (folder / "short.bin").write_bytes(bytes(15))
    (folder / "long.bin").write_bytes(bytes(100))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "net.onnx"
    path.write_bytes(external(**place).SerializeToString())
    message = refusal(path)
    assert message.startswith("weight 'w': ")
    assert reason in message


def test_external_data_without_a_folder() -> None:
    assert refusal(external(location="w.bin")) == (
        "weight 'w': its data is in a file 'w.bin' beside the model; give mdlc the path of the "
        "model"
    )


# Shapes


def test_open_dimensions() -> None:
    proto = relu(inputs=[value("x", ("N", 3, "H", 8))], outputs=[value("y", None)])
    assert refusal(proto) == (
        "input 'x': dimension 2 (H) is open; fix it, as in --shape x=1,3,224,8"
    )
    proto = relu(inputs=[value("x", None)], outputs=[value("y", None)])
    assert refusal(proto) == "input 'x': has no shape; give it with --shape x=1,3,224,224"


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"z": (1, 4)}, "--shape: the model has no input 'z'; its inputs are 'x'"),
        ({"x": (1, 4, 1)}, "input 'x': --shape gives 3 dimensions, the model has 2; as in --shape "
         "x=1,4"),
        ({"x": (-1, 4)}, "input 'x': --shape gives -1, a negative dimension; write every dimension "
         "as a whole number"),
        ({"x": (1 << 31, 4)}, "input 'x': shape [2147483648, 4] is far too large; a tensor has at "
         "most 2147483647 elements"),
    ],
)  # fmt: skip
def test_given_shapes_that_do_not_fit(shapes: dict[str, Any], sentence: str) -> None:
    proto = relu(inputs=[value("x", ("N", 4))], outputs=[value("y", ("N", 4))])
    assert refusal(proto, shapes=shapes) == sentence


def test_given_shapes_that_contradict_each_other() -> None:
    proto = model([node("Add", "x z", "y")], [value("x", ("N",)), value("z", ("N",))],
                  [value("y", ("N",))])  # fmt: skip
    assert refusal(proto, shapes={"x": (2,), "z": (3,)}) == (
        "input 'z': --shape gives 3 for 'N', which is 2 elsewhere; give dimensions of one "
        "name one size"
    )


def test_absurd_inputs() -> None:
    assert "far too large" in refusal(relu(inputs=[value("x", (1, 1 << 40))]))
    assert "has a dimension below 1" in refusal(relu(inputs=[value("x", (1, -7))]))
    assert "dimension 1 is open" in refusal(relu(inputs=[value("x", (1, 0))]))


@pytest.mark.parametrize(
    "op",
    [
        node("Expand", "x huge", "y"),
        node("ConstantOfShape", "huge", "y"),
        node("Tile", "x huge", "y"),
        node("Range", "zero end one", "y"),
    ],
)
def test_absurd_results(op: onnx.NodeProto) -> None:
    weights = [
        weight("huge", [1 << 40, 4], np.int64),
        *(weight(n, v, np.int64) for n, v in (("zero", 0), ("end", 1 << 60), ("one", 1))),
    ]
    message = refusal(model([op], outputs=[value("y", None)], weights=weights))
    assert message.startswith(f"node 'y' ({op.op_type}): ")
    assert "far too large" in message or "makes no sense" in message


def test_declared_shapes_that_disagree() -> None:
    assert refusal(relu(outputs=[value("y", (1, 5))])) == (
        "output 'y': the model declares shape [1, 5], but its operators give [1, 4]; export the "
        "model again"
    )
    assert "declares shape [?, 4, 1]" in refusal(relu(outputs=[value("y", ("N", 4, 1))]))
    proto = model([node("Relu", "x", "m"), node("Neg", "m", "y")], value_info=[value("m", (4, 1))])
    assert refusal(proto).startswith("tensor 'm': the model declares shape [4, 1], but")
    assert refusal(relu(outputs=[value("y", (1, 4), INT64)])) == (
        "output 'y': the model declares i64 elements, but its operators give f32; export the model "
        "again"
    )


def test_inputs_and_outputs_that_are_no_tensors() -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, (1,))
    assert refusal(relu(inputs=[sequence])) == (
        "input 'x': is a sequence, not a tensor; export the model with tensors only"
    )
    mapping = helper.make_value_info(
        "y", helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(1, ()))
    )
    assert refusal(relu(outputs=[mapping])) == (
        "output 'y': is a map, not a tensor; export the model with tensors only"
    )
    assert "element type STRING is not supported" in refusal(
        relu(inputs=[value("x", (1, 4), STRING)])
    )
    assert "element type UNDEFINED is not supported" in refusal(relu(inputs=[value("x", (1,), 0)]))
