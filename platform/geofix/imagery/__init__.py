"""Photos and rasters: safe decoding, EXIF, windows, and the arrays that models take in."""
