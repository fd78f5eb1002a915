"""Which precision a base computes in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.models.base import choose_compute


@pytest.mark.parametrize(
    ("amx", "kernels", "chosen"),
    [
        (True, "AVX512", torch.bfloat16),
        (False, "AVX512", torch.float32),
        (True, "AVX2", torch.float32),
        (True, "DEFAULT", torch.float32),
    ],
)
def test_auto_takes_bfloat16_only_where_the_cpu_is_made_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, kernels: str, chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    assert choose_compute("auto", torch.device("cpu")) == chosen


def test_an_unknown_precision_is_refused_by_name() -> None:
    with pytest.raises(CidmError, match="fp8") as caught:
        choose_compute("fp8", torch.device("cpu"))
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize("allowed", ["default", "avx2"])
def test_bfloat16_is_computed_also_where_torch_is_forbidden_what_the_processor_has(allowed: str) -> None:
    program = (
        "import os, cidm_cli.shell.main\n"
        "cidm_cli.shell.main.allow_the_same_kernels(os.environ)\n"
        "import torch\n"
        "q = torch.ones(1, 2, 64, 8, dtype=torch.bfloat16)\n"
        "print(torch.nn.functional.scaled_dot_product_attention(q, q, q).mean().item())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, env={**environment, "ATEN_CPU_CAPABILITY": allowed},
    )  # fmt: skip
    assert ran.stdout == "1.0\n", ran.stderr
