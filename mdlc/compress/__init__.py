"""Smaller networks: encodings, pruning, one ledger of size against accuracy."""
