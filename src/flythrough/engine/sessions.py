"""A loaded model that is kept from one job to the next. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from flythrough.engine.options import MemoryChoice
from flythrough.engine.warp_video import WarpVideo
from flythrough.models.catalog import find_model
from flythrough.rollout.spec import RolloutSpec

if TYPE_CHECKING:
    from flythrough.engine.build import Session


class Sessions:
    """Keeps the newest session and gives it to every rollout that the same settings shaped.

    Args:
        device, memory: where the model runs and its weights lie, as in ``GenerateRequest``.
        notify: told about fallbacks while a model is loaded and used.
    """

    def __init__(self, device: str, memory: MemoryChoice, notify: Callable[[str], None]) -> None:
        self.device, self.memory, self._notify = device, memory, notify
        self._kept: tuple[tuple[RolloutSpec, bool], Session] | None = None

    def ready(self, spec: RolloutSpec, warp: WarpVideo | None = None) -> Session:
        """The session of ``spec``, whatever its seed, prompt, photo and size, led by ``warp``.

        Raises:
            WeightsError, RolloutError, InputError: as :func:`engine.build.build_session`.
        """
        from flythrough.engine.build import build_session, led_by

        free = replace(spec, seed=0, prompt="", start_image=None, height=64, width=64)
        key = (free, warp is not None)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # the old weights must go before the new ones come
            folder = find_model(spec.model)
            session = build_session(spec, folder, self.device, self._notify, warp, self.memory)
            self._kept = key, session
        elif warp is not None:
            self._kept = key, led_by(self._kept[1], warp)
        return self._kept[1]
