"""Emitted code against references: verification, accuracy, time."""
