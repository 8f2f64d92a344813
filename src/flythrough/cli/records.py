"""Lines of the loss log on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flythrough.cli.output import stderr_console

if TYPE_CHECKING:
    from flythrough.training.loop import Record


def record_printer() -> Callable[[Record], None]:
    """Prints each record it is given on stderr."""
    console = stderr_console()

    def show(record: Record) -> None:
        losses = " ".join(f"{name} {value:.4f}" for name, value in record.losses.items())
        console.print(
            f"step {record.step} {losses} rate {record.learning_rate:.1e} "
            f"norm {record.gradient_norm:.2f} {record.seconds:.3f} s/step"
        )

    return show
