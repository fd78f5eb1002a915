"""What needs no model is refused before the libraries are imported that load one: they take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cidm_cli.errors import ExitCode
from cidm_cli.models.identity import identify
from cidm_registry import Registry
from registry_support import add, make_draft, make_weights

SCRIPT = """
import json, sys
from cidm_cli.shell.main import main
for command in json.load(sys.stdin):
    code = main(["--registry", "registry", *command])
    heavy = sorted({"torch", "transformers", "diffusers", "peft", "accelerate"} & set(sys.modules))
    print("answer", code, heavy, file=sys.stderr, flush=True)
    if heavy:
        break
"""
NOT_FOUND, USAGE, INVALID, FAILED = ExitCode.NOT_FOUND, ExitCode.USAGE, ExitCode.INVALID, ExitCode.FAILED
REFUSED: dict[str, ExitCode] = {
    "generate -p 'a <dgo>'": NOT_FOUND,
    "generate -p 'a <dog' ": USAGE,
    "generate -p 'a <lora:dog:0.8>'": USAGE,
    "generate -p 'a <dog> and an <old>'": FAILED,
    "generate -p a --count 0": USAGE,
    "generate -p a --sampler best": USAGE,
    "generate -p a --method best": USAGE,
    "generate -p a --precision half-ish": USAGE,
    "generate -p a --size 500x500": USAGE,
    "generate -p a --structure none.png --control folder": NOT_FOUND,
    "generate none.toml": NOT_FOUND,
    "generate unknown.toml": NOT_FOUND,
    "generate size.toml": INVALID,
    "generate masked.toml": NOT_FOUND,
    "generate fine.toml --method lora-switch": USAGE,
    "generate --from none.png": NOT_FOUND,
    "generate --from 0.png": INVALID,
    "generate -p a -o 0.png": USAGE,
    "generate 'a photo of a <dog>'": NOT_FOUND,
    "stylize ink --style 0.png": USAGE,
    "edit 0.png --concept dog --box 0.1 0.4 0.5 0.95": USAGE,
    "edit 0.png --concept dog --box 0.1, 0.4, 0.5, 0.95": USAGE,
    "edit 0.png --concept dog --box '1 2 3 4'": USAGE,
    "edit dog --concept dog --box 0,0,1,1": USAGE,
    "stylize 0.png --style nik": NOT_FOUND,
    "stylize none.png --style ink": NOT_FOUND,
    "stylize 0.png --style ink --size 500x500": USAGE,
    "stylize 0.png --style ink -p 'a house'": USAGE,
    "edit 0.png --concept dgo --box 0,0,1,1": NOT_FOUND,
    "edit 0.png --concept dog --box 0,0,1": USAGE,
    "edit 0.png --concept dog --mask none.png": NOT_FOUND,
    "edit 0.png --concept dog --box 0,0,1,1 --strength 2": USAGE,
    "explain 'a <dgo>'": NOT_FOUND,
    "explain 'a <dog>' --method best": USAGE,
    "merge dgo -o m.safetensors": NOT_FOUND,
    "merge dog --method best -o m.safetensors": USAGE,
    "merge dog ink old -o m.safetensors": FAILED,
    "merge --method ewa -p 'a <dgo>' -o m.safetensors": NOT_FOUND,
    "merge dog -o m.safetensors -w cat=1": USAGE,
    "merge --analyze dog": NOT_FOUND,
    "export dgo -o k": NOT_FOUND,
    "export dog --to diffusers -o there": FAILED,
    "export --to best -o k": USAGE,
    "eval --concepts dgo": NOT_FOUND,
    "eval --sampler best": USAGE,
    "eval --data none": NOT_FOUND,
    "eval --layouts unknown.toml": NOT_FOUND,
    "layout check unknown.toml": NOT_FOUND,
    "layout show none.toml": NOT_FOUND,
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry on `mini` with <dog>, the style <ink> and <old>, learned by another method; a picture and layouts."""
    folder = tmp_path_factory.mktemp("shop")
    registry = Registry.create(folder / "registry", identify("mini"))
    add(registry, "dog", 1)
    ink, old = replace(make_draft("ink"), style=True), replace(make_draft("old"), method="ewc")
    for number, draft in enumerate((ink, old), 2):
        registry.commit(draft, make_weights(number), expected_head=registry.head())
    Image.new("RGB", (64, 64), "tan").save(folder / "0.png")
    (folder / "there").mkdir()
    (folder / "there" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    region = '[base]\nprompt = "a"\n[[region]]\nprompt = "a <dog>"\n'
    box = "box = [0, 0, 0.5, 1]\n"
    (folder / "fine.toml").write_text(region + box)
    (folder / "unknown.toml").write_text(region.replace("dog", "dgo") + box)
    (folder / "size.toml").write_text("[image]\nsize = [72, 64]\n" + region + box)
    (folder / "masked.toml").write_text(region + 'mask = "none.png"\n')
    return folder


@pytest.fixture(scope="module")
def answers(shop: Path) -> dict[str, str]:
    """What each of the commands is answered with in one program, up to the first that imports a library."""
    import shlex

    environment = {name: value for name, value in os.environ.items() if not name.startswith("CIDM_")}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps([shlex.split(line) for line in REFUSED]), cwd=shop,
        env={**environment, "XDG_CONFIG_HOME": str(shop)}, capture_output=True, check=False, text=True, timeout=120,
    )  # fmt: skip
    told = ran.stderr.split("answer ")
    ends = [one.splitlines()[0] for one in told[1:]]
    said = [told[0], *("\n".join(one.splitlines()[1:]) for one in told[1:])]
    return {line: f"{end}\n{text}" for line, end, text in zip(REFUSED, ends, said, strict=False)}


MEANT = {
    "generate 'a photo of a <dog>'": 'cidm generate --prompt "a photo of a <dog>"',
    "generate -p a --size 500x500": "try 496x496",
    "generate size.toml": "try [64, 64]",
    "stylize ink --style 0.png": "cidm stylize 0.png --style ink",
    "edit 0.png --concept dog --box 0.1 0.4 0.5 0.95": "with commas: --box 0.1,0.4,0.5,0.95",
    "edit 0.png --concept dog --box 0.1, 0.4, 0.5, 0.95": "with commas: --box 0.1,0.4,0.5,0.95",
    "edit 0.png --concept dog --box '1 2 3 4'": "with commas: --box 1,2,3,4",
    "edit dog --concept dog --box 0,0,1,1": "dog is a concept, not an image",
    "generate -p 'a <lora:dog:0.8>'": "write <dog>",
    "explain 'a <dgo>'": "did you mean <dog>?",
}


@pytest.mark.parametrize("line", MEANT)
def test_a_common_mistake_is_met_with_what_was_meant(line: str, answers: dict[str, str]) -> None:
    assert MEANT[line] in answers[line]


@pytest.mark.parametrize("line", REFUSED)
def test_it_is_refused_before_any_library_is_imported(line: str, answers: dict[str, str]) -> None:
    assert line in answers, "an earlier command imported one"
    assert answers[line].splitlines()[0] == f"{int(REFUSED[line])} []", answers[line]
