"""The user's pictures and captions: loading them, placing them on a canvas, and benchmark task lists."""

from cidm_cli.data.benchmarks import BRACES, Benchmark, load_benchmark
from cidm_cli.data.buckets import bucket
from cidm_cli.data.captions import caption_from_template, replace_noun
from cidm_cli.data.examples import Dataset, Example, load_examples
from cidm_cli.data.given import Given, read_given, read_mask
from cidm_cli.data.listing import Listing, list_pictures
from cidm_cli.data.marks import Marked, marked, remarks
from cidm_cli.data.placement import Placement, draw_augmentation, place
from cidm_cli.data.tasks import CONCEPT_MARK, Task, load_tasks, read_prompts, tasks_folder

__all__ = [
    "BRACES",
    "CONCEPT_MARK",
    "Benchmark",
    "Dataset",
    "Example",
    "Given",
    "Listing",
    "Marked",
    "Placement",
    "Task",
    "bucket",
    "caption_from_template",
    "draw_augmentation",
    "list_pictures",
    "load_benchmark",
    "load_examples",
    "load_tasks",
    "marked",
    "place",
    "read_given",
    "read_mask",
    "read_prompts",
    "remarks",
    "replace_noun",
    "tasks_folder",
]
