"""Judging localizers: protocols, metrics, comparisons, and the output of other tools."""
