"""JSON in and out, with nothing that would break whoever reads it later: one guard for every file of a registry."""

import hashlib
import json
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Brackets within each other. Much of the standard library recurses for each."""

MAX_DIGITS = 20
"""Of a whole number: what 64 bits hold. A larger one cannot even be made a float."""


def parse(raw: bytes) -> Any:
    """The value that a file says.

    Raises ValueError, with a one-line reason, for what is no JSON in UTF-8, for numbers that JSON does not have (NaN),
    that no float holds or that have too many digits, and for what is nested too deeply.
    """
    try:
        value = _DECODER.decode(raw.decode())
    except RecursionError as error:
        raise ValueError("the file is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError("the file is not valid JSON") from error
    # Few brackets cannot be deep: spares ordinary files the walk.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("the file is nested too deeply")
    return value


def canonical_json(value: Any) -> bytes:
    """One spelling for equal values. ValueError or TypeError for what JSON cannot say, NaN included."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def hash_of(value: Any) -> str:
    """sha256 of `value` in canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


# Called for each number of each record: `list` reads them by the hundred thousand.


def _whole(text: str) -> int:
    if len(text) <= MAX_DIGITS:
        return int(text)
    raise ValueError(f"the file holds a number of {len(text)} digits")


def _finite(text: str) -> float:
    number = float(text)
    if number - number == 0.0:  # an infinite one gives NaN
        return number
    raise ValueError(f"the file holds {text[:40]}, a number too large")


_DECODER = json.JSONDecoder(parse_constant=_no_such_number, parse_int=_whole, parse_float=_finite)
