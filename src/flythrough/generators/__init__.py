"""Generators: each composes memory, conditioning, sampler and codec into one method."""
