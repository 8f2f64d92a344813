"""Where method worldwarp starts without a photo, or from a photo in another style: a first picture
from the prompt. It is kept with the rollout, which then goes on as from any photo."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flythrough.engine.build import build_rollout, build_spec
from flythrough.engine.request import CheckedRequest, GenerateRequest, check
from flythrough.engine.sessions import Sessions
from flythrough.media.image import FittedPhoto, fit
from flythrough.media.in_memory import photo_of
from flythrough.rollout.chunk import ChunkRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_HELIOS_UNIT = 64


def with_first_picture(
    checked: CheckedRequest, sessions: Sessions, notify: Callable[[str], None]
) -> CheckedRequest:
    """``checked`` with a photo to start from: its own, one repainted from the prompt
    (``restyle``), or the first frame of a video that the prompt alone gives. That video comes from
    the folder's Helios where it has one, else from the ST-Diff without hints.

    Raises:
        WeightsError, InputError: as building a session does.
    """
    request, photo = checked.request, checked.photo
    if checked.method != "worldwarp" or (photo is not None and request.restyle is None):
        return checked
    if photo is None and checked.model.is_helios:
        pixels = _by_helios(checked, sessions, notify)
        made_by = "the model's Helios"
    else:
        pixels = _by_st_diff(checked, sessions)
        made_by = "its ST-Diff"
    if photo is None:
        notify(f"the first picture was made from the prompt by {made_by}.")
        return replace(checked, photo=fit(photo_of(pixels), *checked.size))
    notify(f"the photo was repainted from the prompt at strength {request.restyle:g}.")
    return replace(checked, photo=_repainted(photo, pixels))


def _repainted(photo: FittedPhoto, pixels: np.ndarray) -> FittedPhoto:
    """The same camera, other colours."""
    pixels = pixels.copy()
    pixels.setflags(write=False)
    return replace(photo, pixels=pixels)


def _by_st_diff(checked: CheckedRequest, sessions: Sessions) -> np.ndarray:
    from flythrough.generators.worldwarp import WorldWarpGenerator

    spec = build_spec(checked)
    session = sessions.ready(spec, None, checked.model)
    assert isinstance(session.generator, WorldWarpGenerator)
    photo = None if checked.photo is None else checked.photo.pixels
    return session.generator.picture(spec, photo, checked.request.restyle or 1.0)


def _by_helios(
    checked: CheckedRequest, sessions: Sessions, notify: Callable[[str], None]
) -> np.ndarray:
    """At the next size that its pyramid takes; cut to the wanted one by the caller."""
    asked = checked.request
    height, width = (-(-side // _HELIOS_UNIT) * _HELIOS_UNIT for side in checked.size)
    plain = check(
        GenerateRequest(
            prompt=asked.prompt,
            model=asked.model,
            method="helios",
            frames=1,
            size=(height, width),
            seed=asked.seed,
            device=asked.device,
            memory=asked.memory,
        )
    )
    spec = build_spec(plain)
    session = sessions.ready(spec, None, plain.model)
    rollout = build_rollout(spec, plain, session, notify)
    chunk = session.generator.chunk(rollout, ChunkRequest(index=0, prompt=asked.prompt))
    return np.asarray(chunk.frames[0])
