"""Frozen training sets: how photos are split, proven free of leaks, written and read."""
