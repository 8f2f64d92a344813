"""Networks and their files: denoiser, codec, text encoder, geometry net, adapters, loading."""
