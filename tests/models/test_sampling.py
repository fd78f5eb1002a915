"""Drawing: what a picture depends on, and that stock diffusers draws the same one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import tiny
from cidm_cli.errors import CidmError
from cidm_cli.models.attention import layer_contexts
from cidm_cli.models.base import Base
from cidm_cli.models.sampling import (
    CLEAN,
    Level,
    decode,
    denoise,
    encode,
    guided,
    initial_noise,
    levels,
    make_scheduler,
)
from cidm_cli.models.schedules import SAMPLERS
from cidm_cli.models.text import encode as encode_text
from cidm_cli.models.text import tokenize

LAYERS = 7
SIZE = (tiny.PIXELS, tiny.PIXELS)
STEPS = 4


def contexts(seed: int) -> list[torch.Tensor]:
    """For one picture: each layer its own."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, tiny.TOKENS, tiny.TEXT_WIDTH, generator=generator) for _ in range(LAYERS)]


GIVEN, WITHOUT = contexts(1), contexts(2)


def draw(
    base: Base,
    seeds: Sequence[int],
    *,
    sampler: str = "dpm++",
    guidance: float = 5.0,
    without: Sequence[torch.Tensor] = WITHOUT,
) -> torch.Tensor:
    count = len(seeds)
    estimate = guided(
        base, [c.expand(count, -1, -1) for c in GIVEN], [c.expand(count, -1, -1) for c in without], guidance
    )
    return denoise(base, estimate, initial_noise(base, seeds, SIZE), sampler=sampler, steps=STEPS)


def test_noise_depends_on_the_seed_alone_and_has_the_latents_size(base: Base) -> None:
    noise = initial_noise(base, [3, 9, 3], (2 * tiny.PIXELS, tiny.PIXELS))
    assert noise.shape == (3, 4, 8, 16)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    torch.rand(5)
    assert torch.equal(initial_noise(base, [9], (2 * tiny.PIXELS, tiny.PIXELS))[0], noise[1])


def test_noise_is_standard_normal(base: Base) -> None:
    noise = initial_noise(base, range(20), SIZE)
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours(base: Base, sampler: str) -> None:
    alone = draw(base, [5], sampler=sampler)
    first = draw(base, [5, 6, 7], sampler=sampler)
    last = draw(base, [1, 5], sampler=sampler)
    torch.testing.assert_close(first[:1], alone, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(last[1:], alone, rtol=1e-3, atol=1e-3)
    assert (first[1] - first[0]).abs().max() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_call_twice_gives_the_same_bytes(base: Base, sampler: str) -> None:
    first = draw(base, [1, 2], sampler=sampler)
    torch.rand(7)
    second = draw(base, [1, 2], sampler=sampler)
    assert torch.equal(first, second)
    assert [p.tobytes() for p in decode(base, first)] == [p.tobytes() for p in decode(base, second)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_and_says_each_step_once(base: Base, sampler: str) -> None:
    said: list[int] = []
    out = denoise(
        base, guided(base, GIVEN, WITHOUT, 5.0), initial_noise(base, [0], SIZE),
        sampler=sampler, steps=STEPS, on_step=said.append,
    )  # fmt: skip
    assert out.shape == (1, 4, 8, 8)
    assert torch.isfinite(out).all()
    # Heun looks twice at every step but the last.
    assert said == [1, 2, 3, 4]


def test_samplers_differ(base: Base) -> None:
    """Each name is another scheduler, not one under five names."""
    assert len({type(make_scheduler(base, sampler)) for sampler in SAMPLERS}) == len(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_schedule_that_ends_without_signal_is_kept_or_refused(base: Base, sampler: str) -> None:
    """Else its pictures would start from noise that the base never learned to see."""
    config = {
        **base.scheduler_config, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }  # fmt: skip
    other = replace(base, scheduler_config=config)
    if sampler == "heun":
        with pytest.raises(CidmError, match="--sampler heun"):
            make_scheduler(other, sampler)
        return
    scheduler = make_scheduler(other, sampler)
    scheduler.set_timesteps(STEPS)
    assert int(scheduler.timesteps[0]) == 999
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    assert float(make_scheduler(base, sampler).alphas_cumprod[-1]) > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_the_bases_own_noise_schedule(base: Base, sampler: str) -> None:
    wanted = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    scheduler = make_scheduler(base, sampler)
    torch.testing.assert_close(scheduler.betas.double(), wanted, rtol=1e-4, atol=1e-7)
    assert scheduler.config.prediction_type == base.prediction == "epsilon"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_clips_latents_which_are_no_pixels(base: Base, sampler: str) -> None:
    """A base's configuration need not say so: what it leaves out is the scheduler's default."""
    config = make_scheduler(base, sampler).config
    assert not config.get("clip_sample", False)
    assert not config.get("thresholding", False)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_perfect_prediction_is_denoised_to_the_picture_it_predicts(base: Base, sampler: str) -> None:
    """Whatever a sampler does on the way: if every estimate says the same clean latents, they come out."""
    scheduler = make_scheduler(base, sampler)
    scheduler.set_timesteps(20)
    clean = 3 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    signal = torch.cumprod(1 - scheduler.betas.double(), 0).float()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, t)
        # Timesteps between two of the schedule's have a signal between theirs.
        low, part = int(t), float(t) - int(t)
        share = signal[low] if not part else torch.lerp(signal[low], signal[min(low + 1, 999)], part)
        noise = (scaled - share.sqrt() * clean) / (1 - share).sqrt()
        latents = scheduler.step(noise, t, latents).prev_sample
    torch.testing.assert_close(latents, clean, rtol=0.05, atol=0.15)


def test_guidance_1_is_the_conditional_estimate_alone(base: Base) -> None:
    scheduler = make_scheduler(base, "ddim")
    scheduler.set_timesteps(STEPS)
    latents = initial_noise(base, [5], SIZE)
    with layer_contexts(base.denoiser, GIVEN), torch.no_grad():
        for t in scheduler.timesteps:
            latents = scheduler.step(base.denoiser(latents, t, GIVEN[0]).sample, t, latents).prev_sample
    torch.testing.assert_close(draw(base, [5], sampler="ddim", guidance=1.0), latents, rtol=1e-4, atol=1e-4)
    other = draw(base, [5], sampler="ddim", guidance=1.0, without=contexts(3))
    torch.testing.assert_close(other, latents, rtol=1e-4, atol=1e-4)


def test_guidance_0_is_the_unconditional_estimate_alone(base: Base) -> None:
    """Were the two halves of the batch exchanged, guidance would push away from the prompt."""
    scheduler = make_scheduler(base, "ddim")
    scheduler.set_timesteps(STEPS)
    latents = initial_noise(base, [5], SIZE)
    with layer_contexts(base.denoiser, WITHOUT), torch.no_grad():
        for t in scheduler.timesteps:
            latents = scheduler.step(base.denoiser(latents, t, WITHOUT[0]).sample, t, latents).prev_sample
    torch.testing.assert_close(draw(base, [5], sampler="ddim", guidance=0.0), latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stock_diffusers_draws_the_same_picture(base: Base, sampler: str) -> None:
    """Of an ordinary prompt, from the same noise: our loop is diffusers' own, from words to pixels."""
    pipe = StableDiffusionPipeline(
        vae=base.vae, text_encoder=base.encoders[0], tokenizer=base.tokenizers[0], unet=base.denoiser,
        scheduler=make_scheduler(base, sampler), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    noise = initial_noise(base, [11], SIZE)
    theirs = pipe(
        "a photo of a dog on the beach", negative_prompt="a red cat", latents=noise,
        num_inference_steps=STEPS, guidance_scale=7.5,
    ).images[0]  # fmt: skip
    given, without = (
        encode_text(base, [tokenize(base, [prompt])], {}, layers=LAYERS)
        for prompt in ("a photo of a dog on the beach", "a red cat")
    )
    latents = denoise(base, guided(base, given, without, 7.5), noise, sampler=sampler, steps=STEPS)
    ours = decode(base, latents)[0]
    distance = np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16))
    assert ours.size == theirs.size == SIZE
    assert distance.max() <= 1
    assert distance.mean() < 0.01, "rounded alike: only ties may fall otherwise"


# Starting from given latents, and keeping a part of them


GIVEN_LATENTS = 2 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))


def at(clean: torch.Tensor, noise: torch.Tensor, level: Level) -> torch.Tensor:
    return level.signal * clean + level.noise * noise


def oracle(base: Base, sampler: str, steps: int, clean: torch.Tensor, asked: list[float]) -> Any:
    """Always predicts ``clean``, and notes how far what it is asked about is from the noise level it is told."""
    scheduler = make_scheduler(base, sampler)
    scheduler.set_timesteps(steps)
    signals = torch.cumprod(1 - scheduler.betas.double(), 0)

    def estimate(scaled: torch.Tensor, t: torch.Tensor, number: int) -> torch.Tensor:
        asked.append(float(t))
        low, part = int(t), float(t) - int(t)
        share = float(torch.lerp(signals[low], signals[min(low + 1, 999)], part))
        return (scaled - share**0.5 * clean) / (1 - share) ** 0.5

    return estimate


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("first", [0, 3, 19])
def test_a_start_part_of_the_way_is_at_the_level_the_sampler_expects(
    base: Base, sampler: str, first: int
) -> None:
    """The noise in the start is the noise that a perfect estimate finds, and denoising removes all of it."""
    noise = initial_noise(base, [1, 2], SIZE)
    found: list[torch.Tensor] = []
    asked: list[float] = []
    perfect = oracle(base, sampler, 20, GIVEN_LATENTS, asked)

    def estimate(scaled: torch.Tensor, t: torch.Tensor, number: int) -> torch.Tensor:
        found.append(perfect(scaled, t, number))
        return found[-1]

    out = denoise(
        base, estimate, noise, sampler=sampler, steps=20, first=first, begin=partial(at, GIVEN_LATENTS, noise)
    )
    # Interpolating between two timesteps, samplers take the noise level and this oracle the signal.
    torch.testing.assert_close(found[0], noise, rtol=0.02, atol=0.05)
    torch.testing.assert_close(out, GIVEN_LATENTS, rtol=0.05, atol=0.15)
    assert asked == sorted(asked, reverse=True)
    assert len(asked) == (2 * (20 - first) - 1 if sampler == "heun" else 20 - first)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_every_step_left_out_the_given_latents_come_back_unchanged(base: Base, sampler: str) -> None:
    said: list[int] = []
    out = denoise(
        base, guided(base, GIVEN, WITHOUT, 5.0), initial_noise(base, [1, 2], SIZE), sampler=sampler, steps=STEPS,
        first=STEPS, begin=partial(at, GIVEN_LATENTS, torch.ones(())), on_step=said.append,
    )  # fmt: skip
    assert torch.equal(out, GIVEN_LATENTS)
    assert said == []


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_left_out_are_not_counted(base: Base, sampler: str) -> None:
    said: list[int] = []
    noise = initial_noise(base, [1], SIZE)
    denoise(
        base, guided(base, GIVEN, WITHOUT, 5.0), noise, sampler=sampler, steps=5, first=2,
        begin=partial(at, GIVEN_LATENTS[:1], noise), on_step=said.append,
    )  # fmt: skip
    assert said == [1, 2, 3]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("first", [0, 2])
def test_all_evaluations_of_a_step_are_told_its_number(base: Base, sampler: str, first: int) -> None:
    """What changes from step to step, such as the turns of lora-switch, never changes in the middle of one."""
    told: list[int] = []
    noise = initial_noise(base, [1], SIZE)

    def estimate(scaled: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        told.append(step)
        return torch.zeros_like(scaled)

    denoise(
        base, estimate, noise, sampler=sampler, steps=5, first=first,
        begin=partial(at, GIVEN_LATENTS[:1], noise) if first else None,
    )  # fmt: skip
    steps = [*range(5 - first)]
    assert told == (sorted(steps + steps[:-1]) if sampler == "heun" else steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_kept_latents_are_met_at_the_level_of_every_evaluation_and_clean_at_the_end(
    base: Base, sampler: str
) -> None:
    """All kept: each evaluation sees the given latents with just the noise of its timestep."""
    noise = initial_noise(base, [1, 2], SIZE)
    asked: list[float] = []
    found: list[torch.Tensor] = []
    perfect = oracle(base, sampler, STEPS, GIVEN_LATENTS, asked)

    def estimate(scaled: torch.Tensor, t: torch.Tensor, number: int) -> torch.Tensor:
        found.append(perfect(scaled, t, number))
        return torch.randn(scaled.shape, generator=torch.Generator().manual_seed(number))

    out = denoise(
        base, estimate, noise, sampler=sampler, steps=STEPS,
        keep=lambda latents, level: at(GIVEN_LATENTS, noise, level),
    )  # fmt: skip
    assert torch.equal(out, GIVEN_LATENTS)
    assert len(found) == (2 * STEPS - 1 if sampler == "heun" else STEPS)
    for noise_found, t in zip(found, asked, strict=True):
        # Below timestep 1 there is next to no noise to find.
        if t > 1:
            torch.testing.assert_close(noise_found, noise, rtol=0.03, atol=0.08)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_levels_fall_to_clean_and_are_one_more_than_the_evaluations(base: Base, sampler: str) -> None:
    scheduler = make_scheduler(base, sampler)
    scheduler.set_timesteps(STEPS)
    found = levels(scheduler, sampler)
    assert len(found) == len(scheduler.timesteps) + 1
    assert found[-1] == CLEAN
    ratios = [level.noise / level.signal for level in found]
    assert ratios == sorted(ratios, reverse=True)
    for level in found:
        # Euler and Heun add noise to an undiminished signal.
        whole = level.signal if sampler in ("euler", "heun") else level.signal**2 + level.noise**2
        assert whole == pytest.approx(1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_keeping_nothing_from_no_given_start_is_plain_drawing(base: Base, sampler: str) -> None:
    noise = initial_noise(base, [5], SIZE)
    out = denoise(
        base, guided(base, GIVEN, WITHOUT, 5.0), noise, sampler=sampler, steps=STEPS, first=0,
        keep=lambda latents, level: 1.0 * latents + 0.0 * at(GIVEN_LATENTS[:1], noise, level),
    )  # fmt: skip
    assert torch.equal(out, draw(base, [5], sampler=sampler))


# Pixels to latents and back


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)) for _ in range(2)]


def test_encoding_gives_the_autoencoders_scaled_mean_and_spread(base: Base) -> None:
    mean, spread = encode(base, pictures())
    for number, picture in enumerate(pictures()):
        pixels = torch.tensor(list(picture.tobytes()), dtype=torch.float32).view(*SIZE, 3).permute(2, 0, 1)
        with torch.no_grad():
            posterior = base.vae.encode(pixels[None] / 255 * 2 - 1).latent_dist
        torch.testing.assert_close(mean[number], posterior.mean[0] * 0.18215, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(spread[number], posterior.std[0] * 0.18215, rtol=1e-4, atol=1e-5)


def test_a_picture_of_another_mode_is_encoded_as_its_colours(base: Base) -> None:
    (picture, _) = pictures()
    opaque = picture.convert("RGBA")
    assert torch.equal(encode(base, [opaque])[0], encode(base, [picture])[0])


@pytest.mark.parametrize("shift", [None, 0.25])
def test_a_shift_of_the_latents_is_taken_off_again_when_decoding(base: Base, shift: float | None) -> None:
    """Some bases move their latents as well as scaling them; a shift that is lost draws in wrong colours."""
    vae = copy.deepcopy(base.vae)
    vae.register_to_config(shift_factor=shift)
    moved = replace(base, vae=vae)
    heard: list[torch.Tensor] = []
    vae.post_quant_conv.register_forward_pre_hook(lambda _m, args: heard.append(args[0].clone()))
    mean, _ = encode(moved, pictures()[:1])
    decode(moved, mean)
    unmoved = encode(base, pictures()[:1])[0] / 0.18215
    torch.testing.assert_close(heard[0], unmoved, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean, (unmoved - (shift or 0)) * 0.18215, rtol=1e-4, atol=1e-5)
