"""The emitted class inside this process: a shared object, called through the interface for C."""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from mdlc.codegen.cpp.class_text import MAT_TYPES, mat_types_of
from mdlc.codegen.cpp.emit import answer_code, emit, picture_size
from mdlc.codegen.plan.plan import Plan, Port
from mdlc.codegen.run.executable import PRIVATE_INFO, checked
from mdlc.codegen.run.toolchain import BUILD_FLAGS, find_toolchain
from mdlc.compiler.errors import MdlcError
from mdlc.compiler.types import Array


class _Mat(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("height", "width", "channels", "type")),
        ("stride", ctypes.c_size_t),
    )


class _Mask(ctypes.Structure):
    _fields_ = (
        ("labels", ctypes.c_void_p),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("stride", ctypes.c_size_t),
        ("confidence", ctypes.c_void_p),
    )


class _Options(ctypes.Structure):
    _fields_ = (
        ("checksum", ctypes.c_int),
        ("threads", ctypes.c_int),
        ("target", ctypes.c_char_p),
    )


class LoadedModel:
    """A plan's class, loaded into this process: a call costs what the inference costs.

    Beside Executable, which starts a program for every call: a crash of emitted code would end the
    caller here. The class keeps its states from call to call. Calls of several threads wait for
    each other, and let other threads of Python run.
    """

    def __init__(self, plan: Plan, plans: Sequence[Plan] = (), threads: int = 0) -> None:
        """Builds the shared object, or takes the one in the user's cache folder, and loads it.

        Args:
            plans: of a class for several instruction sets, all; `plan` is the one that computes.
            threads: at most so many; 0: as many as it was compiled for.

        Raises:
            MdlcError: this machine does not run the target, or has no compiler.
        """
        self.plan = plan
        self._plans = tuple(plans) or (plan,)
        if plan.also:
            raise MdlcError(
                "a class of several sizes is not loaded into a process",
                node=plan.name,
                hint="use build(), or give every input one shape",
            )
        library = self._built()
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise MdlcError(f"cannot be loaded: {error}", node=plan.name) from None
        self._lock = threading.Lock()
        self._function("create").restype = ctypes.c_void_p
        self._function("error_text").restype = ctypes.c_char_p
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p(self._function("create")())
        target = plan.isa.name.encode() if len(self._plans) > 1 else None
        options = _Options(0, threads, target)
        weights = str(library.parent / f"{plan.name}.weights").encode()
        self._check(self._function("init")(self._handle, weights, ctypes.byref(options)))

    def _built(self) -> Path:
        first, *others = self._plans
        toolchain = find_toolchain(self.plan.isa)
        if toolchain.runner:
            raise MdlcError(
                f"a class for {self.plan.isa.name} is not loaded into a process of this machine",
                node="--target",
                hint="use build(), which runs it in an emulator",
            )
        files = emit(first, PRIVATE_INFO, c_api=True, others=others)
        flags = [*BUILD_FLAGS, "-fPIC", "-shared", "-fvisibility=hidden"]
        flags += ["-pthread"] if first.threads > 1 else []
        digest = hashlib.sha256(repr((toolchain.compiler, flags)).encode())
        for name, data in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha256(data).digest())
        root = Path(platformdirs.user_cache_dir("mdlc")) / "build"
        directory = root / digest.hexdigest()[:24]
        library = directory / "library.so"
        if library.exists():
            return library
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            folder = Path(scratch) / "files"
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
            sources = sorted(folder.glob(f"{first.name}*.cpp"))
            toolchain.compile(sources, folder / library.name, flags)
            try:
                folder.rename(directory)
            except OSError:
                if not library.exists():  # another process may have built it meanwhile
                    raise
        return library

    def __call__(
        self, inputs: Mapping[str, Array] | None = None, **named: Array
    ) -> dict[str, Array]:
        """One inference: logical arrays by ONNX name, as those of Executable.

        Raises:
            MdlcError: an input is missing or does not fit, or the class refuses.
        """
        taken = self._inputs({**(inputs or {}), **named})
        results = [np.empty(p.type.physical_shape, p.type.dtype.numpy) for p in self.plan.outputs]
        ports = (*self.plan.inputs, *self.plan.outputs)
        mats = self._mats((*taken, *results), ports)
        self._call("infer", mats)
        return {
            port.name: port.type.to_logical(result)
            for port, result in zip(self.plan.outputs, results, strict=True)
        }

    def answer(self, inputs: Mapping[str, Array]) -> Any:
        """What the class makes of one inference; see Executable.answer.

        Raises:
            MdlcError: see __call__.
            ValueError: the class gives tensors alone.
        """
        code = answer_code(self.plan)
        if code is None:
            raise ValueError("the class was compiled without an answer")
        taken = self._inputs(inputs)
        mats = self._mats(taken, self.plan.inputs)
        if code.type == "Mask":
            height, width = picture_size(self.plan)
            labels = np.empty((height, width), np.uint8)
            self._call("answer", [*mats, _Mask(labels.ctypes.data, width, height, 0, None)])
            return labels
        found = np.zeros((), code.dtype)
        memory = (ctypes.c_char * code.dtype.itemsize).from_address(found.ctypes.data)
        self._call("answer", [*mats, memory])
        return found[()]

    def reset(self) -> None:
        """Forgets what came before, where the class keeps states."""
        if self.plan.states:
            self._function("reset")(self._open())

    def close(self) -> None:
        """Frees the network, which cannot be used any more."""
        with self._lock:
            if self._handle is not None:
                self._function("destroy")(self._handle)
            self._handle = None

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _function(self, name: str) -> Any:
        return getattr(self._library, f"{self.plan.name}_{name}")

    def _open(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise ValueError("the network is closed")
        return self._handle

    def _inputs(self, given: Mapping[str, Array]) -> list[Array]:
        for name in given:
            if all(name != port.name for port in self.plan.inputs):
                raise MdlcError(f"the network has no input {name!r}")
        found = []
        for port in self.plan.inputs:
            if port.name not in given:
                raise MdlcError(f"no value for input {port.name!r}")
            found.append(port.type.to_physical(checked(port, given[port.name])))
        return found

    def _mats(self, arrays: Sequence[Array], ports: Sequence[Port]) -> list[Any]:
        types = mat_types_of(self.plan)
        return [
            _Mat(array.ctypes.data, *port.dims, types.index(MAT_TYPES[port.type.dtype]), 0)
            for array, port in zip(arrays, ports, strict=True)
        ]

    def _call(self, name: str, arguments: Sequence[Any]) -> None:
        pointers = [ctypes.byref(argument) for argument in arguments]
        with self._lock:
            error = self._function(name)(self._open(), *pointers)
        self._check(error)

    def _check(self, error: int) -> None:
        if error:
            text = self._function("error_text")(error).decode()
            raise MdlcError(f"the class says: {text}", node=self.plan.name)
