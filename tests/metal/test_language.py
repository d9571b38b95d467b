"""The simulator is strict: what is no valid Metal does not compile, and what it cannot check is
listed in docs/metal.md."""

from __future__ import annotations

import pytest

from mdlc.codegen.metal.program import check_source
from mdlc.codegen.metal.source import read_kernels
from mdlc.compiler.errors import MdlcError
from tests.metal.programs import require_clang

HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"
# A kernel around statements; w and y are buffers, x and t textures.
KERNEL = (
    HEAD
    + """
{before}
kernel void k(texture2d_array<half, access::read> x [[texture(0)]],
              texture2d_array<half, access::write> t [[texture(1)]],
              device const half4* w [[buffer(0)]],
              device float4* y [[buffer(1)]],
              threadgroup float* shared [[threadgroup(0)]],
              uint3 position [[thread_position_in_grid]]) {{
  const half4 h = w[position.x];
  const float4 f = y[position.x];
  t.write(h, position.xy, 0);
  y[0] = f;
  shared[0] = 0.0f;
  {body}
}}
"""
)


def kernel(body: str = "", before: str = "") -> str:
    return KERNEL.format(body=body, before=before)


VALID = """
  half4 a = x.read(position.xy, 0) + h;
  a.xy = a.yx * half2(2.0h);
  const float4 wide = float4(a) + float4(f.x, f.yz.x, 1.0f, 2.0f);
  const half4 narrow = half4(wide);
  y[1] = fma(wide, float4(0.5f), float4(narrow)) + float4(dot(a, narrow));
  y[2] = select(f, wide, f < wide);
  y[3] = float4(simd_sum(f.x), min(f.x, f.y), clamp(f.x, 0.0f, 1.0f), Twice(shared));
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const int4 i = int4(wide);
  y[4] = float4(i / int4(3));
"""
HELPER = "inline float Twice(threadgroup float* p) { return p[0] * 2.0f; }"


def test_valid_metal_compiles() -> None:
    require_clang()
    check_source(kernel(VALID, HELPER), "k.metal")


@pytest.mark.parametrize(
    ("body", "before", "complaint"),
    [
        ("float4 a = h;", "", "float4"),
        ("half4 a = f;", "", "half4"),
        ("const half4 a = h + f;", "", "half4"),
        ("const int4 a = f;", "", "int4"),
        ("t.write(f, position.xy, 0);", "", "half4"),
        ("const half4 a = t.read(position.xy, 0);", "", "read"),
        ("x.write(h, position.xy, 0);", "", "write"),
        ("const half4 a = x.sample(zeros, float2(0.0f), 0);",
         "constexpr sampler zeros(coord::pixel);", "sample"),
        ("const half4 a = x.read(position, 0);", "", "no viable conversion|cannot|no matching"),
        ("const half3 a = half4(1.0h);", "", "half3"),
        ("const float4 a = float4(1.0f, 2.0f);", "", "no matching function"),
        ("const float4 a = max(f, h);", "", "no matching|ambiguous"),
        ("w[0] = h;", "", "const|read-only"),
        ("shared = y;", "", "address space|incompatible|assigning|conver"),
        ("y[0] = float4(Twice(y));", HELPER, "no matching|address space|conver"),
        ("const float a = f.q;", "", "illegal vector component|member"),
        ("unknown(f);", "", "undeclared"),
    ],
)  # fmt: skip
def test_clang_refuses(body: str, before: str, complaint: str) -> None:
    require_clang()
    with pytest.raises(MdlcError, match=f"(?i){complaint}"):
        check_source(kernel(body, before), "k.metal")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (kernel("double d = 1.0;"), "'double' is not in the Metal language"),
        (kernel("goto end; end:;"), "'goto' is not"),
        (kernel("float* p = new float[4];"), "'new' is not"),
        (kernel("try { } catch (int) { }"), "is not in the Metal language"),
        (kernel("", "struct A { virtual void f(); };"), "'virtual' is not"),
        (kernel("", "inline float F(float x) { return x > 0.0f ? F(x - 1.0f) : x; }"),
         "'F' calls itself"),
        (kernel("", "inline float A(float x);\ninline float B(float x) { return A(x); }\n"
                    "inline float A(float x) { return B(x); }"), "calls itself"),
        (kernel("", "inline float F(float* p) { return *p; }"), "needs an address space"),
        (kernel("", "inline float F(const float& p) { return p; }"), "needs an address space"),
        (kernel("const half4* p = w; p += 1;"), "needs an address space"),
        (HEAD + "kernel void k(device float* y) {}", "has no attribute"),
        (HEAD + "kernel void k(float* y [[buffer(0)]]) {}", "needs an address space"),
        (HEAD + "kernel void k(threadgroup float* y [[buffer(0)]]) {}",
         "is not in the space of a buffer"),
        (HEAD + "kernel void k(device float* y [[texture(0)]]) {}", r"does not fit \[\[texture"),
        (HEAD + "kernel void k(device float* y [[buffer]]) {}", "malformed"),
        (HEAD + "kernel void k(device float* y [[buffer(0)]], device float* z [[buffer(0)]]) {}",
         "used twice"),
        (HEAD + "kernel void k(float4 p [[thread_position_in_grid]]) {}", "of type uint3"),
        (HEAD + "kernel void k(uint p [[stage_in]]) {}", r"\[\[stage_in\]\] is not supported"),
    ],
)  # fmt: skip
def test_the_rules_that_cpp_lacks(text: str, complaint: str) -> None:
    with pytest.raises(MdlcError, match=complaint):
        read_kernels(text, "k.metal")


def test_arguments_are_read() -> None:
    (found,) = read_kernels(kernel())
    assert found.name == "k"
    assert [(a.name, a.attribute, a.index) for a in found.arguments] == [
        ("x", "texture", 0),
        ("t", "texture", 1),
        ("w", "buffer", 0),
        ("y", "buffer", 1),
        ("shared", "threadgroup", 0),
        ("position", "thread_position_in_grid", -1),
    ]
    assert found.waits
    assert not read_kernels(HEAD + "kernel void k(uint p [[thread_position_in_grid]]) {}")[0].waits
