"""JSON from anyone: refused early where it would be deep or its numbers endless, and with the line of what is wrong."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from ..errors import CidmError, ExitCode
from .reading import read_text, readable_size

MAX_BYTES = 4 << 20
MAX_DEPTH = 64
MAX_DIGITS = 100
"""Of a number: any of so many still fits a float."""

# Possessive: a text that is opened and never closed is passed over once, not once for every quote in it.
_BRACKET_OR_TEXT = re.compile(r'[\[{]|[\]}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """The JSON in a file of at most `limit` bytes. Raises CidmError as `read_text` and `parse_json` do."""
    return parse_json(read_text(path, min(limit, MAX_BYTES)), str(path))


def parse_json(text: str, source: str) -> Any:
    """Parse JSON.

    Raises CidmError INVALID, beginning with `source`, for what is no JSON; for numbers that it does not have (NaN) or
    that no float holds; for text that is half a character; and for a document beyond MAX_BYTES or MAX_DEPTH brackets.
    """
    if len(text) > MAX_BYTES:
        raise _invalid(f"{source} is larger than the {readable_size(MAX_BYTES)} allowed")
    depth = 0
    # The parser of the standard library recurses for every bracket.
    for match in _BRACKET_OR_TEXT.finditer(text):
        mark = match.group()
        depth += (mark in ("[", "{")) - (mark in ("]", "}"))
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, match.start()) + 1
            raise _invalid(f"{source}:{line}: brackets more than {MAX_DEPTH} deep")
    try:
        value = json.loads(text, parse_constant=_no_such_number, parse_int=_whole, parse_float=_real)
        if _SURROGATE.search(text):
            # Half of a pair is a text that nothing can write or encode.
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise _invalid(f"{source}:{error.lineno}: not JSON: {error.msg}") from None
    except UnicodeEncodeError as error:
        raise _invalid(f"{source}: not JSON: {error.object[error.start]!a} is half a character") from None
    except ValueError as error:
        raise _invalid(f"{source}: not JSON: {error}") from None
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"{digits[:20]}… is a number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is larger than any number")
    return value


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _invalid(message: str) -> CidmError:
    return CidmError(message, code=ExitCode.INVALID)
