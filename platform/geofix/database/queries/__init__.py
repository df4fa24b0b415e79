"""Every query of the product, one module per table family."""
