"""Configurations of geometry networks as JSON: one form for every network."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from flythrough.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")


def config_to_dict(config: DataclassInstance) -> dict[str, Any]:
    """JSON form of a configuration; tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(config).items()}


def config_from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The ``kind`` of configuration in :func:`config_to_dict`'s form; keys that start with an
    underscore are ignored.

    Raises:
        InputError: a key is unknown or sizes do not fit together.
    """
    given: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v
        for k, v in values.items()
        if not k.startswith("_")
    }
    unknown = sorted(given.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise InputError(
            f"The geometry configuration has unknown keys {', '.join(unknown)}; remove them."
        )
    return kind(**given)
