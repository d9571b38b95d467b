"""What a GPU lets pass is an error on the simulator: bounds, races, barriers, texels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from mdlc.codegen.metal.program import compile_kernels, half_flags, simulated
from tests.emitted_code import DRIVERS
from tests.metal.programs import SHIM, require_clang

ARGUMENTS = """(texture2d_array<half, access::read> x [[texture(0)]],
    texture2d_array<half, access::write> y [[texture(1)]],
    device const float* in [[buffer(0)]], device float* out [[buffer(1)]],
    threadgroup float* shared [[threadgroup(0)]],
    uint lane [[thread_index_in_threadgroup]])"""

BODIES = {
    # All threads leave their number's square; a tree adds them up.
    "tree": """shared[lane] = in[lane] * in[lane];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint half_count = 32; half_count > 0; half_count /= 2) {
          if (lane < half_count) { shared[lane] = shared[lane] + shared[lane + half_count]; }
          threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        out[lane] = shared[0];""",
    "simd": """out[lane] = simd_sum(in[lane]) + 1000.0f * simd_max(in[lane]);
        out[lane] += 0.5f * simd_shuffle_xor(in[lane], 1);""",
    "atomics": """threadgroup atomic_uint* counter = (threadgroup atomic_uint*)shared;
        if (lane == 0) { shared[0] = 0.0f; }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        atomic_fetch_add_explicit(counter, lane, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        out[lane] = float(atomic_fetch_add_explicit(counter, 0, memory_order_relaxed));""",
    "texels": """const half4 v = x.read(uint2(lane % 4, lane / 4 % 3), lane / 12 % 2);
        if (lane < 24) { y.write(v * half4(2.0h), uint2(lane % 4, lane / 4 % 3), lane / 12); }
        out[lane] = float(v.x);""",
    # A A' + 1 of the 8 x 8 matrix that `in` holds, by the first simdgroup.
    "matrices": """simdgroup_float8x8 a;
        simdgroup_float8x8 b;
        simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
        simdgroup_load(a, in, 8);
        simdgroup_load(b, in, 8, ulong2(0, 0), true);
        simdgroup_multiply_accumulate(sum, a, b, sum);
        if (lane < 32) { simdgroup_store(sum, out, 8); }""",
    "some_miss_the_matrix": """if (lane % 2 == 0) {
          simdgroup_float8x8 a;
          simdgroup_load(a, in, 8);
        }
        out[lane] = 0.0f;""",
    "matrix_behind": """simdgroup_float8x8 a;
        simdgroup_load(a, in + 8, 8);
        out[lane] = 0.0f;""",
    "matrix_unawaited": """shared[lane] = 0.0f;
        simdgroup_float8x8 a;
        simdgroup_load(a, shared, 8);
        out[lane] = 0.0f;""",
    "matrix_stored_twice": """simdgroup_float8x8 a;
        simdgroup_load(a, in, 8);
        simdgroup_store(a, shared, 8);
        out[lane] = 0.0f;""",
    "race_write_write": "shared[lane / 2] = float(lane); out[lane] = 0.0f;",
    "race_read_write": """shared[lane] = 1.0f;
        out[lane] = shared[63 - lane];""",
    "race_after_read": """shared[lane] = in[lane];
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const float next = shared[(lane + 1) % 64];
        shared[lane] = next;
        out[lane] = next;""",
    "some_miss_the_barrier": """if (lane < 63) {
          threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        out[lane] = 0.0f;""",
    "some_miss_the_simd": "out[lane] = lane % 3 == 0 ? simd_sum(1.0f) : 0.0f;",
    "load_behind": "out[lane] = in[lane + 1];",
    "load_before": "out[lane] = in[int(lane) - 1];",
    "store_behind": "out[lane * 2] = 0.0f;",
    "shared_behind": "shared[lane + 1] = 0.0f; out[lane] = 0.0f;",
    "texel_behind": "out[lane] = float(x.read(uint2(lane, 0), 0).x);",
    "slice_behind": "out[lane] = float(x.read(uint2(0, 0), lane).x);",
    "write_behind": "y.write(half4(0.0h), uint2(0, lane), 0); out[lane] = 0.0f;",
    "written_twice": "y.write(half4(0.0h), uint2(lane % 4, 0), 0); out[lane] = 0.0f;",
}
# A kernel that reads what nothing wrote: x and y have changed places.
UNWRITTEN = """kernel void unwritten(texture2d_array<half, access::read> y [[texture(1)]],
    texture2d_array<half, access::write> x [[texture(0)]], device float* out [[buffer(1)]],
    uint lane [[thread_index_in_threadgroup]]) {
  out[lane] = float(y.read(uint2(0, 0), 0).x);
}
"""
FILL = """kernel void fill(texture2d_array<half, access::write> y [[texture(0)]],
    uint3 p [[thread_position_in_grid]]) {
  y.write(half4(float4(float(p.x + 4 * p.y + 12 * p.z))), p.xy, p.z);
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clang = require_clang()
    folder = tmp_path_factory.mktemp("kernels")
    text = "#include <metal_stdlib>\nusing namespace metal;\n" + FILL + UNWRITTEN
    for name, body in BODIES.items():
        text += f"kernel void {name}{ARGUMENTS} {{\n{body}\n}}\n"
    (folder / "simulated.cpp").write_text(simulated(text, "kernels"))
    compile_kernels(clang, folder, folder / "kernels.o", ["-Wno-unused-parameter"])
    program = folder / "driver"
    command = [*clang, "-std=c++17", "-O1", "-pthread", *half_flags(), "-isystem", str(SHIM)]
    command += [str(DRIVERS / "metal_kernel.cpp"), str(folder / "kernels.o"), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def output(driver: Path, name: str) -> np.ndarray:
    done = subprocess.run([str(driver), name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return np.array([float(word) for word in done.stdout.split()])


def test_threads_of_a_group_work_together(driver: Path) -> None:
    lanes = np.arange(64)
    assert (output(driver, "tree") == (lanes**2).sum()).all()
    assert (output(driver, "atomics") == lanes.sum()).all()
    of_simdgroup = np.where(lanes < 32, np.arange(32).sum(), np.arange(32, 64).sum())
    largest = np.where(lanes < 32, 31, 63)
    # %g prints six digits.
    expected = of_simdgroup + 1000 * largest + 0.5 * (lanes ^ 1)
    np.testing.assert_allclose(output(driver, "simd"), expected, rtol=1e-5)


def test_matrices_are_multiplied(driver: Path) -> None:
    a = np.arange(64.0).reshape(8, 8)
    np.testing.assert_allclose(output(driver, "matrices").reshape(8, 8), a @ a.T + 1, rtol=1e-5)


def test_texels_are_found(driver: Path) -> None:
    assert (output(driver, "texels") == np.arange(64) % 24).all()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("race_write_write", "a race on byte"),
        ("race_read_write", "a race on byte"),
        ("race_after_read", "a race on byte"),
        ("some_miss_the_barrier", "a barrier that not all threads of the group reach"),
        ("some_miss_the_simd", "a simdgroup function that not all threads reach"),
        ("some_miss_the_matrix", "a simdgroup function that not all threads reach"),
        ("matrix_behind", "bytes outside the buffers"),
        ("matrix_unawaited", "a race on byte"),
        ("matrix_stored_twice", "a race on byte"),
        ("load_behind", "a load of 4 bytes outside the buffers"),
        ("load_before", "a load of 4 bytes outside the buffers"),
        ("store_behind", "a store of 4 bytes outside the buffers"),
        ("shared_behind", "of 256 bytes of threadgroup memory"),
        ("texel_behind", "texel (4, 0) of slice 0 is outside a texture of 4 x 3 x 2 slices"),
        ("slice_behind", "of slice 2 is outside"),
        ("write_behind", "texel (0, 3) of slice 0 is outside"),
        ("written_twice", "is written twice"),
        ("unwritten", "is read, but nothing wrote it"),
    ],
)
def test_errors_are_reported(driver: Path, name: str, complaint: str) -> None:
    done = subprocess.run([str(driver), name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stdout
    assert complaint in done.stderr
    assert f"kernel {name}" in done.stderr
