"""Players: groups of weights with an optimiser, a rhythm and a moving average of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from flythrough.errors import InputError, WeightsError
from flythrough.training.loop import LoopSettings, learning_rate_at
from flythrough.training.parallel import fill, whole
from flythrough.training.placing import placed

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Player:
    """Weights that are trained together.

    Args:
        name: of its losses in the log and of its tensors in checkpoints.
        parameters: what it trains.
        settings: learning rate, schedule, AdamW, largest gradient norm (``clip``) and decay of the
            moving average (``ema``; 0 keeps none).
        every: it moves in steps that are a multiple of this.
        eps: of AdamW.
        ema_start: updates before the average begins; until then it is the weights themselves.

    Raises:
        InputError: nothing to train, or a rhythm below 1.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[nn.Parameter],
        settings: LoopSettings,
        *,
        every: int = 1,
        eps: float = 1e-8,
        ema_start: int = 0,
    ) -> None:
        if not parameters or every < 1 or ema_start < 0:
            raise InputError(
                f"{name} has {len(parameters)} weights to train, every {every} steps, averaged "
                f"from update {ema_start}; give some, a rhythm of at least 1 and no negative start."
            )
        self.name, self.parameters, self.settings = name, list(parameters), settings
        self.every, self.eps, self.ema_start = every, eps, ema_start

    def prepare(self, device: torch.device) -> None:
        """Make optimiser and average; after sharding, which replaces parameters' values."""
        settings = self.settings
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=self.eps,
            weight_decay=settings.weight_decay,
            fused=settings.fused and device.type == "cuda",
        )
        self.average = [p.detach().clone() for p in self.parameters] if settings.ema > 0 else []

    def due(self, step: int) -> bool:
        """Whether it moves in this step."""
        return step % self.every == 0

    def update(self, step: int, progress: float) -> tuple[float, float]:
        """Step along the gradients that are there; returns (learning rate, gradient norm).

        Raises:
            InputError: gradients that are no numbers; nothing is changed then.
        """
        number = step // self.every
        rate = learning_rate_at(progress, number, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        norm = float(total.full_tensor() if isinstance(total, DTensor) else total)
        if not math.isfinite(norm):
            raise InputError(
                f"The gradients of {self.name} became {norm} in step {step + 1}; lower its "
                "learning rate and resume from the last checkpoint."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            decay = ema_decay(number - self.ema_start, self.settings.ema)
            with torch.no_grad():
                for mean, parameter in zip(self.average, self.parameters, strict=True):
                    mean.lerp_(parameter.to(mean.dtype), 1 - decay)
        return rate, norm

    def use_average(self) -> None:
        """Put the average, where there is one, into the weights."""
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=bool(self.average)):
                parameter.copy_(mean)

    def state(self, *, keep: bool) -> dict[str, Tensor]:
        """Everything a resumed run needs, whole and on the CPU; every process must take part, and
        those without ``keep`` get nothing."""
        tensors: dict[str, Tensor] = {}
        for i, parameter in enumerate(self.parameters):
            values: dict[str, Tensor] = {"parameter": parameter}
            if self.average:
                values["average"] = self.average[i]
            moments = self.optimizer.state.get(parameter, {})
            values |= {key: moments[key] for key in _MOMENTS if key in moments}
            for key, value in values.items():
                full = whole(value)
                if keep:
                    tensors[f"{self.name}.{key}.{i}"] = full.contiguous().cpu()
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`state` gave.

        Raises:
            WeightsError: it is of another model or of other settings.
        """
        for i, parameter in enumerate(self.parameters):
            values = {key: tensors.get(f"{self.name}.{key}.{i}") for key in _MOMENTS}
            weights = tensors.get(f"{self.name}.parameter.{i}")
            mean = tensors.get(f"{self.name}.average.{i}")
            wrong = weights is None or weights.shape != parameter.shape
            if weights is None or wrong or (mean is None) == bool(self.average):
                raise WeightsError(
                    f"The checkpoint does not fit weight {i} of {self.name} "
                    f"{tuple(parameter.shape)}; resume with the settings of the first run."
                )
            fill(parameter, weights)
            if mean is not None:
                fill(self.average[i], mean)
            moments = {key: value for key, value in values.items() if value is not None}
            self.optimizer.state[parameter] = placed(moments, parameter)
        surplus = f"{self.name}.parameter.{len(self.parameters)}"
        if surplus in tensors:
            raise WeightsError(
                f"The checkpoint has more weights of {self.name} than this run trains "
                f"({len(self.parameters)}); resume with the settings of the first run."
            )


def ema_decay(updates: int, cap: float) -> float:
    """Decay of the average after ``updates`` since its start: (1+n)/(10+n), at most ``cap``; 0,
    which copies the weights, before the start (Helios, stage 3)."""
    return 0.0 if updates < 0 else min(cap, (1 + updates) / (10 + updates))
