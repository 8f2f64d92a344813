"""Procedural ground truth: seed in; exact frames, depth, visibility, flow and cameras out."""
