"""Networks only: one file each, with `build(num_classes, channels, size)`; pixels in [0, 1] in, logits out."""
