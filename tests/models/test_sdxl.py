"""SDXL: two text encoders, prompts as wholes, sizes, tokens shared by groups of layers; and its full-size shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

import tiny
from cidm_cli.models.attention import cross_attention_layers, layer_contexts, layer_groups, lora_sites
from cidm_cli.models.base import Base, load
from cidm_cli.models.prediction import ask, predict
from cidm_cli.models.sampling import decode, denoise, guided, initial_noise, make_scheduler
from cidm_cli.models.schedules import SAMPLERS
from cidm_cli.models.text import (
    Slot,
    Tokens,
    copy_of_layer,
    encode,
    noun_vectors,
    pooled,
    token_table,
    token_width,
    tokenize,
)

LAYERS, GROUPS = 18, 7
WIDTH = tiny.TEXT_WIDTH + tiny.SECOND_WIDTH
SIZE = (tiny.PIXELS, tiny.PIXELS)
REX = Slot("rex", 2, "dog")


def tokens_of(base: Base, *parts: str | Slot) -> Tokens:
    return tokenize(base, list(parts))


def vectors(copies: int, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"rex": torch.randn(copies, 2, WIDTH, generator=generator) * 0.5}


def stock(base: Base, sampler: str = "dpm++") -> StableDiffusionXLPipeline:
    pipe = StableDiffusionXLPipeline(
        vae=base.vae, text_encoder=base.encoders[0], text_encoder_2=base.encoders[1],
        tokenizer=base.tokenizers[0], tokenizer_2=base.tokenizers[1], unet=base.denoiser,
        scheduler=make_scheduler(base, sampler), add_watermarker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


# -- against diffusers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("negative", [None, "a red cat"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stock_diffusers_draws_the_same_picture(sdxl: Base, sampler: str, negative: str | None) -> None:
    """From words to pixels; without a negative prompt, too, which SDXL was trained to see as zeros."""
    prompt = "a photo of a dog on the beach"
    noise = initial_noise(sdxl, [11], SIZE)
    theirs = stock(sdxl, sampler)(
        prompt, negative_prompt=negative, latents=noise, num_inference_steps=4, guidance_scale=7.5,
    ).images[0]  # fmt: skip
    both = [tokens_of(sdxl, words) for words in (prompt, negative or "")]
    given, without = (encode(sdxl, [some], {}, layers=LAYERS) for some in both)
    wholes = pooled(sdxl, both[:1]), pooled(sdxl, both[1:])
    estimate = guided(sdxl, given, without, 7.5, pooled=wholes)
    ours = decode(sdxl, denoise(sdxl, estimate, noise, sampler=sampler, steps=4))[0]
    distance = np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16))
    assert ours.size == theirs.size == SIZE
    assert np.asarray(ours).std() > 5, "a picture, not a plain grey"
    assert distance.max() <= 1
    assert distance.mean() < 0.01, "rounded alike: only ties may fall otherwise"


def test_embeddings_and_wholes_are_those_of_diffusers(sdxl: Base) -> None:
    prompts = ["a photo of a dog", "a red cat in the snow"]
    context, _, whole, _ = stock(sdxl).encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    ours = [tokens_of(sdxl, prompt) for prompt in prompts]
    rows = encode(sdxl, ours, {}, layers=LAYERS)
    torch.testing.assert_close(rows[0], context, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pooled(sdxl, ours), whole, rtol=1e-5, atol=1e-6)
    assert (whole[0] - whole[1]).abs().max() > 0.1, "else the comparison says nothing"


def test_an_exclamation_mark_is_a_word_for_both_encoders(sdxl: Base) -> None:
    """diffusers takes it for the second tokenizer's padding; the program SDXL was trained with does not."""
    plain, shouted = (
        encode(sdxl, [tokens_of(sdxl, words)], {}, layers=LAYERS)[0] for words in ("a dog", "a dog !")
    )
    for part in (slice(0, tiny.TEXT_WIDTH), slice(tiny.TEXT_WIDTH, WIDTH)):
        assert not torch.allclose(plain[0, 3, part], shouted[0, 3, part], atol=1e-3)


# -- prompts as wholes ------------------------------------------------------------------------------------------


def test_a_concept_counts_as_its_class_noun_in_the_prompt_as_a_whole(sdxl: Base) -> None:
    """However many tokens it takes: added tokens cannot reach it."""
    wanted = pooled(sdxl, [tokens_of(sdxl, "a photo of a dog on the beach")])
    for count in (1, 2, 5):
        slotted = tokens_of(sdxl, "a photo of a ", Slot("rex", count, "dog"), " on the beach")
        assert torch.equal(pooled(sdxl, [slotted]), wanted)
    other = tokens_of(sdxl, "a photo of a ", Slot("rex", 2, "cat"), " on the beach")
    assert not torch.allclose(pooled(sdxl, [other]), wanted, atol=1e-2)


def test_a_concept_without_a_noun_is_not_summed_up_in_silence(sdxl: Base, base: Base) -> None:
    nameless = tokens_of(sdxl, "a ", Slot("rex", 2))
    with pytest.raises(ValueError, match="class noun"):
        pooled(sdxl, [nameless])
    assert pooled(base, [nameless]) is None


def test_equal_prompts_are_summed_up_once(sdxl: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    projection = sdxl.encoders[1].text_projection
    handle = projection.register_forward_pre_hook(lambda _m, args: rows.append(len(args[0])))
    dog, cat = tokens_of(sdxl, "a dog"), tokens_of(sdxl, "a cat")
    out = pooled(sdxl, [dog, cat, dog, dog])
    handle.remove()
    assert rows == [2]
    assert out is not None
    assert torch.equal(out[0], out[2])
    assert not torch.equal(out[0], out[1])


def test_an_empty_prompt_is_zeros_only_where_the_base_says_so(sdxl: Base) -> None:
    empty, dog = tokens_of(sdxl, ""), tokens_of(sdxl, "a dog")
    for row in (encode(sdxl, [empty, dog], {}, layers=LAYERS)[0], pooled(sdxl, [empty, dog])):
        assert row is not None
        assert not row[0].any()
        assert row[1].any()
    spoken = replace(sdxl, zero_empty=False)
    row = pooled(spoken, [empty])
    assert row is not None
    assert row.any()
    assert encode(spoken, [empty], {}, layers=LAYERS)[0].any()


# -- tokens -----------------------------------------------------------------------------------------------------


def test_a_tokens_two_halves_reach_one_encoder_each(sdxl: Base) -> None:
    prompt = tokens_of(sdxl, "a photo of a ", REX, " on the beach")
    before = encode(sdxl, [prompt], vectors(1), layers=LAYERS)[0][0]
    for half, part in enumerate((slice(0, tiny.TEXT_WIDTH), slice(tiny.TEXT_WIDTH, WIDTH))):
        changed = {"rex": vectors(1)["rex"].clone()}
        changed["rex"][..., part] += 1
        after = encode(sdxl, [prompt], changed, layers=LAYERS)[0][0]
        parts = after.split([tiny.TEXT_WIDTH, tiny.SECOND_WIDTH], -1)
        kept = before.split([tiny.TEXT_WIDTH, tiny.SECOND_WIDTH], -1)
        assert not torch.allclose(parts[half], kept[half], atol=1e-3)
        assert torch.equal(parts[1 - half], kept[1 - half])


def test_a_concept_made_of_the_nouns_embeddings_reads_as_the_noun(sdxl: Base) -> None:
    words = noun_vectors(sdxl, "duck toy")
    noun_ids = sdxl.tokenizers[0]("duck toy", add_special_tokens=False).input_ids
    assert words.shape == (2, WIDTH) == (len(noun_ids), token_width(sdxl))
    assert torch.equal(words, token_table(sdxl)[noun_ids])
    slotted = tokens_of(sdxl, "a red ", Slot("rex", 2, "duck toy"), " on the beach")
    ours = encode(sdxl, [slotted], {"rex": words[None]}, layers=LAYERS)[0]
    plain = encode(sdxl, [tokens_of(sdxl, "a red duck toy on the beach")], {}, layers=LAYERS)[0]
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("copies", [1, GROUPS, LAYERS])
def test_each_layer_sees_its_own_copy_of_the_tokens(sdxl: Base, copies: int) -> None:
    prompts = [tokens_of(sdxl, "a ", REX), tokens_of(sdxl, "a cat"), tokens_of(sdxl, REX, " on the beach")]
    rows = encode(sdxl, prompts, vectors(copies), layers=LAYERS)
    groups = layer_groups(sdxl.denoiser)
    assert len(rows) == LAYERS
    for layer in range(LAYERS):
        own = {1: 0, GROUPS: groups[layer], LAYERS: layer}[copies]
        alone = {"rex": vectors(copies)["rex"][own : own + 1]}
        torch.testing.assert_close(
            rows[layer], encode(sdxl, prompts, alone, layers=1)[0], rtol=1e-4, atol=1e-5
        )


def test_concepts_of_different_copies_meet_in_one_prompt(sdxl: Base) -> None:
    names = {"one": 1, "some": GROUPS, "all": LAYERS}
    given = {name: vectors(copies, seed)["rex"] for seed, (name, copies) in enumerate(names.items())}
    for present in (["one", "some"], ["one", "all"], ["some", "all"], ["one", "some", "all"]):
        prompt = tokens_of(sdxl, *(Slot(name, 2, "dog") for name in present))
        rows = encode(sdxl, [prompt], given, layers=LAYERS)
        for layer in range(LAYERS):
            own = {name: given[name][[copy_of_layer(sdxl, names[name], LAYERS)[layer]]] for name in present}
            torch.testing.assert_close(
                rows[layer], encode(sdxl, [prompt], own, layers=1)[0], rtol=1e-4, atol=1e-5
            )


def test_a_group_is_encoded_once_however_many_layers_it_has(sdxl: Base) -> None:
    seen: list[int] = []
    handle = sdxl.encoders[0].register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    rows = encode(sdxl, [tokens_of(sdxl, "a ", REX)], vectors(GROUPS), layers=LAYERS)
    handle.remove()
    assert seen == [GROUPS]
    groups = layer_groups(sdxl.denoiser)
    assert all((rows[a] is rows[b]) == (groups[a] == groups[b]) for a in range(LAYERS) for b in range(LAYERS))


def test_another_number_of_copies_is_refused(sdxl: Base) -> None:
    with pytest.raises(ValueError, match="5 copies"):
        encode(sdxl, [tokens_of(sdxl, REX)], vectors(5), layers=LAYERS)


@pytest.mark.parametrize("copies", [1, GROUPS, LAYERS])
def test_the_loss_reaches_both_encoders_tokens_in_every_copy(sdxl: Base, copies: int) -> None:
    given = {"rex": vectors(copies)["rex"].requires_grad_()}
    prompt = tokens_of(sdxl, "a photo of a ", REX)
    contexts = encode(sdxl, [prompt], given, layers=LAYERS)
    latents = initial_noise(sdxl, [3], SIZE)
    out = predict(sdxl, latents, torch.tensor([500]), contexts, pooled(sdxl, [prompt]))
    out.square().mean().backward()
    gradient = given["rex"].grad
    assert gradient is not None
    for half in gradient.split([tiny.TEXT_WIDTH, tiny.SECOND_WIDTH], -1):
        assert (half.abs().amax(-1) > 0).all(), "every copy of every token"
    assert all(p.grad is None for encoder in sdxl.encoders for p in encoder.parameters())


# -- the UNet ---------------------------------------------------------------------------------------------------


def test_sizes_are_those_of_the_picture_unless_said(sdxl: Base) -> None:
    latents = initial_noise(sdxl, [3, 4], (128, 64))
    prompt = tokens_of(sdxl, "a dog")
    contexts = encode(sdxl, [prompt] * 2, {}, layers=LAYERS)
    whole, t = pooled(sdxl, [prompt] * 2), torch.tensor(500)
    with torch.no_grad():
        told = predict(sdxl, latents, t, contexts, whole, torch.tensor([[64, 128, 0, 0, 64, 128]] * 2))
        assert torch.equal(predict(sdxl, latents, t, contexts, whole), told)
        cut = predict(sdxl, latents, t, contexts, whole, torch.tensor([[900, 700, 30, 9, 64, 128]] * 2))
    assert not torch.allclose(cut, told, atol=1e-3)


def test_a_prompt_that_is_not_given_as_a_whole_is_noticed(sdxl: Base) -> None:
    context = encode(sdxl, [tokens_of(sdxl, "a dog")], {}, layers=LAYERS)[0]
    with pytest.raises(ValueError, match="wholes"):
        ask(sdxl, initial_noise(sdxl, [3], SIZE), torch.tensor(500), context)


def test_layers_of_a_group_share_the_memory_of_their_texts_while_drawing(
    sdxl: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seventy texts for a batch would take hundreds of megabytes."""
    prompt = tokens_of(sdxl, "a ", REX)
    given = [c.expand(2, -1, -1) for c in encode(sdxl, [prompt], vectors(GROUPS), layers=LAYERS)]
    without = [c.expand(2, -1, -1) for c in encode(sdxl, [tokens_of(sdxl, "")], {}, layers=LAYERS)]
    seen: list[Sequence[torch.Tensor]] = []

    def ask_nothing(
        base: Base,
        latents: torch.Tensor,
        t: object,
        contexts: Sequence[torch.Tensor],
        *_more: object,
    ) -> torch.Tensor:
        seen.append(contexts)
        return latents

    monkeypatch.setattr(sdxl.architecture, "predict", ask_nothing)
    guided(sdxl, given, without, 5.0)(torch.zeros(2, 4, 8, 8), torch.tensor(1), 0)
    (contexts,) = seen
    assert len({context.data_ptr() for context in contexts}) == GROUPS
    for context, first, second in zip(contexts, without, given, strict=True):
        assert torch.equal(context, torch.cat([first, second]))


def test_layer_contexts_reach_all_layers_of_a_group(sdxl: Base) -> None:
    """One context for all, given layer by layer, is what the UNet makes of it by itself."""
    context = encode(sdxl, [tokens_of(sdxl, "a dog")], {}, layers=LAYERS)[0]
    whole = pooled(sdxl, [tokens_of(sdxl, "a dog")])
    latents, t = initial_noise(sdxl, [3], SIZE), torch.tensor(500)
    with torch.no_grad():
        plain = ask(sdxl, latents, t, context, whole)
        with layer_contexts(sdxl.denoiser, [context] * LAYERS):
            assert torch.equal(ask(sdxl, latents, t, torch.zeros_like(context), whole), plain)


def order(names: Sequence[str]) -> list[str]:
    return [name.split(".transformer_blocks.")[0] for name in names]


def test_the_small_sdxl_is_shaped_like_the_large_one(sdxl: Base) -> None:
    assert len(sdxl.layers) == LAYERS
    assert max(layer_groups(sdxl.denoiser)) + 1 == GROUPS
    assert sdxl.family.name == "sdxl"
    assert sdxl.pixels == tiny.PIXELS


def full(family: str) -> object:
    import json

    from diffusers import UNet2DConditionModel

    from cidm_cli.models.identity import settings_folder

    config = json.loads((settings_folder(family) / "unet" / "config.json").read_text())
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


@pytest.mark.parametrize(
    ("family", "layers", "sites", "both", "groups"),
    [("sd15", 16, 64, 128, [1] * 16), ("sdxl", 70, 280, 560, [2, 2, 10, 10, 10, 10, 10, 10, 2, 2, 2])],
)
def test_every_site_of_the_full_size_unets_is_found(
    family: str, layers: int, sites: int, both: int, groups: list[int]
) -> None:
    unet = full(family)
    names = cross_attention_layers(unet)
    assert len(names) == len(set(names)) == layers
    assert len(lora_sites(unet)) == sites
    assert len(lora_sites(unet, "attn1+attn2")) == both
    assert set(lora_sites(unet, "attn1+attn2")) <= set(tiny.shapes(unet))
    numbers = layer_groups(unet)
    assert [numbers.count(group) for group in range(max(numbers) + 1)] == groups
    assert list(numbers) == sorted(numbers), "a group's layers follow one another"
    assert len(set(order(names))) == len(groups)
    widths = {"sd15": 768, "sdxl": 2048}
    shapes = tiny.shapes(unet)
    assert {shapes[f"{name}.to_k"][1] for name in names} == {widths[family]}
    assert all(unet.get_submodule(site).weight.ndim == 2 for site in lora_sites(unet, "attn1+attn2"))


# -- loading ----------------------------------------------------------------------------------------------------


def test_half_precision_weights_are_taken_where_there_are_such(tiny_sdxl: Path, tmp_path: Path) -> None:
    pipe = StableDiffusionXLPipeline.from_pretrained(
        tiny_sdxl, dtype=torch.float16, use_safetensors=True, add_watermarker=False
    )
    pipe.save_pretrained(tmp_path, variant="fp16", safe_serialization=True)
    base = load(tmp_path, device=torch.device("cpu"), compute=torch.float32)
    whole = load(tiny_sdxl, device=torch.device("cpu"), compute=torch.float32)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for (name, ours), theirs in zip(
            base.parts[part].named_parameters(), whole.parts[part].parameters(), strict=True
        ):
            assert ours.dtype == torch.float32, name
            assert torch.equal(ours, theirs.half().float())


@pytest.mark.parametrize("upcast", [True, False])
def test_a_vae_that_overflows_in_float16_is_computed_in_float32(sdxl: Base, upcast: bool) -> None:
    import copy

    vae = copy.deepcopy(sdxl.vae)
    vae.register_to_config(force_upcast=upcast)
    half = replace(sdxl, vae=vae, compute=torch.float16)
    with half.vae_autocast():
        assert torch.is_autocast_enabled("cpu") is not upcast
    with replace(half, compute=torch.bfloat16).vae_autocast():
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    with replace(half, compute=torch.float32).vae_autocast():
        assert not torch.is_autocast_enabled("cpu")
