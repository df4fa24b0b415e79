"""How the earth is cut into classes, and which class a photo belongs to."""
