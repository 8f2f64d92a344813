"""Helios' training stages: 1 autoregression, 2 pyramid, 3a and 3b few steps (arXiv 2603.04379)."""
