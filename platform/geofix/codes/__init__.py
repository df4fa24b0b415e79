"""Embeddings, cell codes, and exact search over them. Import the submodule you need."""
