"""Where pictures are, how their files are decoded, and how they are kept decoded."""
