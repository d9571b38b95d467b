"""Convolutions as products of matrices: shape, cut into blocks, packing, loops."""
