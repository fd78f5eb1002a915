"""What `cidm eval` judges with, and its layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CidmError, ExitCode
from ..options.judge import EvalOptions, drawing
from ..terminal.output import Result
from .invocation import Invocation
from .machine import Machine, open_on
from .structures import usual_control

if TYPE_CHECKING:
    from cidm_registry import Registry

    from ..judge.concepts import Events
    from ..judge.encoders import Judges
    from ..judge.subjects import Subject
    from ..layout import Layout
    from ..models.base import Base


def evaluate_layouts(
    call: Invocation,
    registry: Registry,
    subjects: list[Subject],
    paths: list[Path],
    ways: str | None,
    options: EvalOptions,
    out: Path,
    where: Machine,
) -> Result:
    """Judges layouts by the concepts that have reference pictures.

    Args:
        ways: rivals, comma separated; None for all.
        where: how computing is done.
    """
    from ..judge.rivals import RIVALS, check_rivals
    from ..layout import check_concepts

    rivals = check_rivals(
        [w.strip() for w in ways.split(",") if w.strip()] if ways is not None else [*RIVALS]
    )
    layouts = _loaded(call, paths)
    names = [record.name for record in registry.records()]
    for layout in layouts.values():
        check_concepts(layout, names)
    from ..draw.jobs import check_layout

    for layout in layouts.values():
        check_layout(layout, drawing(options))

    from ..judge import layouts as neglect
    from ..judge.layout_files import table, write

    with going_on(out / "samples"):
        base, judges = opened(call, registry, options, where)
        found = neglect.evaluate_layouts(
            registry, base, layouts, options, folder=out / "samples", judges=judges, subjects=subjects,
            rivals=rivals, events=events(call), crew=call.crew,
        )  # fmt: skip
    if not call.crew.main:
        return Result({}, ())
    written = write(found, out, out / "samples", layouts)
    return Result(
        data={"layouts": found.to_json(), "files": written},
        human=[table(found), f"written to {out}; {written['report']} shows the pictures"],
        ids=[str(path) for path in written.values()],
    )


def _loaded(call: Invocation, paths: list[Path]) -> dict[str, Layout]:
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


def opened(call: Invocation, registry: Registry, options: EvalOptions, where: Machine) -> tuple[Base, Judges]:
    """The registry's base, and the judges that are meant."""
    from ..judge.encoders import choose, open_judges
    from ..models.base import choose_device
    from ..models.identity import MINI, folder_of

    own = registry.base.kind == MINI
    choice = choose(folder_of(registry.base), options.clip, options.dino, own=own)
    if choice.dino is None and options.dino is None:
        call.output.note("no second judge comes with this base: IA is CLIP's alone")
    judges = open_judges(choice, choose_device(where.device), offload=where.offload)
    return open_on(call, registry, where), judges


def events(call: Invocation) -> Events:
    """Shows an evaluation's progress and notes."""
    from ..judge.concepts import Events

    @contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
        with call.output.progress(label, total) as bar:
            yield bar.update

    return Events(progress, call.output.note)


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
