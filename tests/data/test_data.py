"""The user's pictures: what is read, what is refused and how, and that content alone decides."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cidm_cli.data import Dataset, Placement, draw_augmentation, load_examples, place, replace_noun
from cidm_cli.errors import CidmError, ExitCode
from cidm_cli.judge.tasks import load_tasks

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


def picture(seed: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def png_with_text_bomb(kind: bytes) -> bytes:
    bomb = zlib.compress(b"\0" * (80 << 20), 9)
    body = b"note\0\0" + bomb if kind == b"zTXt" else b"note\0\1\0\0\0" + bomb
    whole = encoded(picture())
    return whole[:33] + chunk(kind, body) + whole[33:]


def load(folder: Path, noun: str = "dog", template: str | None = None) -> Dataset:
    return load_examples(folder, class_noun=noun, caption_template=template)


def refused(folder: Path, *words: str, code: ExitCode = ExitCode.INVALID) -> CidmError:
    with pytest.raises(CidmError) as caught:
        load(folder)
    assert caught.value.code == code
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three sound pictures, the first with a caption."""
    home = tmp_path / "pictures"
    home.mkdir()
    for number in range(3):
        (home / f"{number}.png").write_bytes(encoded(picture(number)))
    (home / "0.txt").write_text("a dog on a bed\n")
    return home


def by_name(dataset: Dataset) -> dict[str, Image.Image]:
    return {example.path.name: example.image for example in dataset.examples}


# --- what is read ---------------------------------------------------------------------------------------


def test_pictures_and_captions_are_loaded(folder: Path) -> None:
    dataset = load(folder)
    captions = {example.path.name: example.caption for example in dataset.examples}
    assert captions == {"0.png": "a dog on a bed", "1.png": "a photo of a dog", "2.png": "a photo of a dog"}
    assert all(example.image.mode == "RGB" and example.mask is None for example in dataset.examples)
    assert np.array_equal(np.asarray(by_name(dataset)["1.png"]), np.asarray(picture(1)))
    assert dataset.warnings == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("PNG", "x.png"), ("JPEG", "x.jpg"), ("WEBP", "x.webp"), ("JPEG", "x.png"), ("PNG", "x")],
)
def test_the_format_is_told_by_content_not_by_name(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(encoded(Image.new("RGB", (32, 32), RED), kind))
    (image,) = by_name(load(tmp_path)).values()
    assert np.abs(np.asarray(image).astype(int) - RED).max() < 12


def test_one_file_can_be_given_instead_of_a_folder(folder: Path) -> None:
    dataset = load(folder / "0.png")
    assert [example.caption for example in dataset.examples] == ["a dog on a bed"]


def test_fewer_than_three_pictures_are_warned_about(folder: Path) -> None:
    (folder / "2.png").unlink()
    assert any("only 2" in warning for warning in load(folder).warnings)


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"\xef\xbb\xbf a dog \r\n", "a dog"),
        ("ein schöner Hund".encode(), "ein schöner Hund"),
        (b"a dog\n  on a bed\x1b[31m", "a dog on a bed [31m"),
        (b" \n\t", "picture of dog {x}"),
        (b"", "picture of dog {x}"),
    ],
)
def test_captions_are_cleaned_and_empty_ones_fall_back(folder: Path, content: bytes, caption: str) -> None:
    (folder / "0.txt").write_bytes(content)
    dataset = load(folder, template="picture of {noun} {x}")
    assert next(e.caption for e in dataset.examples if e.path.name == "0.png") == caption


@pytest.mark.parametrize("content", [b"\xff\xfea\0", b"caf\xe9", b"a" * (11 << 10)])
def test_unreadable_captions_are_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "0.txt").write_bytes(content)
    refused(folder, "0.txt")


def test_a_caption_without_a_picture_is_warned_about(folder: Path) -> None:
    (folder / "gone.txt").write_text("a dog")
    assert any("gone.txt" in warning for warning in load(folder).warnings)


# --- pixels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_rotation_is_applied_and_metadata_dropped(tmp_path: Path, orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (48, 32), BLUE)
    upright.paste(RED, (0, 0, 24, 16))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that a viewer's turn takes back
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "taken at home"
    (tmp_path / "x.bin").write_bytes(encoded(stored, kind, exif=exif))
    (image,) = by_name(load(tmp_path)).values()
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < 6
    assert not image.info
    assert not dict(image.getexif())


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"))
    assert len(load(tmp_path).examples) == 1


def converted(tmp_path: Path, content: bytes) -> np.ndarray:
    (tmp_path / "x.png").write_bytes(content)
    (image,) = by_name(load(tmp_path)).values()
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_transparency_becomes_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (*RED, 0))
    image.paste((*RED, 255), (0, 0, 16, 32))
    pixels = converted(tmp_path, encoded(image))
    assert tuple(pixels[0, 0]) == RED
    assert tuple(pixels[0, 31]) == (255, 255, 255)


def test_half_transparency_is_mixed_with_white(tmp_path: Path) -> None:
    pixels = converted(tmp_path, encoded(Image.new("LA", (32, 32), (0, 128))))
    assert np.abs(pixels - 127).max() <= 1


def test_transparent_palette_and_colour_key_become_white(tmp_path: Path) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([*RED, *GREEN])
    image.paste(1, (16, 0, 32, 32))
    pixels = converted(tmp_path, encoded(image, transparency=0))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[0, 31]) == GREEN
    pixels = converted(tmp_path, encoded(Image.new("RGB", (32, 32), BLUE), transparency=BLUE))
    assert tuple(pixels[0, 0]) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    pixels = converted(tmp_path, encoded(Image.fromarray(ramp)))
    assert np.array_equal(pixels[..., 0], ramp >> 8)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32), RED).convert("CMYK")
    assert np.abs(converted(tmp_path, encoded(image, "JPEG")) - RED).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_other_modes_are_converted(tmp_path: Path, mode: str) -> None:
    assert (converted(tmp_path, encoded(Image.new("RGB", (32, 32), "white").convert(mode))) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame_and_a_warning(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN, BLUE)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert tuple(converted(tmp_path, content)[0, 0]) == RED
    assert any("x.png" in w and "animated" in w for w in load(tmp_path).warnings)


def test_camera_pictures_are_reduced_to_what_training_can_use(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(Image.new("RGB", (4200, 2100), RED), "JPEG"))
    (image,) = by_name(load(tmp_path)).values()
    assert image.size == (4096, 2048)


# --- hostile files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(
            png_with_header(10_000, 10_000), ("10000 x 10000", "64 million"), id="over the pixel cap"
        ),
        pytest.param(png_with_header(8001, 8000), ("64 million",), id="just over the pixel cap"),
        pytest.param(png_with_header(60_000, 60_000), ("64 million",), id="over Pillow's own limit"),
        pytest.param(png_with_header(65535, 1), ("65535 x 1",), id="65535 x 1"),
        pytest.param(png_with_header(20, 201), ("20 x 201", "narrow"), id="narrow"),
        pytest.param(png_with_header(15, 15), ("15 x 15",), id="tiny"),
        pytest.param(png_with_header(0, 0), (), id="empty image"),
        pytest.param(png_with_header(4000, 4000), ("damaged or cut off",), id="pixels missing"),
        pytest.param(encoded(picture(), "PNG")[:-300], ("damaged or cut off",), id="cut-off PNG"),
        pytest.param(encoded(picture(), "PNG")[:40], ("damaged or cut off",), id="PNG header only"),
        pytest.param(encoded(picture(), "JPEG")[:-300], ("damaged or cut off",), id="cut-off JPEG"),
        pytest.param(encoded(picture(), "WEBP")[:-200], ("damaged or cut off",), id="cut-off WEBP"),
        pytest.param(b"\xff\xd8\xff" + b"\0" * 50, ("damaged or cut off",), id="JPEG magic only"),
        pytest.param(png_with_text_bomb(b"zTXt"), ("damaged or cut off",), id="zTXt bomb"),
        pytest.param(png_with_text_bomb(b"iTXt"), ("damaged or cut off",), id="iTXt bomb"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_hostile_pictures_are_refused_by_name(folder: Path, content: bytes, words: tuple[str, ...]) -> None:
    (folder / "evil.png").write_bytes(content)
    error = refused(folder, "evil.png", *words)
    assert error.hint


def test_a_huge_file_is_refused_unread(folder: Path) -> None:
    with (folder / "evil.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(300 << 20)
    refused(folder, "evil.png", "256 MiB")


def test_bytes_of_a_picture_turned_over_never_escape_as_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    codes = set()
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = encoded(picture(1, (24, 24)), kind)
        for _ in range(60):
            content = bytearray(whole)
            for at in rng.integers(12, len(content), 3):
                content[at] = rng.integers(256)
            (tmp_path / "x.png").write_bytes(content)
            try:
                load(tmp_path)
            except CidmError as error:
                codes.add(error.code)
    assert codes == {ExitCode.INVALID}


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_renamed_png_are_skipped_by_name(folder: Path, kind: str) -> None:
    (folder / "other.png").write_bytes(encoded(picture(9), kind))
    dataset = load(folder)
    assert len(dataset.examples) == 3
    assert any("other.png" in warning and "skipped" in warning for warning in dataset.warnings)


def test_other_files_are_skipped_with_a_warning_and_hidden_ones_silently(folder: Path) -> None:
    (folder / "notes.md").write_text("# notes")
    (folder / ".hidden.png").write_bytes(encoded(picture(9)))
    dataset = load(folder)
    assert len(dataset.examples) == 3
    assert [warning.split(":")[0] for warning in dataset.warnings] == ["notes.md"]


def test_what_is_no_file_of_the_folder_is_skipped_with_a_warning(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(encoded(picture(9)))
    (tmp_path / "outside.txt").write_text("a secret")
    (folder / "leads-out.png").symlink_to(tmp_path / "outside.png")
    (folder / "1.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "nowhere.png").symlink_to("nothing.png")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe.png")
    dataset = load(folder)
    assert {example.path.name for example in dataset.examples} == {"0.png", "1.png", "2.png"}
    assert "a secret" not in {example.caption for example in dataset.examples}
    assert {warning.split(":")[0] for warning in dataset.warnings} == {
        "leads-out.png", "1.txt", "loop.png", "nowhere.png", "sub", "pipe.png",
    }  # fmt: skip


def test_a_link_within_the_folder_and_to_the_folder_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "original.data").write_bytes(encoded(picture(9)))
    (tmp_path / "link").symlink_to(folder)
    (folder / "again.png").symlink_to("original.data")
    dataset = load(tmp_path / "link")
    assert len(dataset.examples) == 4
    assert any("the same image" in warning for warning in dataset.warnings)


def test_a_pipe_given_as_the_picture_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "pipe.png", "not a regular file")


@pytest.mark.parametrize("name", ["missing", "x" * 300, "nul\0byte"])
def test_a_missing_folder_is_not_found(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "no such", code=ExitCode.NOT_FOUND)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "no usable image")
    (tmp_path / "x.png").write_bytes(b"GIF89a")
    assert "x.png" in (refused(tmp_path, "no usable image").hint or "")


# --- duplicates and digests -----------------------------------------------------------------------------


def test_the_same_pixels_in_another_file_are_a_duplicate(folder: Path) -> None:
    (folder / "copy.webp").write_bytes(encoded(picture(1), "WEBP", lossless=True))
    dataset = load(folder)
    assert len(dataset.examples) == 3
    assert any("copy.webp" in warning and "1.png" in warning for warning in dataset.warnings)


def test_renaming_moving_and_touching_change_nothing(folder: Path, tmp_path: Path) -> None:
    before = load(folder)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for old, new in (("0", "zebra"), ("1", "b"), ("2", "a")):
        shutil.copy(folder / f"{old}.png", moved / f"{new}.png")
        os.utime(moved / f"{new}.png", (1, 1))
    shutil.copy(folder / "0.txt", moved / "zebra.txt")
    after = load(moved)
    assert after.digest == before.digest
    assert [(e.digest, e.caption) for e in after.examples] == [(e.digest, e.caption) for e in before.examples]


def test_every_change_of_content_changes_the_digest(folder: Path) -> None:
    seen = {load(folder).digest}
    (folder / "0.txt").write_text("a dog on a sofa")
    seen.add(load(folder).digest)
    (folder / "0-mask.png").write_bytes(encoded(Image.new("L", (40, 32), 255)))
    seen.add(load(folder).digest)
    altered = picture(1)
    altered.putpixel((0, 0), (1, 2, 3))
    (folder / "1.png").write_bytes(encoded(altered))
    seen.add(load(folder).digest)
    (folder / "2.png").unlink()
    seen.add(load(folder).digest)
    assert len(seen) == 5


def test_pixels_of_another_shape_have_another_digest(tmp_path: Path) -> None:
    pixels = np.asarray(picture(0, (64, 32)))
    for name, shape in (("wide", (32, 64, 3)), ("tall", (64, 32, 3))):
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.fromarray(pixels.reshape(shape))))
    assert len(load(tmp_path).examples) == 2


# --- masks ----------------------------------------------------------------------------------------------


def test_a_mask_belongs_to_its_picture_and_is_no_picture(folder: Path) -> None:
    mask = Image.new("L", (40, 32), 0)
    mask.paste(255, (10, 10, 20, 20))
    (folder / "1-mask.png").write_bytes(encoded(mask))
    dataset = load(folder)
    masks = {example.path.name: example.mask for example in dataset.examples}
    assert masks["0.png"] is None
    assert masks["2.png"] is None
    assert masks["1.png"] is not None
    assert masks["1.png"].mode == "L"
    assert masks["1.png"].tobytes() == mask.tobytes()


def test_the_transparent_part_of_a_mask_is_left_out(folder: Path) -> None:
    mask = Image.new("RGBA", (40, 32), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 20, 32))
    (folder / "1-mask.png").write_bytes(encoded(mask))
    loaded = next(e.mask for e in load(folder).examples if e.path.name == "1.png")
    assert loaded is not None
    assert loaded.getpixel((5, 5)) == 255
    assert loaded.getpixel((35, 5)) == 0


@pytest.mark.parametrize(
    ("mask", "word"), [(Image.new("L", (40, 40), 255), "40 x 40"), (Image.new("L", (40, 32), 0), "all black")]
)
def test_a_mask_that_cannot_serve_is_refused_by_name(folder: Path, mask: Image.Image, word: str) -> None:
    (folder / "1-mask.png").write_bytes(encoded(mask))
    refused(folder, "1-mask.png", word)


@pytest.mark.parametrize(
    "name",
    ["1-mask.jpg", "1_mask.png", "1-Mask.PNG", "1.mask.png", "1-masklabel.png", "mask/1.png", "Masks/1.jpg"],
)
def test_other_trainers_masks_are_masks(folder: Path, name: str) -> None:
    mask = Image.new("L", (40, 32), 0)
    mask.paste(255, (8, 8, 24, 24))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(encoded(mask, "JPEG" if name.endswith("jpg") else "PNG"))
    dataset = load(folder)
    assert sorted(e.path.name for e in dataset.examples) == ["0.png", "1.png", "2.png"]
    assert [e.path.name for e in dataset.examples if e.mask] == ["1.png"]
    assert dataset.warnings == ()


@pytest.mark.parametrize("name", ["1-condlabel.png", "mask/9.png", "9_mask.png"])
def test_what_is_neither_mask_nor_picture_is_left_out_and_told(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(encoded(picture(9)))
    dataset = load(folder)
    assert len(dataset.examples) == 3
    assert not any(example.mask for example in dataset.examples)
    assert any(name in warning for warning in dataset.warnings)


def test_a_second_mask_is_told(folder: Path) -> None:
    for name in ("1-mask.png", "1-masklabel.png"):
        (folder / name).write_bytes(encoded(Image.new("L", (40, 32), 255)))
    assert any("1-masklabel.png: a second mask" in warning for warning in load(folder).warnings)


def test_a_picture_named_like_a_mask_is_no_mask(folder: Path) -> None:
    (folder / "1_mask.png").write_bytes(encoded(Image.new("RGB", (40, 32), "orange")))
    refused(folder, "1_mask.png", "has colours")


def test_a_single_picture_has_its_own_mask_and_caption_only(folder: Path) -> None:
    for name in ("1_mask.png", "11-mask.png"):
        (folder / name).write_bytes(encoded(Image.new("L", (40, 32), 255)))
    (folder / "1.txt").write_text("a dog")
    (example,) = load(folder / "1.png").examples
    assert example.mask is not None
    assert example.caption == "a dog"


def test_transparent_pictures_are_told(folder: Path) -> None:
    image = picture(9).convert("RGBA")
    image.putalpha(128)
    (folder / "9.png").write_bytes(encoded(image))
    assert [w for w in load(folder).warnings if "9.png: what is transparent becomes white" in w]


def test_a_folder_of_kohyas_kind_stands_for_the_one_above_it(folder: Path) -> None:
    inner = folder.rename(folder.parent / "10_sks dog")
    above = folder.parent / "train"
    above.mkdir()
    inner.rename(above / "10_sks dog")
    dataset = load(above)
    assert len(dataset.examples) == 3
    assert any("10_sks dog" in warning and "--steps" in warning for warning in dataset.warnings)
    (above / "5_tom cat").mkdir()
    with pytest.raises(CidmError, match="2 folders: 10_sks dog, 5_tom cat"):
        load(above)


def test_a_mask_without_its_picture_is_skipped(folder: Path) -> None:
    (folder / "9-mask.png").write_bytes(encoded(picture(9)))
    dataset = load(folder)
    assert len(dataset.examples) == 3
    assert any("9-mask.png" in warning for warning in dataset.warnings)


# --- placement ------------------------------------------------------------------------------------------


def halves(size: tuple[int, int]) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RED)
    width, height = size
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


@pytest.mark.parametrize("shape", [(128, 64), (64, 128), (100, 100), (37, 91)])
@pytest.mark.parametrize("size", [(64, 64), (32, 64), (64, 32), (128, 128)])
def test_a_placed_picture_covers_the_canvas_in_its_own_aspect(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    # A linear ramp across and down tells from the corner values which part was taken.
    across, down = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]))
    image = Image.fromarray(np.stack([across, down, 0 * down], axis=2).astype(np.uint8))
    placed = np.asarray(place(image, size, crop=1.0, shift=(0.0, 0.0), mirror=False)).astype(float)
    assert placed.shape == (size[1], size[0], 3)
    step_across = (placed[0, -1, 0] - placed[0, 0, 0]) / (size[0] - 1)
    step_down = (placed[-1, 0, 1] - placed[0, 0, 1]) / (size[1] - 1)
    assert step_across == pytest.approx(step_down, abs=0.06)
    assert step_across == pytest.approx(min(shape[0] / size[0], shape[1] / size[1]), abs=0.06)


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_rounding_never_carries_the_piece_past_the_edge(shift: float) -> None:
    # 1287 * (2008 / 1287) is a hair more than 2008.
    image = Image.new("RGB", (2008, 1735), RED)
    placed = place(image, (1287, 64), crop=1.0, shift=(shift, 0.0), mirror=False)
    assert placed.getcolors() == [(1287 * 64, RED)]


def test_shift_moves_the_piece_from_edge_to_edge() -> None:
    image = halves((128, 64))
    colours = [
        np.asarray(place(image, (64, 64), crop=1.0, shift=(shift, 0.0), mirror=False))[32, [8, 55]].tolist()
        for shift in (-1.0, 0.0, 1.0)
    ]
    assert colours == [[list(RED)] * 2, [list(RED), list(BLUE)], [list(BLUE)] * 2]


def test_mirror_exchanges_left_and_right() -> None:
    arguments = {"crop": 0.9, "shift": (0.2, -0.4)}
    plain = place(halves((80, 64)), (64, 64), **arguments, mirror=False)
    mirrored = place(halves((80, 64)), (64, 64), **arguments, mirror=True)
    assert np.array_equal(np.asarray(mirrored), np.asarray(plain)[:, ::-1])


def test_crop_takes_a_smaller_piece() -> None:
    image = Image.new("RGB", (100, 100), RED)
    image.paste(BLUE, (20, 20, 80, 80))
    inner = place(image, (50, 50), crop=0.5, shift=(0.0, 0.0), mirror=False)
    assert inner.getcolors() == [(2500, BLUE)]


@pytest.mark.parametrize(
    ("crop", "shift", "size"),
    [(0.0, (0, 0), (8, 8)), (1.1, (0, 0), (8, 8)), (float("nan"), (0, 0), (8, 8)), (1.0, (2, 0), (8, 8)),
     (1.0, (0, float("nan")), (8, 8)), (1.0, (0, 0), (0, 8))],
)  # fmt: skip
def test_impossible_placements_are_refused(
    crop: float, shift: tuple[float, float], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="no such placement"):
        place(picture(), size, crop=crop, shift=shift, mirror=False)


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(16, 70), st.integers(16, 70)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 2**32),
)
def test_every_drawn_placement_fits_every_picture(
    shape: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    placement = draw_augmentation(np.random.default_rng(seed), crop=True, mirror=True)
    image = Image.new("RGB", shape, GREEN)
    assert placement.apply(image, size).getcolors() == [(size[0] * size[1], GREEN)]


def test_augmentation_is_off_unless_asked_for_and_repeats_with_its_seed() -> None:
    assert draw_augmentation(np.random.default_rng(0)) == Placement(1.0, (0.0, 0.0), False)
    draws = [draw_augmentation(np.random.default_rng(s), crop=True, mirror=True) for s in (1, 1, 2, 3, 4, 5)]
    assert draws[0] == draws[1] != draws[2]
    assert {draw.mirror for draw in draws} == {True, False}
    assert all(0.8 <= draw.crop <= 1.0 for draw in draws)


def test_switching_one_variation_on_leaves_the_other_and_the_stream_alone() -> None:
    for seed in range(8):
        both, crop, mirror, none = (np.random.default_rng(seed) for _ in range(4))
        placement = draw_augmentation(both, crop=True, mirror=True)
        assert draw_augmentation(crop, crop=True).shift == placement.shift
        assert draw_augmentation(mirror, mirror=True).mirror == placement.mirror
        draw_augmentation(none)
        assert both.random() == crop.random() == mirror.random() == none.random()


# --- captions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "noun", "expected"),
    [
        ("a photo of a dog", "dog", "a photo of a <V>"),
        ("Dog sitting on a dog bed", "dog", "<V> sitting on a dog bed"),
        ("yellow rubber duck toy on a carpet", "duck toy", "yellow rubber <V> on a carpet"),
        ("a Teddy-Bear and a bear", "teddy bear", "a <V> and a bear"),
        ("a teddybear", "teddy_bear", "a <V>"),
        ("ink painting of a pagoda", "ink painting", "<V> of a pagoda"),
        ("painting of an ink painting", "ink painting", "painting of an <V>"),
        ("two dogs at play", "dog", "two <V> at play"),
        ("the dogs look at a dog", "dog", "the dogs look at a <V>"),
        ("puppies asleep", "puppy", "<V> asleep"),
        ("the dog's tongue", "dog", "the <V>'s tongue"),
        ("a dogma on hotdog", "dog", "<V>, a dogma on hotdog"),
        ("asleep on a bed", "dog", "<V>, asleep on a bed"),
        ("", "dog", "<V>"),
        ("a photo", "", "<V>, a photo"),
        ("a <V> and a dog", "dog", "a <V> and a dog"),
        ("a <dog> on grass", "dog", "<V>, a <dog> on grass"),
        ("ein Hündchen", "hu\u0308ndchen", "ein <V>"),
        ("c++ on a mug", "c++", "<V> on a mug"),
    ],
)
def test_the_class_noun_is_replaced_once(caption: str, noun: str, expected: str) -> None:
    assert replace_noun(caption, noun, "<V>") == expected


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=10))
def test_any_caption_names_the_concept_afterwards(caption: str, noun: str) -> None:
    assert "<V>" in replace_noun(caption, noun, "<V>")


# --- benchmarks -----------------------------------------------------------------------------------------

TASKS = """
[[task]]
id = "V1"
name = "dog"
class_noun = "dog"
prompts = "pet"
source = "a note for people"

[[task]]
id = "V2"
name = "ink_painting"
class_noun = "ink painting"
prompts = "style"
"""


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    (tmp_path / "tasks.toml").write_text(TASKS)
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "pet.txt").write_text("A <TOK> in a pool\n\n A <TOK>, running \n")
    (tmp_path / "prompts" / "style.txt").write_text("A <TOK> of a tree")
    for name in ("dog", "ink_painting"):
        (tmp_path / "concepts" / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("name", [".", "tasks.toml"])
def test_tasks_are_loaded_in_order_from_file_or_folder(benchmark: Path, name: str) -> None:
    first, second = load_tasks(benchmark / name)
    assert (first.id, first.name, first.class_noun, first.style) == ("V1", "dog", "dog", False)
    assert first.prompts == ("A <TOK> in a pool", "A <TOK>, running")
    assert first.images.resolve() == (benchmark / "concepts" / "dog").resolve()
    assert (second.class_noun, second.style) == ("ink painting", True)


def test_a_task_may_say_itself_whether_it_is_a_style(benchmark: Path) -> None:
    text = TASKS.replace('prompts = "pet"', 'prompts = "pet"\nstyle = true')
    (benchmark / "tasks.toml").write_text(
        text.replace('prompts = "style"', 'prompts = "style"\nstyle = false')
    )
    assert [task.style for task in load_tasks(benchmark)] == [True, False]


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('name = "dog"', 'name = "../dog"', "task 1: name"),
        ('name = "dog"', 'name = "/dog"', "task 1: name"),
        ('prompts = "style"', 'prompts = "../style"', "task 2: prompts"),
        ('class_noun = "dog"', "", "task 1: class_noun"),
        ('class_noun = "dog"', "class_noun = 3", "task 1: class_noun"),
        ('id = "V2"', 'id = "V1"', "two tasks have the id 'V1'"),
        ('prompts = "pet"', 'prompts = "pet"\nstyle = "yes"', "task 1: style"),
        ("[[task]]", "[[other]]", "lists no [[task]]"),
        ('id = "V1"', "id = ", "tasks.toml:3:"),
        ('id = "V1"', "a." * 20_000 + "b = 1", "tasks.toml:3: a key of more than"),
    ],
)
def test_faulty_task_lists_are_refused(benchmark: Path, old: str, new: str, word: str) -> None:
    (benchmark / "tasks.toml").write_text(TASKS.replace(old, new))
    with pytest.raises(CidmError, match=r"tasks\.toml") as caught:
        load_tasks(benchmark)
    assert caught.value.code == ExitCode.INVALID
    assert word in str(caught.value)


@pytest.mark.parametrize(("text", "word"), [("A dog", "no <TOK>"), ("\n\n", "holds no prompt")])
def test_faulty_prompt_sets_are_refused(benchmark: Path, text: str, word: str) -> None:
    (benchmark / "prompts" / "pet.txt").write_text(text)
    with pytest.raises(CidmError, match=r"pet\.txt") as caught:
        load_tasks(benchmark)
    assert word in str(caught.value)


@pytest.mark.parametrize("gone", ["tasks.toml", "prompts/pet.txt", "concepts/dog"])
def test_missing_parts_of_a_benchmark_are_not_found(benchmark: Path, gone: str) -> None:
    target = benchmark / gone
    target.rmdir() if target.is_dir() else target.unlink()
    with pytest.raises(CidmError, match=r"no such file|no folder") as caught:
        load_tasks(benchmark)
    assert caught.value.code == ExitCode.NOT_FOUND
