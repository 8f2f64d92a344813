"""A loaded model that is kept from one job to the next. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from flythrough.engine.hardware import ONE_DEVICE, Hardware
from flythrough.engine.warp_video import WarpVideo
from flythrough.engine.words import CodecPrecision, Compute, MemoryChoice
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout.spec import RolloutSpec

if TYPE_CHECKING:
    from flythrough.engine.build import Session


class Sessions:
    """Keeps the newest session and gives it to every rollout that the same settings shaped.

    Args:
        device, memory, compute, codec_precision: where the model runs, its weights lie, which path
            its denoiser takes and what its codec computes in, as in ``GenerateRequest``.
        hardware: other devices that take part.
        notify: told about fallbacks while a model is loaded and used.
    """

    def __init__(
        self,
        device: str,
        memory: MemoryChoice,
        notify: Callable[[str], None],
        compute: Compute = "auto",
        hardware: Hardware = ONE_DEVICE,
        codec_precision: CodecPrecision = "auto",
    ) -> None:
        self.device, self.memory, self._notify = device, memory, notify
        self.compute, self.hardware, self.codec_precision = compute, hardware, codec_precision
        self._kept: tuple[tuple[RolloutSpec, bool], Session] | None = None
        self._planned = 0  # pixels of a chunk of the run that memory was planned for

    def ready(
        self, spec: RolloutSpec, warp: WarpVideo | None = None, folder: ModelFolder | None = None
    ) -> Session:
        """The session of ``spec``, whatever its seed, prompt, photo and size, led by ``warp``.

        ``folder``: its model, where it was found and read a moment ago.

        Raises:
            WeightsError, RolloutError, InputError: as :func:`engine.build.build_session`.
        """
        from flythrough.engine.build import build_session, led_by

        free = replace(spec, seed=0, prompt="", start_image=None, height=64, width=64)
        key = (replace(free, negative_prompt=""), warp is not None)
        before, self._kept = self._kept, None
        pixels = spec.height * spec.width * spec.window.frames
        larger = pixels > self._planned
        if before is None or before[0] != key or larger or not _leads(before[1]):
            model = None
            if before is not None and not larger and _same_weights(before[0][0], spec):
                model = None if before[1].model.streamed else before[1].model
            if model is None:
                self._planned = pixels
            before = None  # weights that are not used again must go before new ones come
            folder = folder or find_model(spec.model)
            session = build_session(
                spec,
                folder,
                self.device,
                self._notify,
                warp,
                self.memory,
                model,
                self.compute,
                self.hardware,
                self.codec_precision,
            )
            before = key, session
        elif warp is not None:
            before = key, led_by(before[1], warp.frames, warp.mask)
        self._kept = before
        return before[1]


def _leads(session: Session) -> bool:
    """Whether other processes, if it has any, still work for a session."""
    from flythrough.engine.team import still_leads

    return still_leads(getattr(session.model, "fast", None))


def _same_weights(before: RolloutSpec, spec: RolloutSpec) -> bool:
    """Whether the networks loaded for one rollout are those of another, adapters apart."""
    if "worldwarp" in (before.method, spec.method) and before.method != spec.method:
        return False  # another denoiser of the same folder
    if spec.settings.get("captioner") not in (None, before.settings.get("captioner")):
        return False  # memory was planned without it
    codecs = [one.settings.get("codec") for one in (before, spec)]
    return before.model_digest == spec.model_digest and codecs[0] == codecs[1]
