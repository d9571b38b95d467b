"""Metal kernel families, one file each."""
