"""The text that decodes an encoded weights file: tables of what stands where, and the decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mdlc.codegen.kernel import TransformedFilters
from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.weights_file import payload_of
from mdlc.codegen.templates import render
from mdlc.codegen.tiles.half import to_half
from mdlc.codegen.weights.huffman import LONGEST
from mdlc.codegen.weights.packing_order import FIELD, Rows
from mdlc.codegen.weights.sections import EncodedWeights, Section

Matrix = tuple[tuple[float, ...], ...]
Scales = tuple[float, ...]

_KINDS = {
    "raw": "kRaw",
    "fp16": "kHalf",
    "bf16": "kUpper",
    "int": "kInteger",
    "clustered": "kShared",
}
_PLANES = {"raw": 4, "fp16": 2, "bf16": 2, "int": 1, "clustered": 1}


def _kind(weights: EncodedWeights) -> str:
    return "int" if weights.encoding.integer else weights.encoding.values


def _filters(section: Section) -> TransformedFilters:
    filters = section.weights.layout.filters
    assert filters is not None
    return filters


def _halves(plan: Plan, section: Section) -> bool:
    """Whether a section's weights are in half precision once they are decoded."""
    step = next(step for step in plan.layers if step.name == section.step)
    return step.weights[FIELD].dtype == np.float16


def _transform(
    plan: Plan, section: Section, matrices: Sequence[tuple[Matrix, Scales]]
) -> list[str]:
    """The initialiser of a Transform, in the order of its fields in the template."""
    filters, rows = _filters(section), section.weights.layout.rows
    fields = [
        matrices.index((filters.matrix, filters.scales)),
        len(filters.matrix),
        len(filters.matrix[0]),
        filters.kernel,
        filters.stride,
        filters.full,
        rows[0].rows,
        sum(count * width for count, width in filters.blocks),
        "{" + ", ".join(map(str, filters.depths)) + "}",
        "true" if _halves(plan, section) else "false",
    ]
    return [str(field) for field in fields]


def _most(transforms: Sequence[Section], elements: Callable[[Matrix], int]) -> int:
    """The most floats of a row of filters, of so many elements each."""
    return max(
        (
            elements(_filters(s).matrix) * r.values
            for s in transforms
            for r in s.weights.layout.rows
        ),
        default=0,
    )


def weights_decoder(plan: Plan) -> str:
    """The C++ of a plan whose weights are encoded; only the parts that its encodings need."""
    payload = payload_of(plan)
    weights = [section.weights for section in payload.sections]
    used = {_kind(w) for w in weights}
    any_codes = any(w.encoding.huffman or w.encoding.bits or w.numbers for w in weights)
    any_sparse = any(w.sparse for w in weights)
    transforms = [s for s in payload.sections if s.weights.layout.filters is not None]
    matrices = list(dict.fromkeys((_filters(s).matrix, _filters(s).scales) for s in transforms))
    halves = any(_halves(plan, section) for section in transforms)
    rows: list[Rows] = []
    sections = []
    for section in payload.sections:
        fields = _fields(section, len(rows), any_codes, any_sparse, "int" in used, transforms)
        sections.append((section.step, fields))
        rows.extend(section.weights.layout.rows)
    return render(
        "cpp/weights_decoder.j2",
        name=plan.name,
        kinds=[kind for values, kind in _KINDS.items() if values in used],
        any_codes=any_codes,
        any_sparse=any_sparse,
        uses_table=bool(used & {"int", "clustered"}),
        most_planes=max(*(_PLANES[values] for values in used), 2 if payload.numbers else 1),
        matrices=[{"size": len(m), "taps": len(m[0]), "rows": m, "scales": s} for m, s in matrices],
        transforms=[_transform(plan, section, matrices) for section in transforms],
        halves=halves,
        to_half=to_half().text if halves else "",
        filter_floats=_most(transforms, lambda matrix: len(matrix[0]) ** 2),
        result_floats=_most(transforms, lambda matrix: len(matrix) ** 2),
        longest=LONGEST,
        all_rows=[
            (r.panels, r.blocks, r.rows, r.values, r.row_zeros, r.block_zeros, r.first)
            for r in rows
        ],
        sections=sections,
        numbers=[
            (p.offset, len(p.numbers.data), p.target, p.numbers.count, p.numbers.limit, p.step)
            for p in payload.numbers
        ],
        stored=[(s.offset, s.target, s.nbytes) for s in payload.stored],
    )


def _fields(
    section: Section,
    first_row: int,
    any_codes: bool,
    any_sparse: bool,
    any_integers: bool,
    transforms: Sequence[Section],
) -> list[str]:
    """The initialiser of a Section, in the order of its fields in the template."""
    weights = section.weights
    layout, encoding = weights.layout, weights.encoding
    fields: list[object] = [_KINDS[_kind(weights)]]
    if any_codes:
        fields += [0 if encoding.huffman else encoding.bits or -1, f"{weights.plain}U"]
    if any_sparse:
        fields.append("true" if weights.sparse else "false")
    if transforms:
        fields.append(-1 if layout.filters is None else transforms.index(section))
    fields += [
        *([weights.lowest] if any_integers else []),
        _PLANES[_kind(weights)],
        section.offset,
        len(weights.data),
        section.target,
        section.target_bytes // 4,
        weights.table,
        weights.count,
        weights.entries,
        first_row,
        len(layout.rows),
    ]
    return [str(field) for field in fields]
