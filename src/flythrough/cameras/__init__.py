"""Cameras over time: poses, trajectories, the path language and camera files. Imports no torch."""
