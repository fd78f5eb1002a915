"""JSON from anyone: refused early where it would be deep, and with the line of what is wrong."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.reading import readable_size

MAX_BYTES = 4 << 20
MAX_DEPTH = 64

# Possessive: a text that is opened and never closed is passed over once, not once for every quote in it.
_BRACKET_OR_TEXT = re.compile(r'[\[{]|[\]}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def parse_json(text: str, source: str) -> Any:
    """Parse JSON.

    Raises CidmError INVALID, beginning with `source`, for what is no JSON, for numbers that JSON does not have
    (NaN), and for a document beyond MAX_BYTES or MAX_DEPTH brackets.
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
        return json.loads(text, parse_constant=_no_such_number)
    except json.JSONDecodeError as error:
        raise _invalid(f"{source}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError as error:
        # A number of thousands of digits.
        raise _invalid(f"{source}: not JSON: {error}") from None


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _invalid(message: str) -> CidmError:
    return CidmError(message, code=ExitCode.INVALID)
