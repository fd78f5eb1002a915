"""What a concept is learned from: images and captions, found, read and placed on a canvas."""

from .captions import caption_from_template, replace_noun
from .examples import Dataset, Example, load_examples
from .listing import Listing, list_pictures
from .marks import Marked, marked, remarks
from .placement import Placement, bucket, draw_augmentation, place

__all__ = [
    "Dataset",
    "Example",
    "Listing",
    "Marked",
    "Placement",
    "bucket",
    "caption_from_template",
    "draw_augmentation",
    "list_pictures",
    "load_examples",
    "marked",
    "place",
    "remarks",
    "replace_noun",
]
