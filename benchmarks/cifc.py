"""The paper's benchmark, CIFC, as tasks: from a clone of its repository, or from a folder with a tasks.toml."""

from __future__ import annotations

import shutil
from pathlib import Path

from cidm_cli.judge.tasks import Task, load_tasks

REPOSITORY = "https://github.com/JiahuaDong/CIFC"
TASKS = (
    ("dog", "dog", "pet"),
    ("duck_toy", "duck toy", "object"),
    ("cat", "cat", "pet"),
    ("backpack", "backpack", "object"),
    ("teddybear", "teddy bear", "object"),
    ("painting", "painting", "style"),
    ("dog2", "dog", "pet"),
    ("drawing", "drawing", "style"),
    ("cat2", "cat", "pet"),
    ("ink_painting", "ink painting", "style"),
)
"""V1 to V10 in the repository's order (options/cidm): folder, the noun in its captions, prompt set."""
PROMPTS = {"pet": "test_pet.txt", "object": "test_plushy.txt", "style": "test_style.txt"}
"""Our names of the repository's evaluation prompts."""


def tasks_of(data: Path, folder: Path) -> tuple[Task, ...]:
    """The tasks of ``data``; a clone of the repository is first laid out in ``folder``, once.

    Raises:
        CidmError: as ``load_tasks``.
    """
    if not (data / "datasets" / "images").is_dir():
        return load_tasks(data)
    if not (folder / "tasks.toml").is_file():
        lay_out(data / "datasets", folder)
    return load_tasks(folder)


def lay_out(source: Path, folder: Path) -> None:
    """Copies pictures, with their captions beside them, and prompts; tasks.toml comes last, so that it vouches for all.

    Args:
        source: the clone's folder ``datasets``.
    """
    for name, _, _ in TASKS:
        place = folder / "concepts" / name
        place.mkdir(parents=True, exist_ok=True)
        for kind in ("images", "caption"):
            for file in sorted((source / kind / name).iterdir()):
                shutil.copyfile(file, place / file.name)
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    for ours, theirs in PROMPTS.items():
        shutil.copyfile(source / "evaluation_prompts" / theirs, folder / "prompts" / f"{ours}.txt")
    entries = [
        f'[[task]]\nid = "V{number}"\nname = "{name}"\nclass_noun = "{noun}"\nprompts = "{prompts}"\n'
        for number, (name, noun, prompts) in enumerate(TASKS, 1)
    ]
    part = folder / "tasks.part"
    part.write_text("\n".join(entries))
    part.replace(folder / "tasks.toml")
