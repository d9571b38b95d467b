"""Known networks' answers by name: values for `Boxes` and the like, from their published decoders.

A preset finds the outputs by their shapes, since every exporter names them differently; what a
recipe says goes before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mdlc.codegen.answer.code import Network
from mdlc.codegen.answer.columns import Output
from mdlc.compiler.errors import MdlcError

Values = Mapping[str, Any]


def _fail(decoder: str, expected: str, network: Network) -> MdlcError:
    shapes = ", ".join(f"{name} {_shape(port)}" for name, port in network.outputs.items())
    return MdlcError(
        f"the outputs are not those of {decoder}: {shapes}, expected {expected}",
        node="[answer] decoder",
        hint="name the tensors in the recipe (scores, boxes ...)",
    )


def _shape(port: Output) -> str:
    return "x".join(map(str, port.type.shape))


def _single(decoder: str, network: Network, expected: str) -> Output:
    ports = list(network.outputs.values())
    if len(ports) != 1 or ports[0].type.rank != 3 or ports[0].type.shape[0] != 1:
        raise _fail(decoder, expected, network)
    return ports[0]


def _by_attributes(network: Network) -> dict[int, list[Output]]:
    """Outputs of shape 1xNxK by K, those of more candidates first."""
    found: dict[int, list[Output]] = {}
    for port in network.outputs.values():
        if port.type.rank == 3 and port.type.shape[0] == 1:
            found.setdefault(port.type.shape[2], []).append(port)
    for ports in found.values():
        ports.sort(key=lambda port: -port.type.shape[1])
    return found


def _names(ports: list[Output]) -> list[str]:
    return [port.name for port in ports]


def _strides(ports: list[Output], network: Network, per_cell: int = 1) -> list[int]:
    """Strides of square cells that give each output its candidates."""
    area = network.height * network.width
    return [round((area * per_cell / port.type.shape[1]) ** 0.5) for port in ports]


def _yolov5(network: Network) -> Values:
    port = _single("yolov5", network, "1xNx(5+classes)")
    return {
        "boxes": f"{port.name}[:,0:4]",
        "objectness": f"{port.name}[:,4]",
        "scores": f"{port.name}[:,5:]",
    }


def _yolov8(network: Network) -> Values:
    port = _single("yolov8", network, "1x(4+classes)xN")
    if port.type.shape[1] > port.type.shape[2]:
        return {"boxes": f"{port.name}[:,0:4]", "scores": f"{port.name}[:,4:]"}
    return {"boxes": f"{port.name}[0:4,:]", "scores": f"{port.name}[4:,:]"}


def _yolov8_pose(network: Network) -> Values:
    port = _single("yolov8-pose", network, "1x(5+3*points)xN")
    return {
        "boxes": f"{port.name}[0:4,:]",
        "scores": f"{port.name}[4,:]",
        "keypoints": f"{port.name}[5:,:]",
        "keypoint_values": 3,
        "keypoint_form": "absolute",
    }


def _yolov8_obb(network: Network) -> Values:
    port = _single("yolov8-obb", network, "1x(4+classes+1)xN")
    return {
        "boxes": f"{port.name}[0:4,:]",
        "scores": f"{port.name}[4:{port.type.shape[1] - 1},:]",
        "angle": f"{port.name}[{port.type.shape[1] - 1},:]",
    }


def _yolov8_seg(network: Network) -> Values:
    maps = [port for port in network.outputs.values() if port.type.rank == 4]
    rows = [port for port in network.outputs.values() if port.type.rank == 3]
    if len(maps) != 1 or len(rows) != 1 or rows[0].type.shape[1] < 5 + maps[0].type.shape[1]:
        raise _fail("yolov8-seg", "1x(4+classes+K)xN and 1xKxHxW", network)
    name, past = rows[0].name, rows[0].type.shape[1]
    first = past - maps[0].type.shape[1]
    return {
        "boxes": f"{name}[0:4,:]",
        "scores": f"{name}[4:{first},:]",
        "coefficients": f"{name}[{first}:{past},:]",
        "prototypes": maps[0].name,
    }


def _centernet(network: Network) -> Values:
    ports = [port for port in network.outputs.values() if port.type.rank == 4]
    sizes = [port for port in ports if "wh" in port.name]
    offsets = [port for port in ports if "reg" in port.name or "off" in port.name]
    others = [port for port in ports if port not in (*sizes, *offsets)]
    if [len(sizes), len(offsets), len(others)] != [1, 1, 1]:
        raise _fail("centernet", "a heat map 1xCxHxW, wh and reg 1x2xHxW", network)
    stride = round(network.height / others[0].type.shape[2])
    return {
        "form": "offset",
        "scores": others[0].name,
        "score_activation": "sigmoid",
        "boxes": offsets[0].name,
        "sizes": sizes[0].name,
        "size_activation": "none",
        "strides": [stride],
        "peaks": True,
        "multi_label": True,
        "suppression": "none",
        "threshold": 0.3,
    }


def _yolo_end2end(network: Network) -> Values:
    port = _single("yolo-end2end", network, "1xNx6")
    return {
        "form": "ltrb",
        "boxes": f"{port.name}[:,0:4]",
        "scores": f"{port.name}[:,4]",
        "label": f"{port.name}[:,5]",
        "suppression": "none",
        "candidates": 300,
    }


def _yolox(network: Network) -> Values:
    port = _single("yolox", network, "1xNx(5+classes)")
    return {
        "form": "offset",
        "strides": [8, 16, 32],
        "boxes": f"{port.name}[:,0:4]",
        "objectness": f"{port.name}[:,4]",
        "scores": f"{port.name}[:,5:]",
        "threshold": 0.3,
    }


def _nanodet(network: Network) -> Values:
    groups = _by_attributes(network)
    if len(groups) != 2 or not any(count % 4 == 0 and count > 4 for count in groups):
        raise _fail("nanodet", "for each stride 1xNxclasses and 1xNx(4*bins)", network)
    distances = min(
        (count for count in groups if count % 4 == 0 and count > 4),
        key=lambda count: (
            not any("dis" in p.name or "box" in p.name for p in groups[count]),
            count,
        ),
    )
    (classes,) = (count for count in groups if count != distances)
    return {
        "form": "distance",
        "unit": "stride",
        "bins": distances // 4,
        "strides": _strides(groups[distances], network),
        "cell": 0.5,
        "shift": -0.5,
        "scores": _names(groups[classes]),
        "boxes": _names(groups[distances]),
        "threshold": 0.35,
        "overlap": 0.6,
    }


def _fcos(network: Network) -> Values:
    return {"form": "distance", "cell": 0.5, "unit": "stride"}


def _ultraface(network: Network) -> Values:
    groups = _by_attributes(network)
    if set(groups) != {2, 4}:
        raise _fail("ultraface", "1xNx2 and 1xNx4", network)
    return {
        "form": "ltrb",
        "unit": "picture",
        "scores": f"{groups[2][0].name}[:,1:2]",
        "boxes": groups[4][0].name,
        "threshold": 0.7,
        "overlap": 0.3,
    }


def _yunet(network: Network) -> Values:
    groups = _by_attributes(network)
    ones = groups.get(1, [])
    if set(groups) != {1, 4, 10} or len(ones) != 2 * len(groups[4]):
        raise _fail("yunet", "for each stride 1xNx1 twice, 1xNx4 and 1xNx10", network)
    objects = [port for port in ones if port.name.startswith("obj")] or ones[1::2]
    classes = [port for port in ones if port not in objects]
    return {
        "form": "offset",
        "strides": _strides(groups[4], network),
        "scores": _names(classes),
        "objectness": _names(objects),
        "score_power": 0.5,
        "objectness_power": 0.5,
        "boxes": _names(groups[4]),
        "keypoints": _names(groups[10]),
        "threshold": 0.6,
        "overlap": 0.3,
    }


def _blazeface(network: Network) -> Values:
    groups = _by_attributes(network)
    if set(groups) != {1, 16}:
        raise _fail("blazeface", "1xNx1 and 1xNx16", network)
    regressors = groups[16][0].name
    return {
        "form": "offset",
        "unit": "pixel",
        "size_activation": "none",
        "anchors": [8, 16, 16, 16] if network.height == 128 else [16, 32, 32, 32],
        "scores": groups[1][0].name,
        "score_activation": "sigmoid",
        "boxes": f"{regressors}[:,0:4]",
        "keypoints": f"{regressors}[:,4:]",
        "threshold": 0.5,
        "overlap": 0.3,
        "suppression": "weighted",
    }


def _fastestdet(network: Network) -> Values:
    ports = list(network.outputs.values())
    if len(ports) != 1 or ports[0].type.rank != 4:
        raise _fail("fastestdet", "1x(5+classes)xHxW", network)
    name = ports[0].name
    return {
        "form": "offset",
        "strides": [round(network.height / ports[0].type.shape[2])],
        "centre_activation": "tanh",
        "size_activation": "sigmoid",
        "size_unit": "picture",
        "objectness": f"{name}[0,:,:]",
        "boxes": f"{name}[1:5,:,:]",
        "scores": f"{name}[5:,:,:]",
        "objectness_power": 0.6,
        "score_power": 0.4,
        "threshold": 0.65,
    }


def _ssd(network: Network) -> Values:
    groups = _by_attributes(network)
    others = [count for count in groups if count != 4]
    if 4 not in groups or len(others) != 1:
        raise _fail("ssd", "1xNx4 and 1xNxclasses", network)
    return {
        "form": "offset",
        "unit": "prior",
        "variance": [0.1, 0.2],
        "scores": _names(groups[others[0]]),
        "score_activation": "softmax",
        "background": 0,
        "boxes": _names(groups[4]),
        "multi_label": True,
        "threshold": 0.5,
    }


# Sources: the post-processing that is published beside each network. yolo11 and the one-to-many
# head of yolo26 are decoded as yolov8 is; their end-to-end heads as yolo-end2end.
DECODERS: Mapping[str, Callable[[Network], Values]] = {
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "yolo11": _yolov8,
    "yolo26": _yolov8,
    "yolov8-pose": _yolov8_pose,
    "yolov8-obb": _yolov8_obb,
    "yolov8-seg": _yolov8_seg,
    "centernet": _centernet,
    "yolo-end2end": _yolo_end2end,
    "yolox": _yolox,
    "nanodet": _nanodet,
    "fcos": _fcos,
    "ultraface": _ultraface,
    "yunet": _yunet,
    "blazeface": _blazeface,
    "fastestdet": _fastestdet,
    "ssd": _ssd,
}
