"""Which base a name means, and the fingerprint of its weights. No torch: the registry verbs use it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cidm_registry import BaseRef

from ..errors import CidmError, ExitCode

MINI = "mini"
#: The parts whose weights decide what a concept means; the scheduler and the evaluation models do not.
_WEIGHTY = ("unet", "text_encoder", "text_encoder_2", "vae")


def mini_folder() -> Path:
    """Where the embedded base lies: an ordinary diffusers folder inside the package."""
    return Path(__file__).parent.parent / "bases" / "mini"


def folder_of(base: BaseRef) -> Path:
    """The diffusers folder of a base.

    Raises:
        CidmError: NOT_FOUND when the folder is gone.
    """
    folder = mini_folder() if base.kind == MINI else Path(base.source)
    if not (folder / "model_index.json").is_file():
        raise CidmError(
            f"base {base.source}: no diffusers folder there",
            hint="put the folder back, or make a registry on another base with: cidm init --base PATH",
            code=ExitCode.NOT_FOUND,
        )
    return folder


def identify(base: str) -> BaseRef:
    """The base a user means by ``mini`` or by the path of a diffusers folder, with its weight fingerprint.

    Raises:
        CidmError: NOT_FOUND when there is no such folder, INVALID when it is not a pipeline this version can use.
    """
    if base == MINI:
        return BaseRef(kind=MINI, source=MINI, fingerprint=fingerprint(mini_folder()))
    folder = Path(base).expanduser()
    if not folder.is_dir():
        raise CidmError(
            f"base {base!r}: not {MINI!r} and not a folder",
            hint="give the path of a diffusers folder (it holds model_index.json), or use --base mini",
            code=ExitCode.NOT_FOUND,
        )
    family = _family(folder)
    return BaseRef(kind=family, source=str(folder.resolve()), fingerprint=fingerprint(folder))


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of the base's weight files.

    Raises:
        CidmError: INVALID when there are no safetensors weights (pickled ones are never read).
    """
    total = hashlib.sha256()
    files = sorted(f for part in _WEIGHTY for f in (folder / part).glob("*.safetensors"))
    if not files:
        raise CidmError(
            f"base {folder}: no safetensors weights in its unet, vae and text_encoder folders",
            hint="save it with pipeline.save_pretrained(PATH, safe_serialization=True)",
            code=ExitCode.INVALID,
        )
    for file in files:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()} {digest}\n".encode())
    return total.hexdigest()


def _family(folder: Path) -> str:
    """ "sd15" for a Stable Diffusion 1.x folder."""
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise CidmError(
            f"base {folder}: model_index.json is missing or not JSON ({error})",
            hint="give the path of a diffusers pipeline folder",
            code=ExitCode.INVALID,
        ) from error
    if name != "StableDiffusionPipeline":
        raise CidmError(
            f"base {folder}: is a {name}, and this version draws with StableDiffusionPipeline folders only",
            hint="use a Stable Diffusion 1.x folder, or --base mini",
            code=ExitCode.INVALID,
        )
    return "sd15"
