"""`cidm learn`: what it keeps, what it refuses, and that it never touches what was learned before."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from cidm_cli.api import Workspace
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import batches
from cidm_cli.learn import run as learn
from cidm_cli.learn import step as training
from cidm_cli.learn.assignment import Task, unseen
from cidm_cli.learn.run import Events, caption_tokens, placed_captions, read_captions
from cidm_cli.models.base import Base
from cidm_cli.models.opening import concept_weights
from cidm_cli.models.text import tokenize
from cidm_registry import Against, Registry
from command import Cidm
from learning import FAST, files_of, learn_direct, task

# What it does


def test_a_learned_concept_changes_what_is_drawn(cidm: Cidm, tiny_registry: Registry, pictures: Path) -> None:
    where = ("--registry", tiny_registry.root)
    learned = cidm("learn", "rex", pictures, "--class", "dog", *where, *FAST)
    assert learned.code == 0, learned.err
    assert "<rex>" in learned.out
    drawn = cidm(
        "generate",
        "-p",
        "a photo of <rex>",
        "-p",
        "a photo of a dog",
        *where,
        "--steps",
        2,
        "-o",
        "out",
        "-q",
    )
    assert drawn.code == 0, drawn.err
    rex, dog = (Image.open(path).tobytes() for path in drawn.out.splitlines())
    assert rex != dog


def test_the_record_says_how_the_concept_was_made(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    where = ("--registry", tiny_registry.root)
    assert cidm("learn", "dog", pictures, *where, *FAST).code == 0
    more = tiny.save_pictures(pictures.parent / "more", ("a red duck toy", "a duck toy in the snow"), seed=1)
    answer = cidm("learn", "Duck_Toy", more, *where, *FAST, "--rank", 2, "--scale", 0.5, "--json").answer
    dog, duck = tiny_registry.records()
    assert answer["concept"] == {**duck.to_json(), "tokens": list(duck.tokens)}
    assert answer["path"] == str(tiny_registry.blob_path(duck.blob))
    assert (duck.name, duck.key, duck.class_noun, duck.style) == ("Duck_Toy", "duck_toy", "Duck Toy", False)
    assert (duck.sequence, duck.version, duck.rank, duck.scale) == (2, 1, 2, 0.5)
    assert duck.against == Against.of([dog], 1)
    assert dog.against == Against.of([], 0)
    assert dog.blob not in json.dumps(duck.to_json()), "older concepts are told by one hash"
    assert duck.tokens == ("[V*]", "[Vduck]", "[Vtoy]")
    assert duck.base == tiny_registry.base.fingerprint
    dataset = task(more, noun="Duck Toy").dataset
    assert duck.data_hash == dataset.digest
    assert duck.data_hash != dog.data_hash
    options = duck.config["options"]
    assert (options["steps"], options["batch"], options["rank"]) == (4, 2, 2)
    assert None not in options.values(), "a default that was left out cannot be known later"
    assert duck.losses["steps"] == 4
    for tool in ("torch", "diffusers", "transformers", "peft"):
        assert duck.tools[tool] == version(tool)
    assert tiny_registry.runs() == []
    assert tiny_registry.verify() == []


def test_learning_the_same_twice_gives_the_same_bytes(
    base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path
) -> None:
    other = Registry.create(tmp_path / "other", tiny_registry.base)
    first = learn_direct(tiny_registry, base, task(pictures))
    assert learn_direct(other, base, task(pictures)).blob == first.blob
    third = Registry.create(tmp_path / "third", tiny_registry.base)
    assert learn_direct(third, base, task(pictures, seed=1)).blob != first.blob


def test_names_and_times_of_the_pictures_do_not_matter(
    base: Base, tiny_registry: Registry, pictures: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in pictures.iterdir():
        shutil.copy(path, renamed / f"{9 - int(path.stem)}{path.suffix}")
    first = learn_direct(tiny_registry, base, task(pictures))
    other = Registry.create(tmp_path / "other", tiny_registry.base)
    assert learn_direct(other, base, task(renamed)).blob == first.blob


def test_a_second_concept_changes_no_byte_of_the_first_nor_its_pictures(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    where = ("--registry", tiny_registry.root)
    draw = ("generate", "-p", "a photo of <dog>", "-n", 2, "--steps", 2, *where, "-q", "-o")
    assert cidm("learn", "dog", pictures, *where, *FAST).code == 0
    before = files_of(tiny_registry.root)
    assert cidm(*draw, "before").code == 0
    cats = tiny.save_pictures(pictures.parent / "cats", ("a photo of a cat",) * 3, seed=2)
    assert cidm("learn", "cat", cats, *where, *FAST).code == 0
    assert cidm(*draw, "after").code == 0
    after = files_of(tiny_registry.root)
    assert {name: after.get(name) for name in before} == before
    assert len(after) == len(before) + 2, "a record and a blob"
    assert files_of(Path("after")) == files_of(Path("before"))


def test_the_base_is_as_it_was_after_a_training(base: Base, tiny_registry: Registry, pictures: Path) -> None:
    parts = {"unet": base.denoiser, "text": base.encoders[0], "vae": base.vae}
    attention = {name: type(p) for name, p in base.denoiser.attn_processors.items()}
    implementation = base.encoders[0].config._attn_implementation
    before = {k: {n: t.clone() for n, t in part.state_dict().items()} for k, part in parts.items()}
    learn_direct(tiny_registry, base, task(pictures))
    for k, part in parts.items():
        after = part.state_dict()
        assert list(after) == list(before[k])
        assert all(after[n].equal(t) for n, t in before[k].items())
        assert not any(p.requires_grad for p in part.parameters())
    assert {name: type(p) for name, p in base.denoiser.attn_processors.items()} == attention
    assert base.encoders[0].config._attn_implementation == implementation


def test_both_learning_rates_fall_evenly_to_zero(
    base: Base, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    sound = learn.train_step

    def spy(trainee: training.Trainee, *rest: Any) -> float:
        loss = sound(trainee, *rest)
        rates.append([group["lr"] for group in trainee.optimizer.param_groups])
        return loss

    monkeypatch.setattr(learn, "train_step", spy)
    learn_direct(tiny_registry, base, task(pictures, lr=0.4, token_lr=0.8))
    assert torch.tensor(rates).allclose(torch.tensor([[0.4, 0.8], [0.3, 0.6], [0.2, 0.4], [0.1, 0.2]]))


def test_update_learns_a_second_version_beside_the_first(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    where = ("--registry", tiny_registry.root)
    assert cidm("learn", "dog", pictures, *where, *FAST).code == 0
    before = files_of(tiny_registry.root)
    ran = cidm("learn", "dog", pictures, *where, *FAST, "--seed", 5, "--update")
    assert ran.code == 0, ran.err
    old, new = tiny_registry.records(all_versions=True)
    assert (new.version, new.origin, new.against) == (2, old.sequence, Against.of([old], 1))
    assert tiny_registry.records() == [new]
    after = files_of(tiny_registry.root)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("name", "noun"), [("dog2", "dog"), ("duck_toy", "duck toy"), ("Red-cat_07", "Red cat"), ("cat", "cat")]
)
def test_the_class_noun_comes_from_the_name(
    name: str, noun: str, cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    for path in pictures.glob("*.txt"):
        path.unlink()
    ran = cidm("learn", name, pictures, "--registry", tiny_registry.root, *FAST, "--steps", 1)
    assert ran.code == 0, ran.err
    assert tiny_registry.get(name).class_noun == noun


def test_a_name_without_a_noun_needs_a_class(cidm: Cidm, tiny_registry: Registry, pictures: Path) -> None:
    for path in pictures.glob("*.txt"):
        path.unlink()
    ran = cidm("learn", "7", pictures, "--registry", tiny_registry.root)
    assert ran.code == ExitCode.USAGE
    assert "--class" in ran.error


def test_dry_run_says_what_it_would_do_and_writes_nothing(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    before = files_of(tiny_registry.root)
    arguments = ("learn", "rex", pictures, "--class", "dog", "--registry", tiny_registry.root, *FAST)
    plan = cidm(*arguments, "--dry-run", "--json").answer["plan"]
    assert files_of(tiny_registry.root) == before
    assert (plan["images"], plan["older"], plan["steps"], plan["batch"]) == (3, 0, 4, 2)
    assert (plan["layers"], plan["sites"]) == (7, 28)
    assert plan["captions"] == ["a photo of a <rex>"] * 3
    assert plan["seconds"] > 0
    assert cidm(*arguments).code == 0
    weights = tiny_registry.read_blob(tiny_registry.get("rex").blob)
    assert abs(len(weights) - 4 * plan["parameters"]) < 10_000, "what was planned is what is trained"


def test_a_plan_ends_at_the_step_where_it_is_stopped(tiny_registry: Registry, pictures: Path) -> None:
    before, seen = files_of(tiny_registry.root), []

    def stop(label: str, done: int, total: int, numbers: Any) -> None:
        seen.append((label, done, total))
        if label == "trying steps" and done == 1:
            raise CidmError("stopped", code=ExitCode.INTERRUPTED)

    workspace = Workspace.open(tiny_registry.root, on_progress=stop)
    with pytest.raises(CidmError, match="stopped"):
        workspace.plan(workspace.task("rex", pictures, noun="dog", steps=4, batch=2))
    assert seen[-1] == ("trying steps", 1, 3)
    assert files_of(tiny_registry.root) == before


def test_pictures_without_a_caption_use_the_template(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    for path in pictures.glob("*.txt"):
        path.unlink()
    ran = cidm(
        "learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--dry-run", "--json",
        "--caption", "a red {noun} in snow",
    )  # fmt: skip
    assert ran.answer["plan"]["captions"] == ["a red <dog> in snow"] * 3


# What kind of thing it is, and whether there is one


def test_an_update_keeps_its_noun_and_says_where_it_changes(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    learn_it = ("learn", "rex", pictures, "--registry", tiny_registry.root, *FAST, "--steps", 1)
    assert cidm(*learn_it, "--class", "dog").code == 0
    assert cidm(*learn_it, "--update").code == 0
    assert tiny_registry.get("rex").class_noun == "dog"
    ran = cidm(*learn_it, "--update", "--class", "cat", "--style")
    assert ran.code == 0
    assert "warning: the class noun of <rex> was 'dog' and becomes 'cat'" in ran.err
    assert "warning: <rex> was an object and becomes a style" in ran.err


def test_the_noun_that_captions_agree_on_is_taken_and_told(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    ran = cidm("learn", "bello", pictures, "--registry", tiny_registry.root, *FAST, "--steps", 1)
    assert ran.code == 0, ran.err
    assert tiny_registry.get("bello").class_noun == "dog"
    assert "the class noun of <bello> is 'dog', by the captions" in ran.err


def test_a_training_too_short_for_its_pictures_is_told(pictures: Path) -> None:
    short, enough = task(pictures, steps=1, batch=2), task(pictures, steps=2, batch=2)
    assert "3 images, of which 1 steps see 2" in unseen(short.dataset, short.options)[0]
    assert unseen(enough.dataset, enough.options) == []


# Captions


def test_a_caption_without_the_noun_still_names_the_concept(tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "p", ("a photo of the beach", "two dogs", "1 < 2 <cat>"))
    assert sorted(placed_captions(task(folder))) == sorted(
        [r"<dog>, a photo of the beach", "two <dog>", r"<dog>, 1 \< 2 \<cat>"]
    )


def test_a_caption_too_long_for_the_encoder_keeps_the_concept(base: Base, tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "p", ("a photo of " * 20 + "dog", "a dog", "dog " + "a " * 40))
    notes: list[str] = []
    long = task(folder)
    for tokens in caption_tokens(base, long, Events(on_note=notes.append)):
        assert tokens.lost == ()
        assert [(name, k) for _, name, k in tokens.slots] == [("dog", 0), ("dog", 1)]
    assert len(notes) == 2
    assert any("0.png" in note and "only the concept is kept" in note for note in notes)
    assert any("2.png" in note and "cut" in note for note in notes)


def test_a_dry_run_says_what_the_run_will_read(cidm: Cidm, tiny_registry: Registry, tmp_path: Path) -> None:
    late, cut = "a " * 60 + "dog", "a red dog " + "on the beach " * 20
    folder = tiny.save_pictures(tmp_path / "p", (late, cut))
    ran = cidm("learn", "dog", folder, "--registry", tiny_registry.root, *FAST, "--dry-run", "--json")
    bare, kept = sorted(ran.answer["plan"]["captions"])
    assert bare == "<dog>"
    assert kept.startswith("a red <dog> on the beach")
    assert "0.png: caption too long for the text encoder; only the concept is kept" in ran.err
    assert "1.png: caption too long for the text encoder; cut" in ran.err


def test_what_a_dry_run_shows_is_what_is_trained(base: Base, tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "p", ("a red dog " + "on the beach " * 20,))
    (read,) = read_captions(base, task(folder))
    (tokens,) = caption_tokens(base, task(folder), Events())
    assert tokens == read.tokens
    assert not tokens.cut
    again = read_captions(base, replace_captions(task(folder), read.prompt))
    assert again[0].tokens == tokens
    assert again[0].left_out == ""


def replace_captions(work: Task, caption: str) -> Task:
    (example,) = work.dataset.examples
    return replace(work, dataset=replace(work.dataset, examples=(replace(example, caption=caption),)))


@pytest.mark.parametrize(
    "said", ["a photo of <pup> on the beach", "a [pup] dog", "pup in the snow", "sks dog"]
)
def test_the_place_that_is_marked_is_the_concept(
    said: str, base: Base, tiny_registry: Registry, tmp_path: Path
) -> None:
    folder = tiny.save_pictures(tmp_path / "p", (said,) * 3)
    slow, fast = (
        concept_weights(tiny_registry, base, learn_direct(tiny_registry, base, work)).tokens
        for work in (
            task(folder, name="pup", steps=1, token_lr=0.01),
            task(folder, name="pup", steps=1, token_lr=5.0, update=True),
        )
    )
    assert not slow.equal(fast), "the tokens were in no caption"
    assert all(prompt.count("<pup>") == 1 for prompt in placed_captions(task(folder, name="pup")))


def test_a_class_noun_too_long_for_the_encoder_is_refused(
    cidm: Cidm, tiny_registry: Registry, pictures: Path
) -> None:
    ran = cidm("learn", "rex", pictures, "--class", "z" * 40, "--registry", tiny_registry.root, *FAST)
    assert ran.code == ExitCode.USAGE
    assert "--class" in ran.error
    assert tiny_registry.runs() == [], "it can never be finished"


def test_the_concept_stands_where_the_noun_stood(base: Base, tmp_path: Path) -> None:
    folder = tiny.save_pictures(tmp_path / "p", ("a photo of a dog on the beach",))
    (tokens,) = caption_tokens(base, task(folder), Events())
    plain = tokenize(base, ["a photo of a dog on the beach"])
    assert tokens.slots == ((5, "dog", 0), (6, "dog", 1))
    assert tokens.ids[:5] == plain.ids[:5]
    assert tokens.ids[7:10] == plain.ids[6:9]


# Masks


def test_only_what_a_mask_shows_counts_in_the_loss(
    base: Base, tiny_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.save_pictures(tmp_path / "p", ("a dog",))
    seen = []
    sound = training.denoising_loss

    def spy(
        prediction: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor | None, weights: None
    ) -> torch.Tensor:
        seen.append((prediction.detach(), wanted, mask))
        return sound(prediction, wanted, mask, weights)

    monkeypatch.setattr(training, "denoising_loss", spy)
    plain = learn_direct(tiny_registry, base, task(folder, crop=False, steps=1)).losses["first"]
    mask = Image.new("L", (80, 72), 0)
    mask.paste(255, (0, 0, 40, 72))
    mask.save(folder / "0-mask.png")
    work = task(folder, crop=False, steps=1, name="left")
    masked = learn_direct(tiny_registry, base, work).losses["first"]
    (prediction, wanted, without), (_, _, given) = seen
    assert without is None
    assert given is not None
    error = (prediction - wanted) ** 2
    assert plain == pytest.approx(error.mean().item())
    assert masked == pytest.approx((error * given).sum().item() / (4 * given.sum().item()), rel=1e-5)
    assert abs(masked - plain) > 1e-4


def test_a_mask_lets_cells_through_where_it_is_white(base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "one.png")
    Image.new("RGB", (64, 64), "blue").save(folder / "two.png")
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    mask.save(folder / "one-mask.png")
    work = task(folder, crop=False)
    data = batches.prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
    assert data.masks is not None
    masked = [example.mask is not None for example in work.dataset.examples].index(True)
    assert data.masks[masked][0, 0, :, :3].min() > 0.95
    assert data.masks[masked][0, 0, :, 5:].max() < 0.05
    assert data.masks[1 - masked].min() == 1, "a picture without a mask is learned whole"
