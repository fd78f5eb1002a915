"""Pictures that several processes write, each those it draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.places import words
from .invocation import Invocation
from .pictures import telling_kept, write

if TYPE_CHECKING:
    from ..draw.images import Picture


def stem(prompt: str, seed: int) -> str:
    """What a picture's file is called before its ending."""
    return f"{words(prompt)}-{seed}"


def write_all(
    call: Invocation, pictures: Iterable[Picture], stems: Sequence[str], out: Path, single: bool
) -> list[tuple[Path, dict[str, Any]]]:
    """Writes this process's pictures as they come; returns paths and facts of all processes' in order.

    Args:
        stems: of every picture of all processes. One whose name an earlier picture has waits for that to be written:
            so the files are those that one process would write.
    """
    done: dict[int, tuple[str, dict[str, Any]]] = {}

    def settle(picture: Picture) -> None:
        path = write(picture.image, picture.facts, out, single, stems[picture.number])
        done[picture.number] = str(path), picture.facts

    turns = [stems[:number].count(name) for number, name in enumerate(stems)]
    later = []
    # Of several processes none knows what the others have written when it is interrupted.
    with telling_kept(done.values(), len(stems)) if call.crew.count == 1 else nullcontext():
        for picture in pictures:
            if turns[picture.number] and call.crew.count > 1:
                later.append(picture)
            else:
                settle(picture)
    for turn in range(1, max(turns, default=0) + 1):
        call.crew.meet()
        for picture in later:
            if turns[picture.number] == turn:
                settle(picture)
    if call.crew.count > 1:
        done = {number: each for some in call.crew.gathered([*done.items()]) for number, each in some}
    return [(Path(path), facts) for _, (path, facts) in sorted(done.items())]
