"""What a rollout is made with; nothing in it changes from the first chunk to the last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from flythrough.errors import RolloutError
from flythrough.rollout.canonical import canonical_json, digest_of
from flythrough.rollout.window import STANDARD, Window

Method = Literal["warp-as-history", "helios", "worldwarp"]
Anchor = Literal["first", "second", "none"]
Seams = Literal["independent", "smooth"]


class Settings(Mapping[str, Any]):
    """A frozen, hashable mapping from names to JSON values, in sorted order; lists are tuples.

    Raises:
        RolloutError: a name is not a string or a value is not a finite JSON scalar or a list of
            such.
    """

    __slots__ = ("_items",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        items = {}
        for key, value in (values or {}).items():
            if not isinstance(key, str):
                raise RolloutError(f"The setting name {key!r} must be a string; rename it.")
            items[key] = _frozen_value(key, value)
        self._items: dict[str, Any] = dict(sorted(items.items()))

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return f"Settings({self._items!r})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: _plain_value(value) for key, value in self._items.items()}


@dataclass(frozen=True, kw_only=True)
class RolloutSpec:
    """The frozen specification of a rollout.

    Attributes:
        method: ``warp-as-history``, ``helios`` or ``worldwarp``.
        model: name or folder of the model; ``model_digest`` identifies its weights.
        height, width: size of the frames in pixels.
        fps: frames a second.
        seed: in [0, 2**63); all noise is a function of it.
        prompt, negative_prompt: for the whole rollout; a chunk's request holds its own prompt.
        geometry: name of an estimator or path of a depth file.
        lora: ``default``, ``off`` or a path; ``settings["lora_scale"]`` says how much it counts
            (1 where absent).
        settings: what the generator was told (steps, thresholds ...); any mapping is accepted and
            frozen.
        start_image: digest of the photo's file, for the record; None without a photo.

    Raises:
        RolloutError: a value is out of range.
    """

    method: Method
    model: str
    model_digest: str
    height: int
    width: int
    fps: float
    seed: int
    prompt: str = ""
    negative_prompt: str = ""
    geometry: str = "default"
    lora: str = "default"
    settings: Mapping[str, Any] = Settings()
    start_image: str | None = None

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise RolloutError(
                f"The method {self.method!r} is unknown; choose one of "
                f"{', '.join(get_args(Method))}."
            )
        _check_numbers(self)
        for name in ("model", "model_digest", "prompt", "negative_prompt", "geometry", "lora"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise RolloutError(f"The {name} {value!r} of a rollout must be a string; quote it.")
        object.__setattr__(self, "fps", float(self.fps))
        if not isinstance(self.settings, Settings):
            object.__setattr__(self, "settings", Settings(self.settings))
        _check_window(self)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def window(self) -> Window:
        """Length and overlap of the chunks.

        Raises:
            RolloutError: settings that describe no window.
        """
        if self.method != "worldwarp":
            return STANDARD
        return Window(self.settings["chunk_frames"], self.settings["overlap"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` gives back an equal specification."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["settings"] = Settings(self.settings).to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RolloutSpec:
        """The specification that :meth:`to_dict` wrote.

        Raises:
            RolloutError: a field is missing, unknown or out of range.
        """
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(data) - names):
            raise RolloutError(
                f"The rollout specification has the unknown field {unknown[0]!r}; it was written "
                "by another version of Flythrough, so use that version."
            )
        if missing := sorted(names - set(data)):
            raise RolloutError(
                f"The rollout specification lacks the field {missing[0]!r}; restore the file or "
                "start a new rollout."
            )
        return cls(**data)

    def digest(self) -> str:
        """blake2b-128 of the canonical JSON; changes with every field."""
        return digest_of("spec", canonical_json(self.to_dict()))


def _check_window(spec: RolloutSpec) -> None:
    if spec.method != "worldwarp":
        return
    for name in ("chunk_frames", "overlap"):
        value = spec.settings.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RolloutError(
                f"The setting {name} of a worldwarp rollout is {value!r} but must be a whole "
                "number; restore rollout.json from a copy or start a new rollout."
            )
    if not spec.window.overlap:
        raise RolloutError("Chunks of worldwarp need an overlap; give at least one frame.")


def _check_numbers(spec: RolloutSpec) -> None:
    for name in ("height", "width", "seed"):
        value = getattr(spec, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RolloutError(f"The {name} {value!r} of a rollout must be a whole number.")
    if spec.height < 1 or spec.width < 1:
        raise RolloutError(
            f"The size {spec.height}x{spec.width} of a rollout must be positive; give both sides."
        )
    if not 0 <= spec.seed < 2**63:
        raise RolloutError(f"The seed {spec.seed} is out of range; give 0 to 2**63 - 1.")
    if not isinstance(spec.fps, int | float) or not (math.isfinite(spec.fps) and spec.fps > 0):
        raise RolloutError(f"The frame rate {spec.fps!r} must be a positive number.")


def _frozen_value(key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen_value(key, item) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise RolloutError(f"The setting {key} is {value} but must be finite; correct it.")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise RolloutError(
        f"The setting {key} is a {type(value).__name__} but must be text, a number, true, false, "
        "null or a list of these."
    )


def _plain_value(value: Any) -> Any:
    return [_plain_value(item) for item in value] if isinstance(value, tuple) else value
