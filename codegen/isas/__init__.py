"""The instruction sets, one file each, found by its name; each defines ISA."""
