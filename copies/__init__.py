"""Copies of a picture: candidate pairs (hashing.py), their verification (verification.py), and groups of copies."""

# How two pictures differ. A `variant` is alike but for a part, such as another caption: it is no copy.
KINDS = ("same", "mirrored", "cropped", "captioned", "variant")
