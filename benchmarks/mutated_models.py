"""Do damaged models end in one sentence? Mutants of models are compiled, each in a fork of its own.

    python -m benchmarks.mutated_models --count 20000 --keep failures/

Mutant N of a seed is the same on every run (`--first N --count 1` tries it again). One half are
bytes of a file that are flipped, cut, repeated or moved; the other are changes of structure:
nodes, edges, attributes, types, shapes, weights and operator sets. A compilation may take 40
seconds of the processor and 6 GB. What ends in anything but files or an MdlcError is kept and
listed.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import mdlc
from benchmarks.onnx_official import official_cases
from tests.shared_data import SHARED

# Of the processor, as other programs may have it, too; and in all.
SECONDS, WAITED, BYTES = 40, 600, 6 << 30
LARGEST = 1_500_000
TARGETS = ("generic", "x86-avx2", "x86-avx512", "arm-neon", "arm-neon+fp16", "metal")
# Of the mutants that compile, every so many is emitted, too.
EMITTED = 3
_NUMBERS = (0, 1, -1, 2, 3, 7, -2, 64, 1000, 2**31 - 1, -(2**31), 2**62, -(2**63))

Random = np.random.Generator


def corpus() -> list[bytes]:
    """Official cases of the onnx package, and the small networks of the shared folder."""
    found = [case.model for case in official_cases(("node", "simple", "pytorch-operator"))]
    files = sorted((SHARED / "models").glob("*.onnx"))
    made = [model.SerializeToString() for model in found] + [path.read_bytes() for path in files]
    return [data for data in made if len(data) < LARGEST]


def mutant(original: bytes, random: Random) -> bytes:
    """A model with one change, or a few."""
    if random.random() < 0.5:
        return _bytes(original, random)
    model = onnx.ModelProto()
    model.ParseFromString(original)
    for _ in range(int(random.choice([1, 1, 1, 2, 4]))):
        change = STRUCTURE[random.integers(len(STRUCTURE))]
        try:
            change(model, random)
        except Exception:  # not every change fits every model
            continue
    try:
        return model.SerializeToString()
    except ValueError:
        return original


def _bytes(data: bytes, random: Random) -> bytes:
    made = bytearray(data)
    for _ in range(int(random.choice([1, 1, 2, 8]))):
        if not made:
            break
        # Most of a file is weights: what stands at its ends is what says what it is.
        reach = len(made) if random.random() < 0.5 else min(len(made), 400)
        at = int(random.integers(reach))
        at = len(made) - 1 - at if random.random() < 0.3 else at
        length = int(random.choice([1, 2, 8, 64]))
        kind = random.integers(6)
        if kind <= 1:
            made[at] ^= 1 << int(random.integers(8))
        elif kind == 2:
            made[at] = int(random.integers(256))
        elif kind == 3:
            del made[at : at + length]
        elif kind == 4:
            made[at:at] = made[at : at + length]
        else:
            del made[at:]
    return bytes(made)


def _node(model: onnx.ModelProto, random: Random) -> onnx.NodeProto:
    return model.graph.node[random.integers(len(model.graph.node))]


def _some(values: Sequence[Any], random: Random) -> Any:
    return values[int(random.integers(len(values)))]


def _number(random: Random) -> int:
    return int(_some(_NUMBERS, random)) if random.random() < 0.7 else int(random.integers(-9, 9))


def _tensors(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    names = [each.name for each in (*graph.input, *graph.initializer)]
    return [*names, *(name for node in graph.node for name in node.output), ""]


def _remove_node(model: onnx.ModelProto, random: Random) -> None:
    del model.graph.node[random.integers(len(model.graph.node))]


def _repeat_node(model: onnx.ModelProto, random: Random) -> None:
    copy = onnx.NodeProto()
    copy.CopyFrom(_node(model, random))
    if random.random() < 0.7:
        copy.output[:] = [f"{name}_again" for name in copy.output]
    model.graph.node.append(copy)


def _other_operator(model: onnx.ModelProto, random: Random) -> None:
    schemas = [s.name for s in onnx.defs.get_all_schemas() if not s.domain]
    _node(model, random).op_type = _some(schemas, random)


def _other_input(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    node.input[random.integers(len(node.input))] = _some(_tensors(model), random)


def _other_count(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    if random.random() < 0.5:
        node.input.append(_some(_tensors(model), random))
    elif random.random() < 0.5:
        node.output.append("one_more")
    else:
        del node.input[random.integers(len(node.input))]


def _attribute(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    attribute = node.attribute[random.integers(len(node.attribute))]
    if random.random() < 0.15:
        del node.attribute[list(node.attribute).index(attribute)]
    elif attribute.type == AttributeProto.INT:
        attribute.i = _number(random)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = float(_some((0.0, -1.0, 1e38, np.nan, np.inf, 1e-45), random))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = _some((b"", b"SAME_UPPER", b"linear", b"\xff", b"x" * 99), random)
    elif attribute.type == AttributeProto.INTS:
        if attribute.ints and random.random() < 0.7:
            attribute.ints[random.integers(len(attribute.ints))] = _number(random)
        elif random.random() < 0.5:
            attribute.ints.append(_number(random))
        else:
            del attribute.ints[:]
    elif attribute.type == AttributeProto.TENSOR:
        _damage(attribute.t, random)
    else:
        attribute.type = int(random.integers(15))


def _new_attribute(model: onnx.ModelProto, random: Random) -> None:
    node = _node(model, random)
    schema = onnx.defs.get_schema(node.op_type)
    name = _some(list(schema.attributes), random)
    value = _some((_number(random), 0.5, "text", [_number(random)], [], [0.5]), random)
    node.attribute.append(helper.make_attribute(name, value, attr_type=None))


def _damage(tensor: TensorProto, random: Random) -> None:
    kind = random.integers(5)
    if kind == 0:
        tensor.data_type = int(random.integers(0, 27))
    elif kind == 1 and tensor.dims:
        tensor.dims[random.integers(len(tensor.dims))] = _number(random)
    elif kind == 2:
        tensor.dims.append(int(_some((0, 1, 2), random)))
    elif kind == 3:
        values = numpy_helper.to_array(tensor).copy()
        filled = _some((0, 1, -1, np.nan, np.inf, 1e30, -128, 2**31 - 1), random)
        with np.errstate(all="ignore"):
            values.reshape(-1)[random.integers(max(values.size, 1)) :] = filled
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    else:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            numpy_helper.from_array(values.reshape(-1)[: values.size // 2], tensor.name)
        )


def _weight(model: onnx.ModelProto, random: Random) -> None:
    weights = model.graph.initializer
    _damage(weights[random.integers(len(weights))], random)


def _weight_or_input(model: onnx.ModelProto, random: Random) -> None:
    graph = model.graph
    if graph.initializer and random.random() < 0.5:
        tensor = graph.initializer[random.integers(len(graph.initializer))]
        kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        graph.initializer.remove(tensor)
        graph.input.append(kind)
    else:
        value = graph.input[random.integers(len(graph.input))]
        kind = value.type.tensor_type
        dims = [d.dim_value for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        array = np.full(dims, int(random.integers(-2, 5)), dtype)
        graph.initializer.append(numpy_helper.from_array(array, value.name))
        graph.input.remove(value)


def _shape(model: onnx.ModelProto, random: Random) -> None:
    graph = model.graph
    value = _some([*graph.input, *graph.output, *graph.value_info], random)
    kind = value.type.tensor_type
    dims = kind.shape.dim
    choice = random.integers(5)
    if choice == 0:
        kind.elem_type = int(random.integers(0, 27))
    elif choice == 1:
        dims.add(dim_value=_number(random))
    elif choice == 2:
        kind.ClearField("shape")
    elif choice == 3:
        dims[random.integers(len(dims))].dim_param = _some(("", "N", "?"), random)
    else:
        dims[random.integers(len(dims))].dim_value = _number(random)


def _same_rank(model: onnx.ModelProto, random: Random) -> None:
    """Other sizes that still may fit: of all inputs and outputs alike."""
    old, new = int(_some((2, 3, 4, 5), random)), int(_some((1, 2, 7, 33, 0), random))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value == old:
                dim.dim_value = new


def _opset(model: onnx.ModelProto, random: Random) -> None:
    entry = model.opset_import[random.integers(len(model.opset_import))]
    if random.random() < 0.7:
        entry.version = int(random.integers(0, 29))
    else:
        entry.domain = _some(("", "ai.onnx", "com.microsoft", "x"), random)


def _output(model: onnx.ModelProto, random: Random) -> None:
    graph = model.graph
    if random.random() < 0.5:
        name = _some(_tensors(model), random)
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    else:
        graph.output[random.integers(len(graph.output))].name = _some(_tensors(model), random)


def _domain(model: onnx.ModelProto, random: Random) -> None:
    _node(model, random).domain = _some(("", "ai.onnx", "com.microsoft", "ai.onnx.ml"), random)


STRUCTURE: tuple[Callable[[onnx.ModelProto, Random], None], ...] = (
    _remove_node, _repeat_node, _other_operator, _other_input, _other_input, _other_count,
    _attribute, _attribute, _attribute, _new_attribute, _weight, _weight, _weight_or_input,
    _shape, _shape, _same_rank, _opset, _output, _domain,
)  # fmt: skip


def _compiled(data: bytes, target: str, emit: bool) -> str:
    try:
        compiled = mdlc.compile(data, target)
        if emit:
            compiled.files()
    except mdlc.MdlcError as error:
        text = str(error)
        return "refused" if text and "\n" not in text else f"error text: {text!r:.200}"
    except MemoryError:
        return f"MemoryError: {traceback.format_exc(limit=-2)}"
    except Exception:
        return f"traceback: {traceback.format_exc(limit=-4)}"
    return "compiled"


def in_a_fork(data: bytes, target: str, emit: bool) -> str:
    """How the compilation of a model ends, within the limits."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(read)
            signal.alarm(WAITED)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(write, _compiled(data, target, emit).encode()[-4000:])
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    told = b""
    while more := os.read(read, 65536):
        told += more
    os.close(read)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return told.decode() or "died"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none after")
    parser.add_argument("--keep", type=Path, help="a folder for what failed")
    given = parser.parse_args()
    files = corpus()
    for target in TARGETS:  # before the forks: all that is imported when it is first needed
        made = _compiled(files[0], target, True)
        assert made == "compiled", made
    outcomes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(given.first, given.first + given.count):
        if time.monotonic() - began > given.seconds:
            break
        random = np.random.default_rng([given.seed, number])
        data = mutant(files[random.integers(len(files))], random)
        target = TARGETS[int(random.integers(len(TARGETS)))]
        end = in_a_fork(data, target, emit=bool(random.integers(EMITTED) == 0))
        short = end.split(":")[0]
        outcomes[short] += 1
        if end not in ("refused", "compiled"):
            kind = end.strip().splitlines()[-1][:120]
            kinds[kind] += 1
            if kinds[kind] <= 3:
                print(f"{number} {target}\n{end}", flush=True)
            if given.keep and kinds[kind] <= 5:
                given.keep.mkdir(parents=True, exist_ok=True)
                (given.keep / f"{given.seed}_{number}_{target}.onnx").write_bytes(data)
        if (number + 1) % 1000 == 0:
            print(number + 1, dict(outcomes), flush=True)
    print(f"{sum(outcomes.values())} mutants of {len(files)} models: {dict(outcomes)}")
    for kind, count in kinds.most_common():
        print(f"{count:6} {kind}")


if __name__ == "__main__":
    main()
