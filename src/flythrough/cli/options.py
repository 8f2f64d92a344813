"""Option types that several commands share."""

from __future__ import annotations

from flythrough.engine.words import parse_size, parse_steps

__all__ = ["parse_size", "parse_steps"]
