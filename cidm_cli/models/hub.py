"""Bases and other models on the Hugging Face hub: what is fetched, and where its cache holds it. No torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import CidmError, ExitCode


def cached(name: str) -> Path | None:
    """The folder of ``OWNER/NAME[@REVISION]`` in the hub's cache, or None; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    try:
        for settings in ("model_index.json", "config.json"):
            file = try_to_load_from_cache(repository, settings, revision=revision or None)
            if isinstance(file, str):
                return Path(file).parent
    except ValueError:
        # The hub's client knows more about what a name may be.
        pass
    return None


def settings(name: str, files: Sequence[str]) -> Path:
    """Fetches of ``OWNER/NAME[@REVISION]`` those of some small files that it has; the folder they are in.

    Raises what the hub's client raises, and that is much, where the first of them is not to be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    repository, _, revision = name.partition("@")
    first, *others = files
    folder = Path(hf_hub_download(repository, first, revision=revision or None)).parent
    for file in others:
        with suppress(EntryNotFoundError):
            hf_hub_download(repository, file, revision=revision or None)
    return folder


def fetch(
    name: str,
    flag: str,
    *,
    otherwise: str,
    wanted: Callable[[list[str]], Sequence[str]],
    whole: Callable[[Path], bool],
    check: Callable[[Path], object] = lambda folder: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> str:
    """Makes sure that a repository's files are in the hub's cache; its name with the commit: ``OWNER/NAME@COMMIT``.

    What the cache holds whole needs no network. Else small files come first, and ``check`` looks at them before
    gigabytes are fetched. Each file appears when it is complete; a download that was cut short goes on.

    Args:
        flag: the option that named it, for errors.
        otherwise: what may be given that needs no hub, for errors.
        wanted: which of a repository's files are needed.
        whole: whether a folder holds all that is needed.
        check: raises CidmError when the settings say that the model cannot be used.

    Raises:
        CidmError: NOT_FOUND when it is neither there nor to be had; what ``check`` raises.
    """
    repository, _, revision = name.partition("@")
    there = cached(name)
    if there is not None and whole(there):
        return f"{repository}@{there.name}"
    try:
        return f"{repository}@{_download(repository, revision or None, wanted, check, on_note)}"
    except CidmError:
        raise
    except Exception as error:
        # The hub's client fails in many ways; all mean that the model is not to be had.
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise CidmError(
            f"{flag} {name!r}: nothing of that name here, not whole in the hub's cache, and not to be had from the hub "
            f"({first})",
            hint=f"run once with a network and without HF_HUB_OFFLINE, or give {otherwise}",
            code=ExitCode.NOT_FOUND,
        ) from error


def _download(
    repository: str,
    revision: str | None,
    wanted: Callable[[list[str]], Sequence[str]],
    check: Callable[[Path], object],
    on_note: Callable[[str], None],
) -> str:
    """Fetches the wanted files of a revision; the commit it is at."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    about: Any = HfApi().model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in about.siblings}
    files = list(wanted(list(sizes)))
    small = [name for name in files if not name.endswith(".safetensors")]
    # By its own name and not by the commit's: the cache then knows, without a network, what the name meant.
    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=small))
    check(folder)
    amount = sum(sizes[name] for name in files) / 1e9
    on_note(f"fetching {repository}: {amount:.1f} GB, kept in the hub's cache")
    snapshot_download(repository, revision=folder.name, allow_patterns=files)
    return folder.name
