"""The user's pictures and captions: loading them, placing them on a canvas, and benchmark task lists."""

from cidm_cli.data.captions import replace_noun
from cidm_cli.data.examples import Dataset, Example, load_examples
from cidm_cli.data.placement import Placement, draw_augmentation, place
from cidm_cli.data.tasks import Task, load_tasks

__all__ = [
    "Dataset",
    "Example",
    "Placement",
    "Task",
    "draw_augmentation",
    "load_examples",
    "load_tasks",
    "place",
    "replace_noun",
]
