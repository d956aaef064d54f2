"""Where pictures are, and how they are kept decoded."""
