"""What `cidm eval` judges: layouts, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CidmError, ExitCode
from .invocation import Invocation
from .structures import usual_control

if TYPE_CHECKING:
    from ..layout import Layout


def loaded(call: Invocation, paths: list[Path]) -> dict[str, Layout]:
    """Layouts by the names of their files; a folder gives all it holds.

    Raises:
        CidmError: NOT_FOUND for a folder without any, and what ``load_layout`` raises.
    """
    from ..layout import load_layout

    files = []
    for path in paths:
        found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not found:
            raise CidmError(
                f"--layouts {path}: the folder holds no .toml file",
                "`cidm layout new` writes a layout",
                ExitCode.NOT_FOUND,
            )
        files += found
    return {str(file): _with_control(call, load_layout(file)) for file in files}


def _with_control(call: Invocation, layout: Layout) -> Layout:
    """A layout with the settings' model for its structure, if it has one and names none."""
    usual = usual_control(call)
    if layout.structure is None or layout.structure.model is not None or usual is None:
        return layout
    return layout.model_copy(update={"structure": layout.structure.model_copy(update={"model": usual})})


@contextmanager
def going_on(pictures: Path) -> Iterator[None]:
    """Says, when the work in it is interrupted, that it can be taken up again."""
    try:
        yield
    except KeyboardInterrupt:
        raise CidmError(
            f"interrupted; the pictures drawn so far are in {pictures}",
            "the same command goes on from there",
            ExitCode.INTERRUPTED,
        ) from None
