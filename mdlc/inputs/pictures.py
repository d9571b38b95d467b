"""Pictures and arrays as inputs of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mdlc.codegen.frame.frame import Frame, of_pixels
from mdlc.codegen.frame.reference import convert
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.ir import Graph
from mdlc.compiler.types import Array, TensorType
from mdlc.inputs.preprocess import INPUT_FORMATS, PictureInput, Preprocess, picture_input

PICTURE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".webp"})
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def load_picture(path: Path, picture: PictureInput, how: Preprocess) -> Array:
    """A picture as the (preprocessed) network takes it.

    The file is decoded, resized bilinearly to the network's height and width (the aspect ratio is
    not kept) or as `--frame` says, and brought to the order of channels, element type and shape of
    the input. Values are 0..255 whatever the element type; `--mean` and `--std` make of them what
    a network wants.

    Args:
        picture: the input of the preprocessed network.

    Returns:
        an array of the input's shape (a batch holds the same picture throughout).

    Raises:
        MdlcError: the file is missing or no picture.
    """
    order = INPUT_FORMATS.get(how.input_format or "", how.channel_order)
    if how.frame is not None:
        frame = _frame(path, picture)
        pixels = convert(frame, how.frame, picture.height, picture.width, order)
        return np.ascontiguousarray(np.broadcast_to(pixels, picture.node.shape))
    image = open_picture(path, MODES[picture.channels])
    size = (picture.width, picture.height)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image).reshape(picture.height, picture.width, picture.channels)
    if picture.channels >= 3 and order.startswith("bgr"):
        pixels = pixels[..., [2, 1, 0, *range(3, picture.channels)]]
    if not picture.channels_last:
        pixels = pixels.transpose(2, 0, 1)
    batch = np.broadcast_to(pixels, picture.node.shape)
    return np.ascontiguousarray(batch.astype(picture.node.type.dtype.numpy))


def open_picture(path: Path, mode: str | Callable[[Image.Image], str]) -> Image.Image:
    """A picture file, decoded.

    Args:
        mode: Pillow's name of the channels, such as RGB, or what says it of the file.

    Raises:
        MdlcError: the file is missing or no picture.
    """
    try:
        with Image.open(path) as file:
            return file.convert(mode if isinstance(mode, str) else mode(file))
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise MdlcError(
            "is not a readable picture",
            node=str(path),
            hint="give a PNG, JPEG, BMP or WebP file, or an NPZ file",
        ) from error
    except Image.DecompressionBombError:
        raise MdlcError("is far too large", node=str(path)) from None


def check_picture(path: Path) -> None:
    """Looks at a picture's head and, where the format has them, its check sums.

    Raises:
        MdlcError: it is missing or no picture.
    """
    try:
        with Image.open(path) as file:
            file.verify()
    except Exception:  # whatever it is, the one who decodes says it best
        open_picture(path, "RGB")


def load_frame(path: Path, graph: Graph, how: Preprocess) -> Frame:
    """A picture as a frame for a class compiled with `--frame`.

    Args:
        graph: the preprocessed network. how: its preprocessing.

    Raises:
        MdlcError: the file is missing or no picture.
    """
    assert how.frame is not None
    return _frame(path, picture_input(graph, "--frame"))


def _frame(path: Path, picture: PictureInput) -> Frame:
    """A picture as a frame; turning colours into grey is left to what resamples it."""
    colours = "RGBA" if picture.channels == 4 else "RGB"
    grey = ("1", "L", "I", "I;16", "F")
    image = open_picture(path, lambda file: "L" if file.mode in grey else colours)
    return of_pixels(np.atleast_3d(np.asarray(image)))


def load_npz(path: Path, graph: Graph) -> dict[str, Array]:
    """Arrays for the inputs of a network from an NPZ file (or, for one input, an NPY file).

    Raises:
        MdlcError: the file cannot be read, or lacks an input, or has one of another shape.
    """
    return fit_inputs(read_arrays(path, graph), graph, str(path))


def read_arrays(path: Path, graph: Graph) -> dict[str, Array]:
    """The arrays of an NPZ or NPY file by name; a single one is that of a single input.

    Raises:
        MdlcError: the file cannot be read.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            found = {"": loaded}
        else:
            with loaded:
                found = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise MdlcError("there is no such file", node=str(path), hint="check the path") from None
    except Exception as error:  # numpy and zipfile raise many kinds on damaged files
        raise MdlcError(
            "is not a readable NPZ file", node=str(path), hint="write it with numpy.savez"
        ) from error
    if len(graph.arguments) == 1 and len(found) == 1:
        found = {graph.arguments[0].name: next(iter(found.values()))}
    return found


def fit_inputs(given: Mapping[str, Array], graph: Graph, where: str) -> dict[str, Array]:
    """The values of a network's inputs, checked: names, shapes, and element types that convert.

    Raises:
        MdlcError: one is missing or does not fit.
    """
    values: dict[str, Array] = {}
    for node in graph.arguments:
        if node.name not in given:
            raise MdlcError(
                f"no value for input {node.name!r}",
                node=where,
                hint=f"it has {', '.join(map(repr, sorted(given))) or 'none'}",
            )
        values[node.name] = _fit(np.asarray(given[node.name]), node.type, node.name, where)
    return values


def _fit(value: Array, wanted: TensorType, name: str, where: str) -> Array:
    if value.shape != wanted.shape:
        raise MdlcError(
            f"input {name!r} has shape {list(value.shape)}, not {list(wanted.shape)}", node=where
        )
    if not np.can_cast(value.dtype, wanted.dtype.numpy, "same_kind"):
        raise MdlcError(
            f"input {name!r} has {value.dtype} values, not {wanted.dtype.value}", node=where
        )
    return np.ascontiguousarray(value, wanted.dtype.numpy)


def load_inputs(path: Path, graph: Graph, how: Preprocess, asked_by: str) -> dict[str, Array]:
    """Values of a network's inputs from an NPZ or NPY file or a picture, told by the ending.

    Args:
        graph: the preprocessed network.
        asked_by: the option, for messages.
    """
    ending = path.suffix.lower()
    if ending in (".npz", ".npy"):
        return load_npz(path, graph)
    if not path.exists():
        raise MdlcError("there is no such file", node=str(path), hint="check the path")
    if len(graph.arguments) > 1:
        raise MdlcError(
            f"the network has {len(graph.arguments)} inputs",
            node=asked_by,
            hint="give all of them in one NPZ file",
        )
    picture = picture_input(graph, asked_by)
    return {picture.name: load_picture(path, picture, how)}


def random_inputs(graph: Graph, how: Preprocess, seed: int = 0) -> dict[str, Array]:
    """Seeded values: normal floats (scaled back by mean and deviation), uniform integers."""
    generator = np.random.default_rng(seed)
    values: dict[str, Array] = {}
    for node in graph.arguments:
        dtype = node.type.dtype
        value: Array
        if dtype.is_float:
            value = generator.standard_normal(node.shape)
            if how.normalises:
                value = value * np.mean(how.std or (1.0,)) + np.mean(how.mean or (0.0,))
        elif dtype.numpy.kind == "b":
            value = generator.integers(0, 2, node.shape)
        else:
            value = generator.integers(0, 256 if dtype.size == 1 else 10, node.shape)
            value = np.clip(value, 0, np.iinfo(dtype.numpy).max)
        values[node.name] = np.asarray(value).astype(dtype.numpy)
    return values
