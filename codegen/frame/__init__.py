"""Camera frames in: what is asked for, its arithmetic in NumPy, and the emitted text."""
