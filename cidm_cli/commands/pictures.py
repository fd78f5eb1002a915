"""Where images are written, by one process or several, each those it draws."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CidmError, ExitCode
from ..files.places import words
from ..files.writing import check_place, write_beside, write_whole
from ..options.over import each
from ..terminal.output import Result
from .invocation import Invocation

if TYPE_CHECKING:
    from cidm_registry import Record, Registry

    from ..api import Workspace
    from ..draw.images import Picture
    from ..draw.over_jobs import EditTask, StyleTask

PicturesOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATH", help="A folder, or a .png file for a single image."),
]


def checked(out: Path, pictures: int) -> bool:
    """Whether -o names a file and not a folder. To be asked before anything is drawn.

    Raises:
        CidmError: USAGE for one file and several images, for another kind of image, and where -o is a file that did
            not come from here; FAILED where nothing can be written.
    """
    single = out.suffix.lower() == ".png"
    if single and pictures > 1:
        raise CidmError(f"-o {out}: one file for several images", "give a folder", ExitCode.USAGE)
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        raise CidmError(f"-o {out}: images are PNG", f"give {out.with_suffix('.png')}", ExitCode.USAGE)
    if out.is_file() and not (single and _drawn_here(out)):
        what = "a file that cidm did not draw" if single else "a file, and no .png"
        raise CidmError(f"-o {out}: there is {what}", "give another name, or a folder", ExitCode.USAGE)
    check_place(out if single else out / "picture.png")
    return single


def check_png(out: Path) -> None:
    """Raises CidmError where -o is no place for the one image that there will be: USAGE for another ending."""
    if out.suffix.lower() != ".png":
        raise CidmError(f"-o {out}: not a .png file", "give a name that ends in .png", ExitCode.USAGE)
    check_place(out)


def _drawn_here(path: Path) -> bool:
    from ..draw.png import read_facts

    try:
        read_facts(path)
    except CidmError:
        return False
    return True


def write(content: bytes, out: Path, single: bool, stem: str) -> Path:
    """Writes an image's file under the given name, or in the folder under one that says what it is.

    An equal image of that name is written again; a different one is left, and a number is added.
    """
    if not single:
        return write_beside(out, stem, ".png", content)
    write_whole(out, content)
    return out


@contextmanager
def telling_kept(written: Collection[tuple[str | Path, dict[str, Any]]], pictures: int) -> Iterator[None]:
    """Says, when the drawing in it is interrupted, how many of the images are there already, and where.

    Args:
        written: paths and facts of those there are; read at the end.
    """
    try:
        yield
    except KeyboardInterrupt:
        paths = [Path(path) for path, _ in written]
        where = f"; what was drawn is in {paths[0].parent.resolve()}" if paths else ""
        raise CidmError(
            f"interrupted after {len(paths)} of {pictures} images{where}",
            code=ExitCode.INTERRUPTED,
            details={"images": [{"path": path, **facts} for path, facts in written]},
        ) from None


def refuse_overwriting(given: Sequence[Path], out: Path) -> None:
    """Raises CidmError USAGE where the result would take the place of what was given."""
    for path in given:
        if out.resolve() == path.resolve():
            raise CidmError(f"-o {out}: that is the given image", "give another name", ExitCode.USAGE)


def stem(prompt: str, seed: int) -> str:
    """What an image's file is called before its ending."""
    return f"{words(prompt)}-{seed}"


def write_all(call: Invocation, pictures: Iterable[Picture], stems: Sequence[str], out: Path) -> Result:
    """Writes this process's images as they come. The result tells paths and facts of all processes' in order.

    Args:
        images: drawn when they are asked for.
        stems: of every image of all processes. One whose name an earlier image has waits for that to be written:
            so the files are those that one process would write.

    Raises:
        CidmError: as ``checked``, before the first is drawn.
    """
    from ..draw.png import encode

    single = checked(out, len(stems))
    done: dict[int, tuple[str, dict[str, Any]]] = {}

    def settle(picture: Picture) -> None:
        path = write(encode(picture.image, picture.facts), out, single, stems[picture.number])
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
    return _as_result([(Path(path), facts) for _, (path, facts) in sorted(done.items())])


def with_grid(call: Invocation, drawn: Result, out: Path) -> Result:
    """Writes one sheet of all images of a result."""
    from PIL import Image

    from ..terminal.pages import grid

    if not call.crew.main:
        return drawn
    folder = out.parent if out.suffix.lower() == ".png" else out
    content = grid((Image.open(facts["path"]), facts) for facts in drawn.data["images"])
    path = str(write(content, folder, False, "grid"))
    return Result({**drawn.data, "grid": path}, [*drawn.human, path], [*drawn.ids, path])


def with_sheet(
    call: Invocation, registry: Registry, records: Sequence[Record], found: Result, out: Path
) -> Result:
    """Writes one sheet of concepts' preview images, under each its number and name; one without stays grey."""
    from PIL import Image

    from ..files.images import decode_picture
    from ..terminal.pages import GRID_SIDE, labelled

    cells = []
    for record in records:
        name = f"{record.sequence} <{record.name}>"
        if record.preview is None:
            cells.append((Image.new("RGB", (GRID_SIDE, GRID_SIDE), "gainsboro"), f"{name}: no image"))
        else:
            content = registry.read_blob(record.preview)
            cells.append((decode_picture(content, f"the preview image of {record.name}").image, name))
    if without := [record.name for record in records if record.preview is None]:
        call.output.note(f"without a preview image: {', '.join(without)}")
    write_whole(out, labelled([("", cells)]))
    return Result({**found.data, "sheet": out}, [*found.human, str(out)], [*found.ids, str(out)])


def paint(workspace: Workspace, task: StyleTask | EditTask, images: int, out: Path) -> Result:
    """Draws over given images and writes what comes, as it comes. The result tells paths and facts.

    Raises:
        CidmError: as ``checked``, before the first is drawn.
    """
    from ..draw.png import encode

    count = images * each(task.options)
    single = checked(out, count)
    written: list[tuple[Path, dict[str, Any]]] = []
    with telling_kept(written, count):
        for one in workspace.paint(task):
            given = Path(one.facts["picture"]["name"]).stem
            name = f"{given} {one.facts['concept']}"
            content = encode(one.image, one.facts)
            path = write(content, out, single, f"{words(name)}-{one.facts['seed']}")
            written.append((path, one.facts))
    return _as_result(written)


def _as_result(written: Sequence[tuple[Path, dict[str, Any]]]) -> Result:
    """Images that were written, by path and facts."""
    return Result(
        data={"images": [{"path": path, **facts} for path, facts in written]},
        human=[str(path) for path, _ in written],
        ids=[str(path) for path, _ in written],
    )
