"""Samplers as pure functions over tensors, with the denoiser passed in."""
