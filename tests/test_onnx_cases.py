"""A few of ONNX's official cases on emitted code: what `python -m benchmarks.onnx_cases` runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.onnx_cases import RIGHT, run_batch
from benchmarks.onnx_official import official_cases

# One or two of each family of operators, in one program.
NAMES = frozenset(
    f"test_{name}"
    for name in (
        "affine_grid_3d", "argmax_keepdims_random", "attention_4d_gqa", "averagepool_2d_ceil",
        "bitwise_and_i32_2d", "center_crop_pad_crop_and_pad", "col2im_pads", "compress_0",
        "convtranspose_3d", "cumsum_2d_axis_1", "dft", "det_nd", "einsum_transpose",
        "gridsample_bicubic", "gridsample_volumetric_nearest_align_corners_1",
        "group_normalization_epsilon", "instancenorm_epsilon", "lppool_2d_pads", "lstm_defaults",
        "maxpool_with_argmax_2d_precomputed_pads", "maxunpool_export_with_output_shape",
        "melweightmatrix", "nonmaxsuppression_two_batches", "nonzero_example", "onehot_with_axis",
        "resize_downsample_scales_cubic_antialias", "reversesequence_batch",
        "roialign_aligned_true",
        "rotary_embedding", "scatternd_add", "stft", "tensorscatter_circular", "top_k_smallest",
        "unique_sorted_with_axis_3d",
    )
)  # fmt: skip


def test_official_cases(tmp_path: Path) -> None:
    cases = [case for case in official_cases(("node",)) if case.name in NAMES]
    assert {case.name for case in cases} == NAMES
    outcomes = list(run_batch(cases, "generic", tmp_path))
    wrong = [f"{o.name}: {o.outcome}: {o.reason}" for o in outcomes if o.outcome != RIGHT]
    assert not wrong
    assert len(outcomes) == len(cases)
