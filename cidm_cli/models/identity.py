"""Which base a name means, and the fingerprint of its weights. No torch: the registry verbs use it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cidm_registry import BaseRef

from .. import bases
from ..bases import described_by, families, family
from ..errors import CidmError, ExitCode
from ..files.json_files import read_json
from ..files.places import expanded
from . import checkpoint, hub
from .digests import digest_weights
from .settings import check_base

MINI = "mini"
ALONE = "diffusion_pytorch_model"
"""What the weights of a VAE, or another model of diffusers, are called in a folder of its own."""
_HUB_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}(@\w[\w./-]{0,199})?", re.ASCII)


@dataclass(frozen=True)
class Weights:
    """The weight files of one part of a diffusers folder."""

    variant: str | None
    """ "fp16" for half precision ones."""
    files: tuple[Path, ...]
    """More than one where they are sharded."""


def mini_folder() -> Path:
    """Where the embedded base lies: an ordinary diffusers folder inside the package."""
    return settings_folder(MINI)


def settings_folder(name: str) -> Path:
    """The settings of a family's parts, as a diffusers folder without weights: single files bring none."""
    return Path(bases.__file__).parent / name


def known() -> dict[str, str]:
    """Names for well-known bases, and the hub's names of them."""
    return {one.name: one.hub for one in families() if one.hub}


def stems() -> dict[str, str]:
    """The folders whose weights decide what a concept means, and what the files in each are called.

    The scheduler and the evaluation models do not. Of all families: what is not there does not count.
    """
    return {part: stem for one in families() for part, stem in one.parts.items()}


def folder_of(base: BaseRef) -> Path:
    """The diffusers folder of a base, or its single file.

    Raises:
        CidmError: NOT_FOUND when it is gone.
    """
    place = mini_folder() if base.kind == MINI else place_of(base.source)
    if place is None or not ((place / "model_index.json").is_file() or place.is_file()):
        hint = "put it back, or make a registry on another base with: cidm init --base PATH"
        if _HUB_NAME.fullmatch(base.source):
            hint = f"fetch it again, with a network: cidm init --base {base.source} --registry ANY_NEW_FOLDER"
        raise CidmError(f"base {base.source}: it is no longer there", hint=hint, code=ExitCode.NOT_FOUND)
    return place


def vae_of(base: BaseRef) -> Path | None:
    """The folder of the VAE that stands in for the base's own, or None.

    Raises:
        CidmError: NOT_FOUND when it is gone.
    """
    if not base.vae:
        return None
    place = place_of(base.vae)
    if place is None or not (place / "config.json").is_file():
        raise CidmError(
            f"VAE {base.vae}: no longer there",
            hint="put it back, or fetch it again by making a registry with the same --base and --vae",
            code=ExitCode.NOT_FOUND,
        )
    return place


def place_of(source: str) -> Path | None:
    """A path that exists, or what the hub's cache holds under a name."""
    path = Path(source)
    return path if path.exists() or not _HUB_NAME.fullmatch(source) else hub.cached(source)


def identify(base: str, vae: str = "", on_note: Callable[[str], None] = lambda note: None) -> BaseRef:
    """The base a user means, with its weight fingerprint; one on the hub is fetched if it is not there yet.

    Args:
        base: ``mini``, a name of ``known``, a diffusers folder, a .safetensors file, or ``OWNER/NAME[@REVISION]`` on
            the hub.
        vae: a folder or hub name of a VAE to use in place of the base's own.
        on_note: hears of a download.

    Raises:
        CidmError: NOT_FOUND when there is no such base, INVALID when it is none this version can use.
    """
    if base == MINI:
        found = BaseRef(kind=MINI, source=MINI, fingerprint=fingerprint(mini_folder()))
    else:
        found = _identify(base, on_note)
    if not vae:
        return found
    path = expanded(vae)
    source = str(path.resolve())
    if not path.is_dir():
        need_hub_name(vae, "--vae", "a folder with config.json")
        source = hub.fetch(
            vae,
            "--vae",
            otherwise="the folder of a diffusers VAE",
            wanted=wanted_alone,
            whole=lambda there: alone(there) is not None,
            on_note=on_note,
        )
    found = replace(found, vae=source)
    folder = vae_of(found)
    assert folder is not None
    return replace(found, fingerprint=fingerprint(folder_of(found), folder))


def _identify(base: str, on_note: Callable[[str], None]) -> BaseRef:
    name, at, revision = base.partition("@")
    names = known()
    path = expanded(base)
    if name not in names and path.is_file():
        if path.suffix != ".safetensors":
            raise CidmError(
                f"base {base!r}: not a .safetensors file",
                hint="give a model saved as .safetensors; files that need unpickling (.ckpt, .pt) are never read",
                code=ExitCode.INVALID,
            )
        path = path.resolve()
        return BaseRef(kind=checkpoint.inspect(path).family, source=str(path), fingerprint=fingerprint(path))
    if name not in names and path.is_dir():
        folder, source = path, str(path.resolve())
    else:
        name = names.get(name, name) + at + revision
        need_hub_name(name, "--base", "a folder with model_index.json, or a .safetensors file")
        source = hub.fetch(
            name,
            "--base",
            otherwise="the path of a diffusers folder or .safetensors file; cidm init --base mini needs no download",
            wanted=wanted,
            whole=_whole,
            check=lambda there: family_of(there, name),
            on_note=on_note,
        )
        cached = hub.cached(source)
        assert cached is not None
        folder = cached
    kind = family_of(folder, base)
    for part in family(kind).parts:
        if part_weights(folder, part) is None:
            raise _no_weights(folder, part)
    return BaseRef(kind=kind, source=source, fingerprint=fingerprint(folder))


def need_hub_name(name: str, flag: str, what: str) -> None:
    """Refuses what cannot be a repository on the hub. Raises CidmError NOT_FOUND, with ``what`` may be given."""
    if not _HUB_NAME.fullmatch(name):
        names = f" ({', '.join((MINI, *known()))})" if flag == "--base" else ""
        raise CidmError(
            f"{flag} {name!r}: neither a known name{names} nor a path that exists",
            hint=f"give {what}, or OWNER/NAME of a model on the hub",
            code=ExitCode.NOT_FOUND,
        )


def _whole(folder: Path) -> bool:
    """Whether a folder of the hub's cache holds all files that a base needs."""
    try:
        parts = family(family_of(folder, str(folder))).parts
        weights = all(
            part_weights(folder, part) and (folder / part / "config.json").is_file() for part in parts
        )
    except CidmError:
        return False
    tokenizers = ("tokenizer", "tokenizer_2")[: len(parts) - 2]
    words = all(any((folder / t / n).is_file() for n in ("vocab.json", "tokenizer.json")) for t in tokenizers)
    return weights and words and (folder / "scheduler" / "scheduler_config.json").is_file()


def part_weights(folder: Path, part: str, *, full: bool = False) -> Weights | None:
    """A part's safetensors files; None without any.

    Args:
        full: of files in half and in full precision the full ones are taken, not the half ones.

    Raises:
        CidmError: INVALID for an index of shards that names anything but files beside it.
    """
    place, stem = folder / part, stems()[part]
    kinds = (
        ("fp16", f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json"),
        (None, f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
    )
    for variant, single, index in reversed(kinds) if full else kinds:
        if (place / single).is_file():
            return Weights(variant, (place / single,))
        if (place / index).is_file():
            return Weights(variant, _shards(place / index))
    return None


def _shards(index: Path) -> tuple[Path, ...]:
    listed = _json(index).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) else {""}
    files = [index.parent / str(name) for name in sorted(map(str, names))]
    for file in files:
        if file.parent != index.parent or file.suffix != ".safetensors" or not file.is_file():
            raise CidmError(
                f"base {index}: lists {file.name!r}, which is not a safetensors file beside it",
                hint="save the base again with pipeline.save_pretrained(PATH)",
                code=ExitCode.INVALID,
            )
    return tuple(files)


def fingerprint(place: Path, vae: Path | None = None, *, full: bool = False) -> str:
    """sha256 over the names and contents of the base's weight files; ``vae`` stands in for its own VAE.

    Args:
        full: as for ``part_weights``.

    Raises:
        CidmError: INVALID when there are no safetensors weights (pickled ones are never read).
    """
    if place.is_file():
        lines = [f"checkpoint {digest_weights(place)}"]
    else:
        found = {
            part: part_weights(place, part, full=full) for part in stems() if part != "vae" or vae is None
        }
        files = sorted(file for weights in found.values() if weights for file in weights.files)
        if not files:
            raise _no_weights(place, next(iter(stems())))
        lines = [f"{file.relative_to(place).as_posix()} {digest_weights(file)}" for file in files]
    if vae is not None:
        other = alone(vae, full=full)
        if other is None:
            raise _no_weights(vae, "vae")
        lines += [f"vae/{file.name} {digest_weights(file)}" for file in other.files]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def alone(folder: Path, *, full: bool = False) -> Weights | None:
    """Those of a VAE, or another model of diffusers, in a folder of its own; ``full`` as for ``part_weights``."""
    kinds = (("fp16", ".fp16.safetensors"), (None, ".safetensors"))
    for variant, end in reversed(kinds) if full else kinds:
        if (file := folder / f"{ALONE}{end}").is_file():
            return Weights(variant, (file,))
    return None


def wanted(names: list[str]) -> list[str]:
    """Of the files of a base on the hub, those to fetch: settings, tokenizers, and one set of weights a part."""
    there = set(names)
    out = [
        n
        for n in names
        if re.fullmatch(r"model_index\.json|(scheduler|tokenizer(_2)?)/[\w.-]+\.(json|txt)", n)
    ]
    for part, stem in stems().items():
        out += [n for n in (f"{part}/config.json",) if n in there]
        for middle in (r"\.fp16", ""):
            weights = (
                rf"{part}/{stem}({middle}(-\d+-of-\d+)?\.safetensors|\.safetensors\.index{middle}\.json)"
            )
            if found := [n for n in names if re.fullmatch(weights, n)]:
                out += found
                break
    return out


def wanted_alone(names: list[str]) -> list[str]:
    """Of the files of a repository that holds one model, those to fetch."""
    files = [n for n in (f"{ALONE}.fp16.safetensors", f"{ALONE}.safetensors") if n in names]
    return [n for n in ("config.json",) if n in names] + files[:1]


def family_of(folder: Path, base: str) -> str:
    """The family of a diffusers folder, read from its settings alone, which are all looked through.

    Raises:
        CidmError: INVALID, saying what it is, for another kind of model; what ``check_base`` raises.
    """
    index, settings = _json(folder / "model_index.json"), folder / "scheduler" / "scheduler_config.json"
    schedule = _json(settings) if settings.is_file() else {}
    found = described_by(index, schedule)
    if found is None:
        raise _unusable(base, f"is a {index.get('_class_name')}")
    if what := found.refused(_json(folder / found.denoiser / "config.json"), folder):
        raise _unusable(base, what)
    if str(schedule.get("_class_name", "")).startswith("EDM"):
        raise _unusable(base, "is a model with EDM's noise schedule")
    check_base(folder)
    return found.name


def _json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
        why = "it holds no object"
    except CidmError as error:
        content, why = None, error.message
    if not isinstance(content, dict):
        raise CidmError(
            f"base {file.parent}: {file.name} is missing or not JSON ({why})",
            hint="give the path of a diffusers pipeline folder",
            code=ExitCode.INVALID,
        )
    return content


def _no_weights(folder: Path, part: str) -> CidmError:
    return CidmError(
        f"base {folder}: no safetensors weights in its {part} folder",
        hint="save it with pipeline.save_pretrained(PATH, safe_serialization=True)",
        code=ExitCode.INVALID,
    )


def _unusable(base: str, what: str) -> CidmError:
    return CidmError(
        f"base {base}: {what}, and this version draws with other families only",
        hint=f"use another base, for instance --base {' or --base '.join((MINI, *known()))}",
        code=ExitCode.INVALID,
    )
