"""Copies of a picture: pairs that may be some (hashing.py), a look at two pictures (verification.py), and groups."""

# How two pictures differ. A `variant` is alike but for a part, such as another caption: it is no copy.
KINDS = ("same", "mirrored", "cropped", "captioned", "variant")
