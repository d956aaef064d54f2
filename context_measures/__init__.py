"""What context.py measures: rankings without pictures, shares of pairs, causes of votes, luck."""
