"""The README's commands, pasted in order into a new shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
HEADING = "## Try it on the embedded base"
SHORT = {"CIDM_LEARN_STEPS": "2", "CIDM_DRAW_STEPS": "3", "CIDM_STYLIZE_STEPS": "3", "CIDM_EDIT_STEPS": "3"}
"""Fewer steps: the commands are as they stand, their images are not looked at."""


def test_every_command_works_when_pasted_in_order_into_a_new_shell(tmp_path: Path) -> None:
    page = (ROOT / "README.md").read_text()
    page = page[page.index(HEADING) : page.index("## What was measured")]
    (layout,) = re.findall(r"```toml\n# two-dogs\.toml\n(.*?)```", page, re.S)
    (tmp_path / "two-dogs.toml").write_text(layout)
    (tmp_path / "cidm_cli").symlink_to(ROOT / "cidm_cli")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.S))
    home = {"HOME": str(tmp_path), "CIDM_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        ["bash", "-e"], input=commands, cwd=tmp_path, env={**os.environ, **SHORT, **home},
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len([*(tmp_path / "pictures").iterdir()]) == 8 + 1 + 4
    for name in ("ink.png", "with-dog.png"):
        Image.open(tmp_path / name).verify()
    assert (tmp_path / "all.safetensors").is_file()
    assert any((tmp_path / "exported").iterdir())
