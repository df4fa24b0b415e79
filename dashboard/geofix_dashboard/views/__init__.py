"""One module per page; each offers `render`."""
