"""A Python wheel: the class as an extension through the interface for C, with NumPy in and out."""

from __future__ import annotations

from mdlc.package.kind import Kind


def _place(name: str) -> str:
    return "{package}" if name.endswith(".weights") else "src"


KIND = Kind(
    summary="a Python package that pip builds, NumPy in and out",
    steps=(
        "pip wheel . --no-deps",
        "pip install {package}-1.0.0-*.whl",
        "python -c 'import {package}; print({package}.{name}.INPUTS)'",
    ),
    place=_place,
)
