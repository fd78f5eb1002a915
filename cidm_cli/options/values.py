"""What all options have in common: filling in defaults, and refusing a value."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from ..errors import CidmError, ExitCode

PRECISIONS = ("auto", "half", "fp32", "bf16", "fp16")
"""What ``--precision`` may be."""


def check_precision(name: str) -> None:
    """Raises CidmError USAGE for what ``--precision`` cannot be."""
    if name not in PRECISIONS:
        raise usage("precision", name, f"must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")


def filled(options: Any, defaults: dict[str, Any]) -> Any:
    missing = {k: v for k, v in defaults.items() if getattr(options, k) is None}
    whole = replace(options, **missing)
    assert all(getattr(whole, f.name) is not None for f in fields(whole))
    return whole


def usage(name: str, value: object, rule: str) -> CidmError:
    return CidmError(f"--{name.replace('_', '-')} {value}: {rule}", code=ExitCode.USAGE)
