"""Shifts: named changes of the test images, one file each.

A file has `Params` and `shift(images_BCHW, params, generator)`, floats in [0, 1] in and out, seeded by the generator.
"""
