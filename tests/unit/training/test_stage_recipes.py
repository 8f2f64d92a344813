"""Recipes of Helios' stages: the published figures, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_stages import recipe_text

from flythrough.errors import InputError
from flythrough.training.helios.plan import loop_settings
from flythrough.training.helios.recipe import STAGES, parse_recipe, read_recipe, shipped_recipes

COLUMNS = [
    ("published", "1"), ("published-post", "1"), ("published", "2"), ("published-post", "2"),
    ("published", "3a"), ("published", "3b"), ("published-gan", "3b"),
]  # fmt: skip
"""1 init, 1 post, 2 init, 2 post, 3 ODE, 3 post (DMD), 3 post GAN."""

OFF = None
MATRIX: dict[str, list[Any]] = {
    "run.seed": [43, 44, 45, 46, 47, 49, 49],
    "run.batch": [2, 2, 1, 1, 1, 1, 1],
    "optimiser.learning_rate": [5e-5, 3e-5, 1e-4, 3e-5, 2e-6, 2e-6, 2e-6],
    "optimiser.schedule": ["constant"] * 7,
    "optimiser.warmup": [0, 0, 1000, 500, 0, 0, 0],
    "optimiser.betas": [(0.9, 0.999)] * 4 + [(0.0, 0.999)] * 3,
    "optimiser.weight_decay": [1e-4] * 4 + [1e-3] * 3,
    "optimiser.eps": [1e-8] * 7,
    "optimiser.max_grad_norm": [1, 1, 1, 1, 10, 10, 10],
    "dmd.critic_max_grad_norm": [OFF] * 5 + [10, 10],
    "dmd.critic_learning_rate": [OFF] * 5 + [4e-7] * 2,
    "dmd.generator_every": [OFF] * 5 + [5] * 2,
    "dmd.critic_rank": [OFF] * 5 + [256] * 2,
    "flow.weighting": ["logit_normal"] * 2 + ["uniform"] * 2 + [OFF] * 3,
    "flow.shift": ["off"] * 4 + [OFF] * 3,
    "validation.shift": ["exponential"] * 4 + ["linear"] * 3,
    "adapter.rank": [128, 128, 256, 256, 256, 256, 256],
    "adapter.alpha": [128, 128, 256, 256, 256, 256, 256],
    "adapter.patch_embedding": ["lora", "lora", "frozen", "lora", "frozen", "frozen", "frozen"],
    "adapter.patch_history": ["full", "full", "frozen", "lora", "lora", "lora", "lora"],
    "flow.draws": [OFF, OFF, (1, 2, 1), (1, 1, 1), OFF, OFF, OFF],
    "history.drop_text": [0.4] * 4 + [OFF, 0.4, 0.4],
    "history.drop_old": [0.4] * 4 + [OFF, 0.5, 0.5],
    "history.mode": ["noise"] * 4 + [OFF, "noise", "random"],
    "history.clean": [0.1] * 4 + [OFF, 0.1, 0.1],
    "history.saturation_clean": [1.0] * 4 + [OFF, 0.1, 0.1],
    "history.saturation": [OFF] * 5 + [(0.3, 1.7)] * 2,
    "ema.decay": [OFF] * 4 + [0.99] * 3,
    "ema.start": [OFF] * 4 + [250, 750, 750],
    "run.save_every": [500] * 4 + [250] * 3,
    "validation.steps": [(50,)] * 2 + [(20, 20, 20)] * 2 + [(2, 2, 2)] * 3,
    "validation.guidance": [5.0] * 4 + [1.0] * 3,
    "run.precision": ["bf16"] * 7,
    "run.checkpointing": [True] * 7,
    "run.accumulate": [1] * 7,
    "run.steps": [1_000_000] * 7,
    "run.size": [(384, 640)] * 7,
    "text.drop_caption": [0.0] * 7,
    "gan.start": [OFF] * 6 + [1000],
    "gan.blocks": [OFF] * 6 + [(5, 15, 25, 35)],
    "ode.weight": [OFF] * 4 + [80.0, OFF, OFF],
    "ode.sections": [OFF] * 4 + [3, OFF, OFF],
}


@pytest.mark.parametrize("row", MATRIX)
def test_the_published_matrix(row: str) -> None:
    table, key = row.split(".")
    for (name, stage), wanted in zip(COLUMNS, MATRIX[row], strict=True):
        recipe = read_recipe(name, stage)
        if wanted is not OFF:
            assert getattr(getattr(recipe, table), key) == wanted, (name, stage)
        elif table in ("ema", "gan"):
            assert getattr(recipe, table) is None


def test_every_stage_has_a_recipe_for_nano_and_names_its_start() -> None:
    for stage in STAGES:
        assert {"nano", "published"} <= set(shipped_recipes(stage))
        for name in shipped_recipes(stage):
            recipe = read_recipe(name, stage)
            assert recipe.start
            assert (recipe.worlds is not None) == (name == "nano")
            assert loop_settings(recipe).learning_rate == recipe.optimiser.learning_rate


def changed(stage: str, old: str, new: str) -> str:
    text = recipe_text(stage)
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("1", "batch = 2", "batch = 0"), r"\[run\] batch 0 is out of range"),
        (changed("1", "batch = 2", "batch = 2.5"), "a value of type int"),
        (changed("1", "batch = 2", "bath = 2"), "unknown key 'bath'"),
        (changed("1", 'mode = "random"', 'mode = "blur"'), "give one of noise, downsample"),
        (changed("1", "[64, 128]", "[64, 100]"), "multiples of 64"),
        (changed("1", "[64, 128]", "64"), "a list is needed"),
        (changed("1", "[0.3, 1.7]", "[0.3]"), "2 values are needed"),
        (changed("1", "steps = [2]", "steps = [2, 2, 2]"), "must be 1 in stage 1"),
        (changed("1", "[flow]", "[flow]\ndraws = [1, 1, 1]"), "draws has no effect in stage 1"),
        (changed("2", "[flow]", '[flow]\nshift = "linear"'), "does not go with the pyramid"),
        (changed("2", "[flow]", "[dmd]\nsteps = 2\n[flow]"), "no effect in stage 2"),
        (changed("2", "[validation]", "[validaton]"), "'validaton' is no table"),
        (changed("2", "[validation]\nsteps = [2, 2, 2]", ""), r"lacks the table \[validation\]"),
        (changed("2", "decay = 0.9", ""), "lacks the key 'decay'"),
        (changed("3a", "sections = 2", "sections = 4"), "cannot exceed the 3 chunks"),
        (changed("3a", "levels = 4", "levels = 3"), "even count"),
        (changed("3b", 'stage = "3b"', 'stage = "3a"'), "is of stage '3a', not '3b'"),
        ("stage = ", "is no TOML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence(text: str, message: str) -> None:
    stage = next((s for s in ("3b", "3a", "2", "1") if f'"{s}"' in text), "1")
    stage = "3b" if "not '3b'" in message else stage
    with pytest.raises(InputError, match=message) as told:
        parse_recipe(text, stage, "mine.toml")
    assert "mine.toml" in str(told.value)
    assert str(told.value).endswith((".", ")"))


def test_unknown_names_list_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nano, published, published-gan"):
        read_recipe("publishd", "3b")
    with pytest.raises(InputError, match="cannot be read"):
        read_recipe(str(tmp_path / "no.toml"), "1")
