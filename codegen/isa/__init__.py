"""Instruction sets as data; adding one is a file here or in its family's folder."""
