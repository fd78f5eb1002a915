"""Learning in little memory: the same steps as in plenty, and what a user is told when there is too little."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from PIL import Image
from transformers.modeling_layers import GradientCheckpointingLayer

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.learn import admission
from cidm_cli.learn import run as learn
from cidm_cli.learn import step as training
from cidm_cli.learn.batches import Prepared, draw, prepare
from cidm_cli.learn.run import Events, caption_tokens
from cidm_cli.learn.step import Trainee
from cidm_cli.method.objective import denoising_loss, min_snr_weight, target
from cidm_cli.models import checkpointing as again
from cidm_cli.models import sd_parts, trainable
from cidm_cli.models.base import Base, outline
from cidm_registry import Registry
from command import Cidm
from learning import FAST, learn_direct, task


@contextmanager
def begun(base: Base, folder: Path, **options: Any) -> Iterator[tuple[Trainee, Prepared, Any]]:
    """A training whose numbers all have a part in the loss, another one in each layer."""
    work = task(folder, **options)
    data = prepare(base, work.dataset, caption_tokens(base, work, Events()), work.options)
    with training.training(base, work.name, work.noun, work.options) as trainee:
        generator = torch.Generator().manual_seed(1)
        for up, _ in trainee.factors.values():
            up.data.normal_(generator=generator).mul_(0.1)
        trainee.tokens.data += torch.randn(trainee.tokens.shape, generator=generator)
        yield trainee, data, work.options


def gradients(base: Base, folder: Path, **options: Any) -> list[torch.Tensor]:
    with begun(base, folder, **options) as (trainee, data, chosen):
        for part in range(chosen.accumulate):
            training._descend(trainee, data, chosen, part)
        return [p.grad for p in training.parameters(trainee) if p.grad is not None]


def assert_close(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    assert len(one) == len(other) > 20
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.fixture
def masked(pictures: Path) -> Path:
    """Pictures of which one has a mask."""
    mask = Image.new("L", (80, 72), 0)
    mask.paste(255, (0, 0, 40, 72))
    mask.save(pictures / "0-mask.png")
    return pictures


# Batches taken apart


@pytest.mark.parametrize("more", [{}, {"noise_offset": 0.1}, {"min_snr": 1.0}])
def test_batches_of_a_step_add_up_to_the_one_batch_that_they_are_pieces_of(
    more: dict[str, Any], base: Base, masked: Path
) -> None:
    whole = gradients(base, masked, batch=4, **more)
    assert_close(gradients(base, masked, batch=1, accumulate=4, **more), whole)
    assert_close(gradients(base, masked, batch=2, accumulate=2, **more), whole)


def test_a_step_of_several_batches_keeps_their_mean_loss(base: Base, pictures: Path) -> None:
    losses = []
    for options in ({"batch": 4}, {"batch": 2, "accumulate": 2}):
        with begun(base, pictures, **options) as (trainee, data, chosen):
            losses.append(training.train_step(trainee, data, chosen))
            assert trainee.step == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Large maps of attention


def test_attention_to_many_keys_gives_the_same_gradients_and_keeps_no_map_of_weights(
    base: Base, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in pictures of 512 pixels, whose largest maps take half a gigabyte each; here a map is 64 by 64."""
    cells = (tiny.PIXELS // 8) ** 2
    # Two pictures, two heads.
    large, small = (4, cells, cells), (4, cells, tiny.TOKENS)
    fused, sizes = gradients(base, pictures), kept_sizes(base, pictures)
    assert not {large, small} & {*sizes}, "in float32 no map is kept: it would not be faster"
    monkeypatch.setattr(trainable, "STEPWISE", (torch.float32,))
    stepwise, sizes = gradients(base, pictures), kept_sizes(base, pictures)
    assert_close(stepwise, fused)
    assert sizes.count(large) > 0
    monkeypatch.setattr(trainable, "MANY_KEYS", cells)
    assert_close(gradients(base, pictures), stepwise)
    fewer = kept_sizes(base, pictures)
    assert fewer.count(large) == 0
    assert fewer.count(small) == sizes.count(small) > 0, "to few keys they are kept"


def test_texts_of_many_sets_of_tokens_are_computed_again_and_the_unet_is_not(
    sdxl: Base, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At full size, where they would take more memory than time."""
    found = []
    for limit in (again.LARGE, 0):
        monkeypatch.setattr(again, "LARGE", limit)
        counted: list[str] = []
        parts = {"text": sdxl.encoders[0], "text 2": sdxl.encoders[1], "unet": sdxl.denoiser.mid_block}
        norms = {
            kind: next(m for m in part.modules() if isinstance(m, torch.nn.LayerNorm))
            for kind, part in parts.items()
        }
        handles = [
            norm.register_forward_hook(lambda *_, kind=kind, counted=counted: counted.append(kind))
            for kind, norm in norms.items()
        ]
        found.append((gradients(sdxl, pictures), counted))
        for handle in handles:
            handle.remove()
    (kept, once), (anew, twice) = found
    # Both encoders are asked beforehand, too: for the prompts as wholes.
    assert {kind: twice.count(kind) - once.count(kind) for kind in set(once)} == {
        "text": 1,
        "text 2": 1,
        "unet": 0,
    }
    assert_close(anew, kept)


@pytest.mark.parametrize(("copies", "large"), [(1, False), (16, True)])
def test_at_full_size_texts_are_large_unless_layers_share_them(
    copies: int, large: bool, tmp_path: Path
) -> None:
    folder = shutil.copytree(sd_parts.settings_folder("sd15"), tmp_path / "sd15")
    sd_parts.clip_tokenizer("<|endoftext|>").save_pretrained(folder / "tokenizer")
    assert again.texts_are_large(outline(folder), copies) is large


def test_the_text_encoders_activation_and_its_gradient_are_transformers_own(base: Base) -> None:
    assert base.encoders[0].config.hidden_act == "quick_gelu"
    (mlp, *_) = [module for module in base.encoders[0].modules() if hasattr(module, "activation_fn")]
    usual = mlp.activation_fn
    given = torch.linspace(-8, 8, 401, dtype=torch.float64)
    found = []
    for within in (nullcontext(), trainable.trainable(base)):
        x = given.clone().requires_grad_()
        with within:
            out = mlp.activation_fn(x)
            out.square().sum().backward()
        found.append((out, x.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)
    assert mlp.activation_fn is usual, "afterwards the encoder is as it was"


def test_weights_converted_once_give_the_bits_of_those_converted_in_every_step(
    base: Base, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = replace(base, compute=torch.bfloat16)
    before = {name: weight.clone() for name, weight in base.denoiser.state_dict().items()}
    seen = []
    with begun(half, pictures):
        seen += [base.denoiser.conv_in.weight.dtype, base.denoiser.conv_norm_out.weight.dtype]
    assert seen == [torch.bfloat16, torch.float32]
    once = gradients(half, pictures)
    monkeypatch.setattr(trainable, "_converted_once", lambda base: nullcontext())
    assert all(torch.equal(a, b) for a, b in zip(once, gradients(half, pictures), strict=True))
    after = base.denoiser.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert all(after[name].dtype == weight.dtype for name, weight in before.items())


def kept_sizes(base: Base, folder: Path) -> list[tuple[int, ...]]:
    """Shapes of what is kept for the gradients of a batch."""
    sizes: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(tensor.shape))
        return tensor

    with begun(base, folder) as (trainee, data, chosen):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = training.denoising(trainee, draw(data, chosen, 0, len(trainee.schedule.times)))
        loss.backward()
    return sizes


# Inner values computed again


def test_checkpointed_gradients_are_those_without(base: Base, pictures: Path) -> None:
    assert_close(gradients(base, pictures, checkpointing=True), gradients(base, pictures))


@pytest.mark.parametrize("groups", ["block", "layer"])
def test_checkpointed_gradients_of_sdxl_are_those_without(sdxl: Base, pictures: Path, groups: str) -> None:
    exact = gradients(sdxl, pictures, token_groups=groups)
    assert_close(gradients(sdxl, pictures, token_groups=groups, checkpointing=True), exact)


def test_checkpointing_keeps_less_and_computes_blocks_twice(base: Base, pictures: Path) -> None:
    kept, calls = [], []
    for checkpointing in (False, True):
        counted = []
        blocks = [m for m in base.denoiser.modules() if isinstance(m, BasicTransformerBlock)]
        blocks += [m for m in base.encoders[0].modules() if isinstance(m, GradientCheckpointingLayer)]
        numbers = [0]

        def count(tensor: torch.Tensor, numbers: list[int] = numbers) -> torch.Tensor:
            numbers[0] += tensor.numel()
            return tensor

        with begun(base, pictures, checkpointing=checkpointing) as (trainee, data, chosen):
            # Within the layers: a text encoder's layer computes its forward again and not its call.
            inner = [
                next(m for m in block.modules() if isinstance(m, torch.nn.LayerNorm)) for block in blocks
            ]
            handles = [m.register_forward_hook(lambda *_, c=counted: c.append(1)) for m in inner]
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                loss = training.denoising(trainee, draw(data, chosen, 0, len(trainee.schedule.times)))
            loss.backward()
        for handle in handles:
            handle.remove()
        kept.append(numbers[0])
        calls.append(len(counted))
        assert len(counted) == len(blocks) * (1 + checkpointing)
    assert kept[1] < kept[0] / 2


def test_the_base_is_as_it_was_after_a_checkpointed_training(
    base: Base, tiny_registry: Registry, pictures: Path
) -> None:
    learn_direct(tiny_registry, base, task(pictures, checkpointing=True))
    assert not base.denoiser.is_gradient_checkpointing
    for part in (base.denoiser, *base.encoders):
        assert not any(getattr(m, "gradient_checkpointing", False) for m in part.modules())
        assert not any(m.training for m in part.modules())


@pytest.mark.parametrize("method", ["cidm", "ewc", "lwf", "c-lora"])
def test_every_method_learns_checkpointed_and_with_several_batches(
    method: str, base: Base, tiny_registry: Registry, tmp_path: Path
) -> None:
    for name in ("dog", "cat"):
        folder = tiny.save_pictures(tmp_path / name, (f"a photo of a {name}",) * 3)
        work = task(
            folder,
            name=name,
            noun=name,
            method=method,
            checkpointing=True,
            accumulate=2,
            steps=2,
            ewc_draws=2,
        )
        record = learn_direct(tiny_registry, base, work)
    assert record.losses["steps"] == 2
    assert set(record.losses) > {"first", "last_tenth", "steps"}, "the method's terms are kept, too"


# What the loss and the noise are


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_clean_latents_by_snr_up_to_gamma(kind: str) -> None:
    """Both forms are one: an error in the prediction is one in z_0, whose square is weighed by min(SNR, γ)."""
    signal = torch.tensor([0.99, 0.9, 0.5, 0.1, 0.001], dtype=torch.float64)
    snr = signal / (1 - signal)
    clean, noise, wrong = torch.randn(3, 5, 2, 3, 3, dtype=torch.float64).unbind()
    wanted = target(kind, clean, noise, signal)
    # z_0 = (z_t - √(1-ᾱ) ε) / √ᾱ, and z_0 = √ᾱ z_t - √(1-ᾱ) v.
    slope = ((1 - signal) / signal).sqrt() if kind == "epsilon" else (1 - signal).sqrt()
    in_clean = wrong * slope.view(-1, 1, 1, 1)
    expected = (in_clean.square().mean((1, 2, 3)) * snr.clamp_max(5)).mean()
    weights = min_snr_weight(kind, signal, 5.0)
    torch.testing.assert_close(denoising_loss(wanted + wrong, wanted, None, weights), expected)


def test_min_snr_is_finite_where_no_signal_or_no_noise_is_left() -> None:
    ends = torch.tensor([0.0, 1.0])
    assert min_snr_weight("epsilon", ends, 5.0).tolist() == [1, 0]
    assert min_snr_weight("v_prediction", ends, 5.0).tolist() == [0, 0]
    with pytest.raises(ValueError, match="sample"):
        min_snr_weight("sample", ends, 5.0)


def test_weights_of_pictures_count_beside_their_masks() -> None:
    prediction, wanted = torch.randn(2, 2, 3, 4, 4).unbind()
    mask, weights = torch.rand(2, 1, 4, 4), torch.tensor([0.5, 2.0])
    alone = [denoising_loss(prediction[[k]], wanted[[k]], mask[[k]]) for k in range(2)]
    both = denoising_loss(prediction, wanted, mask, weights)
    torch.testing.assert_close(both, (0.5 * alone[0] + 2 * alone[1]) / 2)


def test_min_snr_changes_what_is_learned(base: Base, tiny_registry: Registry, pictures: Path) -> None:
    plain = learn_direct(tiny_registry, base, task(pictures, steps=2))
    other = learn_direct(tiny_registry, base, task(pictures, steps=2, name="cat", min_snr=1.0))
    assert other.losses["first"] < plain.losses["first"]


def test_offset_noise_is_shifted_as_a_whole_and_else_the_same(base: Base, pictures: Path) -> None:
    with begun(base, pictures, batch=4) as (trainee, data, options):
        plain = draw(data, options, 3, len(trainee.schedule.times))
        shifted = draw(
            data, task(pictures, batch=4, noise_offset=0.5).options, 3, len(trainee.schedule.times)
        )
    assert torch.equal(plain.clean, shifted.clean)
    assert torch.equal(plain.times, shifted.times)
    shift = shifted.noise - plain.noise
    torch.testing.assert_close(shift, shift.mean((2, 3), keepdim=True).expand_as(shift), rtol=0, atol=1e-5)
    assert 0.2 < float(shift[:, :, 0, 0].std()) < 1.0


# Moments in 8 bits


def test_an_optimizer_that_is_not_installed_is_refused_with_what_to_install(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, no_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "find_spec", lambda name: None)
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, "--optimizer", "adamw8bit")
    assert ran.code == ExitCode.USAGE
    assert "pip install bitsandbytes" in ran.error


def test_a_resumed_8_bit_training_ends_in_the_same_bytes(
    base: Base, tiny_registry: Registry, pictures: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    other = Registry.create(tiny_registry.root.with_name("other"), tiny_registry.base)
    # Large enough for some moments to be kept in 8 bits.
    eight = {"optimizer": "adamw8bit", "steps": 4, "rank": 128}
    whole = learn_direct(other, base, task(pictures, **eight)).blob
    done = [0]
    events = Events(on_step=lambda n, _: done.__setitem__(0, n), stop=lambda: done[0] == 2)
    with pytest.raises(CidmError, match="stopped"):
        learn_direct(tiny_registry, base, task(pictures, **eight), events)
    assert learn_direct(tiny_registry, base, task(pictures, resume=True, **eight)).blob == whole
    third = Registry.create(tiny_registry.root.with_name("third"), tiny_registry.base)
    assert learn_direct(third, base, task(pictures, **{**eight, "optimizer": "adamw"})).blob != whole


# Too little memory


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "mps", "python"],
)
@pytest.mark.parametrize("place", ["encode", "step"])
def test_out_of_memory_ends_with_its_own_code_and_says_which_options_help(
    place: str,
    error: Exception,
    cidm: Cidm,
    tiny_registry: Registry,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise error

    if place == "encode":
        monkeypatch.setattr(learn, "prepare", fails)
    else:
        monkeypatch.setattr(training, "predict", fails)
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST)
    assert ran.code == ExitCode.OUT_OF_MEMORY
    assert "nothing was committed" in ran.error
    assert "--checkpointing" in ran.error
    assert "--batch 1 --accumulate 2" in ran.error
    assert tiny_registry.records() == []
    assert tiny_registry.verify() == []
    thrifty = ("--checkpointing", "--batch", 1, "--accumulate", 2)
    monkeypatch.undo()
    assert cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, *thrifty).code == 0


def test_advice_names_no_option_that_is_already_used(
    cidm: Cidm, tiny_registry: Registry, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(training, "predict", fails)
    thrifty = ("--checkpointing", "--batch", 1, "--precision", "fp32", "--device", "cpu")
    ran = cidm("learn", "dog", pictures, "--registry", tiny_registry.root, *FAST, *thrifty)
    assert ran.code == ExitCode.OUT_OF_MEMORY
    assert "--" not in ran.error
    assert "close other programs" in ran.error


# Runs of earlier versions


def test_a_run_from_before_an_option_existed_is_resumed(
    base: Base, tiny_registry: Registry, pictures: Path
) -> None:
    done = [0]
    events = Events(on_step=lambda n, _: done.__setitem__(0, n), stop=lambda: done[0] == 2)
    with pytest.raises(CidmError, match="stopped"):
        learn_direct(tiny_registry, base, task(pictures), events)
    run = tiny_registry.find_run("dog")
    assert run is not None
    (file,) = (path for path in run.path.iterdir() if path.suffix == ".json")
    content = json.loads(file.read_text())
    text = json.dumps(content)
    assert text.count('"checkpointing": false, ') == 1
    file.write_text(text.replace('"checkpointing": false, ', ""))
    assert learn_direct(tiny_registry, base, task(pictures, resume=True)).losses["steps"] == 4
