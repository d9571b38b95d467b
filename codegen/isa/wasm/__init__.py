"""Instruction sets of WebAssembly."""
