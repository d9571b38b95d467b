"""Packages of the emitted class, one file a kind."""
