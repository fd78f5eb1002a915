"""What the registry's commands cost by the number of concepts. Prints one JSON object.

Each concept is learned against all before it; its record holds what `learn` writes down, its blob is small. ``seconds``
are processor time of the whole command in a process of its own, the best of ``rounds``. ``record_bytes`` is the newest
record, ``bytes`` are all records together. ``goals`` gives what was found beside what is allowed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cidm_cli.formats.tensors import write_tensors
from cidm_cli.options.learn import resolve_learn
from cidm_registry import Against, BaseRef, Record, Registry, running_digests
from cidm_registry.blobs import blob_path, sha256_of
from cidm_registry.journal import entry_path
from cidm_registry.records import encode
from cidm_registry.strict_json import hash_of

COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "list": lambda turn: ["list", "--json"],
    "show": lambda turn: ["show", "concept2", "--json"],
    "rename": lambda turn: ["rename", *(["concept1", "other1"] if turn % 2 == 0 else ["other1", "concept1"])],
    "verify": lambda turn: ["verify", "--json"],
    "gc": lambda turn: ["gc", "--now", "--json"],
}
"""The arguments of each, by round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    report: dict[str, Any] = {"rounds": given.rounds, "concepts": {}}
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = furnished(Path(folder) / "registry", size)
            entries = [path.stat().st_size for path in sorted((root / "concepts").iterdir())]
            report["concepts"][size] = {
                "seconds": {name: round(best(root, name, given.rounds), 3) for name in COMMANDS},
                "record_bytes": entries[-1],
                "bytes": sum(entries),
            }
    report["goals"] = goals(report["concepts"])
    print(json.dumps(report))


def furnished(root: Path, size: int) -> Path:
    """A registry of so many concepts. Written without the syncs that commits take."""
    registry = Registry.create(root, BaseRef("mini", "mini", "f" * 64))
    options = asdict(resolve_learn({}, "sd15"))
    config = {"key": "concept", "noun": "dog", "style": False, "data": "d" * 64, "base": "f" * 64,
              "precision": "float32", "options": options}  # fmt: skip
    losses = {"first": 0.1234567, "last_tenth": 0.0123456, "steps": 800, "r1": 0.0123456, "r2": 0.0123456}
    tools = dict.fromkeys(("cidm", "torch", "diffusers", "transformers", "peft", "python"), "10.20.30")
    contents = [write_tensors({"tokens": torch.tensor([float(number)])}, {}) for number in range(size)]
    names = [sha256_of(content) for content in contents]
    for number, (content, digest) in enumerate(zip(contents, running_digests(names), strict=False), 1):
        name = f"concept{number}"
        record = Record(
            name=name, key=name, class_noun="dog", style=False, tokens=("[V*]", "[Vdog]"), rank=4, scale=1.0,
            method="cidm", config=config, config_hash=hash_of(config), data_hash="d" * 64,
            against=Against(number - 1, number - 1, digest), losses=losses, tools=tools, extra={"images": 5},
            sequence=number, version=1, origin=number, blob=names[number - 1], base="f" * 64,
            created="2026-01-01T00:00:00+00:00", preview=None, scores={},
        )  # fmt: skip
        blob_path(root, record.blob).write_bytes(content)
        entry_path(root, number).write_bytes(encode(record, f"concept{number - 1}" if number > 1 else ""))
    assert registry.records()[-1].sequence == size
    return root


def best(root: Path, name: str, rounds: int) -> float:
    """Processor seconds of a command."""
    times = []
    for turn in range(rounds):
        command = [sys.executable, "-m", "cidm_cli", "--registry", str(root), *COMMANDS[name](turn)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def goals(found: dict[int, Any]) -> dict[str, Any]:
    """What is promised of the largest registry: by its ratio to the one before, or the seconds over the smallest."""
    first, before, last = (found[size] for size in (min(found), *sorted(found)[-2:]))
    out: dict[str, Any] = {"record_bytes": {"found": last["record_bytes"], "at_most": 4000}}
    for name in ("list", "verify", "gc"):
        ratio = last["seconds"][name] / before["seconds"][name]
        out[f"{name}_ratio"] = {"found": round(ratio, 2), "at_most": 12}
    for name in ("show", "rename"):
        more = last["seconds"][name] - first["seconds"][name]
        out[f"{name}_seconds_more"] = {"found": round(more, 3), "at_most": 1}
    return out


if __name__ == "__main__":
    main()
