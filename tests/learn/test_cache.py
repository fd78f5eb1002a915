"""The cache of encoded pictures: it saves work and changes nothing, whatever becomes of its files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from cidm_cli.learn import cache
from cidm_cli.learn import run as learn
from cidm_cli.learn.assignment import Task
from cidm_cli.learn.cache import Cache
from cidm_cli.learn.run import Events
from cidm_cli.models.base import Base
from cidm_registry import Registry
from command import Cidm
from learning import FAST, learn_direct, task


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Grows by each picture that the VAE is asked for."""
    seen: list[Path] = []
    real = cache.encode_placed

    def count(base: Base, example: Any, *rest: Any) -> Any:
        seen.append(example.path)
        return real(base, example, *rest)

    monkeypatch.setattr(cache, "encode_placed", count)
    return seen


def learned(registry: Registry, base: Base, work: Task, folder: Path | None, notes: list[str]) -> str:
    """The blob of a concept, learned in a registry of its own."""
    number = len(list(registry.root.parent.iterdir()))
    other = Registry.create(registry.root.with_name(f"registry-{number}"), registry.base)
    return learn.learn(other, base, work, Events(on_note=notes.append), folder).blob


def test_a_concept_is_the_same_to_the_byte_without_a_cache_and_with_an_empty_or_full_one(
    base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path, asked: list[Path]
) -> None:
    plain = learn_direct(tiny_registry, base, task(pictures)).blob
    assert len(asked) == 3
    for _ in range(2):
        assert learned(tiny_registry, base, task(pictures), tmp_path / "kept", []) == plain
        assert len(asked) == 6, "the second time they were there"
    assert {file.suffix for file in (tmp_path / "kept").iterdir()} == {".safetensors"}


def test_only_what_was_encoded_alike_is_taken(
    base: Base,
    tiny_registry: Registry,
    pictures: Path,
    tmp_path: Path,
    asked: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = tmp_path / "kept"
    learned(tiny_registry, base, task(pictures), kept, [])
    asked.clear()
    (pictures / "0.txt").write_text("a red dog")
    learned(tiny_registry, base, task(pictures, lr=0.5), kept, [])
    assert asked == [], "captions and rates are no part of it"
    tiny.save_pictures(tmp_path / "more", seed=1)
    (pictures / "1.png").write_bytes((tmp_path / "more" / "1.png").read_bytes())
    # Which variants a picture has depends on its place among them, too, so some of the others may be asked for.
    learned(tiny_registry, base, task(pictures), kept, [])
    assert pictures / "1.png" in asked
    for changed in (
        lambda: learned(tiny_registry, base, task(pictures, seed=1), kept, []),
        lambda: learned(tiny_registry, base, task(pictures, variants=3), kept, []),
        lambda: learned(tiny_registry, replace(base, compute=torch.bfloat16), task(pictures), kept, []),
    ):
        asked.clear()
        changed()
        assert len(asked) == 3
    asked.clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another")
    learned(tiny_registry, base, task(pictures), kept, [])
    assert len(asked) == 3, "another processor rounds otherwise"
    asked.clear()
    work = task(pictures)
    for fingerprint in ("a", "b", "b"):
        encoder = cache.remembering(Cache(kept, fingerprint))
        learn.prepare(base, work.dataset, learn.caption_tokens(base, work, Events()), work.options, encoder)
    assert len(asked) == 6, "latents are those of one base's VAE"


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "pickle", "other"])
def test_a_damaged_file_is_made_again_and_told(
    damage: str, base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path, asked: list[Path]
) -> None:
    kept, notes = tmp_path / "kept", list[str]()
    plain = learned(tiny_registry, base, task(pictures), kept, notes)
    asked.clear()
    file, other, *_ = sorted(kept.iterdir())
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[-3] ^= 1
    damaged = {
        "flipped": bytes(flipped), "cut": good[:-5], "empty": b"", "pickle": b"\x80\x04N.",
        "other": other.read_bytes(),
    }  # fmt: skip
    file.write_bytes(damaged[damage])
    assert learned(tiny_registry, base, task(pictures), kept, notes) == plain
    assert len(asked) == 1
    assert len(notes) == 1
    assert str(file) in notes[0]
    assert file.read_bytes() == good


def test_a_folder_that_cannot_be_written_costs_only_time(
    base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path, asked: list[Path]
) -> None:
    (tmp_path / "file").write_text("no folder")
    learned(tiny_registry, base, task(pictures), tmp_path / "file" / "cache", [])
    assert len(asked) == 3


def test_what_was_not_used_for_longest_goes_first(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Cache(tmp_path, "base")
    made: list[str] = []

    def ask(name: str) -> None:
        def make() -> dict[str, torch.Tensor]:
            made.append(name)
            return {"x": torch.zeros(1000)}

        before = {*tmp_path.iterdir()}
        kept.tensors(base, {"name": name}, make)
        # Each later than the one before, however coarse the clock.
        clock[0] += 1
        for path in {*tmp_path.iterdir()} - before:
            os.utime(path, (clock[0], clock[0]))

    clock = [0]
    for name in "abc":
        ask(name)
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    monkeypatch.setattr(cache, "MOST", 3 * size)
    ask("a")
    ask("d")
    for name in "acd":
        ask(name)
    assert "".join(made) == "abcd", "b went, and nothing else"
    monkeypatch.setattr(cache, "MOST", size)
    ask("e")
    assert len([*tmp_path.iterdir()]) == 3, "what takes up half of the room is not kept"


def test_the_command_keeps_them_where_cidm_cache_says_unless_told_not_to(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIDM_CACHE", str(tmp_path / "mine"))
    learn_it = ("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST)
    assert cidm(*learn_it, "--no-cache").code == 0
    assert cidm(*learn_it, "--update", "--dry-run").code == 0
    assert not (tmp_path / "mine").exists()
    assert cidm(*learn_it, "--update").code == 0
    assert len([*(tmp_path / "mine" / "latents").iterdir()]) == 3
    old, new = tiny_registry.records(all_versions=True)
    assert old.blob == new.blob
    assert old.config["options"] == new.config["options"], "it is no part of what is learned"
