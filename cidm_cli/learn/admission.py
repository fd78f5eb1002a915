"""Whether a concept may be learned: what is known before any model, or the library for it, is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from cidm_registry import Record, Registry, canonical_key

from ..errors import CidmError, ExitCode
from ..machine.processes import SOLO, Crew
from ..options.learn import CARRIED, SUMMED, LearnOptions
from . import shares


def check(
    registry: Registry, name: str, options: LearnOptions, *, update: bool, crew: Crew = SOLO
) -> Record | None:
    """Refuses what could not be committed in the end. Returns the version there is of a concept that is updated.

    Raises:
        CidmError: REGISTRY when the registry cannot be written, FAILED when the concept is already there or the
            method does not go with the concepts there are, USAGE for a step that the processes cannot share or an
            optimizer whose package is not there.
        NotFound: with a suggestion, where there is no concept to update.
        RegistryError: when the name may be that of a concept whose record cannot be read.
    """
    shares.check(options, crew)
    if not registry.writable():
        raise CidmError(
            f"registry {registry.root}: cannot be written",
            hint="check the folder's permissions and free space; nothing was trained",
            code=ExitCode.REGISTRY,
        )
    key = canonical_key(name)
    records = registry.records()
    existing = next((r for r in records if r.key == key), None)
    if existing and not update:
        raise CidmError(
            f"concept {existing.name}: already learned on {existing.created[:10]}",
            hint="choose another name, or learn a new version of it with --update",
        )
    registry.check_free(name)
    check_method(records, options)
    if options.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise CidmError(
            "--optimizer adamw8bit: bitsandbytes is not installed",
            hint="pip install bitsandbytes, or leave it out: adamw needs no package",
            code=ExitCode.USAGE,
        )
    return registry.get(name) if update else None


def check_method(records: Sequence[Record], options: LearnOptions) -> None:
    """Refuses a method that the concepts there are do not allow; no model is needed.

    Concepts learned by a baseline that carries or adds up its LoRA are drawn by all of the others' weights, so a
    registry with such a one holds no other kind.

    Raises:
        CidmError: FAILED, naming the concept in the way.
    """
    for record in records:
        if record.method != options.method and {record.method, options.method} & {*CARRIED, *SUMMED}:
            raise CidmError(
                f"--method {options.method}: concept {record.name} was learned with {record.method}, and the two "
                "do not go together in one registry",
                hint=f"learn with --method {record.method}, or begin another registry: cidm init --registry PATH",
            )
    if options.method in CARRIED and records:
        last = latest(records)
        targets = last.config.get("options", {}).get("targets", options.targets)
        had = {"rank": last.rank, "scale": last.scale, "targets": targets}
        for name, value in had.items():
            if getattr(options, name) != value:
                raise CidmError(
                    f"--{name} {getattr(options, name)}: the LoRA of concept {last.name}, which {options.method} "
                    f"carries on, has {value}",
                    hint=f"learn with --{name} {value}",
                )


def latest(records: Sequence[Record]) -> Record:
    """The one learned last."""
    return max(records, key=lambda record: record.sequence)
