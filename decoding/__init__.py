"""Any picture file → RGB pixels: the only decoder, and the removal of metadata before decoding."""
