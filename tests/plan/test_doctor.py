"""`cidm doctor`: what it finds, what it says is wrong, and what it keeps to itself."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from cidm_cli.errors import ExitCode
from cidm_cli.models.identity import identify
from cidm_cli.plan import doctor
from cidm_registry import Registry
from command import Cidm, Ran


def findings(ran: Ran) -> dict[str, dict[str, Any]]:
    return {finding["what"]: finding for finding in ran.answer["findings"]}


def test_a_machine_without_a_registry_is_fit_and_told_to_make_one(cidm: Cidm) -> None:
    ran = cidm("doctor", "--device", "cpu", "--precision", "fp32", "--json")
    found = findings(ran)
    assert ran.code == 0
    assert {f["state"] for f in found.values()} <= {"ok", "warn"}
    assert found["registry"]["state"] == "warn"
    assert "cidm init" in found["registry"]["fix"]
    assert "is cpu" in found["chosen"]["found"]
    assert "is float32" in found["chosen"]["found"]
    assert "mini" in found["bases here"]["found"]
    assert {"python", "torch", "diffusers", "transformers", "peft", "cpu", "hub's cache"} <= set(found)


def test_a_registry_is_told_in_a_line_and_stays_as_it_is(cidm: Cidm, tiny_registry: Registry) -> None:
    before = sorted(path for path in tiny_registry.root.rglob("*"))
    ran = cidm("doctor", "--registry", tiny_registry.root)
    assert ran.code == 0
    line = next(line for line in ran.out.splitlines() if " registry " in line)
    assert line.startswith("ok")
    assert "0 concepts, can be written, nobody learns in it" in line
    assert sorted(path for path in tiny_registry.root.rglob("*")) == before


def test_a_base_that_is_gone_fails(cidm: Cidm, tiny_base: Path, tmp_path: Path) -> None:
    copytree(tiny_base, tmp_path / "base")
    registry = Registry.create(tmp_path / "registry", identify(str(tmp_path / "base")))
    (tmp_path / "base").rename(tmp_path / "away")
    ran = cidm("doctor", "--registry", registry.root, "--json")
    assert ran.code == 1
    assert findings(ran)["its base"]["state"] == "fail"
    assert "its base" in ran.error


def test_a_damaged_registry_fails(cidm: Cidm, tiny_registry: Registry) -> None:
    (tiny_registry.root / "registry.json").write_text("{")
    assert cidm("doctor", "--registry", tiny_registry.root).code == 1


def test_a_package_that_is_too_old_fails_with_what_to_install(
    cidm: Cidm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor.version
    monkeypatch.setattr(doctor, "version", lambda name: "0.1" if name == "diffusers" else real(name))
    ran = cidm("doctor", "--json")
    assert ran.code == 1
    assert "0.1" in findings(ran)["diffusers"]["found"]
    assert "pip install 'diffusers>=" in findings(ran)["diffusers"]["fix"]


def test_settings_are_shown_with_where_they_come_from(
    cidm: Cidm, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "cidm.toml").write_text("[learn]\nsteps = 9\nrank = 2\n")
    monkeypatch.setenv("CIDM_LEARN_STEPS", "7")
    found = findings(cidm("doctor", "--json"))
    assert found["learn.steps"]["found"] == "7 (from CIDM_LEARN_STEPS)"
    assert found["learn.rank"]["found"] == f"2 (from {elsewhere / 'cidm.toml'})"
    monkeypatch.setenv("CIDM_LEARN_STEPS", "many")
    ran = cidm("doctor", "--json")
    assert ran.code == 1
    assert findings(ran)["learn.steps"]["state"] == "fail"


@pytest.mark.parametrize(
    ("text", "found", "fix"),
    [
        (
            "device = 'cpu'\n[learn]\nstepz = 9\n",
            "cidm.toml:3: unknown setting 'learn.stepz'",
            "'learn.steps'",
        ),
        ("\nregistry = 5\n", "cidm.toml:2: registry must be text", "correct it"),
        ("registry = 'x\n", "cidm.toml:1: ", "correct it"),
    ],
)
def test_a_broken_settings_file_is_a_finding_and_the_rest_is_told(
    text: str, found: str, fix: str, cidm: Cidm, elsewhere: Path, tmp_path: Path
) -> None:
    (elsewhere / "cidm.toml").write_text(text)
    user = tmp_path / "config" / "cidm"
    user.mkdir(parents=True)
    (user / "config.toml").write_text("[learn]\nrank = 2\n")
    ran = cidm("doctor", "--json")
    assert ran.code == ExitCode.FAILED
    assert found in ran.error
    broken, read = [one for one in ran.answer["findings"] if one["what"] == "settings"]
    assert broken["state"] == "fail"
    assert found in broken["found"]
    assert fix in broken["fix"]
    assert (read["state"], read["found"]) == ("ok", str(user / "config.toml"))
    assert findings(ran)["learn.rank"]["found"].startswith("2 ")
    assert findings(ran)["registry"]["found"] == f"none in {tmp_path / 'data' / 'cidm'}"


def test_the_hubs_token_is_told_and_never_shown(cidm: Cidm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijk")
    ran = cidm("doctor")
    assert "a token" in ran.out
    assert "abcdefghijk" not in ran.out + ran.err


def test_the_network_is_asked_only_when_told_to(cidm: Cidm, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    cidm("doctor")
    assert not asked
    ran = cidm("doctor", "--online", "--json")
    assert asked
    assert (ran.code, findings(ran)["hub's site"]["state"]) == (0, "warn")


def test_a_device_that_is_not_here_fails(cidm: Cidm) -> None:
    ran = cidm("doctor", "--device", "cuda:99", "--json")
    assert ran.code == 1
    assert "cuda:99" in findings(ran)["chosen"]["found"]
