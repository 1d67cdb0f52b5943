"""Data sets: one file each, with `load(split, root, size, channels, seed)`."""
