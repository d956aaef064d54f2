"""Parts of rank_images.py: the journal of what has been scored, and copies of the best pictures."""
