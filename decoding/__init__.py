"""Any picture file → RGB pixels: the one decoder, and what it takes off a file before it decodes it."""
