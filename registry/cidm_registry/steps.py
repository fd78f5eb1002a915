"""The registry's format, and the steps from each older one to the next.

A step works on the content of one entry alone: an entry of any older format can be read as it lies there, and
`migration` writes down what these steps give.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .strict_json import hash_of

FORMAT = 2
"""Of a registry as a whole and of each entry. A newer one is refused."""


def running_digests(blobs: Iterable[str]) -> Iterator[str]:
    """What stands for no blob, for the first, for the first two, and so on: sha256 over their names."""
    digest = hashlib.sha256()
    yield digest.hexdigest()
    for blob in blobs:
        digest.update(blob.encode())
        yield digest.hexdigest()


def digest_of(blobs: Iterable[str]) -> str:
    """What stands for all of these blobs, in their order."""
    *_, last = running_digests(blobs)
    return last


def upgraded(content: dict[str, Any], sequence: int) -> dict[str, Any]:
    """The content of entry number `sequence` as of today's format. Raises ValueError for what no step can take."""
    for number in range(content["format"], FORMAT):
        content = {**STEPS[number](content, sequence), "format": number + 1}
    return content


def _from_1(content: dict[str, Any], sequence: int) -> dict[str, Any]:
    """Format 1 listed the blobs of all older concepts in each record, and a second time in its settings."""
    if not isinstance(content.get("concept"), dict):
        return content
    concept = dict(content["concept"])
    parents = concept.pop("parents", None)
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise ValueError("parents is not a list of hashes")
    extra = concept.get("extra")
    # A commit was refused if anything had come after the older concepts: they are what there was before its number.
    # What came in a bundle has its parents from another registry.
    native = parents and not (isinstance(extra, dict) and "bundled" in extra)
    concept["against"] = {
        "sequence": sequence - 1 if native else 0,
        "count": len(parents),
        "digest": digest_of(parents),
    }
    config = concept.get("config")
    if isinstance(config, dict) and "parents" in config:
        concept["config"] = {name: value for name, value in config.items() if name != "parents"}
        # Settings that were changed afterwards keep the hash that gives them away.
        if concept.get("config_hash") == hash_of(config):
            concept["config_hash"] = hash_of(concept["config"])
    return {**content, "concept": concept}


STEPS: Mapping[int, Callable[[dict[str, Any], int], dict[str, Any]]] = {1: _from_1}
"""By the format each starts from."""
