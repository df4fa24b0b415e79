"""From files to rows: photos, aerial rasters and regions, validated and loaded without duplicates."""
