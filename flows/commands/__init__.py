"""The commands of `dadc`, one file for each panel of its help."""
