"""The concept registry: a folder of learned concepts that survives being killed, filled up and shared.

root/registry.json        format, base, date of creation
root/blobs/<sha256>       weights and previews, named by content, never changed
root/concepts/000005.json one entry per concept version or change of name; the number is the order
root/concepts/000005.removed  a removed one, until it is brought back: its number is never given to another
root/runs/<id>/           training runs in progress
root/format-1-….zip       head and entries as they were before they were brought up to a newer format
root/lock                 a courtesy; correctness never rests on it
"""

from .errors import (
    Busy,
    Conflict,
    Damaged,
    Exists,
    Invalid,
    InvalidName,
    NewerFormat,
    NotFound,
    RegistryError,
)
from .garbage import GRACE
from .names import canonical_key, display_name
from .records import Against, BaseRef, Draft, Plan, Problem, Record
from .runs import Run
from .steps import digest_of, running_digests
from .store import Registry
from .tensors import MAX_HEADER, Header, check_header, check_safetensors

__all__ = [
    "GRACE",
    "MAX_HEADER",
    "Against",
    "BaseRef",
    "Busy",
    "Conflict",
    "Damaged",
    "Draft",
    "Exists",
    "Header",
    "Invalid",
    "InvalidName",
    "NewerFormat",
    "NotFound",
    "Plan",
    "Problem",
    "Record",
    "Registry",
    "RegistryError",
    "Run",
    "canonical_key",
    "check_header",
    "check_safetensors",
    "digest_of",
    "display_name",
    "running_digests",
]
