"""ARM processors of 32 bits."""
