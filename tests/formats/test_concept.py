"""A concept's weights as one blob: what comes back, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.formats.concept import ConceptWeights, pack, unpack

SHAPES = {"down.attn2.to_q": (6, 4), "down.attn2.to_k": (6, 5), "up.attn2.to_out.0": (3, 6)}
LAYERS = 2


def concept(seed: int = 0, rank: int = 2) -> ConceptWeights:
    generator = torch.Generator().manual_seed(seed)
    return ConceptWeights(
        up={site: torch.randn(out, rank, generator=generator) for site, (out, _) in SHAPES.items()},
        down={site: torch.randn(rank, width, generator=generator) for site, (_, width) in SHAPES.items()},
        tokens=torch.randn(LAYERS, 3, 8, generator=generator),
    )


def read(blob: bytes) -> ConceptWeights:
    return unpack(blob, "dog", shapes=SHAPES, layers=LAYERS)


def altered(change: Callable[[dict[str, torch.Tensor]], object]) -> bytes:
    """A good blob with its tensors changed."""
    tensors = load(pack(concept()))
    change(tensors)
    return save(tensors)


def refused(blob: bytes) -> str:
    """The message for a blob that must not be taken."""
    with pytest.raises(CidmError) as caught:
        read(blob)
    assert caught.value.code == ExitCode.INVALID
    assert caught.value.message.startswith("concept dog: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_what_is_packed_comes_back_to_the_bit() -> None:
    tiniest = torch.finfo(torch.float32).smallest_normal / 8
    given = concept()
    given.tokens[0, 0, :3] = torch.tensor([tiniest, -0.0, 3.4e38])
    back = read(pack(given))
    assert back.up.keys() == back.down.keys() == SHAPES.keys()
    pairs = [(back.tokens, given.tokens)]
    pairs += [(back.up[s], given.up[s]) for s in SHAPES] + [(back.down[s], given.down[s]) for s in SHAPES]
    for one, other in pairs:
        assert torch.equal(one.view(torch.int32), other.view(torch.int32))


def test_up_is_lora_b_and_down_is_lora_a_as_other_tools_expect() -> None:
    given = concept()
    tensors = load(pack(given))
    for site in SHAPES:
        assert torch.equal(tensors[f"unet.{site}.lora_B.weight"], given.up[site])
        assert torch.equal(tensors[f"unet.{site}.lora_A.weight"], given.down[site])
    assert torch.equal(tensors["tokens.text_encoder"], given.tokens)


def test_the_same_weights_give_the_same_bytes_whatever_order_and_memory_they_come_in() -> None:
    given = concept()
    blob = pack(given)
    turned = ConceptWeights(
        up={site: value.t().contiguous().t() for site, value in reversed(given.up.items())},
        down={site: value.clone().requires_grad_() for site, value in reversed(given.down.items())},
        tokens=torch.nn.Parameter(given.tokens),
    )
    assert pack(turned) == blob
    assert pack(read(blob)) == blob


def test_other_weights_give_other_bytes() -> None:
    given = concept()
    blob = pack(given)
    given.down["down.attn2.to_k"][0, 0] += 1e-6
    assert pack(given) != blob


def test_sites_may_differ_in_rank_and_may_be_left_out() -> None:
    given = concept()
    site = "down.attn2.to_q"
    up = {site: given.up[site]}
    back = read(pack(ConceptWeights(up, {site: given.down[site]}, given.tokens)))
    assert back.up.keys() == {site}
    mixed = ConceptWeights(
        {**given.up, site: torch.ones(6, 1)}, {**given.down, site: torch.ones(1, 4)}, given.tokens
    )
    assert read(pack(mixed)).up[site].shape == (6, 1)


def test_what_a_method_keeps_comes_back_under_its_own_names_and_moves_no_weight() -> None:
    given = concept()
    kept = {"fisher.down.attn2.to_q.up": torch.rand(6, 2), "count": torch.tensor(3.0)}
    blob = pack(replace(given, state=kept))
    back = read(blob)
    assert back.state.keys() == kept.keys()
    assert all(torch.equal(back.state[name], tensor) for name, tensor in kept.items())
    assert back.up.keys() == SHAPES.keys()
    assert pack(back) == blob
    assert read(pack(given)).state == {}


def test_state_cannot_pass_for_a_layer_or_tokens() -> None:
    """Whatever its name: only what stands outside of it is drawn with."""
    own = concept(seed=1)
    kept = {"unet.down.attn2.to_q.lora_A.weight": torch.zeros(2, 4), "tokens.text_encoder": torch.zeros(1)}
    back = read(pack(replace(own, state=kept)))
    assert torch.equal(back.tokens, own.tokens)
    assert torch.equal(back.down["down.attn2.to_q"], own.down["down.attn2.to_q"])


@pytest.mark.parametrize(
    "bad", [torch.tensor([float("inf")]), torch.tensor([float("nan")]), torch.tensor([1])]
)
def test_state_that_is_not_finite_or_not_real_is_refused_and_named(bad: torch.Tensor) -> None:
    assert "state.fisher" in refused(altered(lambda t: t.update({"state.fisher": bad})))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["tokens.text_encoder", "unet.down.attn2.to_k.lora_A.weight"])
def test_what_is_not_finite_is_refused_and_named(name: str, value: float) -> None:
    blob = altered(lambda t: t[name].view(-1)[-1:].fill_(value))
    assert name in refused(blob)


@pytest.mark.parametrize(
    ("factor", "shape"),
    [
        ("lora_A", (2, 4)),  # another layer's width
        ("lora_A", (3, 5)),  # another rank than lora_B
        ("lora_A", (5, 2)),  # turned
        ("lora_A", (2,)),
        ("lora_A", ()),
        ("lora_A", (2, 5, 1)),
        ("lora_B", (5, 2)),
        ("lora_B", (6,)),
        ("lora_B", (6, 2, 1)),
    ],
)
def test_a_wrong_shape_is_refused_and_its_layer_named(factor: str, shape: tuple[int, ...]) -> None:
    name = f"unet.down.attn2.to_k.{factor}.weight"
    message = refused(altered(lambda t: t.update({name: torch.zeros(shape)})))
    assert "unet.down.attn2.to_k" in message
    assert "6x5" in message


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_half_a_layer_is_refused_and_named(factor: str) -> None:
    message = refused(altered(lambda t: t.pop(f"unet.up.attn2.to_out.0.{factor}.weight")))
    assert "unet.up.attn2.to_out.0" in message


@pytest.mark.parametrize(
    "name",
    [
        "unet.mid.attn2.to_q.lora_A.weight",
        "unet.down.attn2.to_q.lora_C.weight",
        "unet.down.attn2.to_q.alpha",
        "unet.down.attn2.to_q.lora_A",
        "down.attn2.to_q.lora_A.weight",
        "unet.unet.down.attn2.to_q.lora_A.weight",
        "tokens.text_encoder_2",
        "../../evil",
    ],
)
def test_a_tensor_the_base_has_no_place_for_is_refused_and_named(name: str) -> None:
    assert name in refused(altered(lambda t: t.update({name: torch.zeros(2, 4)})))


@pytest.mark.parametrize("shape", [(3, 3, 8), (1, 8), (LAYERS, 8), ()])
def test_tokens_for_another_number_of_layers_are_refused(shape: tuple[int, ...]) -> None:
    blob = altered(lambda t: t.update({"tokens.text_encoder": torch.zeros(shape)}))
    assert "2 cross-attention layers" in refused(blob)


def test_a_concept_without_tokens_comes_back_without_any() -> None:
    back = read(pack(replace(concept(), tokens=torch.zeros(1, 0, 8))))
    assert back.tokens.shape[1] == 0
    assert back.up.keys() == SHAPES.keys()
    assert read(altered(lambda t: t.pop("tokens.text_encoder"))).tokens.shape[1] == 0


def test_tokens_that_the_layers_share_come_back_as_one_set() -> None:
    shared = replace(concept(), tokens=concept().tokens[:1])
    assert torch.equal(read(pack(shared)).tokens, shared.tokens)


def test_a_blob_that_holds_nothing_to_draw_with_is_refused() -> None:
    only_state = save({"state.fisher": torch.ones(2)})
    assert "neither low-rank weights nor tokens" in refused(only_state)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn])
@pytest.mark.parametrize("name", ["tokens.text_encoder", "unet.down.attn2.to_k.lora_A.weight"])
def test_numbers_that_are_no_weights_are_refused(name: str, dtype: torch.dtype) -> None:
    assert name in refused(altered(lambda t: t.update({name: t[name].to(dtype)})))


class Trap:
    """Would leave a trace if it were ever unpickled."""

    sprung = False

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return spring, ()


def spring() -> None:
    Trap.sprung = True


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x00" * 7,
        b"garbage" * 100,
        b"\xff" * 64,
        (10).to_bytes(8, "little") + b"{not json}",
        b"PK\x03\x04" + b"\x00" * 60,
    ],
    ids=["empty", "short", "text", "ones", "not-json", "zip"],
)
def test_what_is_no_safetensors_file_is_refused(blob: bytes) -> None:
    assert "not a safetensors file" in refused(blob)


def test_a_pickle_is_refused_and_nothing_in_it_runs() -> None:
    assert "not a safetensors file" in refused(pickle.dumps(Trap()))
    assert not Trap.sprung


@pytest.mark.parametrize("kept", [1, 100, -1])
def test_a_blob_cut_short_is_refused(kept: int) -> None:
    refused(pack(concept())[:kept])
