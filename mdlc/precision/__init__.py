"""Below float32: 8 bits, half precision, and what decides layer by layer."""
