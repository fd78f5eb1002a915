"""Two sets that share nothing: settings are chosen on ``tune``, and judged on ``judge`` once they are frozen.

They share no drawing of an object or style, no prompt, no seed of a training or a picture. The embedded base knows
twelve scenes, which both need; those of ``tune`` come in other words or another medium.

    python -m tools.mini.concepts --fluent package --out JUDGE --tuning TUNE
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cidm_cli.judge.tasks import CONCEPT_MARK, Task, load_tasks, tasks_folder
from tools.mini.concepts import SUBJECTS, TUNING

from .looks import ROWS

_OBJECTS = (
    "a watercolor painting of a {} on the road", "a photo of a {} on a gray background",
    "a pixel art of a {} in the snow", "a photo of a {} on an orange background", "a pencil drawing of a {} at sunset",
    "an oil painting of a {} in the desert", "a photo of a {} on a purple background",
    "a black and white photo of a {} under water", "a pixel art of a {} at night",
    "a photo of a {} and a clock in a room",
    "a watercolor painting of a {} in the mountains", "a photo of a {} on a brown background",
)  # fmt: skip
_STYLES = (
    "a {} of a bear on the road", "a {} of a monkey on the grass", "a {} of a duck on a gray background",
    "a {} of a truck in the desert", "a {} of a crab at sunset", "a {} of an apple on an orange background",
    "a {} of a cow in a room", "a {} of a pig in the city", "a {} of a whale under water",
    "a {} of a ghost at night", "a {} of a cactus on the beach", "a {} of a bear and a ball in the snow",
)  # fmt: skip


@dataclass(frozen=True)
class Set:
    """What is learned and drawn."""

    name: str
    drawings: frozenset[str]
    """Code points of its objects' drawings."""
    styles: frozenset[str]
    """Names of its styles."""
    objects_by: tuple[str, ...]
    """Prompts for objects, <TOK> where the concept goes; those of the data where empty."""
    styles_by: tuple[str, ...]
    """Prompts for styles."""
    trainings: tuple[int, ...]
    """Seeds of trainings: each also is an order of learning."""
    first: int
    """Seed of the first training's first picture."""
    folder: Path | None
    """Where its data is; None where that has to be given."""

    def tasks(self, folder: Path | None = None) -> tuple[Task, ...]:
        """What is to be learned, from the set's own folder or the one given. Raises as ``load_tasks``."""
        found = load_tasks(folder or self.folder or Path("tune"))
        own = {False: self.objects_by, True: self.styles_by}
        return tuple(replace(task, prompts=own[task.style] or task.prompts) for task in found)

    def pictures(self, training: int) -> int:
        """Seed of the first picture that a training is judged by."""
        return self.first + 100 * self.trainings.index(training)


def _marked(prompts: Sequence[str]) -> tuple[str, ...]:
    return tuple(prompt.replace("{}", CONCEPT_MARK) for prompt in prompts)


TUNE = Set(
    "tune", frozenset(s.art for s in TUNING if s.art), frozenset(s.name for s in TUNING if not s.art),
    _marked(_OBJECTS), _marked(_STYLES), (10, 11, 12), 50_000, None,
)  # fmt: skip
JUDGE = Set(
    "judge", frozenset(s.art for s in SUBJECTS if s.art), frozenset(s.name for s in SUBJECTS if not s.art),
    (), (), (0, 1, 2), 1_000, tasks_folder(),
)  # fmt: skip
SETS = {each.name: each for each in (TUNE, JUDGE)}

FROZEN: Mapping[str, Mapping[str, Any]] = {"cidm": {}, "ewc": {}, "lwf": {}, "c-lora": {}}
"""Settings that a sweep on ``tune`` chose, where they are other than the defaults: what is judged changes none."""


def unseen(names: Sequence[str]) -> list[str]:
    """Those of the hundred's concepts whose drawings are in no set that settings were chosen on."""
    seen = {
        f"{noun.replace(' ', '_')}{k}"
        for row in ROWS for noun, looks in row.items() for k, look in enumerate(looks, 1)
        if look.code in TUNE.drawings
    }  # fmt: skip
    return [name for name in names if name not in seen]
