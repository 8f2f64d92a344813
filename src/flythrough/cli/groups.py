"""Headings under which ``--help`` lists options."""

from __future__ import annotations

from cyclopts import Group

CAMERA = Group("Camera and warp", sort_key=1)
LOOK = Group("Sampling, adapters and style", sort_key=2)
WORLDWARP = Group("WorldWarp", sort_key=3)
HARDWARE = Group("Hardware", sort_key=4)
