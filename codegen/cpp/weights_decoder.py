"""The text that decodes an encoded weights file: tables of what stands where, and the decoder."""

from __future__ import annotations

from mdlc.codegen.plan.plan import Plan
from mdlc.codegen.plan.weights_file import payload_of
from mdlc.codegen.templates import render
from mdlc.codegen.weights.huffman import LONGEST
from mdlc.codegen.weights.packing_order import Rows
from mdlc.codegen.weights.sections import EncodedWeights, Section

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


def weights_decoder(plan: Plan) -> str:
    """The C++ of a plan whose weights are encoded; only the parts that its encodings need."""
    payload = payload_of(plan)
    weights = [section.weights for section in payload.sections]
    used = {_kind(w) for w in weights}
    any_codes = any(w.encoding.huffman or w.encoding.bits or w.numbers for w in weights)
    any_sparse = any(w.sparse for w in weights)
    filters: list[list[list[float]]] = []
    for w in weights:
        if w.layout.filter is not None and w.layout.filter.tolist() not in filters:
            filters.append(w.layout.filter.tolist())
    rows: list[Rows] = []
    sections = []
    for section in payload.sections:
        fields = _fields(section, len(rows), any_codes, any_sparse, "int" in used, filters)
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
        transforms=[
            {"size": len(matrix), "taps": len(matrix[0]), "rows": matrix} for matrix in filters
        ],
        filter_floats=max(
            (
                len(w.layout.filter[0]) ** 2 * r.values
                for w in weights
                if w.layout.filter is not None
                for r in w.layout.rows
            ),
            default=0,
        ),
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
    filters: list[list[list[float]]],
) -> list[str]:
    """The initialiser of a Section, in the order of its fields in the template."""
    weights = section.weights
    layout, encoding = weights.layout, weights.encoding
    fields: list[object] = [_KINDS[_kind(weights)]]
    if any_codes:
        fields += [0 if encoding.huffman else encoding.bits or -1, f"{weights.plain}U"]
    if any_sparse:
        fields.append("true" if weights.sparse else "false")
    if filters:
        fields.append(-1 if layout.filter is None else filters.index(layout.filter.tolist()))
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
