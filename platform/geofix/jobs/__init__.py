"""Work that is queued: what can be asked for, and its life from submission to result."""
