"""The embedded base: what is in the package, and that libraries which know nothing of cidm can use it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPModel, CLIPTokenizer

from cidm_cli.data import load_examples
from cidm_cli.judge.tasks import load_tasks, tasks_folder
from cidm_cli.models.identity import mini_folder
from tools.mini import vocabulary

FOLDER = mini_folder()
RIVALS = (
    "dog cat fox lion horse pig elephant bird duck fish tree apple pizza car bus airplane house castle hat shoe"
).split()


def test_stock_diffusers_draws_a_dog_on_the_beach_in_ten_lines() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        "a photo of a dog on the beach",
        num_inference_steps=20,
        guidance_scale=4.0,
        num_images_per_prompt=8,
        generator=torch.Generator().manual_seed(0),
    ).images
    assert share_named(images, "dog", RIVALS, "a photo of a {}") >= 0.75
    places = [
        "on the beach",
        "in the forest",
        "in the snow",
        "at night",
        "in the city",
        "in a room",
        "under water",
    ]
    assert share_named(images, "on the beach", places, "a photo of a dog {}") >= 0.75


def share_named(images: list, wanted: str, choices: list[str], template: str) -> float:
    clip = CLIPModel.from_pretrained(FOLDER / "clip", dtype=torch.float32)
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    texts = tokenizer([template.format(c) for c in choices], padding="max_length", return_tensors="pt")
    pixels = torch.stack([torch.tensor(list(i.tobytes())).view(64, 64, 3) for i in images]).permute(
        0, 3, 1, 2
    )
    with torch.no_grad():
        seen = clip.get_image_features(pixel_values=pixels / 127.5 - 1).pooler_output
        told = clip.get_text_features(**texts).pooler_output
    normal = torch.nn.functional.normalize
    best = (normal(seen, dim=-1) @ normal(told, dim=-1).T).argmax(1).tolist()
    return sum(choices[b] == wanted for b in best) / len(best)


def test_the_text_encoder_is_the_text_tower_of_its_clip() -> None:
    tower = tensors(FOLDER / "clip" / "model.safetensors")
    encoder = tensors(FOLDER / "text_encoder" / "model.safetensors")
    assert {f"text_model.{name}": value for name, value in encoder.items()} == {
        name: value for name, value in tower.items() if name.startswith("text_model.")
    }


def test_it_is_at_most_60_megabytes_of_half_precision_safetensors() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 60e6
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".txt", ".md"}
    for file in FOLDER.rglob("*.safetensors"):
        weights = {
            n: dtype for n, (dtype, _) in header(file).items() if not n.endswith("num_batches_tracked")
        }
        assert set(weights.values()) == {"F16"}, file


def test_its_card_says_of_each_floor_whether_it_is_reached() -> None:
    rows = [line.split("|")[1:-1] for line in (FOLDER / "README.md").read_text().splitlines() if "%" in line]
    table = [[cell.strip().rstrip("%") for cell in row] for row in rows if len(row) == 5]
    assert len(table) == 4
    for _, drawn, floor, reached, _ in table:
        assert reached == ("yes" if float(drawn) >= float(floor) else "no")


@pytest.mark.parametrize("task", load_tasks(tasks_folder()), ids=lambda task: task.name)
def test_every_mini_cifc_object_has_three_to_seven_captioned_images_and_every_style_twenty(task) -> None:
    dataset = load_examples(task.images, class_noun=task.class_noun)
    if task.style:
        assert len({example.caption for example in dataset.examples}) == len(dataset.examples) == 20, (
            "of 20 things"
        )
    else:
        assert 3 <= len(dataset.examples) <= 7
    assert not dataset.warnings
    assert all(task.class_noun in example.caption for example in dataset.examples)
    assert len(task.prompts) == 20


def test_mini_cifc_has_seven_objects_two_dogs_two_cats_and_three_styles() -> None:
    tasks = load_tasks(tasks_folder())
    nouns = [task.class_noun for task in tasks if not task.style]
    assert (len(nouns), nouns.count("dog"), nouns.count("cat"), len(tasks)) == (7, 2, 2, 10)


def header(file: Path) -> dict[str, tuple[str, tuple[int, int]]]:
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    entries = json.loads(raw[8 : 8 + length])
    return {n: (e["dtype"], tuple(e["data_offsets"])) for n, e in entries.items() if n != "__metadata__"}


def tensors(file: Path) -> dict[str, bytes]:
    raw = file.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    return {name: raw[start + begin : start + end] for name, (_, (begin, end)) in header(file).items()}


def test_the_recipe_numbers_words_as_the_shipped_tokenizer_does() -> None:
    shipped = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    assert vocabulary.build().get_vocab() == shipped.get_vocab()
