"""The engine: a checked request becomes a job, advanced chunk by chunk by every entrance."""
