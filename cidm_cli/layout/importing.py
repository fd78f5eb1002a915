"""Layouts made of other programs' files: a ComfyUI workflow, or a prompt for the Regional Prompter extension."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.layout import a1111, comfyui
from cidm_cli.layout.drafts import Draft, Wishes, drafted
from cidm_cli.layout.load import STANDARD_INPUT, layout_from
from cidm_cli.layout.model import Layout, Origin

from ..files.json_files import MAX_BYTES, parse_json
from ..files.reading import decode_utf8, read_bounded, read_standard_input
from ..terminal.output import plain

__all__ = ["Imported", "Wishes", "import_file", "import_text"]

_JSON = re.compile(r'\s*\{\s*["}]')


@dataclass(frozen=True)
class Imported:
    """A layout made of another program's file."""

    kind: str
    """"comfyui" or "regional-prompter" """
    source: str
    layout: Layout
    notes: tuple[str, ...]
    """what was left out or changed, each a line"""

    def to_toml(self) -> str:
        """The layout as a file that says where it is from and what it lacks."""
        comments = [f"Made from {self.source} ({self.kind})." + (" What to know:" if self.notes else "")]
        comments += [f"- {note}" for note in self.notes]
        head = "".join(f"# {plain(line)}\n" for line in comments)
        told = self.layout.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
        return head + tomlkit.dumps({"version": self.layout.version, **told})


def import_file(path: str | Path, wishes: Wishes) -> Imported:
    """Read another program's file; `-` is standard input.

    Raises CidmError: NOT_FOUND if there is no such file; INVALID for one that is neither a workflow nor a prompt, is
    too large or too deep, or gives no layout; USAGE for a wish that the file leaves no room for.
    """
    source = "standard input" if str(path) == STANDARD_INPUT else str(path)
    if str(path) == STANDARD_INPUT:
        content = read_standard_input(MAX_BYTES, source)
    else:
        content = read_bounded(Path(path), MAX_BYTES)
    if content.startswith(b"\x89PNG"):
        hint = "save what its text says (workflow, prompt or parameters) as a file of its own"
        raise CidmError(f"{source} is an image", hint, ExitCode.INVALID)
    return import_text(decode_utf8(content, source), source, wishes)


def import_text(text: str, source: str, wishes: Wishes) -> Imported:
    """`import_file` of a text that was read already; `source` names it in messages."""
    if _JSON.match(text):
        data = parse_json(text, source)
        if _is_request(data):
            draft = a1111.from_request(data, source, wishes)
        elif wishes.ratio is not None or wishes.split is not None:
            raise CidmError(
                f"{source} is a workflow: --ratio and --split are of prompts", code=ExitCode.USAGE
            )
        else:
            draft = comfyui.read(data, source, wishes)
    else:
        draft = a1111.read(text, source, wishes)
    return _finished(draft, source)


def _is_request(data: Any) -> bool:
    """Whether it is what AUTOMATIC1111's own interface is sent: a prompt that is text."""
    return isinstance(data, Mapping) and isinstance(data.get("prompt"), str)


def _finished(draft: Draft, source: str) -> Imported:
    layout = layout_from(drafted(draft), Origin(source))
    return Imported(draft.kind, source, layout, tuple(dict.fromkeys(draft.notes)))
