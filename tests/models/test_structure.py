"""Following a structure: the same pictures as stock diffusers, and models that do not fit are told why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionAdapterPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    T2IAdapter,
)
from PIL import Image
from safetensors.torch import load_file, save_file

import tiny
from cidm_cli.draw.lines import edges, lines
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models import structure
from cidm_cli.models.base import Base
from cidm_cli.models.control_files import CLASSES, find, find_again
from cidm_cli.models.sampling import decode, denoise, guided, initial_noise, make_scheduler, steps_between
from cidm_cli.models.structure import Guide, condition, in_pixels, load
from cidm_cli.models.text import encode, pooled, tokenize

SIZE = (tiny.PIXELS, tiny.PIXELS)
PROMPT, NEGATIVE = "a photo of a dog on the beach", "a red cat"
STEPS = 4


@pytest.fixture
def any_base(request: pytest.FixtureRequest) -> Base:
    """The tiny base of the family that a test is parametrized with."""
    return request.getfixturevalue({"sd15": "base", "sdxl": "sdxl"}[request.param])


both_families = pytest.mark.parametrize("any_base", ["sd15", "sdxl"], indirect=True)
both_kinds = pytest.mark.parametrize("kind", ["controlnet", "t2i-adapter"])


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    colours = np.random.default_rng(3).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def stock_model(base: Base, kind: str) -> Any:
    return tiny.controlnet(base.denoiser) if kind == "controlnet" else tiny.adapter(base.family.name)


def guide(base: Base, model: Any, folder: Path, scale: float = 1.0, **when: Any) -> Guide:
    model.save_pretrained(folder)
    control = load(base, find(str(folder), Path()))
    numbers = steps_between(STEPS, when.get("start", 0.0), when.get("until", 1.0))
    return Guide(control, in_pixels(base, control, picture()), scale, numbers)


def texts(base: Base, *prompts: str) -> torch.Tensor:
    """Prompts without concepts, [prompts, tokens, width]."""
    with torch.no_grad():
        return encode(base, [tokenize(base, [words]) for words in prompts], {}, layers=1)[0]


def drawn(base: Base, followed: Guide | None) -> np.ndarray:
    """The prompt's picture, from one seed."""
    tokens = [tokenize(base, [words]) for words in (NEGATIVE, PROMPT)]
    without, given = (encode(base, [some], {}, layers=_layers(base)) for some in tokens)
    wholes = pooled(base, tokens[1:]), pooled(base, tokens[:1])

    def lead(number: int) -> structure.Condition | None:
        if followed is None or number not in followed.steps:
            return None
        return condition(base, followed, texts(base, NEGATIVE, PROMPT))

    estimate = guided(base, given, without, 7.5, pooled=wholes, followed=lead)
    noise = initial_noise(base, [11], SIZE)
    return np.asarray(decode(base, denoise(base, estimate, noise, sampler="dpm++", steps=STEPS))[0], np.int16)


def _layers(base: Base) -> int:
    return sum(name.endswith("attn2") for name, _ in base.denoiser.named_modules())


def stock(base: Base, kind: str, model: Any, scale: float, **how: Any) -> np.ndarray:
    """What stock diffusers draws."""
    parts = dict(
        vae=base.vae, text_encoder=base.encoders[0], tokenizer=base.tokenizers[0], unet=base.denoiser
    )
    parts |= {
        "scheduler": make_scheduler(base, "dpm++"),
        "controlnet" if kind == "controlnet" else "adapter": model,
    }
    if base.family.name == "sdxl":
        cls: Any = (
            StableDiffusionXLControlNetPipeline if kind == "controlnet" else StableDiffusionXLAdapterPipeline
        )
        parts |= {"text_encoder_2": base.encoders[1], "tokenizer_2": base.tokenizers[1]}
        parts |= {"add_watermarker": False} if kind == "controlnet" else {}
    else:
        cls = StableDiffusionControlNetPipeline if kind == "controlnet" else StableDiffusionAdapterPipeline
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = cls(**parts)
    pipe.watermark = None
    pipe.set_progress_bar_config(disable=True)
    said = "controlnet_conditioning_scale" if kind == "controlnet" else "adapter_conditioning_scale"
    more = {"height": SIZE[1], "width": SIZE[0]} if kind != "controlnet" else {}
    out = pipe(
        PROMPT, image=picture(), negative_prompt=NEGATIVE, latents=initial_noise(base, [11], SIZE),
        num_inference_steps=STEPS, guidance_scale=7.5, **{said: scale}, **more, **how,
    ).images[0]  # fmt: skip
    return np.asarray(out, np.int16)


# -- against diffusers ------------------------------------------------------------------------------------------


@both_kinds
@both_families
def test_stock_diffusers_draws_the_same_picture(any_base: Base, kind: str, tmp_path: Path) -> None:
    model = stock_model(any_base, kind)
    ours = drawn(any_base, guide(any_base, model, tmp_path / "model", 0.8))
    assert ours.std() > 5, "a picture, not a plain grey"
    assert abs(ours - stock(any_base, kind, model, 0.8)).max() <= 1
    assert abs(ours - drawn(any_base, None)).max() > 10, "else the comparison says nothing"


def test_the_steps_it_is_followed_in_are_those_of_diffusers(base: Base, tmp_path: Path) -> None:
    model = stock_model(base, "controlnet")
    found = drawn(base, guide(base, model, tmp_path / "model", start=0.25, until=0.75))
    theirs = stock(base, "controlnet", model, 1.0, control_guidance_start=0.25, control_guidance_end=0.75)
    assert abs(found - theirs).max() <= 1
    for other in (guide(base, model, tmp_path / "model"), None):
        assert abs(found - drawn(base, other)).max() > 2


def test_shares_of_the_steps_count_every_step_once() -> None:
    assert steps_between(10, 0.0, 1.0) == frozenset(range(10))
    assert [steps_between(10, low, low + 0.5) for low in (0.0, 0.5)] == [{*range(5)}, {*range(5, 10)}]
    assert steps_between(11, 0.0, 0.5) == {*range(5)}, "a step in the middle belongs to neither half"
    assert steps_between(10, 0.31, 0.39) == frozenset()


@both_kinds
def test_without_strength_nothing_is_changed(base: Base, kind: str, tmp_path: Path) -> None:
    found = drawn(base, guide(base, stock_model(base, kind), tmp_path / "model", 0.0))
    assert abs(found - drawn(base, None)).max() == 0


@both_kinds
def test_rows_of_one_batch_follow_their_own_parts(base: Base, kind: str, tmp_path: Path) -> None:
    """Each row, with its own text and part of the picture, gets what it would get by itself."""
    followed = guide(base, stock_model(base, kind), tmp_path / "model")
    told = texts(base, PROMPT, NEGATIVE, PROMPT)
    windows = [(0, 0, 4, 8), (4, 0, 8, 8), (4, 0, 8, 8)]
    latents, t = torch.randn(3, 4, 8, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(500)
    assert base.family.name == "sd15"
    together = structure.residuals(condition(base, followed, told, windows), latents, t, None)
    for row, (x0, y0, x1, y1) in enumerate(windows):
        control = followed.control
        cut = picture().crop((x0 * 8, y0 * 8, x1 * 8, y1 * 8))
        alone = Guide(control, in_pixels(base, control, cut), 1.0, frozenset())
        wanted = structure.residuals(
            condition(base, alone, told[row : row + 1]), latents[row : row + 1], t, None
        )
        for name, tensors in wanted.items():
            for one, some in zip(_list(tensors), _list(together[name]), strict=True):
                torch.testing.assert_close(some[row : row + 1], one, rtol=1e-4, atol=1e-5)


def _list(tensors: Any) -> list[torch.Tensor]:
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def test_a_model_of_one_channel_sees_grey(base: Base, tmp_path: Path) -> None:
    model = T2IAdapter(in_channels=1, channels=[16, 32, 32], num_res_blocks=1)
    model.save_pretrained(tmp_path / "model")
    control = load(base, find(str(tmp_path / "model"), Path()))
    assert in_pixels(base, control, picture()).shape == (1, 1, *SIZE)


# -- which model ------------------------------------------------------------------------------------------------


def refused(base: Base, folder: Path) -> CidmError:
    with pytest.raises(CidmError) as caught:
        load(base, find(str(folder), Path()))
    assert caught.value.code == ExitCode.INVALID
    assert "\n" not in caught.value.message
    assert str(folder) in caught.value.message
    return caught.value


@pytest.fixture
def folder(base: Base, tmp_path: Path) -> Path:
    """A ControlNet's, to be spoilt."""
    tiny.controlnet(base.denoiser).save_pretrained(tmp_path / "control")
    return tmp_path / "control"


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "other text": ({"cross_attention_dim": 48}, "text of width 48, and the base's 32"),
    "other blocks": ({"block_out_channels": (16, 32, 64)}, "channels [16, 32, 64]"),
    "deeper blocks": ({"layers_per_block": 2}, "layers of its blocks are 2"),
    "many channels": ({"conditioning_channels": 4}, "4 channels"),
    "wider cells": ({"conditioning_embedding_out_channels": (8, 8, 16)}, "4 pixels wide"),
    "contents": ({"global_pool_conditions": True}, "contents"),
    "told more": (
        {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 88},
        "text_time",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNFIT)
def test_a_controlnet_for_another_base_is_refused_with_the_reason(
    what: str, base: Base, tmp_path: Path
) -> None:
    changed, why = UNFIT[what]
    like = dict(
        block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
        cross_attention_dim=tiny.TEXT_WIDTH, conditioning_embedding_out_channels=(8, 8, 8, 16),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    )  # fmt: skip
    ControlNetModel(**{**like, **changed}).save_pretrained(tmp_path / "control")
    assert why in refused(base, tmp_path / "control").message
    ControlNetModel(**like).save_pretrained(tmp_path / "fits")
    load(base, find(str(tmp_path / "fits"), Path()))


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": [16, 32, 64]},
        {"channels": [16, 32]},
        {"adapter_type": "full_adapter_xl"},
        {"downscale_factor": 4},
    ],
    ids=str,
)
def test_an_adapter_for_another_base_is_refused(base: Base, tmp_path: Path, changed: dict[str, Any]) -> None:
    model = T2IAdapter(**{"channels": [16, 32, 32], "num_res_blocks": 1, **changed})
    model.save_pretrained(tmp_path / "adapter")
    assert "does not fit the base" in refused(base, tmp_path / "adapter").message


def test_an_adapter_of_four_features_fits_a_base_of_three_blocks(base: Base, tmp_path: Path) -> None:
    """The light kind makes one more, as large as what the middle block works on or smaller."""
    T2IAdapter(channels=[16, 32], num_res_blocks=1, adapter_type="light_adapter").save_pretrained(
        tmp_path / "light"
    )
    load(base, find(str(tmp_path / "light"), Path()))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff\xfe", b'{"_class_name": ["ControlNetModel"]}', b'{"_class_name": "AutoencoderKL"}',
        b"[" * 100_000, b'{"_class_name": "ControlNetModel", "block_out_channels": "x"}',
        b'{"_class_name": "ControlNetModel", "down_block_types": ["Evil"]}', b'{"_class_name": "T2IAdapter"}',
        b" " * (2 << 20),
    ],
    ids=lambda content: repr(content[:60]),
)  # fmt: skip
def test_settings_that_are_none_are_refused(base: Base, folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    refused(base, folder)


@pytest.mark.parametrize("spoil", ["cut", "nonsense", "header", "pickled", "gone", "part"])
def test_weights_that_cannot_be_used_are_refused(base: Base, folder: Path, spoil: str) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    if spoil == "cut":
        file.write_bytes(file.read_bytes()[:-1000])
    elif spoil == "nonsense":
        file.write_bytes(b"\x00" * 5000)
    elif spoil == "header":
        raw = b'{"a":[' + b"0," * 20_000_000 + b"0]}"
        file.write_bytes(len(raw).to_bytes(8, "little") + raw)
    elif spoil == "pickled":
        torch.save(load_file(file), folder / "diffusion_pytorch_model.bin")
        file.unlink()
    elif spoil == "gone":
        file.unlink()
    else:
        tensors = load_file(file)
        tensors.pop("conv_in.weight")
        save_file(tensors, file)
    refused(base, folder)


def test_half_precision_weights_are_taken(base: Base, tmp_path: Path) -> None:
    tiny.controlnet(base.denoiser).half().save_pretrained(tmp_path / "half", variant="fp16")
    control = load(base, find(str(tmp_path / "half"), Path()))
    assert control.files.variant == "fp16"
    assert control.model.dtype == base.denoiser.dtype


def test_a_name_that_is_nothing_is_told(tmp_path: Path) -> None:
    for name in ("nowhere", "../..//x", "a b/c", "x" * 300, "~nobody-at-all/x"):
        with pytest.raises(CidmError, match="--control") as caught:
            find(name, tmp_path)
        assert caught.value.code == ExitCode.NOT_FOUND


def test_a_folder_counts_from_where_it_is_named(folder: Path) -> None:
    assert find(folder.name, folder.parent) == find(str(folder), Path("/"))


def test_a_model_that_was_used_is_found_again_only_as_it_was(folder: Path, tmp_path: Path) -> None:
    then = find(str(folder), Path())
    assert find_again(then.source, then.sha256, tmp_path) == then
    for source in (str(folder) + "x", "somebody/something@abc", "\0", "x" * 9000):
        with pytest.raises(CidmError) as caught:
            find_again(source, then.sha256, tmp_path)
        assert caught.value.code == ExitCode.NOT_FOUND
    shutil.copy(folder / "config.json", folder / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CidmError, match="changed"):
        find_again(then.source, then.sha256, tmp_path)


def test_the_kinds_are_told_apart_by_their_settings(base: Base, folder: Path, tmp_path: Path) -> None:
    tiny.adapter("sd15").save_pretrained(tmp_path / "adapter")
    assert [find(str(f), Path()).kind for f in (folder, tmp_path / "adapter")] == list(CLASSES.values())
    assert json.loads((folder / "config.json").read_text())["_class_name"] in CLASSES


# -- lines ------------------------------------------------------------------------------------------------------


def square(inside: int, outside: int) -> Image.Image:
    image = Image.new("L", (64, 64), outside)
    image.paste(inside, (16, 16, 48, 48))
    return image


@pytest.mark.parametrize("greys", [(255, 0), (0, 255), (200, 90)], ids=str)
def test_edges_are_thin_and_where_the_grey_changes(greys: tuple[int, int]) -> None:
    found = np.asarray(edges(square(*greys)))
    assert set(np.unique(found)) == {0, 255}
    middle = np.flatnonzero(found[32])
    assert len(middle) == 2
    assert abs(middle - [15.5, 47.5]).max() <= 0.5
    assert not found[20:44, 20:44].any()
    assert not found[:12].any()


def test_a_plain_picture_has_no_edges() -> None:
    assert not np.asarray(edges(Image.new("L", (64, 64), 130))).any()
    slope = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1)))
    assert not np.asarray(edges(slope)).any(), "light that falls off slowly is no line"


def test_a_scribble_is_white_on_black_either_way() -> None:
    dark, light = square(0, 255), square(255, 0)
    found = [np.asarray(lines(one.convert("RGB"), "scribble", (64, 64))) for one in (dark, light)]
    assert (found[0] == found[1]).all()
    assert found[0][32, 32].tolist() == [255, 255, 255]


def test_what_the_model_wants_already_is_left_as_it_is() -> None:
    one = picture()
    assert lines(one, "as-is", SIZE).tobytes() == one.tobytes()
    assert lines(one, "as-is", (32, 96)).size == (32, 96)
