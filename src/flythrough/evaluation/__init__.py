"""Measures of finished videos that need no learned network."""
