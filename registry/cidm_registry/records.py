"""What the registry knows about a concept, and how that is written down.

One JSON file per entry, named by its number. An entry is a concept version (`Record`) or a change of name
(`Renaming`).
"""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from .errors import Invalid, InvalidName, NewerFormat
from .names import canonical_key, display_name
from .steps import FORMAT, digest_of, upgraded
from .strict_json import canonical_json, parse

MAX_ENTRY = 1_000_000
"""Bytes of one entry."""

SHA256 = re.compile(r"[0-9a-f]{64}\Z")

MAPPINGS = ("config", "losses", "tools", "extra")
"""Fields whose content is the caller's own."""


@dataclass(frozen=True)
class BaseRef:
    """The model a registry's concepts belong to."""

    kind: str
    """Family: `mini`, `sd15`, `sdxl`."""
    source: str
    """Where it comes from: a built-in name, a folder, a file or a hub id."""
    fingerprint: str
    """Hash of its weights; concepts of another base are refused by it."""
    vae: str = ""
    """Where the autoencoder comes from that stands in for the base's own; empty where none does."""


@dataclass(frozen=True)
class Against:
    """The older concepts that one was consolidated against, in a size that does not grow with their number."""

    sequence: int
    """They are all there were up to this number; 0 where there was none, or in another registry."""
    count: int
    """How many."""
    digest: str
    """One hash over the blobs of their weights, oldest first."""

    @classmethod
    def of(cls, older: "Sequence[Record]", head: int) -> "Against":
        """All the concepts of a registry, as they were when `head` was its highest number."""
        return cls(head if older else 0, len(older), digest_of(record.blob for record in older))


@dataclass(frozen=True)
class Draft:
    """A concept that has been learned and waits to be committed."""

    name: str
    """As typed; used in prompts as `<name>`."""
    class_noun: str
    """What kind of thing it is, e.g. `dog`."""
    style: bool
    """Whether it is a style rather than an object."""
    tokens: tuple[str, ...]
    """The words that stand for it in a prompt after expansion."""
    rank: int
    """Of its low-rank weights."""
    scale: float
    """Factor on its low-rank weights when used."""
    method: str
    """How it was learned: `cidm`, or a baseline."""
    config: dict[str, Any]
    """Every setting of the training."""
    data_hash: str
    """Hash of the images and captions."""
    against: Against
    """The older concepts it was consolidated against."""
    losses: dict[str, Any]
    """Loss values worth keeping."""
    tools: dict[str, str]
    """Versions of the libraries it was made with."""
    extra: dict[str, Any]
    """Anything else the caller wants to find again."""


@dataclass(frozen=True)
class Record(Draft):
    """One committed version of a concept."""

    key: str
    """Canonical form of the name: equal keys are the same concept."""
    sequence: int
    """Its number. Order in the registry is this, never a date."""
    version: int
    """1 for the first; each update adds one."""
    origin: int
    """Sequence number of its first version: what ties versions together, also across a change of name."""
    blob: str
    """sha256 of its weights."""
    base: str
    """Fingerprint of the base it was learned on."""
    config_hash: str
    """sha256 of `config` in canonical JSON."""
    created: str
    """When it was committed, UTC, ISO 8601."""
    preview: str | None
    """sha256 of a preview picture, or None."""
    scores: dict[str, Any]
    """Results of evaluations."""

    @property
    def blobs(self) -> tuple[str, ...]:
        """Everything in `blobs/` this record needs."""
        return (self.blob,) if self.preview is None else (self.blob, self.preview)

    def to_json(self) -> dict[str, Any]:
        """Plain values, safe to change."""
        return asdict(self)


@dataclass(frozen=True)
class Renaming:
    """A change of name. The concept's record keeps its bytes; the newest of these decides its name."""

    sequence: int
    """Its number, from the same row as the records'."""
    origin: int
    """Which concept, by the sequence number of its first version."""
    name: str
    """The new name."""
    key: str
    """Its canonical form."""
    created: str
    """When, UTC, ISO 8601."""


@dataclass(frozen=True)
class Stored:
    """An entry as it lies in its file."""

    entry: Record | Renaming
    """What the file is about."""
    previous: str | None
    """Key that the entry before it gave, which stays known should that one's file be damaged.

    Empty where there was none or it was removed; None where that was never written down.
    """


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file."""

    path: Path
    """The file."""
    message: str
    """What is wrong with it, in one line."""
    hint: str | None = None
    """What to do about it."""


@dataclass(frozen=True)
class Plan:
    """What a removal will do, or has done."""

    records: tuple[Record, ...]
    """Concept versions that go."""
    files: tuple[Path, ...]
    """Files deleted outright (`gc`), or that the next `gc` may delete (`rm`)."""
    size: int
    """Bytes in `files`."""
    dependents: tuple[str, ...] = ()
    """Names of concepts that were consolidated against one that goes. They keep working."""
    waiting: int = 0
    """Files nothing uses that are still too young to delete: another process may be about to use them."""


RECORD_FIELDS, RENAMING_FIELDS, AGAINST_FIELDS = (
    tuple(field.name for field in fields(kind)) for kind in (Record, Renaming, Against)
)


def checked_draft(draft: Draft) -> Draft:
    """The draft as it will read back from disk: composed name, plain JSON values.

    Raises Invalid, naming the field, for anything that must not enter a registry.
    """
    if problem := _problem_in(draft):
        raise Invalid(f"the concept {draft.name!r} cannot be stored: {problem}")
    plain = {}
    for name in MAPPINGS:
        try:
            plain[name] = parse(canonical_json(getattr(draft, name)))
        except (ValueError, TypeError, RecursionError) as error:
            raise Invalid(f"{name} of {draft.name!r} holds a value JSON cannot say: {error}") from error
    return replace(
        draft,
        name=display_name(draft.name),
        tokens=tuple(draft.tokens),
        **plain,
    )


def encode(entry: Record | Renaming, previous: str | None = None) -> bytes:
    """The file's content. Raises Invalid for values that could not be read back, or are absurdly many."""
    kind = "concept" if isinstance(entry, Record) else "renaming"
    content = {"format": FORMAT, "previous": previous, kind: asdict(entry)}
    try:
        raw = json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False).encode()
        parse(raw)
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(f"the record of {entry.name!r} holds a value JSON cannot say: {error}") from error
    if len(raw) > MAX_ENTRY:
        raise Invalid(
            f"the record of {entry.name!r} would take {len(raw):,} bytes; at most {MAX_ENTRY:,} are allowed"
        )
    return raw


def decode(raw: bytes, sequence: int) -> Stored:
    """The entry in a file named by `sequence`, of this format or an older one.

    Raises ValueError with a one-line reason for anything that is not one, NewerFormat for one from a newer
    program.
    """
    if len(raw) > MAX_ENTRY:
        raise ValueError("the file is too large for a record")
    if not raw.strip(b"\0 \t\r\n"):
        raise ValueError("the file is empty")
    content = parse(raw)
    if not isinstance(content, dict) or type(content.get("format")) is not int or content["format"] < 1:
        raise ValueError("the file is not a record")
    if content["format"] > FORMAT:
        raise NewerFormat(
            f"record {sequence} is of format {content['format']}{_writer(content)}; this program knows {FORMAT}",
            "update cidm",
        )
    content = upgraded(content, sequence)
    entry: Record | Renaming
    try:
        if "concept" in content:
            entry = _record(content["concept"])
        elif "renaming" in content:
            entry = _renaming(content["renaming"])
        else:
            raise ValueError("the file is neither a concept nor a renaming")
    except InvalidName as error:
        raise ValueError(error.message) from error
    if entry.sequence != sequence:
        raise ValueError(f"the file holds record {entry.sequence}")
    previous = content.get("previous")
    return Stored(entry, previous if isinstance(previous, str) else None)


def _writer(content: dict[str, Any]) -> str:
    """Which program wrote a record, as far as a record of another format can be understood."""
    try:
        version = content["concept"]["tools"]["cidm"]
    except (KeyError, TypeError):
        return ""
    return f", by cidm {version}" if _text(version, 40) else ""


def _record(values: Any) -> Record:
    known = _fields(values, RECORD_FIELDS)
    if not isinstance(known["tokens"], list):
        raise ValueError("tokens is not a list")
    known["tokens"] = tuple(known["tokens"])
    known["against"] = Against(**_fields(known["against"], AGAINST_FIELDS))
    record = Record(**known)
    if problem := _problem_in(record) or _problem_in_record(record):
        raise ValueError(problem)
    return record


def _renaming(values: Any) -> Renaming:
    entry = Renaming(**_fields(values, RENAMING_FIELDS))
    if not _natural(entry.sequence) or not _natural(entry.origin):
        raise ValueError("its number is impossible")
    if not isinstance(entry.name, str) or canonical_key(entry.name) != entry.key:
        raise ValueError("its name and key disagree")
    if not _text(entry.created, 200):
        raise ValueError("created must be one line")
    return entry


def _fields(values: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError("the file is not a record")
    try:
        return {name: values[name] for name in names}
    except KeyError:
        raise ValueError(f"{', '.join(sorted({*names} - values.keys()))} missing") from None


def _problem_in(draft: Draft) -> str | None:
    if not isinstance(draft.name, str):
        return "name is not text"
    if not _text(draft.class_noun, 200):
        return "class_noun must be one line of at most 200 characters"
    if type(draft.style) is not bool:
        return "style must be true or false"
    if len(draft.tokens) > 256 or not all(
        _text(token, 200) and len(token.split()) == 1 for token in draft.tokens
    ):
        return "tokens must be words without spaces"
    if type(draft.rank) is not int or not 0 <= draft.rank <= 4096:
        return "rank must be a whole number from 0 to 4096"
    # A whole number may be larger than any float.
    if type(draft.scale) not in (int, float) or not abs(draft.scale) <= sys.float_info.max:
        return "scale must be a finite number"
    if not _text(draft.method, 100) or not _text(draft.data_hash, 200):
        return "method and data_hash must be one line each"
    older = draft.against
    if not all(type(number) is int and number >= 0 for number in (older.sequence, older.count)) or not (
        isinstance(older.digest, str) and SHA256.match(older.digest)
    ):
        return "against must be two numbers and a sha256 hash"
    for name in MAPPINGS:
        if not isinstance(getattr(draft, name), dict):
            return f"{name} must be a mapping"
    return None


def _problem_in_record(record: Record) -> str | None:
    if not all(_natural(number) for number in (record.sequence, record.version, record.origin)):
        return "its number is impossible"
    if record.origin > record.sequence or record.against.sequence >= record.sequence:
        return "its first version, or what it was learned against, is newer than itself"
    if canonical_key(record.name) != record.key:
        return "its name and key disagree"
    if not all(isinstance(blob, str) and SHA256.match(blob) for blob in record.blobs):
        return "blob and preview must be sha256 hashes"
    if not all(_text(text, 200) for text in (record.base, record.config_hash, record.created)):
        return "base, config_hash and created must be one line each"
    return None if isinstance(record.scores, dict) else "scores must be a mapping"


def _natural(number: Any) -> bool:
    return type(number) is int and number > 0


def _text(value: Any, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and value.isprintable()
