"""Measuring speed and memory (``flythrough bench``): random weights, random inputs, never zeros."""
