"""`cidm studio` as it is used: the real program with the embedded base, asked over HTTP and in a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Page, expect, sync_playwright

from cidm_cli.bases import mini
from desk import until

IMAGES = Path(mini.__file__).with_name("mini_cifc") / "concepts" / "dog"
PATIENCE = 120
"""Seconds: a machine may have much else to do."""
STEPS = "4"
"""Denoising steps where nothing is said, of the page and of `cidm generate` alike."""


@dataclass(frozen=True)
class Studio:
    """The program while it runs."""

    process: subprocess.Popen[str]
    address: str
    folder: Path
    registry: Path
    environment: dict[str, str]
    started: float
    """Seconds until its worker was ready."""

    def ask(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        request = Request(f"{self.address}api/{path}", data, method=method)
        with urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def events(self) -> Iterator[dict[str, Any]]:
        with urlopen(f"{self.address}api/events", timeout=PATIENCE) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def states(self, number: int) -> Iterator[dict[str, Any]]:
        """A job each time it has changed, until it is over."""
        for event in self.events():
            for job in event["jobs"]:
                if job["id"] == number:
                    yield job
                    if job["state"] not in ("waiting", "running"):
                        return

    def draw(self, prompt: str, **options: Any) -> int:
        return int(self.ask("POST", "draw", asked={"prompts": [prompt], "options": options})["id"])

    @property
    def worker(self) -> int:
        """The number of its worker's process."""
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [line.split() for line in table.stdout.splitlines()]
        (found,) = [int(pid) for pid, parent in pairs if int(parent) == self.process.pid]
        return found

    def cidm(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "cidm_cli", "--registry", str(self.registry), *map(str, arguments)]
        ran = subprocess.run(command, env=self.environment, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """The program on an empty registry; its folder does not exist before."""
    place = tmp_path_factory.mktemp("studio")
    usual = {name: value for name, value in os.environ.items() if not name.startswith("CIDM_")}
    environment = {
        **usual, "CIDM_CACHE": str(place / "cache"), "XDG_CONFIG_HOME": str(place / "config"),
        "XDG_DATA_HOME": str(place / "data"), "OMP_NUM_THREADS": "1", "CIDM_DRAW_STEPS": STEPS,
    }  # fmt: skip
    told = place / "told"
    program = [sys.executable, "-m", "cidm_cli", "--registry", str(place / "registry")]
    subprocess.run([*program, "init"], env=environment, check=True, capture_output=True)
    began = time.monotonic()
    with told.open("w") as stream:
        process = subprocess.Popen(
            [*program, "studio", "--no-browser", "-o", str(place / "folder")],
            env=environment,
            stderr=stream,
            text=True,
        )
    try:
        until(lambda: "http://" in told.read_text() or process.poll() is not None, PATIENCE)
        (address,) = re.findall(r"http://\S+/", told.read_text())
        found = Studio(process, address, place / "folder", place / "registry", environment, 0.0)
        next(event for event in found.events() if event["worker"] == "ready")
        yield Studio(
            process, address, place / "folder", place / "registry", environment, time.monotonic() - began
        )
        worker = found.worker
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, "Ctrl-C is the way to end it"
        until(lambda: not _alive(worker), PATIENCE)
        assert "Traceback" not in told.read_text()
    finally:
        process.kill()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium is found: apt-get install chromium")
    # Chromium has no sandbox for root.
    sandbox = [] if hasattr(os, "geteuid") and os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, studio: Studio) -> Iterator[Page]:
    with browser.new_context() as context:
        yield opened(context.new_page(), studio)


def opened(page: Page, studio: Studio, view: str = "") -> Page:
    """The page; an error in it fails the test."""

    def fail(error: object) -> NoReturn:
        raise AssertionError(error)

    page.on("pageerror", fail)
    page.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=PATIENCE * 1000)
    page.goto(f"{studio.address}#{view}")
    expect(page.locator("#worker")).to_have_attribute("data-state", re.compile("ready|busy"))
    return page


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With the mouse, over the picture, in shares of it."""
    area = page.locator(".canvas").bounding_box()
    assert area
    points = [(area["x"] + x * area["width"], area["y"] + y * area["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=5)
    page.mouse.up()


# The program


def test_a_second_draw_starts_at_once_and_shows_what_is_being_drawn(studio: Studio) -> None:
    *_, first = studio.states(studio.draw("a photo of a dog", seed=5))
    assert (first["state"], first["images"]) == ("done", ["a-photo-of-a-dog-5.png"])
    worker, began = studio.worker, time.monotonic()
    states = studio.states(studio.draw("a photo of a cat", seed=5))
    next(job for job in states if job["done"])
    assert time.monotonic() - began < studio.started / 3, "nothing is loaded again"
    *_, second = states
    assert (second["state"], studio.worker) == ("done", worker)
    longer = studio.states(studio.draw("a photo of a cat", steps=40))
    assert any(job["look"].startswith("data:image/jpeg;base64,") for job in longer)


def test_a_cancelled_drawing_leaves_the_base_as_it_was(studio: Studio) -> None:
    *_, before = studio.states(studio.draw("a photo of a duck", seed=7))
    number = studio.draw("a photo of a duck", steps=900)
    states = studio.states(number)
    next(job for job in states if job["done"])
    studio.ask("DELETE", f"jobs/{number}")
    *_, stopped = states
    assert (stopped["state"], stopped["images"], stopped["done"] < 900) == ("stopped", [], True)
    *_, after = studio.states(studio.draw("a photo of a duck", seed=7))
    assert after["images"] == before["images"], "equal bytes keep their name"
    *_, again = studio.states(studio.ask("POST", f"images/{before['images'][0]}/again")["id"])
    assert again["result"] == {"same": True}


def test_other_sites_and_other_names_of_the_host_are_refused(studio: Studio) -> None:
    for headers in ({"Origin": "http://studio.example"}, {"Host": "studio.example"}):
        request = Request(f"{studio.address}api/concepts", headers=headers)
        with pytest.raises(HTTPError) as refused:
            urlopen(request, timeout=PATIENCE)
        assert refused.value.code in (400, 403)


# The page


def test_a_layout_drawn_with_the_mouse_is_drawn_by_generate_to_the_pages_bytes(
    page: Page, studio: Studio, tmp_path: Path
) -> None:
    page.get_by_role("link", name="Layout").click()
    picture = page.locator("#picture")
    picture.get_by_label("Prompt", exact=True).fill("a photo of a cat and a duck on the grass")
    picture.get_by_label("Width").fill("96")
    picture.get_by_label("Seed").fill("3")
    expect(page.get_by_label("TOML")).to_have_value(re.compile(r"size = \[96, 64\]"))
    drag(page, (0.05, 0.2), (0.45, 0.9))
    page.locator("#region").get_by_label("Prompt", exact=True).fill("a photo of a cat on the grass")
    drag(page, (0.5, 0.1), (0.7, 0.5))
    page.locator("#region").get_by_label("Prompt", exact=True).fill("a photo of a duck on the grass")
    page.locator("#region").get_by_label("Feather").fill("0.05")
    drag(page, (0.6, 0.3), (0.65, 0.4))
    drag(page, (0.75, 0.6), (0.95, 0.95))
    expect(page.get_by_label("TOML")).to_have_value(re.compile("feather = 0.05"))
    page.get_by_label("Name of the layout's file").fill("pond")
    page.get_by_role("button", name="Save").click()
    path = studio.folder / "pond.toml"
    until(path.exists, PATIENCE)
    page.locator("#layout").get_by_role("button", name="Draw", exact=True).click()
    drawn = page.locator("#layout .images img")
    expect(drawn).to_have_count(1)
    name = drawn.get_attribute("alt")
    assert name

    first, second = (one["box"] for one in _toml(path)["region"])
    assert first == pytest.approx([0.05, 0.2, 0.45, 0.9], abs=0.02), "drawn"
    assert second == pytest.approx([0.55, 0.2, 0.95, 0.95], abs=0.02), "drawn, moved, and a corner dragged"
    studio.cidm("generate", path, "-o", tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (studio.folder / name).read_bytes()

    page.get_by_label("TOML").fill(path.read_text().replace("a photo of a cat on", "a photo of a dog on"))
    expect(page.locator(".box .name").first).to_have_text("1 a photo of a")
    expect(page.locator("#layout .layers li").first).to_contain_text("a photo of a")
    page.locator(".layers button").first.click()
    expect(page.locator("#region").get_by_label("Prompt", exact=True)).to_have_value(
        "a photo of a dog on the grass"
    )


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_a_concept_is_learned_from_dropped_images_stopped_and_resumed(page: Page, studio: Studio) -> None:
    page.get_by_role("link", name="Learn", exact=True).click()
    learn = page.locator("#learn")
    learn.get_by_label("Name", exact=True).fill("rex")
    files = [
        {"name": path.name, "content": [*path.read_bytes()]}
        for number in ("00", "01", "02")
        for path in (IMAGES / f"{number}.png", IMAGES / f"{number}.txt")
    ]
    files.append({"name": "00-mask.png", "content": [*_mask(IMAGES / "00.png")]})
    dropped = page.evaluate_handle(
        """files => { const all = new DataTransfer();
        for (const one of files) all.items.add(new File([new Uint8Array(one.content)], one.name));
        return all; }""",
        files,
    )
    page.dispatch_event("#learn .drop", "drop", {"dataTransfer": dropped})
    captions = learn.locator(".uploads textarea")
    expect(captions).to_have_count(3)
    expect(learn.get_by_alt_text("mask of 00.png")).to_be_visible()
    expect(learn.locator(".crop:visible")).to_have_count(0)
    captions.first.fill("a photo of a dog, seen from the side")
    learn.get_by_label("Steps", exact=True).fill("9")
    learn.get_by_label("Steps between previews").fill("2")
    learn.get_by_label("Preview prompt").fill("a photo of a <rex>")
    learn.get_by_role("button", name="Plan").click()
    expect(learn.locator("dd", has_text="a photo of a <rex>, seen from the side")).to_be_visible()
    expect(learn.locator(".crop:visible")).to_have_count(3)

    learn.get_by_role("button", name="Learn", exact=True).click()
    curve = learn.locator(".curve polyline").last
    lengths = "line => line.getAttribute('points')?.split(' ').length ?? 0"
    until(lambda: curve.evaluate(lengths) >= 2, PATIENCE)
    before = curve.evaluate(lengths)
    learn.get_by_role("button", name="Stop").click()
    expect(learn.locator(".run")).to_have_attribute("data-state", "stopped")
    expect(learn.locator(".run")).to_contain_text("checkpoint saved")
    assert curve.evaluate(lengths) >= before
    (folder,) = studio.ask("GET", "uploads")
    assert folder["unfinished"] == {"noun": "dog", "style": False, "options": {"steps": 9, "seed": 0}}
    learn.get_by_label("Steps", exact=True).fill("")

    learn.get_by_role("button", name="Resume").click()
    expect(learn.locator(".run")).to_have_attribute("data-state", "done")
    expect(learn.locator(".notes")).to_contain_text("going on from step")
    expect(learn.locator(".run figure").last).to_contain_text("step 9")
    page.get_by_role("link", name="Concepts").click()
    card = page.get_by_role("article", name="rex")
    expect(card).to_contain_text("dog · number 1 · version 1")
    assert card.get_by_role("img", name="<rex>").evaluate("image => image.naturalWidth") > 0
    card.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(card).to_have_count(0)
    page.get_by_text("Removed: 1").click()
    page.get_by_role("button", name="Bring back").click()
    expect(card).to_contain_text("dog · number 1 · version 1")
    card.get_by_role("button", name="Draw").click()
    expect(page.locator("#draw").get_by_label("Prompt", exact=True)).to_have_value("a photo of a <rex>")


def _mask(image: Path) -> bytes:
    with Image.open(image) as opened_image:
        mask = Image.new("L", opened_image.size, 255)
    stream = io.BytesIO()
    mask.save(stream, "PNG")
    return stream.getvalue()


def test_a_concept_is_drawn_in_a_grid_and_into_a_box_of_an_image(page: Page, studio: Studio) -> None:
    if not studio.ask("GET", "concepts")["concepts"]:
        studio.cidm("learn", "rex", IMAGES, "--steps", "1")
        page.reload()
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("button", name="Draw a grid").click()
    asked = page.get_by_role("dialog")
    asked.get_by_label("Prompts").fill("a photo of a <rex>\na photo of a cat")
    for name, value in {"Strengths": "0.5, 1", "Seeds": "21-22", "Sampling steps": "1"}.items():
        asked.get_by_label(name).fill(value)
    asked.get_by_role("button", name="Draw").click()
    until((studio.folder / "grid.png").exists, PATIENCE)
    drawn = {path.name for path in studio.folder.glob("*-2[12].png")}
    stems = ("a-photo-of-a-cat", "a-photo-of-a-rex-0-5", "a-photo-of-a-rex-1")
    assert drawn == {f"{stem}-{seed}.png" for stem in stems for seed in (21, 22)}
    with Image.open(studio.folder / "grid.png") as sheet:
        assert sheet.width < 3 * 256 < sheet.height, (
            "a row for each prompt and strength, a column for each seed"
        )

    page.get_by_role("link", name="Layout").click()
    page.get_by_label("Image under the boxes").set_input_files(IMAGES / "00.png")
    under = page.locator(".canvas > img")
    expect(under).to_have_attribute("src", "api/images/00.png")
    page.get_by_role("button", name="Add region").click()
    page.get_by_role("button", name="Draw over it").click()
    asked = page.get_by_role("dialog")
    asked.get_by_label("Strength").fill("0.5")
    asked.get_by_role("button", name="Draw").click()
    expect(page.locator("#layout .images img")).to_have_attribute("alt", "00-rex-0.png")
    with Image.open(studio.folder / "00.png") as before, Image.open(studio.folder / "00-rex-0.png") as after:
        part = ImageChops.difference(before.convert("RGB"), after.convert("RGB")).getbbox()
        assert part, "something is drawn"
        edges = [edge / side for edge, side in zip(part, (*before.size, *before.size), strict=True)]
    assert min(edges[:2]) >= 0.25, "nothing outside the box"
    assert max(edges[2:]) <= 0.75, "nothing outside the box"


def test_two_tabs_see_one_queue_and_do_not_write_over_each_other(
    browser: Browser, studio: Studio, page: Page
) -> None:
    (studio.folder / "shared.toml").write_text('[base]\nprompt = "a photo of a dog"\n')
    with browser.new_context() as context:
        other = opened(context.new_page(), studio, "layout")
        for tab in (page, other):
            tab.get_by_role("link", name="Layout").click()
            tab.get_by_label("Open a layout").select_option("shared")
            expect(tab.get_by_label("TOML")).to_have_value(re.compile("a photo of a dog"))
        page.get_by_label("TOML").fill('[base]\nprompt = "a photo of a cat"\n')
        page.get_by_role("button", name="Save").click()
        until(lambda: "cat" in (studio.folder / "shared.toml").read_text(), PATIENCE)
        other.get_by_label("TOML").fill('[base]\nprompt = "a photo of a duck"\n')
        other.get_by_role("button", name="Save").click()
        expect(other.locator("#toasts")).to_contain_text("shared.toml was changed elsewhere")
        assert "cat" in (studio.folder / "shared.toml").read_text()

        number = studio.draw("a photo of a horse")
        for tab in (page, other):
            tab.get_by_role("link", name="Draw").click()
            job = tab.locator(f"[data-job='{number}']")
            expect(job).to_have_attribute("data-state", "done")
            expect(job.locator("img.look + .images img")).to_have_count(1)
        other.get_by_role("link", name="Gallery").click()
        other.locator("#gallery .thumbnail").first.click()
        expect(other.locator("dialog")).to_contain_text("a photo of a horse")
        other.get_by_role("button", name="Open as layout").click()
        expect(other.get_by_label("TOML")).to_have_value(re.compile("a photo of a horse"))


def test_a_killed_worker_is_told_and_a_new_one_draws(page: Page, studio: Studio) -> None:
    number = studio.draw("a photo of a dog", steps=900)
    next(job for job in studio.states(number) if job["done"])
    page.get_by_role("link", name="Draw").click()
    os.kill(studio.worker, signal.SIGKILL)
    killed = page.locator(f"[data-job='{number}']")
    expect(killed).to_contain_text("the worker was killed by signal 9; a new one takes its place")
    page.locator("#draw").get_by_label("Prompt", exact=True).fill("a photo of a cat")
    page.locator("#draw").get_by_label("Seeds").fill("8,11-12")
    page.locator("#draw").get_by_role("button", name="Draw").click()
    expect(page.locator("#draw .job").first.locator(".images img")).to_have_count(3)
    assert {f"a-photo-of-a-cat-{seed}.png" for seed in (8, 11, 12)} <= set(os.listdir(studio.folder))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(scheme: Any, browser: Browser, studio: Studio) -> None:
    size: Any = {"width": 390, "height": 800}
    with browser.new_context(viewport=size, color_scheme=scheme, has_touch=True) as context:
        page = opened(context.new_page(), studio, "layout")
        page.get_by_label("Begin with a template").select_option("grid-2x2")
        expect(page.locator(".box")).to_have_count(4)
        for view in ("Concepts", "Layout", "Draw", "Gallery", "Learn"):
            page.get_by_role("link", name=view).click()
            section = page.locator(f"#{view.lower()}")
            expect(section.get_by_role("heading", level=2)).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, view
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shades = [int(shade) for shade in re.findall(r"\d+", ground)[:3]]
        assert (max(shades) < 80) if scheme == "dark" else (min(shades) > 200)


def test_all_of_a_layout_is_done_by_keyboard_alone(page: Page, studio: Studio) -> None:
    to(page, "Layout")
    page.keyboard.press("Enter")
    to(page, "Add region")
    page.keyboard.press("Enter")
    expect(page.locator(".box")).to_be_focused()
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowDown", "Alt+ArrowUp"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("a photo of a duck")
    expect(page.get_by_label("TOML")).to_have_value(re.compile(r"box = \[0.21, 0.248, 0.71, 0.768\]"))
    to(page, "Add region")
    page.keyboard.press("Enter")
    expect(page.locator(".box")).to_have_count(2)
    page.keyboard.press("PageDown")
    expect(page.locator(".box").first).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.locator(".box")).to_have_count(1)
    to(page, "Name of the layout's file", back=True)
    page.keyboard.type("keys")
    to(page, "Save")
    page.keyboard.press("Enter")
    until((studio.folder / "keys.toml").exists, PATIENCE)
    (region,) = _toml(studio.folder / "keys.toml")["region"]
    assert region == {"prompt": "a photo of a duck", "box": [0.21, 0.248, 0.71, 0.768]}


def to(page: Page, name: str, *, back: bool = False) -> None:
    """Presses Tab until the element of that name has the focus."""
    named = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    for _ in range(100):
        if page.evaluate(named) == name:
            return
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"Tab does not lead to {name}")
