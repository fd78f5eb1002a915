"""Where pictures are written, and what drawing over given pictures shares on the command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CidmError, ExitCode
from ..options.over import EditOptions, StylizeOptions
from ..terminal.output import Result
from ..terminal.progress import counting
from .invocation import Invocation

if TYPE_CHECKING:
    from PIL import Image

    from cidm_registry import Registry

    from ..draw.over import Work
    from ..files.given import Given
    from ..models.base import Base

OVER: dict[str, tuple[type[StylizeOptions | EditOptions], str]] = {
    "stylize": (StylizeOptions, "--style"),
    "edit": (EditOptions, "--concept"),
}
"""Commands that draw over given pictures: their options, and the flag that names the concept."""
DRAWN_SIDE = 256
"""Pixels of an image's shorter side up to which it may well be a drawing of the kind that ``mini`` knows."""


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
    from ..files.writing import check_place

    if out.is_file() and not (single and _drawn_here(out)):
        what = "a file that cidm did not draw" if single else "a file, and no .png"
        raise CidmError(f"-o {out}: there is {what}", "give another name, or a folder", ExitCode.USAGE)
    check_place(out if single else out / "picture.png")


def check_png(out: Path) -> None:
    """Raises CidmError where -o is no place for the one picture that there will be: USAGE for another ending."""
    from ..files.writing import check_place

    if out.suffix.lower() != ".png":
        raise CidmError(f"-o {out}: not a .png file", "give a name that ends in .png", ExitCode.USAGE)
    check_place(out)


def _drawn_here(path: Path) -> bool:
    from ..draw import png

    try:
        png.read_facts(path)
    except CidmError:
        return False
    return True


def words(text: str) -> str:
    """What of a text can stand in any system's file names: its letters and digits, 60 at most."""
    return "-".join(re.findall(r"\w+", text.lower()))[:60].rstrip("-") or "picture"


def write(image: Image.Image, facts: dict[str, Any], out: Path, single: bool, stem: str) -> Path:
    """Writes a picture under the given name, or in the folder under one that says what it is.

    An equal picture of that name is written again; a different one is left, and a number is added.
    """
    from ..draw import png
    from ..files.writing import write_whole

    content = png.encode(image, facts)
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


def refuse_swapped(command: str, images: Sequence[Path], name: str, registry: Registry) -> None:
    """Says what was meant where a picture stands in the concept's place, or a concept in a picture's.

    Raises:
        CidmError: USAGE.
    """
    flag = OVER[command][1]
    concepts = {record.name.casefold(): record.name for record in registry.records()}
    named = [concepts[str(image).casefold()] for image in images if str(image).casefold() in concepts]
    strays = [] if all(map(os.path.exists, images)) else named
    is_picture = name.casefold() not in concepts and os.path.isfile(name)
    if not (strays or is_picture):
        return
    what = f"{flag} {name} is a picture" if is_picture else f"{strays[0]} is a concept, not a picture"
    picture = name if is_picture else "PICTURE"
    line = ["cidm", command, picture, flag, strays[0] if strays else "NAME"]
    raise CidmError(what, f"the picture comes first: {shlex.join(line)}", ExitCode.USAGE)


def read_all(call: Invocation, kind: str, paths: list[Path], out: Path) -> list[Given]:
    """The given pictures, for a base of this kind.

    Raises CidmError for one that cannot be read, or that -o would overwrite.
    """
    from ..files.given import read_given

    given = [read_given(path) for path in paths]
    for picture in given:
        refuse_overwriting(picture.path, out)
        if picture.animated:
            call.output.note(f"{picture.path}: animated; only its first frame is used")
    if warning := beyond_mini(kind, [picture.image.size for picture in given]):
        call.output.warn(warning)
    return given


def beyond_mini(kind: str, sizes: Sequence[tuple[int, int]]) -> str | None:
    """What to tell of images that the embedded base cannot do justice to; None for other bases and small images.

    Args:
        kind: of the registry's base.
        sizes: width and height of each image given.
    """
    from ..models.identity import MINI

    large = sum(min(size) > DRAWN_SIDE for size in sizes)
    if kind != MINI or not large:
        return None
    return (
        f"{large} of {len(sizes)} images are larger than {DRAWN_SIDE} pixels, as photographs are: the base mini draws "
        "64 pixels wide, knows 66 kinds of drawn things and no photographs; use Stable Diffusion for them: "
        "cidm init --registry sd --base sd15"
    )


def refuse_overwriting(given: Path, out: Path) -> None:
    """Raises CidmError USAGE where the result would take the place of what was given."""
    if out.resolve() == given.resolve():
        raise CidmError(f"-o {out}: that is the given picture", "give another name", ExitCode.USAGE)


def paint(call: Invocation, base: Base, work: Work, out: Path, single: bool) -> Result:
    """Draws over the given pictures and writes what comes, picture by picture. The result tells paths and facts."""
    from ..draw import over as redrawing

    written: list[tuple[Path, dict[str, Any]]] = []
    with (
        telling_kept(written, len(work.strokes)),
        call.output.progress("drawing", work.steps) as progress,
    ):
        for picture in redrawing.paint(base, work, counting(progress.update)):
            name = words(f"{picture.given.path.stem} {picture.facts['concept']}")
            stem = f"{name}-{picture.facts['seed']}"
            written.append((write(picture.image, picture.facts, out, single, stem), picture.facts))
    return Result(
        data={"images": [{"path": path, **facts} for path, facts in written]},
        human=[str(path) for path, _ in written],
        ids=[str(path) for path, _ in written],
    )


def command_for(facts: dict[str, Any]) -> str | None:
    """The command line that draws such a picture over the given one; None for a picture drawn from nothing."""
    if facts.get("command") not in [*OVER]:
        return None
    try:
        cls, flag = OVER[facts["command"]]
        picture, told = facts["picture"]["name"], facts["options"]
        line = ["cidm", facts["command"], picture, flag, facts["concept"], "--prompt", facts["prompt"]]
        if mask := facts.get("mask"):
            line += ["--mask", mask["name"]]
        elif box := facts.get("box"):
            line += ["--box", ",".join(map(str, box))]
        for field in fields(cls):
            value = {**told, "count": 1, "seed": facts["seed"]}[field.name]
            if value != field.default:
                line += _said(field.name, value)
        return shlex.join(str(word) for word in line)
    except (KeyError, TypeError, AttributeError):
        return None


def _said(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    return [flag, "x".join(map(str, value)) if isinstance(value, list) else str(value)]
