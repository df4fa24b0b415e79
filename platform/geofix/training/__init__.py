"""Learning from a snapshot directory: what is drawn, what is seen, and the loop around both."""
