"""The engine: a request becomes a stream of events; the same loop serves every entrance."""
