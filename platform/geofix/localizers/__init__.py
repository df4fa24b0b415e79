"""Methods that turn a photo embedding into ranked positions. Import the submodule you need."""
