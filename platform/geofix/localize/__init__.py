"""From scores to a calibrated answer with evidence. Import the submodule you need."""
