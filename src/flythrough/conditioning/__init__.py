"""The only place where 3D and the past meet the denoiser; inference and training both call it."""
