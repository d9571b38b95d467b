"""What layers are called: after the operator that computes them, as the model itself calls it.

`conv1`, `conv2_1_dw`, `fc7`: from the name of the ONNX node that a layer comes from (Node.origin),
or of its weights where the exporter only numbered the node, and else from its kind and that number.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from mdlc.compiler.ir import Node
from mdlc.compiler.op import Op

# Longer names lose whole words at their front.
_LONGEST = 48
# What exporters put behind names, and in place of them.
_SUFFIX = re.compile(
    r"(_output_\d+|:\d+|__\d+|_prequant|_dequant|_quantized|_quant|_fold|_DequantizeLinear_Output"
    r"|_QuantizeLinear_Output)$",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"^(onnx::|p2o\.|fused |ConvBnFusion_W_)")
_WEIGHT_WORDS = re.compile(r"[._/](weights?|kernel|filter|w)(_?\d+)?$", re.IGNORECASE)
_NO_NAMES = frozenset(
    ("", "w", "weight", "weights", "parameter", "const", "const_fold_opt", "input")
)
# How kinds of layers are called in short.
_KINDS = {
    "conv2_d": "conv",
    "conv_transpose2_d": "deconv",
    "dense": "fc",
    "mat_mul": "matmul",
    "max_pool2_d": "max_pool",
    "average_pool2_d": "average_pool",
    "quantize_linear": "quantize",
    "dequantize_linear": "dequantize",
}
# The leaves of names that say what a product is, as TensorFlow's converters write them.
_LEAVES = {
    "dw": "depthwise",
    "conv": "conv2d",
    "deconv": "conv2d",
    "fc": "matmul",
    "matmul": "matmul",
}


def layer_names(nodes: Sequence[Node]) -> list[str]:
    """A readable C++ identifier for every layer, in lower case; not yet unique."""
    paths = [_path(node) for node in nodes]
    while True:
        heads = Counter(path[0] for path in paths if len(path) > 1)
        head, count = heads.most_common(1)[0] if heads else ("", 0)
        # What most layers share is the network's name.
        if 2 * count <= heads.total() or count < 3:
            break
        paths = [path[1:] if len(path) > 1 and path[0] == head else path for path in paths]
    return [_joined(path, node) for path, node in zip(paths, nodes, strict=True)]


def kind_of(node: Node) -> str:
    """A layer's kind in a word or two: conv, fc, max_pool."""
    name = type(node.op).__name__.removeprefix("Quantized").removesuffix("_")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _KINDS.get(snake, snake)


def _path(node: Node) -> tuple[str, ...]:
    """The words of the layer's name, outermost first."""
    if kind_of(node) in ("quantize", "dequantize"):  # called after what they make integers of
        return (kind_of(node),)
    own = _components(node.origin, node)
    if _reads_well(own):
        return own
    weights = node.inputs[1] if len(node.inputs) > 1 else None
    if weights is not None and weights.constant is not None and weights.type.rank > 1:
        named = _WEIGHT_WORDS.sub("", _without_suffixes(_PREFIX.sub("", weights.name)))
        if named != weights.name:
            inner = _components(named.replace(".", "/"), node, operator=False)
            if _reads_well(inner):
                return inner
    number = re.search(r"(\d+)\D*$", re.sub(r"(_output_\d+|:\d+)$", "", node.origin))
    return (f"{kind_of(node)}{number[1] if number else ''}",)


def _components(name: str, node: Node, *, operator: bool = True) -> tuple[str, ...]:
    """A name's path without the exporter's additions.

    Args:
        operator: whether the operator may stand at its end.
    """
    text = _PREFIX.sub("", _of_fused(name, node))
    parts = [part for part in re.split(r"/|::", _without_suffixes(text)) if part]
    # PyTorch repeats a module's path in those inside it: layer1/layer1.0/conv1.
    parts = [
        part
        for part, inner in itertools.zip_longest(parts, parts[1:], fillvalue="")
        if (inner != part or part.isdigit()) and not inner.startswith(f"{part}.")
    ]
    if operator and len(parts) > 1 and kind_of(node) in _LEAVES and _is_operator(parts[-1]):
        parts.pop()
    return tuple(parts)


def _of_fused(name: str, node: Node) -> str:
    """The name of the product among those of all that TensorFlow's converter fused with it."""
    names = name.split(";")
    if len(names) == 1:
        return name
    leaf = _LEAVES.get("dw" if _is_depthwise(node) else kind_of(node), "")
    found = [each for each in names if leaf and _leaf(each).startswith(leaf)]
    scopes = Counter(each.rsplit("/", 1)[0] for each in names)
    own = [each for each in found if scopes[each.rsplit("/", 1)[0]] > 1]
    return (own or found or names[:1])[-1]


def _leaf(name: str) -> str:
    return name.rsplit("/", 1)[-1].lower()


def _without_suffixes(name: str) -> str:
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return name


def _is_operator(word: str) -> bool:
    """Whether a word is an operator's name, perhaps with a number."""
    bare = re.sub(r"[\d_.]+$", "", word).lower().replace("_", "")
    return bare in _operators() or re.sub(r"\d+$", "", bare.removesuffix("d")) in _operators()


def _operators() -> frozenset[str]:
    words = [*Op.importers, *Op.registry, "BiasAdd", "depthwise", "Relu6", "FusedBatchNormV3"]
    return frozenset(word.lower().removesuffix("2d") for word in words)


def _reads_well(parts: Sequence[str]) -> bool:
    """Whether a name is more than a number, an operator's name with one, or a filler."""
    if len(parts) != 1:
        return bool(parts)
    bare = re.sub(r"[\W\d_]+$", "", parts[0]).lower()
    return not (_is_operator(parts[0]) or bare in _NO_NAMES)


def _is_depthwise(node: Node) -> bool:
    if kind_of(node) != "conv" or len(node.inputs) < 2:
        return False
    return getattr(node.op, "groups", 1) > 1 and node.inputs[1].shape[1] == 1


def _joined(path: Sequence[str], node: Node) -> str:
    """The identifier of a path."""
    words = re.sub(r"[^0-9a-z]+", "_", "_".join(path).lower()).strip("_").split("_")
    while len(words) > 1 and len("_".join(words)) > _LONGEST:
        words.pop(0)
    name = "_".join(words)
    if not name or name[0].isdigit():
        name = f"{kind_of(node)}_{name}".rstrip("_")
    marked = re.search(r"(^|_)dw|depthwise", name)
    return f"{name}_dw" if _is_depthwise(node) and not marked else name
