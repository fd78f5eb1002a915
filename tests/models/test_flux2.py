"""FLUX.2 klein: read, drawn, trained and taken apart as diffusers' own pipeline, training script and loader do it."""

from __future__ import annotations

import json
import shutil
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

import tiny_flux2
import tiny_qwen
from cidm_cli.bases import flux2 as facts
from cidm_cli.errors import CidmError
from cidm_cli.formats.lora import joined, parted
from cidm_cli.learn.batches import Batch
from cidm_cli.learn.step import denoising, training
from cidm_cli.machine.computing import machine
from cidm_cli.method.lowrank import apart
from cidm_cli.models import flux2, flux2_regions, qwen, sampling, text
from cidm_cli.models.base import Base, load
from cidm_cli.models.family import Rows, Source
from cidm_cli.models.identity import identify
from cidm_cli.models.lora import merged
from cidm_cli.options.computing import Computing
from cidm_cli.options.draw import resolve_draw
from cidm_cli.options.learn import resolve_learn
from joint import TIME, drawn, factors, halves, noise, products, sources, words

SIDE = tiny_flux2.PIXELS
CELLS = SIDE // 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_flux2.save(tmp_path_factory.mktemp("klein") / "base")


@pytest.fixture(scope="module")
def base(folder: Path) -> Base:
    return load(folder, device=torch.device("cpu"), compute=torch.float32)


@pytest.fixture
def stock(folder: Path) -> Flux2KleinPipeline:
    pipe = Flux2KleinPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# What is read


@torch.no_grad()
@pytest.mark.parametrize("prompt", ["a photo of a dog in snow", "dog", ""])
def test_prompts_are_read_as_the_stock_pipeline_reads_them(
    base: Base, stock: Flux2KleinPipeline, prompt: str
) -> None:
    theirs, _ = stock.encode_prompt(prompt, max_sequence_length=tiny_qwen.LENGTH)
    torch.testing.assert_close(words(base, prompt), theirs, rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    ("before", "noun", "after"), [("a photo of a ", "dog", " in snow"), ("", "teapot", "")]
)
def test_a_concepts_rows_stand_where_its_noun_was_and_all_others_stay(
    base: Base, before: str, noun: str, after: str
) -> None:
    count = 1 + len(base.architecture.pieces(base, noun))
    prompt = text.tokenize(base, [part for part in (before, text.Slot("x", count, noun), after) if part])
    own = torch.arange(count * 48.0).view(1, count, 48)
    found = text.encode(base, [prompt], {"x": own})[0][0]
    plain = words(base, f"{before}{noun}{after}")[0]
    place = [position for position, _, _ in prompt.slots]
    assert place == list(range(place[0], place[0] + count))
    assert torch.equal(found[place], own[0])
    assert torch.equal(found[: place[0]], plain[: place[0]])
    # One row more than the noun has: what is behind moves by one, and the last one goes.
    assert torch.equal(found[place[-1] + 1 :], plain[place[-1] : -1])
    assert prompt.words == len(found[prompt.body])


def test_prompts_that_do_not_fit_say_what_they_lose(base: Base) -> None:
    room = base.architecture.room(base)
    prompt = text.tokenize(base, ["x" * (room - 1), text.Slot("dog", 2, "dog"), "y"])
    assert (prompt.cut, prompt.lost, prompt.words, prompt.slots) == (True, ("dog",), room - 1, ())
    assert not text.tokenize(base, ["x" * room]).cut


def test_the_encoder_is_asked_once_for_each_prompt_and_never_for_gradients(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = load(folder, device=torch.device("cpu"), compute=torch.float32)
    asked = []
    forward = qwen.Reader.forward
    monkeypatch.setattr(
        qwen.Reader, "forward", lambda self, *told: asked.append(told) or forward(self, *told)
    )
    prompt = text.tokenize(fresh, ["a ", text.Slot("x", 1, "dog")])
    own = torch.ones(1, 1, 48, requires_grad=True)
    for _ in range(3):
        text.encode(fresh, [prompt, prompt], {"x": own})[0].sum().backward()
    assert len(asked) == 1
    assert own.grad is not None
    assert (own.grad == 6).all()


# What is drawn


@pytest.mark.parametrize(("cells", "steps"), [(64, 4), (4096, 50), (6400, 28)])
def test_noise_levels_are_shifted_as_published(cells: int, steps: int) -> None:
    assert log(facts.shift(cells, steps)) == pytest.approx(compute_empirical_mu(cells, steps))


@torch.no_grad()
@pytest.mark.parametrize("distilled", [False, True])
def test_pictures_are_those_of_the_stock_pipeline(tmp_path: Path, distilled: bool) -> None:
    place = tiny_flux2.save(tmp_path / "klein", distilled=distilled)
    base = load(place, device=torch.device("cpu"), compute=torch.float32)
    assert base.family.name == identify(str(place)).kind
    assert base.family.guided is not distilled
    options = resolve_draw({"steps": 3}, base.family.name, base.pixels)
    contexts = [[words(base, prompt)] for prompt in ("a dog in snow", "")]
    start = sampling.initial_noise(base, [5], options.size)
    latents = sampling.denoise(
        base, sampling.guided(base, *contexts, options.guidance), start, sampler=options.sampler, steps=3
    )
    (ours,) = sampling.decode(base, latents)
    pipe = Flux2KleinPipeline.from_pretrained(place)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt="a dog in snow", latents=start, height=SIDE, width=SIDE, num_inference_steps=3,
        guidance_scale=4.0, max_sequence_length=tiny_qwen.LENGTH,
    ).images[0]  # fmt: skip
    apart_by = np.abs(np.asarray(ours, int) - np.asarray(theirs, int))
    assert apart_by.max() <= 1
    assert np.asarray(ours).std() > 5


def test_a_distilled_base_takes_neither_a_negative_prompt_nor_guidance() -> None:
    for asked in ({"negative": "rain"}, {"guidance": 3.0}):
        with pytest.raises(CidmError, match="knows no guidance"):
            resolve_draw(asked, "flux2-klein-distilled", SIDE)


@torch.no_grad()
def test_pictures_come_back_from_their_latents(base: Base) -> None:
    pixels = torch.rand(1, 3, SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = base.architecture.to_latents(base, pixels)
    assert mean.shape == std.shape == (1, 16, CELLS, 2 * CELLS)
    theirs = base.vae.decode(base.vae.encode(pixels).latent_dist.mode()).sample
    torch.testing.assert_close(base.architecture.to_pixels(base, mean), theirs, rtol=1e-4, atol=1e-4)


def test_a_memory_that_the_base_does_not_fit_is_refused_and_the_others_have_plans() -> None:
    def planned(size: Any, work: str) -> bool:
        return machine(Computing(vram=size), "flux2-klein", work, lambda note: None).offload

    for work in ("learn", "draw"):
        with pytest.raises(CidmError, match="does not fit"):
            planned(8, work)
        assert all(planned(size, work) for size in (12, 16, 24))
    for size in (12, 16, 24):
        resolve_learn(facts.FAMILY.memory["learn"][size].options, "flux2-klein")
        resolve_draw(facts.FAMILY.memory["draw"][size].options, "flux2-klein", SIDE)


# What is trained


def test_a_training_step_is_that_of_the_published_script(base: Base, stock: Flux2KleinPipeline) -> None:
    """Loss and gradients of LoRA and tokens, against the step as diffusers' training script writes it."""
    options = resolve_learn({"rank": 2}, "flux2-klein")
    clean, epsilon = noise(base, 1, 2), noise(base, 2, 2)
    times = torch.tensor([120, 800])
    with training(base, "dog", "dog", options) as trainee:
        for number, (up, _) in enumerate(trainee.factors.values()):
            torch.nn.init.normal_(up, std=0.1, generator=torch.Generator().manual_seed(number))
        given = [trainee.tokens, *(f for pair in trainee.factors.values() for f in pair)]
        prompt = text.tokenize(base, ["a ", text.Slot("dog", trainee.tokens.shape[1], "dog")])
        batch = Batch(clean, epsilon, times, (prompt,) * 2, (0, 1), None)
        ours = denoising(trainee, batch)
        own = torch.autograd.grad(ours, given)

        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        # Its entries begin with the most noise, ours with the least.
        indices = 999 - times
        timesteps, sigmas = scheduler.timesteps[indices], scheduler.sigmas[indices].view(-1, 1, 1, 1)
        noisy = (1.0 - sigmas) * clean + sigmas * epsilon
        ids = stock._prepare_latent_ids(clean)
        embeds = text.encode(base, [prompt] * 2, {"dog": trainee.tokens})[0]
        predicted = base.denoiser(
            hidden_states=stock._pack_latents(noisy), timestep=timesteps / 1000, guidance=None,
            encoder_hidden_states=embeds, txt_ids=stock._prepare_text_ids(embeds), img_ids=ids,
            return_dict=False,
        )[0]  # fmt: skip
        predicted = stock._unpack_latents_with_ids(predicted, ids)
        theirs = ((predicted.float() - (epsilon - clean).float()) ** 2).reshape(2, -1).mean(1).mean()
        wanted = torch.autograd.grad(theirs, given)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for mine, other in zip(own, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    assert all(gradient.abs().max() > 1e-6 for gradient in own[:1])


def test_checkpointing_changes_no_gradient(base: Base) -> None:
    found = []
    for checkpointing in (False, True):
        options = resolve_learn({"rank": 2, "checkpointing": checkpointing}, "flux2-klein")
        with training(base, "dog", "dog", options) as trainee:
            assert base.denoiser.is_gradient_checkpointing is checkpointing
            prompt = text.tokenize(base, ["a ", text.Slot("dog", 2, "dog")])
            batch = Batch(noise(base, 1), noise(base, 2), torch.tensor([500]), (prompt,), (0,), None)
            ups = [up for up, _ in trainee.factors.values()]
            found.append(torch.autograd.grad(denoising(trainee, batch), [trainee.tokens, *ups]))
    for kept, again in zip(*found, strict=True):
        torch.testing.assert_close(kept, again)


def test_a_matrix_that_is_several_in_one_is_compared_part_by_part(base: Base) -> None:
    rows = base.architecture.parts(base.denoiser)
    single = [site for site in base.shapes if site.endswith("to_qkv_mlp_proj")]
    assert list(rows) == single
    assert all(sum(rows[site]) == base.shapes[site][0] for site in single)
    given = {site: (torch.arange(float(base.shapes[site][0]))[:, None], torch.ones(1, 2)) for site in single}
    ups = [up for up, _ in apart(given, rows).values()]
    assert [len(up) for up in ups[:4]] == [32, 32, 32, 128]
    assert torch.equal(torch.cat(ups[:4]), given[single[0]][0])


# Regions


@torch.no_grad()
def test_without_patches_a_row_is_what_its_source_gives_by_itself(base: Base) -> None:
    given = sources(base, "a dog", "a cat in snow")
    latents = noise(base, 3, 2)
    found = drawn(base, given, Rows((0, 1), (), lambda grid: torch.zeros(0, 2, *grid)), latents)
    for row, source in enumerate(given):
        with merged(base.denoiser, products(dict(source.factors))):
            alone = base.predict(latents[row : row + 1], TIME, [source.contexts[0][None]])
        torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_patches_of_one_source_all_over_are_that_source(base: Base) -> None:
    given = sources(base, "a dog", "a cat in snow")
    rows = Rows((0,), (1,), lambda grid: torch.ones(1, 1, grid[1], grid[0]))
    torch.testing.assert_close(
        drawn(base, given, rows, noise(base, 3)),
        drawn(base, given[1:], Rows((0,), (), lambda grid: torch.zeros(0)), noise(base, 3)),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip


@torch.no_grad()
def test_a_region_hears_its_own_text_and_nobody_elses(base: Base) -> None:
    given = sources(base, "a photo", "a dog", "a cat")
    cache = flux2_regions.cached(base, given)
    arranged = flux2_regions.arranged(base, cache, Rows((0,), (1, 2), halves), (CELLS, CELLS))
    assert arranged.mask is not None
    mask, spoken = arranged.mask[0, 0].exp(), 3 * tiny_qwen.LENGTH
    of = torch.arange(3).repeat_interleave(tiny_qwen.LENGTH)
    assert torch.equal(mask[:spoken, :spoken], (of[:, None] == of).float())
    left = (torch.arange(CELLS**2) % CELLS < CELLS // 2)[:, None]
    wanted = torch.where(left, of == 1, of == 2).float()
    assert torch.equal(mask[spoken:, :spoken], wanted)
    assert torch.equal(mask[:spoken, spoken:], wanted.T)
    assert (mask[spoken:, spoken:] == 1).all(), "the picture sees itself, or it would be two"
    shares = arranged.shares[0, spoken:]
    assert torch.equal(shares, torch.where(left, torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])))


@torch.no_grad()
def test_another_concept_in_one_region_changes_that_region_most(base: Base) -> None:
    first = sources(base, "a photo", "a dog", "a cat")
    second = [*first[:2], Source([words(base, "snow")[0]], factors(base, 77))]
    rows = Rows((0,), (1, 2), halves)
    change = (drawn(base, first, rows, noise(base, 3)) - drawn(base, second, rows, noise(base, 3))).abs()
    left, right = change[..., : CELLS // 2].mean(), change[..., CELLS // 2 :].mean()
    assert right > 3 * left


# Names and files


@pytest.mark.parametrize(("size", "double", "single", "billions"), [("4B", 5, 20, 3.88), ("9B", 8, 24, 9.08)])
def test_layers_sites_and_shapes_at_full_size(size: str, double: int, single: int, billions: float) -> None:
    with torch.device("meta"):
        model: Any = tiny_flux2.klein(size)
    assert len(flux2.layers(model)) == len(flux2.groups(model)) == double + single
    assert set(flux2.groups(model)) == {0}
    sites = flux2.sites(model, "attn")
    assert len(sites) == 8 * double + 2 * single
    assert len(flux2.site_layers(model)) == 12 * double + 2 * single
    width = model.inner_dim
    fused = model.get_submodule("single_transformer_blocks.0.attn.to_qkv_mlp_proj")
    assert tuple(fused.weight.shape) == (9 * width, width)
    assert sum(flux2.parts(model)["single_transformer_blocks.0.attn.to_qkv_mlp_proj"]) == 9 * width
    assert sum(p.numel() for p in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.01)
    linear = {
        name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "blocks." in name
    }
    assert linear == set(flux2.site_layers(model)), "every linear layer of a block has a place"


def test_the_original_codes_names_are_those_that_diffusers_translates_back(base: Base) -> None:
    names, given = flux2.names(base.denoiser), factors(base, 5)
    theirs = {
        f"{name}.{side}.weight": tensor
        for name, (up, down) in joined(given, names.native, base.shapes).items()
        for side, tensor in (("lora_A", down), ("lora_B", up))
    }
    assert "double_blocks.0.img_attn.qkv.lora_A.weight" in theirs
    assert "single_blocks.1.linear1.lora_B.weight" in theirs
    prefixed = {f"diffusion_model.{name}": tensor for name, tensor in theirs.items()}
    state = Flux2KleinPipeline.lora_state_dict(dict(prefixed))
    for site, product in products(given).items():
        down, up = (state[f"transformer.{site}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(up @ down, product)
    back = parted(prefixed, names.fused, "x")
    assert {
        name.rpartition(".lora")[0].removeprefix("diffusion_model.") for name in back
    } <= names.dotted.keys()
    for site in ("transformer_blocks.1.attn.to_k", "transformer_blocks.0.attn.add_v_proj"):
        up, down = (back[f"diffusion_model.{site}.lora_{side}.weight"] for side in "BA")
        torch.testing.assert_close(up @ down, products(given)[site])


def test_a_layer_that_is_there_by_itself_and_with_others_is_refused(base: Base) -> None:
    names, one = flux2.names(base.denoiser), torch.ones(6, 2)
    both = ("double_blocks.1.txt_attn.qkv", "transformer_blocks.1.attn.add_k_proj")
    twice = {f"diffusion_model.{name}.lora_B.weight": one for name in both}
    with pytest.raises(CidmError, match="twice, in two namings"):
        parted(twice, names.fused, "x")


def test_a_model_that_is_told_its_guidance_is_refused(folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(folder, tmp_path / "dev")
    config = copied / "transformer" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "guidance_embeds": True}))
    with pytest.raises(CidmError, match=r"FLUX\.2 dev"):
        identify(str(copied))
