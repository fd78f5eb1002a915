"""`cidm layout new`, `check` and `show`: what they find, what they write, and what they never write over."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import cidm_templates
from cidm_cli.errors import ExitCode
from cidm_cli.layout import all_faults, load_layout, thin_regions
from cidm_cli.layout.advice import Picture, advice
from cidm_cli.layout.templates import filled, noun_of, sized, slots
from cidm_registry import BaseRef, Registry
from command import Cidm
from registry_support import BASE, add

HEAD = '[base]\nprompt = "a room"\n'
LEFT = '[[region]]\nprompt = "a <dog>"\nbox = [0.0, 0.0, 0.5, 1.0]\n'
RIGHT = '[[region]]\nprompt = "a <cat>"\nbox = [0.5, 0.0, 1.0, 1.0]\n'


@pytest.fixture
def scene(elsewhere: Path) -> Path:
    path = elsewhere / "scene.toml"
    path.write_text(HEAD + LEFT + RIGHT)
    return path


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """On the embedded base, with a dog and a cat."""
    made = Registry.create(tmp_path / "registry", BASE)
    add(made, "dog", 1)
    add(made, "cat", 2)
    return made


# new


def test_new_lists_every_template_with_what_it_is_for(cidm: Cidm) -> None:
    ran = cidm("layout", "new")
    assert ran.code == 0
    answer = cidm("layout", "new", "--json").answer
    assert [one["name"] for one in answer["templates"]] == list(cidm_templates.layouts())
    for one in answer["templates"]:
        assert one["name"] in ran.out
        assert one["about"] in ran.out
        assert 20 < len(one["about"]) < 120
    assert cidm("layout", "new", "-q").out.split() == list(cidm_templates.layouts())


@pytest.mark.parametrize("name", cidm_templates.layouts())
def test_new_writes_a_valid_file_with_its_comments(name: str, cidm: Cidm, elsewhere: Path) -> None:
    ran = cidm("layout", "new", name, "-q")
    assert ran.out == f"{name}.toml\n"
    text = (elsewhere / f"{name}.toml").read_text()
    assert text == cidm_templates.layout(name)
    assert "# " in text
    load_layout(elsewhere / f"{name}.toml")


def test_new_never_writes_over_a_file_unless_told_to(cidm: Cidm, elsewhere: Path) -> None:
    mine = elsewhere / "mine.toml"
    mine.write_text("precious")
    ran = cidm("layout", "new", "single", "-o", mine)
    assert ran.code == ExitCode.FAILED
    assert "--force" in ran.error
    assert mine.read_text() == "precious"
    assert cidm("layout", "new", "single", "-o", mine, "--force").code == 0
    assert load_layout(mine).base.prompt


def test_new_does_not_write_through_a_link(cidm: Cidm, elsewhere: Path) -> None:
    (elsewhere / "link.toml").symlink_to(elsewhere / "elsewhere.toml")
    assert cidm("layout", "new", "single", "-o", "link.toml").code == ExitCode.FAILED
    assert not (elsewhere / "elsewhere.toml").exists()


def test_new_prints_the_file_instead_where_the_name_is_a_dash(cidm: Cidm, elsewhere: Path) -> None:
    assert cidm("layout", "new", "single", "-o", "-").out == cidm_templates.layout("single")
    assert list(elsewhere.iterdir()) == []


def test_new_puts_other_concepts_in_and_keeps_the_comments(cidm: Cidm, elsewhere: Path) -> None:
    assert cidm("layout", "new", "two-side-by-side", "--concepts", "rex, elephant2").code == 0
    text = (elsewhere / "two-side-by-side.toml").read_text()
    layout = load_layout("x", text)
    assert [region.prompt for region in layout.regions] == [
        "a photo of a <rex> in a room",
        "a photo of an <elephant2> in a room",
    ]
    assert layout.base.prompt == "a photo of a rex and an elephant in a room"
    assert text.count("#") == cidm_templates.layout("two-side-by-side").count("#")


@pytest.mark.parametrize(
    ("name", "size"), [("two-side-by-side", (96, 64)), ("three-in-a-row", (128, 64)), ("single", None)]
)
def test_new_gives_boxes_room_in_the_measure_of_the_registrys_base(
    name: str, size: tuple[int, int] | None, cidm: Cidm, registry: Registry
) -> None:
    text = cidm("layout", "new", name, "--registry", registry.root, "-o", "-").out
    assert load_layout("x", text).image.size == size
    assert load_layout("x", cidm_templates.layout(name)).image.size is None


def test_new_takes_the_noun_of_a_learned_concept_for_the_whole_picture(
    cidm: Cidm, registry: Registry
) -> None:
    ran = cidm(
        "layout", "new", "two-side-by-side", "--concepts", "Cat,bird", "--registry", registry.root, "-o", "-"
    )
    noun = registry.get("cat").class_noun
    assert f"a photo of a {noun} and a bird in a room" in ran.out
    assert "warning: no concept is called <bird>" in ran.err
    assert "<Cat>" not in ran.err


def test_concepts_that_change_places_are_not_mixed_up() -> None:
    text = '[base]\nprompt = "a dog and a cat, dogma"\n' + LEFT + RIGHT
    layout = load_layout("x", filled(text, {"dog": ("cat", "cat"), "cat": ("dog", "dog")}))
    assert layout.base.prompt == "a cat and a dog, dogma"
    assert [region.prompt for region in layout.regions] == ["a <cat>", "a <dog>"]
    assert slots(text) == ("dog", "cat")


def test_nouns_with_quotes_and_angles_do_not_break_the_file() -> None:
    text = filled('[base]\nprompt = "a dog" # c\n' + LEFT, {"dog": ("rex", 'a "b" <c')})
    assert load_layout("x", text).base.prompt == 'an a "b" \\<c'
    assert "# c" in text


@pytest.mark.parametrize(
    ("name", "noun"), [("dog2", "dog"), ("duck_toy", "duck toy"), ("rex", "rex"), ("7", "7")]
)
def test_a_name_suggests_a_noun(name: str, noun: str) -> None:
    assert noun_of(name) == noun


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("two-side-by-sid",), 3, "did you mean two-side-by-side"),
        (("../single",), 3, "no template"),
        (("two-side-by-side", "--concepts", "dog"), 2, "room for 2 (dog, cat), and 1 were given"),
        (("two-side-by-side", "--concepts", "dog,a/b"), 2, "not allowed"),
        (("single", "-o", "/dev/null/single.toml"), 1, "cannot be written"),
    ],
)
def test_what_new_cannot_do_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, words: str, cidm: Cidm, elsewhere: Path
) -> None:
    ran = cidm("layout", "new", *arguments)
    assert ran.code == code
    assert words in ran.error
    assert list(elsewhere.iterdir()) == []


# check


def test_check_says_what_each_file_holds(cidm: Cidm, scene: Path, registry: Registry) -> None:
    plain = scene.with_name("plain.toml")
    plain.write_text('[image]\nsize = [512, 768]\n[base]\nprompt = "a <Dog>"\n')
    ran = cidm("layout", "check", scene.name, plain.name, "--registry", registry.root)
    assert ran.out.splitlines() == [
        "scene.toml: 2 regions (full), <dog> <cat>, 64 x 64 pixels",
        "plain.toml: no regions, <Dog>, 512 x 768 pixels",
    ]
    assert (ran.code, ran.err) == (0, "")
    answer = cidm("layout", "check", scene.name, "--registry", registry.root, "--json").answer
    (one,) = answer["layouts"]
    assert (one["ok"], one["regions"], one["concepts"], one["faults"]) == (True, 2, ["dog", "cat"], [])


def test_check_tells_every_fault_of_every_file(cidm: Cidm, elsewhere: Path) -> None:
    (elsewhere / "a.toml").write_text("[image]\nsteps = 0\nsede = 1\n" + HEAD + LEFT.replace("0.5", "nan"))
    (elsewhere / "b.toml").write_text(HEAD)
    (elsewhere / "c.toml").write_text("x = [")
    ran = cidm("layout", "check", "a.toml", "b.toml", "c.toml", "d.toml")
    assert ran.code == ExitCode.INVALID
    found = [line.split(" ")[0] for line in ran.out.splitlines()]
    assert found == ["a.toml:2:", "a.toml:3:", "a.toml:8:", "b.toml:", "c.toml:1:", "d.toml:"]
    assert "5 faults in 3 of 4 layouts" in ran.error
    assert cidm("layout", "check", "a.toml", "b.toml", "-q").out == "b.toml\n"
    answer = cidm("layout", "check", "a.toml", "--json").answer
    assert answer["ok"] is False
    faults = answer["layouts"][0]["faults"]
    assert [(fault["line"], fault["key"]) for fault in faults] == [
        (2, "image.steps"),
        (3, "image.sede"),
        (8, "region.0.box.2"),
    ]


def test_faults_between_values_are_told_beside_faults_of_values() -> None:
    text = (
        '[image]\nsteps = 0\n[base]\nprompt = ""\n'
        '[[region]]\nprompt = ""\nbox = [0, 0, 1, 2]\n'
        '[[region]]\nprompt = "a"\nfeather = 0.7\nbox = [0, 0, 1, 1]\nseed = -1\n'
        '[[region]]\nbox = [0, 0, 1, "1"]\nfeather = 0.1\n'
    )
    found = all_faults("s", text)
    assert isinstance(found, list)
    assert [(fault.details["line"], fault.details["key"]) for fault in found] == [
        (2, "image.steps"),
        (4, "base.prompt"),
        (6, "region.0.prompt"),
        (7, "region.0.box"),
        (10, "region.1.feather"),
        (12, "region.1.seed"),
        (13, "region.2.prompt"),
        (14, "region.2.box.3"),
    ]


def test_boxes_are_not_judged_by_units_or_a_size_that_are_wrong_themselves() -> None:
    region = '[[region]]\nprompt = "a"\nbox = [0, 0, 300, 300]\n'
    for line in ('units = "cm"', 'units = "pixel"\nsize = [100, 100]'):
        found = all_faults("s", f"[image]\n{line}\n" + HEAD + region)
        assert isinstance(found, list)
        assert all("box" not in str(fault) for fault in found)


@pytest.mark.parametrize("command", [("generate",), ("layout", "check"), ("layout", "show")])
@pytest.mark.parametrize("size", [8, 400])
def test_a_picture_in_place_of_a_layout_is_told_to_be_one(
    size: int, command: tuple[str, ...], cidm: Cidm, registry: Registry
) -> None:
    Image.effect_noise((size, size), 50).save("my picture.png")
    ran = cidm(*command, "my picture.png", "--registry", registry.root)
    assert ran.code == ExitCode.INVALID
    said = ran.out + ran.err
    assert "my picture.png is an image, not a layout" in said
    assert "cidm generate --from 'my picture.png'" in said


def test_another_file_that_is_no_text_is_told_to_be_that(cidm: Cidm) -> None:
    Path("scene.toml").write_bytes(b"\xff\xd8\xff")
    assert "not UTF-8" in cidm("layout", "check", "scene.toml").out


def test_check_looks_for_concepts_where_there_is_a_registry(
    cidm: Cidm, scene: Path, registry: Registry
) -> None:
    scene.write_text(HEAD + LEFT.replace("<dog>", "<dgo> <cta>") + RIGHT)
    ran = cidm("layout", "check", scene.name, "--registry", registry.root)
    assert ran.code == ExitCode.NOT_FOUND
    assert ran.out.splitlines() == [
        "scene.toml:4: region.0.prompt: no concept is called <dgo>; did you mean <dog>?",
        "scene.toml:4: region.0.prompt: no concept is called <cta>; did you mean <cat>?",
    ]
    assert cidm("layout", "check", scene.name, "--registry", registry.root, "--no-concepts").code == 0
    nowhere = cidm("layout", "check", scene.name)
    assert nowhere.code == 0
    assert "not checked" in nowhere.err
    assert cidm("layout", "check", scene.name, "--registry", "none").code == ExitCode.NOT_FOUND


def test_check_reads_standard_input(cidm: Cidm, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((HEAD + LEFT).encode())))
    assert cidm("layout", "check", "-", "-q").out == "-\n"


def test_check_warns_of_what_the_bases_coarsest_map_cannot_see(
    cidm: Cidm, scene: Path, registry: Registry
) -> None:
    # The embedded base's coarsest map has 4 x 4 cells at its own size, whose centres lie at 1/8, 3/8, 5/8 and 7/8.
    scene.write_text(HEAD + LEFT.replace("[0.0, 0.0, 0.5, 1.0]", "[0.4, 0.0, 0.6, 1.0]"))
    ran = cidm("layout", "check", scene.name, "--registry", registry.root)
    assert ran.code == 0
    assert "warning: scene.toml:5: region.0.box is thinner than a cell" in ran.err
    assert "(4 x 4 cells)" in ran.err
    wide = cidm("layout", "check", scene.name, "--registry", registry.root, "--json")
    assert len(wide.answer["layouts"][0]["warnings"]) == 1


def test_check_refuses_a_size_that_the_base_cannot_draw(cidm: Cidm, scene: Path, registry: Registry) -> None:
    scene.write_text("[image]\nsize = [136, 64]\n" + HEAD + LEFT + RIGHT)
    ran = cidm("layout", "check", scene.name, "--registry", registry.root, "--json")
    assert ran.code == ExitCode.INVALID
    (fault,) = ran.answer["layouts"][0]["faults"]
    assert fault["message"] == "scene.toml:2: image.size is 136 x 64, and this base draws multiples of 16"
    assert fault["hint"] == "try [128, 64]"
    assert cidm("layout", "check", scene.name, "--no-concepts").code == 0, (
        "without a registry no base is known"
    )


def test_a_base_that_is_gone_leaves_the_rest_checked(cidm: Cidm, scene: Path, tmp_path: Path) -> None:
    made = Registry.create(tmp_path / "gone", BaseRef("sd15", "/no/such/folder", "0" * 64))
    add(made, "dog", 1)
    add(made, "cat", 2)
    ran = cidm("layout", "check", scene.name, "--registry", made.root)
    assert ran == type(ran)(0, "scene.toml: 2 regions (full), <dog> <cat>, the base's own size\n", "")


def advised(text: str, size: tuple[int, int] | None = (512, 512)) -> list[str]:
    return advice(load_layout("s", text), Picture(size, None))


def test_overlaps_are_warned_about_where_they_are_drawn_as_a_mean() -> None:
    across = LEFT.replace("0.5", "0.6")
    (warning,) = advised(HEAD + across + RIGHT)
    assert warning.startswith("s:5: region.0.box overlaps region.1")
    assert advised(HEAD + LEFT + RIGHT) == []
    assert advised('[image]\noverlap = "priority"\n' + HEAD + across + RIGHT) == []
    assert advised(HEAD + across + RIGHT + 'mask = "m.png"\n') == []


def test_a_region_that_later_ones_hide_is_warned_about() -> None:
    small = LEFT.replace("[0.0, 0.0, 0.5, 1.0]", "[0.6, 0.2, 0.8, 0.8]")
    head = '[image]\noverlap = "priority"\n' + HEAD
    (warning,) = advised(head + small + RIGHT)
    assert "lies almost wholly under region.1" in warning
    assert advised(head + RIGHT + small) == []


def test_boxes_without_room_are_warned_about() -> None:
    narrow = LEFT.replace("[0.0, 0.0, 0.5, 1.0]", "[0.5, 0.0, 0.51, 1.0]")
    (warning,) = advised(HEAD + narrow)
    assert "region.0.box has no room: it is 5.12 x 512 pixels" in warning
    assert advised(HEAD + narrow, (1024, 1024)) == []
    assert advised(HEAD + narrow, None) == []


@pytest.mark.parametrize(
    ("size", "units", "box", "room"),
    [
        ((512, 512), "relative", "[0, 0, 0.5, 1]", 0.25),
        # The feather is a share of the shorter side, the box of each: 0.5 of 1024 is a whole shorter side.
        ((1024, 512), "relative", "[0, 0, 0.5, 1]", 0.5),
        ((512, 512), "pixel", "[0, 0, 100, 200]", 50),
    ],
)
def test_a_feather_that_leaves_nothing_of_its_box_is_warned_about(
    size: tuple[int, int], units: str, box: str, room: float
) -> None:
    def warned(feather: float) -> list[str]:
        image = f'[image]\nunits = "{units}"\nsize = {list(size)}\n'
        return advised(f'{image}{HEAD}[[region]]\nprompt = "a"\nbox = {box}\nfeather = {feather}\n', size)

    assert warned(room) == []
    if room < 0.5 or units == "pixel":
        (warning,) = warned(room * 1.01)
        assert "region.0.feather" in warning
        assert "full strength" in warning


# masks


def save_mask(path: Path, size: tuple[int, int] = (64, 64), fill: int = 255) -> None:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((4, 4, size[0] // 2, size[1] - 4), fill=fill)
    path.parent.mkdir(exist_ok=True)
    mask.save(path)


def test_check_opens_the_masks(cidm: Cidm, scene: Path) -> None:
    scene.write_text(HEAD + '[[region]]\nprompt = "a"\nmask = "masks/m.png"\n')
    ran = cidm("layout", "check", scene.name)
    assert ran.code == ExitCode.NOT_FOUND
    assert "scene.toml:5: region.0.mask: masks/m.png: no such file" in ran.out
    save_mask(scene.parent / "masks" / "m.png")
    assert cidm("layout", "check", scene.name).code == 0
    save_mask(scene.parent / "masks" / "m.png", fill=0)
    ran = cidm("layout", "check", scene.name)
    assert ran.code == ExitCode.INVALID
    assert "black all over" in ran.out
    (scene.parent / "masks" / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "damaged" in cidm("layout", "check", scene.name).out


def test_a_mask_that_leads_out_of_the_folder_is_not_opened(cidm: Cidm, scene: Path, tmp_path: Path) -> None:
    save_mask(tmp_path / "secret" / "m.png")
    (scene.parent / "m.png").symlink_to(tmp_path / "secret" / "m.png")
    scene.write_text(HEAD + '[[region]]\nprompt = "a"\nmask = "m.png"\n')
    ran = cidm("layout", "check", scene.name)
    assert ran.code == ExitCode.INVALID
    assert "leads out of the layout's folder" in ran.out


# show


def test_show_looks_at_where_to_first(cidm: Cidm, scene: Path) -> None:
    ran = cidm("layout", "show", "none.toml", "-o", f"{scene.name}/boxes.png")
    assert ran.code == ExitCode.FAILED
    assert "scene.toml/boxes.png: cannot be written" in ran.error


def test_show_writes_a_picture_of_the_layouts_aspect(cidm: Cidm, scene: Path) -> None:
    scene.write_text("[image]\nsize = [768, 512]\n" + HEAD + LEFT + RIGHT)
    ran = cidm("layout", "show", scene.name, "-o", "boxes.png")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "boxes.png"
    assert "a <dog>" in ran.out
    with Image.open(scene.parent / "boxes.png") as image:
        assert image.width / image.height == pytest.approx(1.5, abs=0.01)
    assert cidm("layout", "show", scene.name, "-q").out == "scene-layout.png\n"
    answer = cidm("layout", "show", scene.name, "--json", "--set", "region.0.box=[0, 0, 0.25, 1]").answer
    assert answer["regions"][0]["box"] == [0, 0, 0.25, 1]


def test_show_refuses_what_is_no_picture_and_what_is_no_layout(cidm: Cidm, scene: Path) -> None:
    assert cidm("layout", "show", scene.name, "-o", "x.jpg").code == ExitCode.USAGE
    scene.write_text(HEAD + '[[region]]\nprompt = "a"\nmask = "m.png"\n')
    assert cidm("layout", "show", scene.name).code == ExitCode.NOT_FOUND
    assert sorted(scene.parent.iterdir()) == [scene]


# the house


def test_the_group_takes_the_options_of_every_command_before_and_after_its_verb(
    cidm: Cidm, scene: Path
) -> None:
    for arguments in (
        ("--json", "layout", "check", scene.name),
        ("layout", "--json", "check", scene.name),
        ("layout", "check", "--json", scene.name),
    ):
        assert cidm(*arguments).answer["ok"] is True
    assert "import" in cidm("layout").out
    assert cidm("layout", "chekc").code == ExitCode.USAGE
    assert json.loads(cidm("layout", "check", "--json").out)["error"]["code"] == 2


def test_new_check_and_import_load_nothing_heavy(scene: Path, registry: Registry) -> None:
    (scene.parent / "prompt.txt").write_text("a <dog> BREAK a <cat>")
    script = (
        "import sys\nfrom cidm_cli.shell.main import main\n"
        f"codes = [main(['layout', *given, '--registry', {str(registry.root)!r}]) for given in "
        f"(['new', 'single'], ['check', {str(scene)!r}], ['import', 'prompt.txt'])]\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'peft', 'accelerate'} & set(sys.modules)\n"
        "print(codes, sorted(heavy), file=sys.stderr)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
        cwd=scene.parent,
    )
    assert ran.stderr.splitlines()[-1] == "[0, 0, 0] []"


@pytest.mark.parametrize("cells", [(4, 4), (8, 8), (32, 32)])
@pytest.mark.parametrize("name", cidm_templates.layouts())
def test_templates_are_sensible_on_small_and_on_large_bases(name: str, cells: tuple[int, int]) -> None:
    layout = load_layout(name, cidm_templates.layout(name))
    assert thin_regions(layout, cells) == ()
    side = {4: 64, 8: 512, 32: 1024}[cells[0]]
    assert advice(layout, Picture((side, side), cells)) == []
    wide = load_layout(name, sized(cidm_templates.layout(name), side, 16))
    assert advice(wide, Picture(wide.image.size or (side, side), cells)) == []
    scenes = {region.prompt.split(">")[1] for region in layout.regions}
    assert len(scenes) <= 1, "all regions are in one scene"
    assert all(scene and scene in layout.base.prompt for scene in scenes)
    if layout.regions:
        assert "<" not in layout.base.prompt, "a concept of the whole picture would be drawn in every region"
        assert all("<" in region.prompt for region in layout.regions)
