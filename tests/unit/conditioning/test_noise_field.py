"""Which cells are kept, revised or invented."""

from __future__ import annotations

import pytest
import torch

from flythrough.conditioning.noise_field import (
    FieldSettings,
    patch_steps,
    start_step,
    start_steps,
    valid_cells,
)
from flythrough.errors import InputError

PUBLISHED = FieldSettings(reference=True)
STRENGTHS = (1, 0.9, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.4, 0.3, 0.2, 0.1, 0)


def test_strength_is_a_share_of_the_steps() -> None:
    published = [start_step(s, 50, reference=True) for s in STRENGTHS]
    assert published == [0, 4, 9, 12, 15, 17, 20, 22, 25, 30, 35, 40, 45, 49]
    ours = [start_step(s, 50) for s in STRENGTHS]
    assert ours == [0, 5, 10, 12, 15, 17, 20, 22, 25, 30, 35, 40, 45, 49]


def test_a_whole_view_is_valid_to_its_border() -> None:
    seen = torch.ones(1, 9, 480, 720)
    assert valid_cells(seen, FieldSettings()).all()
    published = valid_cells(seen, PUBLISHED)
    assert not published[:, :, 0].any()
    assert not published[..., 0].any()
    assert published[:, :, 1:, 1:].all()
    assert float((~published).float().mean()) == pytest.approx(0.0276, abs=1e-4)


def test_a_hole_in_any_frame_makes_its_latent_invalid() -> None:
    seen = torch.ones(1, 9, 64, 96)
    seen[:, 6, 40, 40] = 0.0  # frame 6 belongs to latent 2, which covers frames 5 to 8
    settings = FieldSettings(erosion=1)
    cells = valid_cells(seen, settings)
    assert cells[:, :2].all()
    lost = (~cells[0, 2]).nonzero()
    assert lost.tolist() == [[4, 4], [4, 5], [5, 4], [5, 5]]  # the whole 2x2 patch
    assert valid_cells(seen, FieldSettings(erosion=1, reference=True)).all()  # frame 8 is whole
    wider = valid_cells(seen, FieldSettings(erosion=17))  # 8 pixels further: up to 32, 48
    assert int((~wider[0, 2]).sum()) == 16
    assert not wider[0, 2, 6, 6]


def test_half_seen_counts_as_seen() -> None:
    cells = valid_cells(torch.full((1, 5, 32, 32), 0.5), FieldSettings(erosion=1))
    assert cells.shape == (1, 2, 4, 4)
    assert cells.all()
    assert not valid_cells(torch.full((1, 5, 32, 32), 0.49), FieldSettings(erosion=1)).any()


def test_context_never_starts_and_holes_start_at_once() -> None:
    valid = torch.zeros(1, 4, 4, 6, dtype=torch.bool)
    valid[:, :, :, 2:] = True
    start = start_steps(valid, 50, FieldSettings(strength=0.6), context=2)
    assert (start[:, :2] == 50).all()
    assert (start[:, 2:, :, :2] == 0).all()
    assert (start[:, 2:, :, 2:] == 20).all()
    assert torch.equal(patch_steps(start), start[..., ::2, ::2])


@pytest.mark.parametrize("shape", [(1, 8, 32, 32), (1, 9, 24, 32), (9, 32, 32)])
def test_masks_without_cells_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="no latent cells"):
        valid_cells(torch.ones(shape), FieldSettings())


@pytest.mark.parametrize("change", [{"strength": 1.1}, {"strength": float("nan")}, {"erosion": 4}])
def test_settings_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError):
        FieldSettings(**change)  # type: ignore[arg-type]
