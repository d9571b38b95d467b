"""A CMake project that installs, with recipes for Conan and vcpkg."""

from __future__ import annotations

from mdlc.package.kind import Kind

KIND = Kind(
    summary="a CMake project for find_package, Conan and vcpkg",
    steps=(
        "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release",
        "cmake --build build",
        "cmake --install build --prefix PREFIX",
        "find_package({name} REQUIRED)  # in your project, with CMAKE_PREFIX_PATH=PREFIX",
    ),
    place=lambda name: "src",
)
