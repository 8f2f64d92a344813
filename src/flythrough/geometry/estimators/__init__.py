"""Estimators that need no network of ours: exact, given, flat."""
