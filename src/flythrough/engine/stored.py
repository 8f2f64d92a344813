"""Verbs on stored rollouts that need no model: rewind and branch. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from flythrough.engine.options import check_new_rollout
from flythrough.engine.stored_plan import check_fits, read_plan
from flythrough.errors import RolloutError
from flythrough.rollout import store
from flythrough.rollout.lock import held
from flythrough.rollout.manifest import read_manifest
from flythrough.rollout.rollout import Rollout


def rewind_folder(folder: Path, chunks: int) -> Rollout:
    """Drop the last ``chunks`` chunks of a stored rollout, after what stays was read and checked.

    Files that are dropped may be damaged: that is how a damaged chunk is got rid of.

    Raises:
        RolloutError: there are not so many chunks, something that stays is missing or damaged, or
            another process works on the folder.
    """
    read_manifest(folder)  # says what is wrong with a folder that is no rollout
    with held(folder):
        made = len(read_manifest(folder).chunks)
        if not 1 <= chunks <= made:
            raise RolloutError(
                f"--chunks {chunks} does not fit {folder}, which has {made} chunks; give 1 to "
                f"{made}."
                if made
                else f"The rollout {folder} has no chunks to drop; run `flythrough continue "
                f"{folder}`."
            )
        rollout = _sound(folder, made - chunks)
        store.truncate(folder, made - chunks)
    return rollout


def branch_folder(parent: Path, folder: Path, chunks: int | None) -> Rollout:
    """Store the first ``chunks`` chunks (None: all) of ``parent`` as the new rollout ``folder``.

    The branch has the parent's plan without its output video, so that it never replaces that.

    Raises:
        RolloutError: the parent is damaged or has fewer chunks, or ``folder`` cannot be used.
    """
    made = len(read_manifest(parent).chunks)
    if chunks is not None and not 0 <= chunks <= made:
        raise RolloutError(
            f"--chunks {chunks} does not fit {parent}, which has {made} chunks; give 0 to {made}."
        )
    check_new_rollout(folder)
    if parent.resolve() in folder.resolve().parents:
        raise RolloutError(
            f"The branch {folder} would lie inside its parent {parent}; name a folder elsewhere."
        )
    plan = None
    if (parent / store.PLAN).exists():
        stored = read_plan(parent)
        check_fits(stored, store.load(parent, 0), parent)
        plan = replace(stored, output=None).to_dict()
    return store.branch(parent, folder, chunks, plan)


def _sound(folder: Path, keep: int) -> Rollout:
    """The first ``keep`` chunks, when they and the plan can be used."""
    rollout = store.load(folder, keep)
    if (folder / store.PLAN).exists():
        check_fits(read_plan(folder), rollout, folder)
    return rollout
