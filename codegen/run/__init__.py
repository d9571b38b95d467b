"""What was emitted, built, run and measured."""
