"""The server of `cidm studio`, without a browser: who is answered, what is taken, what the queue does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from cidm_cli.commands import studio as command
from cidm_cli.layout import load_layout
from cidm_cli.models.identity import identify
from cidm_cli.studio.app import MAX_BODY, application
from cidm_cli.studio.guard import HEADERS
from cidm_cli.studio.jobs import Queue
from cidm_cli.studio.layouts import rewritten
from cidm_cli.studio.place import Place
from cidm_registry import Registry
from command import Cidm
from desk import API, HOME, TOKEN, Puppet, Stage, files_under, png, until
from registry_support import PNG, add

pytestmark = pytest.mark.usefixtures("elsewhere")

LAYOUT = """\
# Two of them.
version = 1

[image]
size = [64, 32]  # wide

[base]
prompt = "a photo of a dog and a cat"

[[region]]
prompt = "a photo of a <dog>"  # on the left
box = [0.0, 0.0, 0.5, 1.0]
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A registry on the embedded base that knows <dog> and <狐>, and an empty folder."""
    registry = Registry.create(tmp_path / "registry", identify("mini"))
    add(registry, "dog", 1)
    add(registry, "狐", 2, preview=PNG)
    (tmp_path / "folder").mkdir()
    return Place(str(tmp_path / "registry"), str(tmp_path / "folder"), {})


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def jobs(place: Place, stage: Stage) -> Queue:
    return Queue(stage, place.shown)


@pytest.fixture
def client(place: Place, jobs: Queue, stage: Stage) -> Iterator[TestClient]:
    with TestClient(application(place, jobs, TOKEN), base_url=API) as client:
        yield client
    assert all(puppet.closed.is_set() for puppet in stage.puppets), "no worker is left behind"


@pytest.fixture
def worker(stage: Stage) -> Puppet:
    stage.now.say(ready=True)
    return stage.now


# Who is answered


def test_the_page_and_what_it_needs_are_served_under_the_token_alone(client: TestClient) -> None:
    page = client.get(HOME)
    assert page.status_code == 200
    assert "cidm studio" in page.text
    assert client.get(f"{HOME}layout.js").headers["content-type"].startswith("text/javascript")
    for address in ("/", "/api/concepts", "/layout.js", f"/{TOKEN}x/api/concepts", f"//{TOKEN}/api/concepts"):
        refused = client.get(f"http://127.0.0.1{address}")
        assert refused.status_code == 404, address
        assert TOKEN not in refused.text


@pytest.mark.parametrize("host", ["studio.example", "127.0.0.1.example:80", "10.0.0.1", ""])
def test_another_hosts_name_is_refused(host: str, client: TestClient) -> None:
    assert client.get("concepts", headers={"Host": host}).status_code in (400, 403)
    assert client.get("concepts", headers={"Host": "localhost:8000"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://studio.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_is_refused_even_with_the_token(
    headers: dict[str, str], client: TestClient, place: Place
) -> None:
    assert client.delete("concepts/dog", headers=headers).status_code == 403
    assert client.get("concepts", headers=headers).status_code == 403
    assert [record.name for record in place.workspace().concepts] == ["dog", "狐"]


def test_every_answer_keeps_to_this_page(client: TestClient) -> None:
    for answer in (client.get(HOME), client.get("concepts"), client.get("http://127.0.0.1/")):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert "http" not in "".join(
        path.read_text().replace("http://www.w3.org/2000/svg", "")
        for path in Path(command.__file__).parents[1].glob("studio/page/*")
    ), "nothing is fetched from elsewhere"


@pytest.mark.parametrize(
    "address",
    [
        "images/..%2Fregistry%2Fregistry.json",
        "images/%2Fetc%2Fpasswd",
        "images/.hidden.png",
        "images/link.png",
        "images/notes.txt",
        "uploads/..%2F..%2Fregistry/x.png",
        "uploads/%2E%2E/x.png",
        "previews/%2E%2E/own.png",
        "exports/%2E%2E/registry.json",
        "layouts/..%2Fsecret",
        "layouts/cidm",
    ],
)
def test_no_file_outside_the_folder_is_read(address: str, client: TestClient, place: Place) -> None:
    folder = Path(place.folder)
    (folder.parent / "secret.toml").write_text(LAYOUT)
    for name in (".hidden.png", "own.png"):
        (folder / name).write_bytes(png())
    (folder / "notes.txt").write_text("mine")
    (folder / "cidm.toml").write_text("[draw]\n")
    (folder.parent / "secret.png").write_bytes(png())
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    answer = client.get(address)
    assert answer.status_code in (404, 409), answer.text
    assert client.get("images/own.png").status_code == 200


@pytest.mark.parametrize("name", ["..%2Fx", "%2Ftmp%2Fx", ".x", "x%00", "cidm"])
def test_no_file_outside_the_folder_is_written(name: str, client: TestClient, place: Place) -> None:
    before = files_under(Path(place.folder).parent)
    answer = client.put(f"layouts/{name}", json={"text": LAYOUT, "was": None})
    assert answer.status_code in (404, 405, 409), answer.text
    assert files_under(Path(place.folder).parent) == before


def test_no_path_of_the_machine_is_told(
    client: TestClient, place: Place, worker: Puppet, jobs: Queue
) -> None:
    with_mask = LAYOUT.replace("box =", 'mask = "gone.png"\nbox =')
    said = [client.post("layouts", json={"text": with_mask}).text, client.get("concepts").text]
    client.post("draw", json={"asked": {"prompts": ["a dog"]}})
    worker.say(failed={"message": f"{place.registry}/x and {place.folder}/y", "hint": None, "stopped": False})
    until(lambda: jobs.get(1).state == "failed")
    said += [json.dumps(jobs.since(-1)), client.get("images/gone.png").text]
    for text in said:
        assert str(Path(place.folder).parent) not in text
        assert str(Path.home()) not in text
    assert "gone.png" in said[0]


def test_what_is_no_request_is_refused_in_a_line(client: TestClient) -> None:
    bad = [
        client.post("layouts", content=b"{"),
        client.post("layouts", content=b"[]"),
        client.post("layouts", json={}),
        client.post("layouts", json={"text": 1}),
        client.post("layouts", json={"text": "", "more": 1}),
        client.post("draw", json={"asked": {"prompts": ["a dog"], "options": {"device": "cuda"}}}),
        client.post("draw", json={"asked": {"prompts": ["a dog"], "seeds": [-1]}}),
        client.post("layouts", content=b" " * (MAX_BODY + 1)),
    ]
    for answer in bad:
        assert answer.status_code in (409, 422), answer.text
        assert answer.json()["message"]


# Concepts


def test_concepts_are_told_shown_renamed_and_removed(client: TestClient) -> None:
    told = client.get("concepts").json()
    assert told["base"] == "mini"
    fox, dog = told["concepts"]
    assert (dog["name"], dog["number"], dog["version"], dog["size"] > 0) == ("dog", 1, 1, True)
    assert client.get("concepts/狐/image").content == PNG
    assert fox["image"]
    assert client.get("concepts/dog/image").status_code == 404
    assert client.patch("concepts/dog", json={"to": "rex"}).json() == {"name": "rex"}
    assert client.patch("concepts/rex", json={"to": "no name"}).status_code == 409
    assert client.delete("concepts/rex").json() == {"versions": 1}
    assert client.delete("concepts/rex").status_code == 404
    told = client.get("concepts").json()
    assert [one["name"] for one in told["concepts"]] == ["狐"]
    assert told["removed"] == [{"name": "rex", "noun": "dog", "number": 1}]
    assert client.post("concepts/rex/restore").json() == {"name": "rex"}
    assert client.post("concepts/rex/restore").status_code == 404
    told = client.get("concepts").json()
    assert ([one["name"] for one in told["concepts"]], told["removed"]) == (["狐", "rex"], [])


# Layouts


def test_toml_becomes_boxes_and_boxes_become_toml_with_its_comments(client: TestClient) -> None:
    told = client.post("layouts", json={"text": LAYOUT}).json()
    assert (told["faults"], told["warnings"], told["size"]) == ([], [], [64, 32])
    values = told["layout"]
    values["region"][0]["box"] = [0.1, 0.0, 0.4, 0.5]
    values["region"].append({"prompt": "a photo of a <dog>", "box": [0.3, 0.0, 1.0, 1.0], "strength": 0.5})
    told = client.post("layouts", json={"text": LAYOUT, "layout": values}).json()
    assert "# on the left" in told["text"]
    assert "# wide" in told["text"]
    assert told["layout"] == values
    assert load_layout("there", told["text"]).regions[1].strength == 0.5
    (warning,) = told["warnings"]
    assert (warning["region"], "overlaps region.1" in warning["message"]) == (0, True)
    del values["region"]
    bare = client.post("layouts", json={"text": told["text"], "layout": values}).json()
    assert (bare["layout"], "region" in bare["text"]) == (values, False)


@pytest.mark.parametrize(
    ("text", "region", "said"),
    [
        (LAYOUT.replace("<dog>", "<dgo>"), 0, "line 11: region.0.prompt: no concept is called <dgo>"),
        (LAYOUT.replace("0.5, 1.0", "1.5, 1.0"), 0, "line 12: region.0.box"),
        (LAYOUT.replace("[64, 32]", "[63, 32]"), None, "line 5: image.size"),
        (LAYOUT + "[", None, "line "),
    ],
)
def test_faults_are_told_where_they_are(text: str, region: int | None, said: str, client: TestClient) -> None:
    fault = client.post("layouts", json={"text": text}).json()["faults"][0]
    assert (fault["region"], fault["message"].startswith(said)) == (region, True), fault


def test_a_text_that_cannot_be_read_is_made_anew_of_the_boxes() -> None:
    values = {"version": 1, "base": {"prompt": "a dog"}, "region": [{"prompt": "x", "box": [0, 0, 1, 1]}]}
    layout = load_layout("there", rewritten("[[[", values))
    assert layout.regions[0].box == (0, 0, 1, 1)


def test_a_layout_is_saved_as_it_is_and_not_over_another_tabs_work(
    client: TestClient, place: Place, cidm: Cidm
) -> None:
    first = client.put("layouts/two dogs", json={"text": LAYOUT, "was": None}).json()
    path = Path(place.folder) / "two dogs.toml"
    assert path.read_text() == LAYOUT
    assert cidm("--registry", place.registry, "layout", "check", path).code == 0
    assert client.get("layouts").json() == ["two dogs"]
    there = client.get("layouts/two dogs").json()
    assert (there["text"], there["was"]) == (LAYOUT, first["was"])

    assert client.put("layouts/two dogs", json={"text": LAYOUT + "#", "was": first["was"]}).status_code == 200
    late = client.put("layouts/two dogs", json={"text": LAYOUT + "##", "was": first["was"]})
    assert (late.status_code, late.json()["message"]) == (409, "two dogs.toml was changed elsewhere")
    fresh = client.put("layouts/two dogs", json={"text": LAYOUT, "was": None})
    assert fresh.json()["message"] == "two dogs.toml is there already"
    assert path.read_text() == LAYOUT + "#"


def test_a_template_comes_with_the_concepts_there_are_and_the_bases_size(client: TestClient) -> None:
    names = [one["name"] for one in client.get("templates").json()]
    for name in names:
        told = client.get(f"templates/{name}").json()
        assert told["layout"], told["faults"]
    told = client.get("templates/two-side-by-side").json()
    assert (told["faults"], "<狐>" in told["text"], told["size"]) == ([], True, [96, 64])
    assert client.get("templates/none").status_code == 404


# Uploads


def send(client: TestClient, *files: tuple[str, bytes], concept: str = "Rex") -> Any:
    return client.post(f"uploads/{concept}", files=[("files", file) for file in files])


def test_uploads_are_kept_with_their_captions_as_learn_reads_them(client: TestClient, place: Place) -> None:
    sent = [("My Dog (1).PNG", png()), ("My Dog (1).txt", b"a dog asleep"), ("b.png", png((1, 2, 3)))]
    assert send(client, *sent).json() == {"names": ["my-dog-1.png", "my-dog-1.txt", "b.png"]}
    (folder,) = client.get("uploads").json()
    assert folder["name"] == "rex"
    assert [(one["name"], one["caption"]) for one in folder["images"]] == [
        ("b.png", ""),
        ("my-dog-1.png", "a dog asleep"),
    ]
    assert client.get("uploads/rex/b.png").content == png((1, 2, 3))
    client.put("uploads/rex/b.png", json={"caption": " a dog \n runs "})
    assert client.delete("uploads/rex/my-dog-1.png").json() == {}
    assert files_under(Path(place.folder)) == {"uploads/rex/b.png", "uploads/rex/b.txt"}
    assert client.get("uploads").json()[0]["images"][0]["caption"] == "a dog runs"


def test_a_mask_belongs_to_its_image_and_goes_with_it(client: TestClient, place: Place) -> None:
    send(client, ("a.png", png()), ("a-mask.png", png((255, 255, 255))), ("b-mask.png", png((9, 9, 9))))
    (folder,) = client.get("uploads").json()
    assert [(one["name"], one["mask"]) for one in folder["images"]] == [
        ("a.png", "a-mask.png"),
        ("b-mask.png", None),
    ]
    client.delete("uploads/rex/a.png")
    assert files_under(Path(place.folder)) == {"uploads/rex/b-mask.png"}


def test_an_image_is_kept_beside_the_drawn_ones_and_drawn_over(
    client: TestClient, worker: Puppet, jobs: Queue, place: Place
) -> None:
    answer = client.post("images", files=[("files", ("../My House.jpg", png()))])
    assert answer.json() == {"names": ["my-house.png"]}
    assert files_under(Path(place.folder)) == {"my-house.png"}
    assert client.post("images", files=[("files", ("x.png", b"no image"))]).status_code == 409
    asked = {"concept": "dog", "box": "0,0,0.5,1", "options": {"strength": 0.5}}
    job = client.post("images/my-house.png/edit", json={"asked": asked}).json()
    assert (job["kind"], job["title"]) == ("edit", "my-house.png: <dog>")
    until(lambda: worker.sent)
    assert worker.sent[0]["asked"] == {**asked, "prompt": "", "image": "my-house.png"}
    for image, kind, wrong in (
        ("none.png", "edit", asked),
        ("my-house.png", "edit", {**asked, "box": None}),
        ("my-house.png", "edit", {**asked, "box": "0,0,0,1"}),
        ("my-house.png", "stylize", {"concept": "gone"}),
        ("my-house.png", "paint", asked),
    ):
        assert client.post(f"images/{image}/{kind}", json={"asked": wrong}).status_code in (404, 409, 422)
    assert len(jobs.jobs) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.png", b"no image"),
        ("x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
        ("x.png", png(side=8)),
        ("x.png", png()[:-30]),
        ("x.txt", b"\xff\xfe"),
        ("x.txt", b"a" * (11 << 10)),
        ("x.html", b"<script>alert(1)</script>"),
    ],
)
def test_what_learn_would_not_read_is_not_kept(
    name: str, content: bytes, client: TestClient, place: Place
) -> None:
    answer = send(client, (name, content))
    assert answer.status_code == 409
    assert name in answer.json()["message"]
    assert files_under(Path(place.folder)) == set()


@pytest.mark.parametrize("concept", ["..", "%2E%2E%2Fx", "con", ".x"])
def test_uploads_go_into_a_concepts_folder_alone(concept: str, client: TestClient, place: Place) -> None:
    assert send(client, ("../../x.png", png()), concept=concept).status_code in (404, 405, 409)
    assert send(client, ("../../x.png", png())).json() == {"names": ["x.png"]}
    assert files_under(Path(place.folder)) == {"uploads/rex/x.png"}


# The queue


def drawing(client: TestClient, prompt: str = "a <dog>", **more: Any) -> int:
    answer = client.post("draw", json={"asked": {"prompts": [prompt], **more}})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


def test_jobs_wait_for_the_one_worker_and_tell_how_they_go(
    client: TestClient, worker: Puppet, jobs: Queue
) -> None:
    first, second = drawing(client), drawing(client, "a dog", options={"steps": 3, "seeds": "1,2,10"})
    until(lambda: [job["state"] for job in jobs.since(-1)] == ["running", "waiting"])
    assert [message["id"] for message in worker.sent] == [first]
    count = jobs.count
    worker.say(progress=["drawing", 2, 5])
    worker.say(look="data:image/jpeg;base64,")
    worker.say(image="a-dog-0.png")
    worker.say(note="said twice")
    until(lambda: jobs.get(first).notes)
    (changed,) = jobs.since(count)
    told = [changed[key] for key in ("label", "done", "total", "look", "images", "notes")]
    assert told == ["drawing", 2, 5, "data:image/jpeg;base64,", ["a-dog-0.png"], ["said twice"]]
    worker.say(done={})
    until(lambda: jobs.get(second).state == "running")
    assert (jobs.get(first).state, jobs.get(first).look) == ("done", "")
    assert (worker.sent[1]["kind"], worker.sent[1]["asked"]["options"]["seeds"]) == ("draw", "1,2,10")
    assert "names no concept; <dog>" in jobs.get(second).notes[0]


def test_a_job_is_cancelled_while_it_waits_and_while_it_runs(
    client: TestClient, worker: Puppet, jobs: Queue
) -> None:
    first, second = drawing(client), drawing(client)
    assert client.delete(f"jobs/{second}").json() == {"state": "stopped"}
    assert client.delete(f"jobs/{first}").json() == {"state": "running"}
    assert worker.sent[-1] == {"cancel": first}
    worker.say(failed={"message": "stopped", "hint": None, "stopped": True})
    until(lambda: jobs.get(first).state == "stopped")
    assert len(worker.sent) == 2, "what was cancelled is never sent"
    assert client.delete("jobs/77").status_code == 404


def test_a_killed_worker_is_told_and_replaced_and_the_queue_goes_on(
    client: TestClient, worker: Puppet, stage: Stage, jobs: Queue
) -> None:
    first, second = drawing(client), drawing(client)
    worker.die()
    until(lambda: len(stage.puppets) == 2)
    until(lambda: jobs.get(first).state == "failed")
    assert jobs.get(first).error == {
        "message": "the worker was killed by signal 9; a new one takes its place", "hint": "try again",
    }  # fmt: skip
    stage.now.say(ready=True)
    until(lambda: stage.now.sent)
    assert stage.now.sent[0]["id"] == second


def test_a_worker_that_cannot_start_is_not_started_for_ever(stage: Stage) -> None:
    queue = Queue(stage)
    stage.now.die()
    until(lambda: stage.puppets[0].closed.is_set())
    threading.Event().wait(0.2)
    assert len(stage.puppets) == 1
    job = queue.add("draw", "a dog", {})
    until(lambda: len(stage.puppets) == 2)
    stage.now.say(ready=True)
    until(lambda: queue.get(job.id).state == "running")
    queue.close()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompts": ["a <dgo>"]}, "no concept is called <dgo>"),
        ({"prompts": ["a <dog"], "options": {}}, "is not closed"),
        ({"prompts": ["a <dog>"], "options": {"steps": 0}}, "steps"),
        ({"layout": LAYOUT.replace("1.0", "7.0")}, "leaves the image"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_it_waits(
    asked: dict[str, Any], message: str, client: TestClient, worker: Puppet, jobs: Queue
) -> None:
    answer = client.post("draw", json={"asked": asked})
    assert (answer.status_code in (404, 409), message in answer.json()["message"]) == (True, True), (
        answer.text
    )
    assert not jobs.jobs


def test_learning_is_checked_then_queued_with_its_notes(
    client: TestClient, worker: Puppet, jobs: Queue, place: Place
) -> None:
    asked: dict[str, Any] = {"name": "Rex", "noun": "", "options": {"steps": 5}}
    assert client.post("plan", json={"asked": asked}).status_code == 404, "no image yet"
    send(
        client,
        ("a.png", png()),
        ("a.txt", b"a red dog"),
        ("b.png", png((0, 0, 9))),
        ("b.txt", b"a dog asleep"),
    )
    answer = client.post("learn", json={"asked": {**asked, "preview": "a cat"}})
    assert "does not show" in answer.text or "<Rex>" in answer.text
    assert answer.status_code == 409
    job = client.post("learn", json={"asked": {**asked, "preview": "a <Rex>", "every": 2}}).json()
    assert (job["title"], job["kind"]) == ("<Rex>, a dog", "learn")
    assert any("only 2 usable" in note for note in job["notes"])
    assert client.get(f"jobs/{job['id']}/previews").json() == []
    worker.say(progress=["learning <Rex>", 1, 5], loss=0.5)
    worker.say(progress=["learning <Rex>", 2, 5], loss=0.25)
    until(lambda: jobs.get(job["id"]).losses == [0.5, 0.25])
    client.delete(f"jobs/{job['id']}")
    worker.say(
        failed={"message": "stopped at step 2 of 5; checkpoint saved", "hint": "resume", "stopped": True}
    )
    until(lambda: jobs.get(job["id"]).state == "stopped")
    for wrong in ({"name": "dog"}, {"name": "no name"}, {"name": "Rex", "resume": True, "restart": True}):
        assert client.post("learn", json={"asked": wrong}).status_code in (404, 409)


# The command


def test_the_command_says_what_is_not_installed(
    cidm: Cidm, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    ran = cidm("--registry", place.registry, "studio", "--no-browser")
    assert ran.code == 2
    assert "uvicorn" in ran.error
    assert "pip install 'cidm[studio]'" in ran.error


def test_without_a_registry_it_says_so(cidm: Cidm, tmp_path: Path) -> None:
    assert cidm("--registry", tmp_path / "none", "studio", "--no-browser").code == 3


SERVER = """
import sys
from starlette.testclient import TestClient
from cidm_cli.studio import server
from cidm_cli.studio.app import application
from cidm_cli.studio.jobs import Queue
from cidm_cli.studio.place import Place
from desk import API, TOKEN, Stage, png
place = Place(sys.argv[1], sys.argv[2], {})
with TestClient(application(place, Queue(Stage()), TOKEN), base_url=API) as client:
    assert client.get("concepts").status_code == client.get("templates/single").status_code == 200
    assert client.post("draw", json={"asked": {"prompts": ["a <dog>"]}}).status_code == 200
    assert client.post("uploads/rex", files=[("files", ("a.png", png()))]).status_code == 200
    assert client.post("learn", json={"asked": {"name": "rex", "noun": "dog"}}).status_code == 200
    assert client.get("images").status_code == 200
print(sorted({"torch", "diffusers", "transformers", "peft", "accelerate"} & set(sys.modules)))
"""


def test_the_server_imports_no_torch(place: Place) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SERVER, place.registry, place.folder],
        capture_output=True, check=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert ran.stdout.splitlines()[-1] == "[]"
