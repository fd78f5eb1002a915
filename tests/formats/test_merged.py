"""The static LoRA file: what comes back, what is refused, and what diffusers makes of it.

Most of it in diffusers' names, which files of older versions have; ``test_readers`` is about the names of today.
"""

from __future__ import annotations

import json
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load, save

import tiny
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.diffusers_lora import pack_diffusers
from cidm_cli.formats.lora import Fit, Names
from cidm_cli.formats.merged import concepts_in, is_merged, open_merged, read_merged
from cidm_cli.formats.tensors import facts_as_metadata
from cidm_cli.models.attention import lora_sites
from cidm_cli.models.base import Base
from cidm_cli.models.lora import merged
from cidm_cli.models.opening import lora_fit

SHAPES = {"down.attn2.to_q": (6, 4), "down.attn2.to_k": (6, 5), "up.attn2.to_out.0": (3, 6)}
FIT = Fit(SHAPES, Names({}, {}, {}, {}))
FACTS = {"method": "sum", "names": ["dog", "Čert"], "weights": [1.0, 0.25], "prompt": None}
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]


def factors(shapes: dict[str, tuple[int, int]] = SHAPES, rank: int = 2) -> Pairs:
    generator = torch.Generator().manual_seed(4)
    return {
        site: (torch.randn(out, rank, generator=generator), torch.randn(rank, width, generator=generator))
        for site, (out, width) in shapes.items()
    }


def pack(given: Pairs, facts: dict[str, object] = FACTS) -> bytes:
    return pack_diffusers(given, 1.0, frozenset(), "unet.", facts)


def packed() -> bytes:
    return pack(factors())


def read(path: Path, blob: bytes, fit: Fit = FIT) -> tuple[Pairs, dict[str, object]]:
    path.write_bytes(blob)
    found, content = read_merged(path, fit)
    assert content == blob
    return {site: (m.scale * m.up, m.down) for site, m in found.modules.items()}, dict(
        open_merged(path).facts
    )


def refused(path: Path, blob: bytes) -> str:
    """The message for a file that must not be taken."""
    with pytest.raises(CidmError) as caught:
        read(path, blob)
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.message.startswith(f"{path}: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "all.safetensors"


def altered(change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    """A good file with its tensors changed."""
    tensors = load(packed())
    change(tensors)
    return save(tensors)


def test_what_is_written_comes_back_to_the_bit(file: Path) -> None:
    given = factors()
    back, facts = read(file, packed())
    assert back.keys() == given.keys()
    for site, (up, down) in given.items():
        assert torch.equal(back[site][0], up)
        assert torch.equal(back[site][1], down)
    assert facts == FACTS


def test_the_header_is_one_that_the_library_takes(file: Path) -> None:
    file.write_bytes(packed())
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == facts_as_metadata(FACTS)
        assert set(opened.keys()) == {f"unet.{s}.lora_{x}.weight" for s in SHAPES for x in "AB"}
    assert int.from_bytes(file.read_bytes()[:8], "little") % 8 == 0, "the tensors begin on a whole number"


def test_equal_inputs_give_equal_bytes_whatever_order_and_memory_they_come_in() -> None:
    given = list(factors().items())
    facts = list(FACTS.items())
    for seed in range(4):
        random.Random(seed).shuffle(given)
        random.Random(seed).shuffle(facts)
        turned = {
            site: (up.t().contiguous().t(), down.clone().requires_grad_()) for site, (up, down) in given
        }
        assert pack(turned, dict(facts)) == packed()


def test_sites_of_lower_rank_are_filled_up_so_that_every_reader_takes_alpha_for_rank(file: Path) -> None:
    given = {**factors(), "down.attn2.to_k": (torch.ones(6, 1), torch.ones(1, 5))}
    back, _ = read(file, pack(given))
    assert {up.shape[1] for up, _ in back.values()} == {2}
    up, down = back["down.attn2.to_k"]
    assert torch.equal(up @ down, torch.ones(6, 5))


def test_half_precision_is_read_as_float32(file: Path) -> None:
    back, _ = read(file, altered(lambda t: [t.update({n: v.half()}) for n, v in list(t.items())]))
    assert {tensor.dtype for pair in back.values() for tensor in pair} == {torch.float32}


def test_no_file_is_not_found(file: Path) -> None:
    with pytest.raises(CidmError) as caught:
        read_merged(file, FIT)
    assert caught.value.code == ExitCode.NOT_FOUND
    assert str(file) in caught.value.message


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CidmError) as caught:
        read_merged(tmp_path, FIT)
    assert caught.value.code == ExitCode.INVALID


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_refused_and_named(value: float, file: Path) -> None:
    name = "unet.down.attn2.to_k.lora_B.weight"
    assert "down.attn2.to_k (up)" in refused(file, altered(lambda t: t[name].view(-1)[-1:].fill_(value)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_numbers_that_are_no_weights_are_refused(dtype: torch.dtype, file: Path) -> None:
    name = "unet.down.attn2.to_k.lora_B.weight"
    assert "down.attn2.to_k (up)" in refused(file, altered(lambda t: t.update({name: t[name].to(dtype)})))


@pytest.mark.parametrize(
    ("factor", "shape"),
    [("lora_A", (2, 4)), ("lora_A", (3, 5)), ("lora_A", (5, 2)), ("lora_A", (2,)), ("lora_A", ()),
     ("lora_A", (2, 5, 1)), ("lora_B", (5, 2)), ("lora_B", (6,)), ("lora_B", (6, 2, 1))],
)  # fmt: skip
def test_a_wrong_shape_is_refused_and_its_layer_named(
    factor: str, shape: tuple[int, ...], file: Path
) -> None:
    name = f"unet.down.attn2.to_k.{factor}.weight"
    message = refused(file, altered(lambda t: t.update({name: torch.zeros(shape)})))
    assert "down.attn2.to_k" in message
    assert "6x5" in message


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_half_a_layer_is_refused_and_named(factor: str, file: Path) -> None:
    message = refused(file, altered(lambda t: t.pop(f"unet.up.attn2.to_out.0.{factor}.weight")))
    assert "up.attn2.to_out.0" in message


@pytest.mark.parametrize(
    "name",
    ["unet.mid.attn2.to_q.lora_A.weight", "unet.down.attn2.to_q.lora_C.weight", "unet.down.attn9.alpha",
     "down.attn2.to_q.lora_A.weight", "unet.unet.down.attn2.to_q.lora_A.weight", "tokens.text_encoder"],
)  # fmt: skip
def test_a_tensor_the_base_has_no_place_for_is_refused_and_named(name: str, file: Path) -> None:
    assert name in refused(file, altered(lambda t: t.update({name: torch.zeros(2, 4)})))


def test_a_file_without_weights_is_refused(file: Path) -> None:
    assert "no low-rank weights" in refused(file, altered(lambda t: t.clear()))


@pytest.mark.parametrize("blob", [b"", b"garbage" * 100, b"PK\x03\x04" + b"\x00" * 60], ids=repr)
def test_what_is_no_safetensors_file_is_refused(blob: bytes, file: Path) -> None:
    assert "not safetensors" in refused(file, blob).replace("a safetensors file", "safetensors")


@pytest.mark.parametrize("kept", [1, 100, -1])
def test_a_file_cut_short_is_refused(kept: int, file: Path) -> None:
    refused(file, packed()[:kept])


# Before anything is read


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CidmError, match="not a regular file"):
        read_merged(tmp_path / "pipe.safetensors", FIT)
    assert not is_merged(tmp_path / "pipe.safetensors")


@pytest.mark.parametrize("what", ["nothing but zeros", "a layer of another width", "an unknown layer"])
def test_gigabytes_that_cannot_be_meant_are_refused_unread(what: str, file: Path) -> None:
    name = "unet.else.lora_A.weight" if "unknown" in what else "unet.down.attn2.to_k.lora_A.weight"
    width = 200_000_000
    entry = {"dtype": "F32", "shape": [4, width], "data_offsets": [0, 16 * width]}
    raw = b"" if "zeros" in what else json.dumps({name: entry}).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw)
    os.truncate(file, 8 + len(raw) + 16 * width)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CidmError):
        read_merged(file, FIT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "of its 3 million kB"


def test_a_header_of_many_megabytes_that_says_nothing_is_refused_at_once(file: Path) -> None:
    raw = b'{"a":[' + b"0," * 40_000_000 + b"0]}"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw)
    started = time.process_time()
    with pytest.raises(CidmError, match="header"):
        read_merged(file, FIT)
    assert time.process_time() - started < 5


def test_long_texts_in_the_header_are_no_hindrance(file: Path) -> None:
    facts = {**FACTS, "tags": {f"tag number {n} of the set": n for n in range(40_000)}}
    _, told = read(file, pack(factors(), facts))
    assert told == facts


def test_what_a_file_holds_is_told_by_itself_in_either_form() -> None:
    two = [{"name": "dog", "blob": "d" * 64}, {"name": "cat", "blob": "c" * 64}]
    assert concepts_in({"concepts": [*two, {"name": 3}, "x"]}) == two
    assert concepts_in(two[0]) == [two[0]]
    assert concepts_in({"concepts": 3}) == concepts_in({}) == []


@pytest.mark.parametrize("mixed", [False, True], ids=["one-rank", "several-ranks"])
def test_diffusers_loads_the_file_and_computes_the_same(
    mixed: bool, base: Base, tiny_base: Path, file: Path
) -> None:
    shapes = base.shapes
    drawn = factors({site: shapes[site] for site in lora_sites(base.denoiser)}, 3)
    given = {site: (0.1 * up, down) for site, (up, down) in drawn.items()}
    if mixed:
        given = {
            site: (up[:, : 1 + n % 3], down[: 1 + n % 3])
            for n, (site, (up, down)) in enumerate(given.items())
        }
    back, _ = read(file, pack(given), lora_fit(base))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.randn(2, tiny.TOKENS, tiny.TEXT_WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain = base.denoiser(latents, 500, text).sample
        with merged(base.denoiser, {site: up @ down for site, (up, down) in back.items()}):
            ours = base.denoiser(latents, 500, text).sample
        stock = StableDiffusionPipeline.from_pretrained(tiny_base, use_safetensors=True)
        stock.load_lora_weights(str(file.parent), weight_name=file.name, use_safetensors=True)
        theirs = stock.unet(latents, 500, text).sample
    assert (ours - plain).abs().max() > 1e-2
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
