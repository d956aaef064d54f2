"""Sources of pictures, and the cache of decoded ones."""
