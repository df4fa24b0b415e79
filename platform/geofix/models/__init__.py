"""Encoders, their aggregation, and the directory a model is stored in. Import the submodule you need."""
