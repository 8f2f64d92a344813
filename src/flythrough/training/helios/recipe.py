"""Recipes of Helios' training stages: one TOML file a stage, read strictly.

Every table of a file is a dataclass of ``recipe_tables``, every key one of its fields; a key that
is missing takes the default stated there, an unknown one is refused, and so is a table that the
stage does not use. The published figures are in ``recipes/published*``.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from flythrough.conditioning.corruption import CorruptionSettings
from flythrough.errors import InputError
from flythrough.training.helios.recipe_tables import (
    Adapter,
    Dmd,
    Ema,
    Flow,
    Gan,
    Ode,
    Optimiser,
    Run,
    Text,
    Validation,
    Worlds,
)

Stage = Literal["1", "2", "3a", "3b"]
STAGES: tuple[str, ...] = get_args(Stage)


_TABLES: dict[str, tuple[str, ...]] = {
    "run": STAGES,
    "optimiser": STAGES,
    "adapter": STAGES,
    "text": STAGES,
    "validation": STAGES,
    "ema": STAGES,
    "history": ("1", "2", "3b"),
    "flow": ("1", "2"),
    "ode": ("3a",),
    "dmd": ("3b",),
    "gan": ("3b",),
    "worlds": STAGES,
}
_NEEDED = ("run", "optimiser", "adapter", "validation")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One stage's file. ``start`` says in words which weights the stage begins from. Without
    ``worlds`` the clips come from a folder; without ``gan`` or ``ema`` there is none."""

    stage: Stage
    start: str
    run: Run
    optimiser: Optimiser
    adapter: Adapter
    validation: Validation
    text: Text = field(default_factory=Text)
    history: CorruptionSettings = field(default_factory=CorruptionSettings.published)
    flow: Flow = field(default_factory=Flow)
    ode: Ode = field(default_factory=Ode)
    dmd: Dmd = field(default_factory=Dmd)
    gan: Gan | None = None
    ema: Ema | None = None
    worlds: Worlds | None = None

    def as_dict(self) -> dict[str, Any]:
        """All values, for the run folder."""
        return asdict(self)


def read_recipe(name: str, stage: str) -> Recipe:
    """The recipe of ``stage``: a shipped one by name, or a TOML file.

    Raises:
        InputError: no such recipe or file, or content that is none; one sentence says where.
    """
    if stage not in STAGES:
        raise InputError(f"There is no training stage {stage!r}; give 1, 2, 3a or 3b.")
    if name.endswith(".toml"):
        path = Path(name)
        try:
            return parse_recipe(path.read_text(encoding="utf-8"), stage, str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The recipe {path} cannot be read ({error}); name a file.") from error
    shipped = shipped_recipes(stage)
    if name not in shipped:
        raise InputError(
            f"There is no recipe {name!r} of stage {stage}; give one of {', '.join(shipped)}, or a "
            "file that ends in .toml."
        )
    text = (_folder() / name / f"{stage}.toml").read_text(encoding="utf-8")
    return parse_recipe(text, stage, f"{name}/{stage}.toml")


def shipped_recipes(stage: str) -> list[str]:
    """Names of the recipes that the package has for ``stage``."""
    return sorted(p.parent.name for p in _folder().glob(f"*/{stage}.toml"))


def parse_recipe(text: str, stage: str, where: str) -> Recipe:
    """A recipe from TOML text; ``where`` names it in messages.

    Raises:
        InputError: no TOML, unknown, missing or misplaced keys, wrong types or values.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"The recipe {where} is no TOML ({error}); correct it.") from error
    if values.get("stage") != stage:
        raise InputError(
            f"The recipe {where} is of stage {values.get('stage')!r}, not {stage!r}; name the "
            "stage that it was written for."
        )
    known = get_type_hints(Recipe)
    made: dict[str, Any] = {"stage": stage, "start": values.get("start", "")}
    for name, content in values.items():
        if name in made:
            continue
        if name not in _TABLES or not isinstance(content, dict):
            raise InputError(f"{where}: {name!r} is no table of a recipe; drop it.")
        if stage not in _TABLES[name]:
            raise InputError(f"{where}: [{name}] has no effect in stage {stage}; drop the table.")
        made[name] = _table(_plain(known[name]), content, f"{where}: [{name}]")
    missing = [name for name in _NEEDED if name not in made]
    if missing:
        raise InputError(f"{where} lacks the table [{missing[0]}]; add it.")
    recipe = Recipe(**made)
    _check_stage(recipe, values, where)
    return recipe


def _check_stage(recipe: Recipe, values: dict[str, Any], where: str) -> None:
    """What fits together only in some stages."""
    if recipe.stage == "1" and "draws" in values.get("flow", {}):
        raise InputError(f"{where}: [flow] draws has no effect in stage 1; drop it.")
    if recipe.stage == "2" and recipe.flow.shift != "off":
        raise InputError(
            f"{where}: [flow] shift {recipe.flow.shift!r} does not go with the pyramid's segments; "
            'make it "off".'
        )
    count = 1 if recipe.stage == "1" else 3
    if len(recipe.validation.steps) != count:
        raise InputError(
            f"{where}: [validation] steps {list(recipe.validation.steps)} must be {count} in stage "
            f"{recipe.stage}."
        )


def _folder() -> Path:
    return Path(str(files("flythrough"))) / "training" / "helios" / "recipes"


def _plain(hint: Any) -> Any:
    """``X`` of ``X | None``."""
    return next((a for a in get_args(hint) if a is not type(None)), hint)


def _table(kind: type[Any], content: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            raise InputError(f"{where} has an unknown key {key!r}; known are {', '.join(hints)}.")
        content[key] = _typed(hints[key], value, f"{where} {key}")
    missing = [item.name for item in fields(kind) if item.name not in content and _required(item)]
    if missing:
        raise InputError(f"{where} lacks the key {missing[0]!r}; add it.")
    try:
        return kind(**content)
    except InputError as error:
        raise InputError(f"{where} {error}") from error


def _required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _typed(hint: Any, value: Any, where: str) -> Any:
    choices = get_args(hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if choices and all(isinstance(c, str) for c in choices):
        if value not in choices:
            raise InputError(f"{where} is {value!r}; give one of {', '.join(choices)}.")
        return value
    if choices:
        element = choices[0]
        if not isinstance(value, list):
            raise InputError(f"{where} is {value!r}, but a list is needed.")
        if Ellipsis not in choices and len(value) != len(choices):
            raise InputError(f"{where} is {value!r}, but {len(choices)} values are needed.")
        return tuple(_typed(element, one, where) for one in value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise InputError(f"{where} is {value!r}, but a value of type {hint.__name__} is needed.")
    return value
