"""Training of every part of the bundled small model, and of camera adapters for any model."""
