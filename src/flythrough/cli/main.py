"""Entry point ``flythrough``: the table of commands and the exit status.

Commands are named by import path, so ``--help`` imports none of their code: no numpy, no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from flythrough import __version__
from flythrough.cli.output import json_output
from flythrough.cli.stopping import end_on_sigterm, stopped
from flythrough.cli.usage import exactly, sentence
from flythrough.errors import FlythroughError

COMMANDS: dict[str, tuple[str, str]] = {
    "generate": ("flythrough.cli.generate:generate", "Make a video from a photo and a camera."),
    "batch": ("flythrough.cli.batch:batch", "Make every video of a list."),
    "continue": ("flythrough.cli.resume:resume", "Finish a stopped run or make it longer."),
    "branch": ("flythrough.cli.branch:branch", "Start a new rollout from a stored one's chunks."),
    "rewind": ("flythrough.cli.rewind:rewind", "Drop the last chunks of a stored rollout."),
    "export": ("flythrough.cli.export:export", "Hand a rollout to COLMAP, Blender and others."),
    "camera": ("flythrough.cli.camera:app", "Convert, draw or list camera paths."),
    "geometry": ("flythrough.cli.geometry:geometry", "Estimate the depth of a photo."),
    "world": ("flythrough.cli.world:world", "Render a ground-truth clip of a procedural world."),
    "evaluate": ("flythrough.cli.evaluate:app", "Measure a model on held-out worlds."),
    "train": ("flythrough.cli.train:app", "Train a camera adapter, or the small model."),
    "models": ("flythrough.cli.models:app", "List, fetch, check and convert models."),
    "bench": ("flythrough.cli.bench:bench", "Measure speed and memory of this machine."),
    "doctor": ("flythrough.cli.doctor:doctor", "Check this machine and the model before a run."),
}


def build_app() -> App:
    """The command table as a cyclopts application; commands load on first use."""
    app = App(
        name="flythrough",
        help="One photo and a camera path become a long, stable video that follows the path.",
        version=__version__,
        suppress_keyboard_interrupt=False,  # run() says that it was stopped
        default_parameter=Parameter(converter=exactly),
    )
    for name, (target, summary) in COMMANDS.items():
        app.command(target, name=name, help=summary)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit status (0; 1 for a fault; 2 for the user's input;
    128 plus the signal's number for a stop from outside)."""
    words = [word for word in arguments if word != "--json"]
    as_json = len(words) != len(arguments)
    try:
        with json_output(as_json):
            build_app()(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        sys.stderr.write(f"error: {sentence(error)}\n")
        return 2
    except FlythroughError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    except KeyboardInterrupt as stop:
        text, status = stopped(stop)
        sys.stderr.write(f"{text}\n")
        return status
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    """Console script."""
    end_on_sigterm()
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more; keep the interpreter from flushing at exit
        status = 1
    except OSError as error:
        sys.stderr.write(f"error: {_one_line(str(error))}; check the disk and permissions.\n")
        sys.stdout = None
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
