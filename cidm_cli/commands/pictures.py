"""Where pictures are written, and what drawing over given pictures shares on the command line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CidmError, ExitCode
from ..files.places import words
from ..files.writing import check_place, write_whole
from ..terminal.output import Result

if TYPE_CHECKING:
    from PIL import Image

    from ..draw.over import Picture as Painted


def is_file(out: Path, pictures: int) -> bool:
    """Whether -o names a file and not a folder.

    Raises:
        CidmError: USAGE for one file and several pictures, and for another kind of picture.
    """
    single = out.suffix.lower() == ".png"
    if single and pictures > 1:
        raise CidmError(f"-o {out}: one file for several pictures", "give a folder", ExitCode.USAGE)
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp"):
        raise CidmError(f"-o {out}: pictures are PNG", f"give {out.with_suffix('.png')}", ExitCode.USAGE)
    return single


def check_out(out: Path, single: bool) -> None:
    """To be asked before anything is drawn.

    Raises:
        CidmError: USAGE where -o is a file that did not come from here, FAILED where nothing can be written.
    """
    if out.is_file() and not (single and _drawn_here(out)):
        what = "a file that cidm did not draw" if single else "a file, and no .png"
        raise CidmError(f"-o {out}: there is {what}", "give another name, or a folder", ExitCode.USAGE)
    check_place(out if single else out / "picture.png")


def check_png(out: Path) -> None:
    """Raises CidmError where -o is no place for the one picture that there will be: USAGE for another ending."""
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


def write(image: Image.Image, facts: dict[str, Any], out: Path, single: bool, stem: str) -> Path:
    """Writes a picture under the given name, or in the folder under one that says what it is.

    An equal picture of that name is written again; a different one is left, and a number is added.
    """
    from ..draw.png import encode

    content = encode(image, facts)
    if single:
        path = out
    else:
        path = out / f"{stem}.png"
        number = 1
        while path.exists() and path.read_bytes() != content:
            number += 1
            path = out / f"{stem}-{number}.png"
    write_whole(path, content)
    return path


@contextmanager
def telling_kept(written: Collection[tuple[str | Path, dict[str, Any]]], pictures: int) -> Iterator[None]:
    """Says, when the drawing in it is interrupted, how many of the pictures are there already, and where.

    Args:
        written: paths and facts of those there are; read at the end.
    """
    try:
        yield
    except KeyboardInterrupt:
        paths = [Path(path) for path, _ in written]
        where = f"; what was drawn is in {paths[0].parent.resolve()}" if paths else ""
        raise CidmError(
            f"interrupted after {len(paths)} of {pictures} pictures{where}",
            code=ExitCode.INTERRUPTED,
            details={"images": [{"path": path, **facts} for path, facts in written]},
        ) from None


def refuse_overwriting(given: Sequence[Path], out: Path) -> None:
    """Raises CidmError USAGE where the result would take the place of what was given."""
    for path in given:
        if out.resolve() == path.resolve():
            raise CidmError(f"-o {out}: that is the given picture", "give another name", ExitCode.USAGE)


def paint(painted: Iterator[Painted], count: int, out: Path, single: bool) -> Result:
    """Writes images that are drawn over given ones, as they come. The result tells paths and facts."""
    written: list[tuple[Path, dict[str, Any]]] = []
    with telling_kept(written, count):
        for one in painted:
            name = f"{one.given.path.stem} {one.facts['concept']}"
            stem = f"{words(name)}-{one.facts['seed']}"
            written.append((write(one.image, one.facts, out, single, stem), one.facts))
    return as_result(written)


def as_result(written: Sequence[tuple[Path, dict[str, Any]]]) -> Result:
    """Images that were written, by path and facts."""
    return Result(
        data={"images": [{"path": path, **facts} for path, facts in written]},
        human=[str(path) for path, _ in written],
        ids=[str(path) for path, _ in written],
    )
