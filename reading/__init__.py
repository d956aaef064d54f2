"""Readers of Reddit submissions: text files line by line, dumps, posts, and the addresses of their pictures."""
