"""Models that judge pictures: from a folder, or from the Hugging Face hub. And what holds for all of transformers'."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CidmError, ExitCode
from ..files.tensor_files import read_header
from . import hub
from .building import building
from .settings import check_settings

T = TypeVar("T")

_SETTINGS = ("config.json", "preprocessor_config.json", "adapter_config.json")
"""Of a judge: what transformers does follows from these."""


def load(source: str | Path, read: Callable[..., T], *, flag: str) -> T:
    """What ``read`` makes of a folder or a hub name, ``NAME@REVISION`` for one of its revisions.

    A hub name is looked for in the hub's cache first: what was fetched once needs no network.

    Args:
        read: takes the folder or name, and ``local_files_only`` and ``revision`` as transformers does.
        flag: the option that chose the model, for errors.

    Raises:
        CidmError: INVALID for a folder that cannot be read, NOT_FOUND for a name that is neither here nor to be had.
    """

    def unreadable(why: str) -> CidmError:
        return CidmError(
            f"{flag} {source}: transformers cannot load it ({why})",
            hint="give a folder that save_pretrained wrote, with safetensors weights and preprocessor_config.json",
            code=ExitCode.INVALID,
        )

    def absent(why: str) -> CidmError:
        return CidmError(
            f"{flag} {source}: no such folder, not in the hub's cache, and not to be had from the hub ({why})",
            hint=f"run once with a network and without HF_HUB_OFFLINE, or save the model elsewhere with "
            f"save_pretrained and give the folder: {flag} PATH"
            + ("; --dino none does without the second judge" if flag == "--dino" else ""),
            code=ExitCode.NOT_FOUND,
        )

    if Path(source).is_dir():
        check_settings(Path(source))
        for file in sorted(Path(source).glob("*.safetensors")):
            read_header(file, shown=f"{flag} {file}")
        with building(unreadable):
            return read(str(source), local_files_only=True, revision=None)
    name, _, revision = str(source).partition("@")
    if there := hub.cached(str(source)):
        check_settings(there)
        with suppress(CidmError), building(unreadable):
            return read(name, local_files_only=True, revision=revision or None)
    # The hub's client fails in many ways; all mean that the model is not to be had.
    with building(absent):
        check_settings(hub.settings(str(source), _SETTINGS))
        return read(name, local_files_only=False, revision=revision or None)


def check_whole(
    told: Mapping[str, Collection[str]], source: str | Path, *, flag: str, spare: str = "\0"
) -> None:
    """Refuses a model of which transformers found no weights for some part: that part is random.

    Args:
        told: transformers' loading info.
        spare: what the names of parts that may be absent begin with.

    Raises:
        CidmError: INVALID.
    """
    absent = sorted(name for name in told["missing_keys"] if not name.startswith(spare))
    if absent:
        raise CidmError(
            f"{flag} {source}: holds no weights for {absent[0]}, and {len(absent) - 1} others are absent, too",
            hint="give the folder or name of a whole model of the right kind",
            code=ExitCode.INVALID,
        )


def has_words(tokenizer: Any) -> bool:
    """Whether a tokenizer has a vocabulary: where its files are absent, transformers makes one without."""
    return len(tokenizer) > len(tokenizer.all_special_ids)
