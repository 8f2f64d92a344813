"""A rollout as data: a frozen specification, a start and finished chunks. Imports no model."""
