"""The kernel families, one file each; each defines KERNELS."""
