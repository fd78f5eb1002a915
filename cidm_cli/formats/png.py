"""PNG files that say how they were made, in a text chunk named ``cidm``."""

from __future__ import annotations

import errno
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ..errors import CidmError, ExitCode

_KEY = "cidm"
_LARGEST_TEXT = 1 << 20


def encode(image: Image.Image, facts: dict[str, Any]) -> bytes:
    """The file's bytes; equal pictures and facts give equal bytes.

    Besides ``cidm`` (JSON) it carries ``parameters``, the line that AUTOMATIC1111 and its kin show.
    """
    info = PngImagePlugin.PngInfo()
    info.add_itxt(_KEY, json.dumps(facts, ensure_ascii=False, sort_keys=True))
    info.add_itxt("parameters", _parameters(facts))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def read_facts(path: Path) -> dict[str, Any]:
    """What a picture says of itself.

    Raises:
        CidmError: NOT_FOUND without the file, INVALID when it is no PNG of ours.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            told = image.info.get(_KEY)
    except FileNotFoundError as error:
        raise CidmError(f"{path}: no such file", code=ExitCode.NOT_FOUND) from error
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CidmError(f"{path}: not a readable PNG ({error})", code=ExitCode.INVALID) from error
    try:
        if not isinstance(told, str) or len(told) > _LARGEST_TEXT:
            raise ValueError("no such text in it")
        facts = json.loads(told)
        if not isinstance(facts, dict) or facts.get("format") != 1:
            raise ValueError("its cidm text is of an unknown format")
    except (ValueError, RecursionError) as error:
        raise CidmError(
            f"{path}: does not say how it was made ({error})",
            hint="give a picture that cidm generate wrote; other programs may strip the text on saving",
            code=ExitCode.INVALID,
        ) from error
    return facts


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, making its folder.

    Raises:
        CidmError: FAILED, naming the file, when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".cidm-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def check_place(path: Path) -> None:
    """To be asked before long work. Raises as ``write`` would, as far as can be told without making anything."""
    folder = path.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        path.lstat()  # raises for a name that is too long, and where nothing may be looked at
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise _unwritable(path, error) from error
    for number, bad in (
        (errno.EISDIR, path.is_dir()),
        (errno.ENOTDIR, not folder.is_dir()),
        (errno.EACCES, not os.access(folder, os.W_OK | os.X_OK)),
    ):
        if bad:
            raise _unwritable(path, OSError(number, os.strerror(number)))


def _unwritable(path: Path, error: OSError) -> CidmError:
    return CidmError(f"{path}: cannot be written ({error.strerror})", hint="choose another -o")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _parameters(facts: dict[str, Any]) -> str:
    options = facts["options"]
    negative = f"\nNegative prompt: {options['negative']}" if options["negative"] else ""
    width, height = options["size"]
    strength = f", Denoising strength: {options['strength']:g}" if "strength" in options else ""
    return (
        f"{facts['prompt']}{negative}\nSteps: {options['steps']}, Sampler: {options['sampler']}, "
        f"CFG scale: {options['guidance']:g}, Seed: {facts['seed']}, Size: {width}x{height}{strength}"
    )
