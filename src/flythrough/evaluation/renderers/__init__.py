"""Renderers that this project did not write, as sources of truth behind one small protocol."""
