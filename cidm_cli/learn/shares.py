"""Which samples of a training step each process learns from."""

from __future__ import annotations

from math import gcd

from ..errors import CidmError, ExitCode
from ..machine.processes import Crew
from ..options.learn import LearnOptions


def check(options: LearnOptions, crew: Crew) -> None:
    """Refuses a step whose samples cannot be dealt out evenly.

    Raises:
        CidmError: USAGE, with numbers that can.
    """
    batch, accumulate, count = options.batch, options.accumulate, crew.count
    if batch * accumulate % count:
        raise CidmError(
            f"--batch {batch} --accumulate {accumulate}: a step of {batch * accumulate} images is not dealt out "
            f"evenly to {count} processes",
            hint=f"use --batch {_reaching(batch, count // gcd(accumulate, count))} or "
            f"--accumulate {_reaching(accumulate, count // gcd(batch, count))}",
            code=ExitCode.USAGE,
        )


def pieces(options: LearnOptions, crew: Crew) -> list[tuple[int, range]]:
    """What of a step is this process's: (batch of it, numbers of samples within that batch).

    The step's samples in a row, batch after batch, are cut in as many equal stretches as there are processes.
    """
    each = options.batch * options.accumulate // crew.count
    first, behind = each * crew.rank, each * (crew.rank + 1)
    out = []
    for part in range(options.accumulate):
        start = part * options.batch
        numbers = range(max(first - start, 0), min(behind - start, options.batch))
        if numbers:
            out.append((part, numbers))
    return out


def _reaching(number: int, multiple: int) -> int:
    """The smallest multiple that is at least ``number``."""
    return -(-number // multiple) * multiple
