"""The denoiser again, with everything that is the same for many steps or tokens done once."""
