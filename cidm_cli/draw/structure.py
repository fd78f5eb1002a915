"""A given picture whose lines the drawn one follows: read, told, and found again. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError

from cidm_registry import Record, canonical_key

from ..errors import CidmError, ExitCode
from ..files.given import read_given
from ..files.places import candidates, told_path
from ..layout import Layout, Structure
from ..layout.masks import mask_folder, pixel_digest, read_structure
from ..models.control_files import ControlFiles, find, find_again
from ..options.prompts import parse_prompt


@dataclass(frozen=True)
class Followed:
    """What a picture follows."""

    path: Path
    """As it was given."""
    sha256: str
    """Of the picture's size and pixels."""
    image: Image.Image = field(compare=False)
    """RGB"""
    how: Structure
    """Of what it says only kind, scale and the steps count."""
    control: ControlFiles

    def content(self) -> dict[str, Any]:
        """All that a drawn picture depends on."""
        kept = self.how.model_dump(by_alias=True, exclude={"image", "model"})
        return {**kept, "image": self.sha256, "control": self.control.sha256}


@dataclass(frozen=True)
class Sketch:
    """A structure that is asked for beside prompts and layouts."""

    image: Path | None = None
    """What the prompts' images follow; a layout names its own."""
    how: Mapping[str, Any] = field(default_factory=dict)
    """kind, scale, from and until, as in a layout's ``[structure]``."""
    control: str | None = None
    """The model that follows it, whatever a layout says: a folder, or a name on the hub."""

    def __bool__(self) -> bool:
        return bool(self.image or self.how or self.control)


def followed(
    sketch: Sketch,
    layouts: Sequence[Layout],
    prompts: int,
    usual: str | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[Followed | None]:
    """What each layout's images follow, then those of each prompt.

    Args:
        usual: the model where none is named.

    Raises:
        CidmError: USAGE for a sketch without a prompt, or no model; what `of_layout` raises.
    """
    if not sketch.image and not any(layout.structure for layout in layouts):
        return [None] * (len(layouts) + prompts)
    if sketch.image and not prompts:
        raise CidmError(
            "--structure is for --prompt, and there is none",
            "layouts name their own: image = FILE under [structure], beside the layout",
            ExitCode.USAGE,
        )
    out = [of_layout(layout, sketch.control, usual, on_note) for layout in layouts]
    own = None
    if sketch.image:
        own = of_picture(sketch.image, settings(sketch.how), sketch.control or usual, on_note)
    return [*out, *[own] * prompts]


def of_layout(
    layout: Layout,
    control: str | None = None,
    usual: str | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Followed | None:
    """What a layout follows, or None.

    Args:
        control: the model, as `control_files.find` takes it, whatever the layout says.
        usual: the model where the layout names none.

    Raises:
        CidmError: USAGE when no model is named; what reading the picture and finding the model raise.
    """
    how = layout.structure
    if how is None:
        return None
    folder = mask_folder(layout)
    image = read_structure(layout, folder)
    place = f"{layout.origin.place(('structure',))}: structure"
    if how.model is not None and not control:
        files = find(how.model, folder, f"{place}.model", on_note)
    else:
        files = _named(control or usual, place, on_note)
    return Followed(folder / how.image, pixel_digest(image), image, how, files)


def of_picture(
    path: Path, how: Structure, control: str | None, on_note: Callable[[str], None] = lambda note: None
) -> Followed:
    """What the pictures of a prompt follow, given on the command line. Raises as `of_layout` does."""
    image = read_given(path).image
    return Followed(path, pixel_digest(image), image, how, _named(control, "--structure", on_note))


def settings(said: Mapping[str, Any]) -> Structure:
    """How a picture is followed, as the command line says, by key of `[structure]`.

    Raises:
        CidmError: USAGE, naming the flag.
    """
    try:
        return _how(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = [*first["loc"], *first.get("ctx", {}).get("path", ())][0]
        message = first["msg"].replace("Input should", "must")
        raise CidmError(f"--structure-{key} {said.get(str(key))}: {message}", code=ExitCode.USAGE) from None


def heard(prompt: str, named: Sequence[Record]) -> str:
    """A prompt with class nouns in the concepts' places: what the model is told."""
    words = {record.key: record.class_noun for record in named}
    return parse_prompt(prompt).exchanged(lambda name: words[canonical_key(name)])


def told(followed: Followed) -> dict[str, Any]:
    """What is followed, as pictures tell it."""
    how = followed.how.model_dump(by_alias=True, exclude={"image", "model"})
    control = {"source": told_path(Path(followed.control.source)), "sha256": followed.control.sha256}
    return {"image": told_path(followed.path), "sha256": followed.sha256, **how, "control": control}


def again(facts: dict[str, Any], beside: Path) -> Callable[[], Followed]:
    """What a picture tells that it follows, checked; called, it gives the same picture and model.

    They are looked for where they were, and ``beside`` the picture.

    Raises KeyError, TypeError or ValueError for what cannot be; called, CidmError NOT_FOUND where one is gone or
    another one by now.
    """
    rest = dict(facts)
    control = rest.pop("control")
    path, digest = Path(rest.pop("image")), rest.pop("sha256")
    how = _how(rest)
    source, weights = str(control["source"]), str(control["sha256"])

    def found() -> Followed:
        for place in candidates(path, beside):
            try:
                image = read_given(place).image
            except CidmError:
                continue
            if pixel_digest(image) == digest:
                return Followed(place, digest, image, how, find_again(source, weights, beside))
        raise CidmError(
            f"the image follows the lines of {path}, which is gone or has changed",
            hint="put the old one back, or beside the image",
            code=ExitCode.NOT_FOUND,
        )

    return found


def _how(said: Mapping[str, Any]) -> Structure:
    return Structure.model_validate({**said, "image": "stand-in"})


def _named(control: str | None, place: str, on_note: Callable[[str], None]) -> ControlFiles:
    if not control:
        raise CidmError(
            f"{place}: no model is named that follows structures",
            hint="give a ControlNet or T2I-Adapter made for the base with --control FOLDER_OR_HUB_NAME; on bases that "
            "have none, such as mini, a region's mask says where things are",
            code=ExitCode.USAGE,
        )
    return find(control, Path(), "--control", on_note)
