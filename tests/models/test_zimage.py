"""Z-Image: read, drawn, trained and taken apart as diffusers' own pipeline, training script and loader do it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

import tiny_qwen
import tiny_zimage
from cidm_cli.bases import zimage as facts
from cidm_cli.errors import CidmError
from cidm_cli.formats.lora import joined, parted
from cidm_cli.formats.lora_file import naming_of, read_lora
from cidm_cli.learn.batches import Batch
from cidm_cli.learn.step import denoising, training
from cidm_cli.machine.computing import machine
from cidm_cli.models import sampling, text, zimage
from cidm_cli.models.base import Base, load, outline
from cidm_cli.models.family import Rows, Source
from cidm_cli.models.identity import identify, settings_folder
from cidm_cli.models.lora import merged
from cidm_cli.models.opening import lora_fit
from cidm_cli.options.computing import Computing
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.learn import resolve_learn
from joint import TIME, drawn, factors, halves, noise, products, sources, words

SIDE = tiny_zimage.PIXELS
FULL = 32
"""Of so many positions a text, and the picture, is filled up to a multiple."""
UNEVEN = (SIDE + 8, SIDE)
"""A picture whose cells, 80, are filled up."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_zimage.save(tmp_path_factory.mktemp("z-image") / "base")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load(folder, device=torch.device("cpu"), compute=torch.float32)


@pytest.fixture
def stock(folder: Path) -> ZImagePipeline:
    return stocked(folder)


def stocked(folder: Path) -> ZImagePipeline:
    pipe = ZImagePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# What is read


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["a photo of a dog in snow", ""])
def test_prompts_are_read_as_the_stock_pipeline_reads_them_and_zeros_are_behind(
    base: Base, stock: ZImagePipeline, prompt: str
) -> None:
    (theirs,), _ = stock.encode_prompt(prompt, max_sequence_length=tiny_qwen.LENGTH)
    (ours,) = words(base, prompt)
    torch.testing.assert_close(ours[: len(theirs)], theirs, rtol=1e-6, atol=1e-6)
    assert 0 < len(theirs) < len(ours)
    assert not ours[len(theirs) :].any()


@torch.no_grad()
def test_a_text_is_as_long_as_it_is_with_a_concepts_rows_in_it(base: Base) -> None:
    prompt = text.tokenize(base, ["a photo of a ", text.Slot("x", 3, "dog"), " in snow"])
    own = 1 + torch.arange(3 * 16.0).view(1, 3, 16)
    (found,) = text.encode(base, [prompt], {"x": own})[0]
    (plain,) = words(base, "a photo of a dog in snow")
    place = [position for position, _, _ in prompt.slots]
    assert torch.equal(found[place], own[0])
    assert torch.equal(found[: place[0]], plain[: place[0]])
    assert torch.equal(found[place[-1] + 1 :], plain[place[0] + 1 : -2])
    lengths = [len(rows) for rows in zimage.said(base, torch.stack([found, plain]))]
    assert lengths == [int(plain.any(-1).sum()) + 2, int(plain.any(-1).sum())]


# What is drawn


@torch.no_grad()
@pytest.mark.parametrize("distilled", [False, True])
def test_pictures_are_those_of_the_stock_pipeline(tmp_path: Path, distilled: bool) -> None:
    place = tiny_zimage.save(tmp_path / "z-image", distilled=distilled)
    base = load(place, device=torch.device("cpu"), compute=torch.float32)
    assert base.family.name == identify(str(place)).kind == ("z-image-turbo" if distilled else "z-image")
    options = resolve_draw({"steps": 3}, base.family.name, base.pixels)
    contexts = [[words(base, prompt)] for prompt in ("a dog in snow", "")]
    start = sampling.initial_noise(base, [5], UNEVEN)
    latents = sampling.denoise(
        base, sampling.guided(base, *contexts, options.guidance), start, sampler=options.sampler, steps=3
    )
    (ours,) = sampling.decode(base, latents)
    theirs = stocked(place)(
        prompt="a dog in snow", latents=start, width=UNEVEN[0], height=UNEVEN[1], num_inference_steps=3,
        # The pipeline counts from the prompt's prediction, and with 0 leaves the other one out.
        guidance_scale=options.guidance - 1, max_sequence_length=tiny_qwen.LENGTH,
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    assert np.asarray(ours).std() > 5


def test_turbo_takes_neither_a_negative_prompt_nor_guidance() -> None:
    for asked in ({"negative": "rain"}, {"guidance": 3.0}):
        with pytest.raises(CidmError, match="knows no guidance"):
            resolve_draw(asked, "z-image-turbo", SIDE)
    assert resolve_draw({}, "z-image-turbo", SIDE).steps == 8


def test_a_model_on_turbos_schedule_that_says_so_is_guided(tmp_path: Path) -> None:
    place = tiny_zimage.save(tmp_path / "turbo", distilled=True)
    index = place / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "is_distilled": False}))
    assert identify(str(place)).kind == "z-image"


def test_a_memory_that_the_base_does_not_fit_is_refused_and_the_others_have_plans() -> None:
    def planned(size: Any, work: str) -> bool:
        return machine(Computing(vram=size), "z-image", work, lambda note: None).offload

    for work in ("learn", "draw"):
        for size in (8, 12):
            with pytest.raises(CidmError, match="does not fit"):
                planned(size, work)
        assert all(planned(size, work) for size in (16, 24))
    for size in (16, 24):
        resolve_learn(facts.FAMILY.memory["learn"][size].options, "z-image")
        resolve_draw(facts.FAMILY.memory["draw"][size].options, "z-image", SIDE)


# What is trained


def test_a_training_step_is_that_of_the_published_script(base: Base) -> None:
    """Loss and gradients of LoRA and tokens, against the step as diffusers' training script writes it."""
    options = resolve_learn({"rank": 2}, "z-image")
    clean, epsilon = noise(base, 1, 2), noise(base, 2, 2)
    times = torch.tensor([120, 800])
    with training(base, "dog", "dog", options) as trainee:
        for number, (up, _) in enumerate(trainee.factors.values()):
            torch.nn.init.normal_(up, std=0.1, generator=torch.Generator().manual_seed(number))
        given = [trainee.tokens, *(f for pair in trainee.factors.values() for f in pair)]
        count = trainee.tokens.shape[1]
        prompts = [
            text.tokenize(base, [before, text.Slot("dog", count, "dog")])
            for before in ("a ", "in snow a photo of a photo of a photo of a ")
        ]
        batch = Batch(clean, epsilon, times, tuple(prompts), (0, 1), None)
        ours = denoising(trainee, batch)
        own = torch.autograd.grad(ours, given)

        scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
        # Its entries begin with the most noise, ours with the least.
        indices = 999 - times
        timesteps, sigmas = scheduler.timesteps[indices], scheduler.sigmas[indices].view(-1, 1, 1, 1)
        noisy = (1.0 - sigmas) * clean + sigmas * epsilon
        embeds = [rows[rows.any(-1)] for rows in text.encode(base, prompts, {"dog": trainee.tokens})[0]]
        assert len({-(-len(rows) // FULL) for rows in embeds}) == 2, "of different lengths"
        predicted = base.denoiser(
            list(noisy.unsqueeze(2).unbind(dim=0)), (1000 - timesteps) / 1000, embeds, return_dict=False
        )[0]
        predicted = -torch.stack(predicted, dim=0).squeeze(2)
        weighting = compute_loss_weighting_for_sd3(weighting_scheme="none", sigmas=sigmas)
        target = epsilon - clean
        theirs = (weighting.float() * (predicted.float() - target.float()) ** 2).reshape(2, -1).mean(1).mean()
        wanted = torch.autograd.grad(theirs, given)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, other in zip(own, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    assert all(gradient.abs().max() > 1e-6 for gradient in own)


def test_noise_levels_are_drawn_as_the_published_script_draws_them(base: Base) -> None:
    u = compute_density_for_timestep_sampling("none", 4096, generator=torch.Generator().manual_seed(0))
    theirs = (u * 1000).long()
    assert theirs.float().mean() == pytest.approx(500, abs=20)
    assert (theirs.min(), theirs.max()) <= (5, 999), "evenly from all entries"
    with training(base, "dog", "dog", resolve_learn({"rank": 2}, "z-image")) as trainee:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
        torch.testing.assert_close(trainee.schedule.times.flip(0), scheduler.timesteps)
        torch.testing.assert_close(1 - trainee.schedule.signal.flip(0), scheduler.sigmas)


def test_checkpointing_changes_no_gradient(base: Base) -> None:
    found = []
    for checkpointing in (False, True):
        options = resolve_learn({"rank": 2, "checkpointing": checkpointing}, "z-image")
        with training(base, "dog", "dog", options) as trainee:
            assert base.denoiser.is_gradient_checkpointing is checkpointing
            prompt = text.tokenize(base, ["a ", text.Slot("dog", 2, "dog")])
            batch = Batch(noise(base, 1), noise(base, 2), torch.tensor([500]), (prompt,), (0,), None)
            ups = [up for up, _ in trainee.factors.values()]
            found.append(torch.autograd.grad(denoising(trainee, batch), [trainee.tokens, *ups]))
    for kept, again in zip(*found, strict=True):
        torch.testing.assert_close(kept, again)


# Regions

LONG = "in snow a photo of a photo of a photo of a photo"


@torch.no_grad()
def test_without_patches_a_row_is_what_its_source_gives_by_itself(base: Base) -> None:
    given = sources(base, "a dog", LONG)
    assert [len(rows) > FULL for rows in zimage.said(base, torch.stack([s.contexts[0] for s in given]))] == [
        False, True,
    ]  # fmt: skip
    latents = noise(base, 3, 2, UNEVEN)
    found = drawn(base, given, Rows((0, 1), (), lambda grid: torch.zeros(0, 2, *grid)), latents)
    for row, source in enumerate(given):
        with merged(base.denoiser, products(dict(source.factors))):
            alone = base.predict(latents[row : row + 1], TIME, [source.contexts[0][None]])
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_patches_of_one_source_all_over_are_that_source_however_long_the_others_are(base: Base) -> None:
    given, latents = sources(base, LONG, "a cat in snow"), noise(base, 3)
    rows = Rows((0,), (1,), lambda grid: torch.ones(1, 1, grid[1], grid[0]))
    torch.testing.assert_close(
        drawn(base, given, rows, latents),
        drawn(base, given[1:], Rows((0,), (), lambda grid: torch.zeros(0)), latents),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


@torch.no_grad()
def test_a_region_hears_its_own_text_and_nobody_elses(base: Base) -> None:
    given, cells = sources(base, "a photo", "a dog", LONG), SIDE // 4
    cache = base.regions.cached(base, given)
    arranged = base.regions.arranged(base, cache, Rows((0,), (1, 2), halves), (2 * cells, 2 * cells))
    tokens = arranged.tokens
    mask, spoken = arranged.mask[0, 0].exp(), 3 * tokens
    assert tokens == 2 * FULL
    of, there = torch.arange(3).repeat_interleave(tokens), torch.ones(spoken)
    there[FULL:tokens] = there[tokens + FULL : 2 * tokens] = 0
    assert torch.equal(mask[:spoken, :spoken], (of[:, None] == of) * there)
    left = (torch.arange(cells**2) % cells < cells // 2)[:, None]
    wanted = torch.where(left, of == 1, of == 2).float()
    assert torch.equal(mask[spoken:, :spoken], wanted * there)
    assert torch.equal(mask[:spoken, spoken:], wanted.T)
    assert (mask[spoken:, spoken:] == 1).all(), "the picture sees itself, or it would be two"
    shares = arranged.shares[0, spoken:]
    assert torch.equal(shares, torch.where(left, torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])))


@torch.no_grad()
def test_another_concept_in_one_region_changes_that_region_most(base: Base) -> None:
    first, latents = sources(base, "a photo", "a dog", "a cat", targets="attn+ff"), noise(base, 3)
    second = [*first[:2], Source([words(base, "snow")[0]], factors(base, 77, targets="attn+ff"))]
    rows = Rows((0,), (1, 2), halves)
    change = (drawn(base, first, rows, latents) - drawn(base, second, rows, latents)).abs()
    left, right = (half.mean() for half in change.chunk(2, -1))
    assert right > 1.5 * left, "the picture is one: what is beside it feels some of it"


@torch.no_grad()
def test_it_computes_in_half_as_in_full(folder: Path, base: Base) -> None:
    half = load(folder, device=torch.device("cpu"), compute=torch.bfloat16)
    # As a GPU has it.
    half.denoiser.to(torch.bfloat16)
    given, latents = sources(base, "a photo", "a dog", LONG), noise(base, 3)
    rows = Rows((0,), (1, 2), halves)
    for ours, full in (
        (
            half.predict(latents, TIME, [given[1].contexts[0][None]]),
            base.predict(latents, TIME, [given[1].contexts[0][None]]),
        ),
        (drawn(half, given, rows, latents), drawn(base, given, rows, latents)),
    ):
        assert (ours - full).norm() < 0.1 * full.norm()


# Names and files


def test_layers_sites_and_shapes_at_full_size() -> None:
    base = outline(settings_folder("z-image"))
    model: Any = base.denoiser
    assert len(zimage.layers(model)) == len(zimage.groups(model)) == 2 + 2 + 30
    assert set(zimage.groups(model)) == {0}
    sites = zimage.sites(model, "attn")
    assert sites[:4] == tuple(f"layers.0.attention.{leaf}" for leaf in ("to_q", "to_k", "to_v", "to_out.0"))
    assert (len(sites), len(zimage.sites(model, "attn+ff"))) == (30 * 4, 30 * 7)
    assert {base.shapes[site] for site in sites} == {(3840, 3840)}
    assert base.shapes["layers.29.feed_forward.w2"] == (3840, 10240)
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(6.15, rel=0.01)
    assert sum(p.numel() for p in base.encoders[0].parameters()) / 1e9 == pytest.approx(4.02, rel=0.01)
    linear = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(zimage.KINDS)
    }
    assert linear == set(zimage.site_layers(model)), "every linear layer of a block has a place"
    assert (base.pixels, base.factor, base.multiple) == (1024, 8, 16)


def test_the_original_codes_names_are_those_that_diffusers_translates_back(base: Base) -> None:
    names, given = base.architecture.names(base.denoiser), factors(base, 5)
    theirs = joined(given, names.native, base.shapes)
    assert {name for name in theirs if name.startswith("layers.1.")} == {
        "layers.1.attention.qkv", "layers.1.attention.out", "layers.1.adaLN_modulation.0",
        *(f"layers.1.feed_forward.w{n}" for n in (1, 2, 3)),
    }  # fmt: skip
    kohya = {
        f"lora_unet_{name.replace('.', '_')}.lora_{side}.weight": tensor
        for name, (up, down) in theirs.items()
        for side, tensor in (("down", down), ("up", up))
    }
    state = ZImagePipeline.lora_state_dict(dict(kohya))
    for site, product in products(given).items():
        down, up = (state[f"transformer.{site}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(up @ down, product)
    dotted = {
        f"diffusion_model.{name}.lora_{side}.weight": tensor
        for name, (up, down) in theirs.items()
        for side, tensor in (("A", down), ("B", up))
    }
    back = parted(dotted, names.fused, "x")
    for site in ("layers.1.attention.to_k", "context_refiner.0.attention.to_v"):
        up, down = (back[f"diffusion_model.{site}.lora_{side}.weight"] for side in "BA")
        torch.testing.assert_close(up @ down, products(given)[site])


@pytest.mark.parametrize(
    ("named", "sides"),
    [
        ("diffusion_model.{}", ("lora_A", "lora_B")),
        ("transformer.{}", ("lora_A", "lora_B")),
        ("lora_unet_{}", ("lora_down", "lora_up")),
    ],
)
def test_files_of_other_trainers_are_read_under_diffusers_names(
    base: Base, named: str, sides: tuple[str, str]
) -> None:
    given, tensors = factors(base, 5), {}
    for site, (up, down) in given.items():
        name = named.format(site.replace(".", "_") if named.startswith("lora_unet") else site)
        tensors |= {f"{name}.{side}.weight": t for side, t in zip(sides, (down, up), strict=True)}
    kind = naming_of(tensors, "x")
    found = read_lora(kind, tensors, {}, {}, lora_fit(base), "x")
    for site, product in products(given).items():
        module = found.modules[site]
        torch.testing.assert_close(module.scale * module.up @ module.down, product)
    assert found.modules.keys() == given.keys()


def test_a_model_that_looks_at_images_too_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "omni")
    config = copied / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "siglip_feat_dim": 8}))
    with pytest.raises(CidmError, match="Omni"):
        identify(str(copied))
