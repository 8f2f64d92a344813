"""Arguments of diffusers' Helios pipelines that only one value of can be honoured here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flythrough.errors import InputError
from flythrough.models.catalog import ModelDefaults

_PLAIN = (bool, int, float, str, list, tuple, dict)


@dataclass(frozen=True)
class Fixed:
    """An argument with a fixed value.

    Attributes:
        values: those that change nothing, diffusers' default among them unless the model decides.
        why: what stands against another value, and what to do instead.
        of_model: the model's own value, which changes nothing either.
    """

    values: tuple[Any, ...]
    why: str
    of_model: Callable[[ModelDefaults], Any] | None = None


_OWN_NOISE = "noise follows from the seed; give seed or generator"
_GIVE_PROMPT = "prompts are encoded here; give prompt and negative_prompt"
_GIVE_PICTURES = "pictures are encoded here; give image or video"
_NOISE_LEVEL = "the start enters the history with the published noise; leave it out"
_MODEL_DECIDES = "the model decides this here; leave it out"
_ARCHITECTURE = "chunks and history have the published sizes; leave it out"

FIXED: Mapping[str, Fixed] = {
    "num_videos_per_prompt": Fixed((1,), "one call makes one video; call again with another seed"),
    "sigmas": Fixed(
        (None,), "the timetable is the model's; give pyramid_num_inference_steps_list instead"
    ),
    "latents": Fixed((None,), _OWN_NOISE),
    "prompt_embeds": Fixed((None,), _GIVE_PROMPT),
    "negative_prompt_embeds": Fixed((None,), _GIVE_PROMPT),
    "image_latents": Fixed((None,), _GIVE_PICTURES),
    "fake_image_latents": Fixed((None,), _GIVE_PICTURES),
    "video_latents": Fixed((None,), _GIVE_PICTURES),
    "attention_kwargs": Fixed(
        (None, {}), "attention takes no options; for a LoRA's scale call set_adapters"
    ),
    "callback_on_step_end_tensor_inputs": Fixed(
        (["latents"],), "only latents are handed out between steps; leave it out"
    ),
    "max_sequence_length": Fixed((), _MODEL_DECIDES, lambda own: own.max_sequence_length),
    "add_noise_to_image_latents": Fixed((True,), _NOISE_LEVEL, lambda own: own.condition_noise),
    "add_noise_to_video_latents": Fixed((True,), _NOISE_LEVEL, lambda own: own.condition_noise),
    "image_noise_sigma_min": Fixed((0.111,), _NOISE_LEVEL),
    "image_noise_sigma_max": Fixed((0.135,), _NOISE_LEVEL),
    "video_noise_sigma_min": Fixed((0.111,), _NOISE_LEVEL),
    "video_noise_sigma_max": Fixed((0.135,), _NOISE_LEVEL),
    "history_sizes": Fixed(([16, 2, 1],), _ARCHITECTURE),
    "num_latent_frames_per_chunk": Fixed((9,), _ARCHITECTURE),
    "use_zero_init": Fixed((True,), _MODEL_DECIDES, lambda own: own.zero_steps > 0),
    "zero_steps": Fixed((1,), _MODEL_DECIDES, lambda own: own.zero_steps),
    "is_amplify_first_chunk": Fixed((), _MODEL_DECIDES, lambda own: own.amplify_first_chunk),
}
"""Every argument that has no parameter of its own in the facade."""


def check_fixed(given: Mapping[str, Any], own: ModelDefaults) -> None:
    """Refuse what cannot be honoured.

    Raises:
        InputError: an argument with another value than a fixed one, or an unknown argument.
    """
    for name, value in given.items():
        if name not in FIXED:
            raise InputError(f"There is no argument {name!r}; check its spelling or leave it out.")
        fixed = FIXED[name]
        allowed = list(fixed.values)
        if fixed.of_model is not None:
            allowed.append(fixed.of_model(own))
        if not any(_same(value, other) for other in allowed):
            raise InputError(f"{name}={shown(value)} cannot be honoured: {fixed.why}.")


def shown(value: object) -> str:
    """``value`` for a message: its kind where it is long or unwieldy."""
    text = repr(value) if value is None or isinstance(value, _PLAIN) else ""
    return text if 0 < len(text) <= 60 else f"<{type(value).__name__}>"


def _same(value: object, other: object) -> bool:
    if isinstance(value, list | tuple) and isinstance(other, list):
        return sorted(value, key=str) == sorted(other, key=str)
    if value is None or other is None:
        return value is other
    return isinstance(value, _PLAIN) and value == other
