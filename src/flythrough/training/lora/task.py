"""The adapter as a task of the training loop: every number of a step is a function of seed and
step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from flythrough import seeds
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.errors import FaultError
from flythrough.generators.warp_as_history import CAMERA_ADAPTER
from flythrough.models.adapters import set_lora_active
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.training.camera_recipe import (
    LevelSettings,
    draw_items,
    flow_loss,
    training_history,
)
from flythrough.training.loop import rank_and_world
from flythrough.training.lora.items import EncodedItem, read_item

Preview = Callable[[Path, int], dict[str, float]]


class Items:
    """Prepared items of a run folder by number, counted from 1, and their prompts' embeddings."""

    def __init__(self, folder: Path, rows: Sequence[int], embeddings: Sequence[Tensor]) -> None:
        self.folder, self.rows, self.embeddings = folder, rows, embeddings

    def file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"

    def read(self, number: int) -> tuple[EncodedItem, Tensor]:
        """The item and the embedding [1,L,D] of its prompt.

        Raises:
            FaultError: its file is gone or damaged.
        """
        item = read_item(self.file(number))
        if item is None:
            raise FaultError(
                f"The prepared item {self.file(number)} is missing or damaged; run the same "
                "command again, which prepares it anew."
            )
        return item, self.embeddings[self.rows[number - 1]]

    def __len__(self) -> int:
        return len(self.rows)


class CameraTask:
    """Flow matching with a warped history (Warp-as-History 15.6), one item a step and process.

    A step trains one pyramid stage: where a model sees the warp in several, they take turns.

    Args:
        transformer: with the adapter attached, whose ``parameters`` are trained.
        items: what is trained on; ``heldout``: what is only measured.
        preview: called by the loop for samples.
    """

    name = "lora"

    def __init__(
        self,
        transformer: HeliosTransformer,
        parameters: list[nn.Parameter],
        items: Items,
        heldout: Items,
        pyramid: PyramidConfig,
        *,
        stages: tuple[int, ...],
        history: WarpHistorySettings,
        seed: int,
        preview: Preview,
    ) -> None:
        self.transformer, self.items, self.heldout = transformer, items, heldout
        self.pyramid, self.stages, self.history, self.seed = pyramid, stages, history, seed
        self._preview = preview
        holder = nn.Module()
        holder.parameters_of_adapter = nn.ParameterList(parameters)
        self.modules = nn.ModuleDict({"adapter": holder})
        self._device = parameters[0].device

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        """The loss of the step's item in the step's stage."""
        number = step * rank_and_world()[1] + rank
        # Shifted in every pass over the items, or each would always meet the same stage.
        stage = self.stages[(step + number // len(self.items)) % len(self.stages)]
        source = seeds.generator(self.seed, "lora", step, rank)
        return self.item_loss(self.items, 1 + number % len(self.items), (stage,), source)

    def item_loss(
        self, items: Items, number: int, stages: tuple[int, ...], source: torch.Generator
    ) -> dict[str, Tensor]:
        """Losses of one item by stage; condition noise, noise and levels come from ``source``."""
        item, embedding = items.read(number)
        item = item.to(self._device)
        dtype = self.transformer.dtype
        history, target = training_history(
            item.prefix, item.past, item.warp, item.visible, source, settings=self.history
        )
        text = embedding.to(self._device, dtype)

        def velocity(x: Tensor, timestep: Tensor) -> Tensor:
            made: Tensor = self.transformer(
                x.to(dtype),
                timestep,
                text,
                indices_hidden_states=target.to(self._device),
                history=history,
            )
            return made

        points = draw_items(item.target, source, self.pyramid, LevelSettings(stages=stages))
        return flow_loss(velocity, points)

    @torch.no_grad()
    def heldout_loss(self, *, adapter: bool) -> dict[str, float]:
        """Mean losses over the held-out items, whose noise is always the same."""
        set_lora_active(self.transformer, CAMERA_ADAPTER, adapter)
        found: list[dict[str, Tensor]] = []
        for number in range(1, len(self.heldout) + 1):
            source = seeds.generator(self.seed, "lora-held-out", number)
            found.append(self.item_loss(self.heldout, number, self.stages, source))
        set_lora_active(self.transformer, CAMERA_ADAPTER, True)
        return {k: float(torch.stack([f[k] for f in found]).mean()) for k in found[0]}

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        """A sampled chunk in ``samples/``."""
        return self._preview(folder, step)
