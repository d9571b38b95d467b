"""Quantization: statistics of values, choice of ranges, and the integer graph."""
