"""The README, followed word by word by somebody who has a Django project."""

import json
import os
import re
import subprocess
import sys

import httpx
import pytest
from websockets.sync.client import connect

from channels_progress.conf import DEFAULTS
from tests.ports import free_port
from tests.stack import ROOT, Process, Valkey, clean_environment

README = (ROOT / "README.md").read_text()
REDIS = "redis://127.0.0.1:6379/0"
BLOCK = re.compile(
    r"^[^\n]*`([a-z]+/[\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)^```", re.M | re.S
)


@pytest.fixture
def valkey_server(tmp_path):
    server = Valkey(tmp_path)
    yield server.start()
    server.close()


@pytest.fixture
def project(tmp_path, valkey_server):
    """A new Django project, with every file that the README shows."""
    directory = tmp_path / "project"
    directory.mkdir()
    env = clean_environment() | {
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
    }
    project = Project(directory, env)
    project.run("-m", "django", "startproject", "mysite", ".", settings=False)
    project.run("manage.py", "startapp", "pages")
    blocks = BLOCK.findall(README)
    assert len(blocks) == 9
    for name, text in blocks:
        project.write(name, text.replace(REDIS, valkey_server.url))
    return project


class Project:
    def __init__(self, directory, env):
        self.directory, self.env = directory, env

    def run(self, *command, settings=True):
        env = dict(self.env)
        if not settings:
            del env["DJANGO_SETTINGS_MODULE"]
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.directory,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "mysite/settings.py":  # "at the end of"
            text = path.read_text() + text
        path.write_text(text)

    def process(self, name, *command):
        log = self.directory / f"{name}.log"
        return Process(log, sys.executable, *command, env=self.env)


@pytest.mark.e2e
def test_somebody_who_follows_the_readme_sees_a_run_finish(project):
    checked = project.run("manage.py", "check", "--fail-level", "INFO")
    assert "no issues" in checked
    project.run("manage.py", "migrate")
    port = free_port()
    manage = project.directory / "manage.py"
    web = project.process("web", manage, "runserver", "--noreload", port)
    worker = project.process(
        "worker", *("-m", "celery", "-A", "mysite", "worker", "-c", 1)
    )
    try:
        web.start()
        worker.start()
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, follow_redirects=True, timeout=30) as client:
            web.wait_ready(lambda: answers(client), "web")
            page = client.get("/")
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
            page = client.post("/", data={"csrfmiddlewaretoken": token[1]})
            assert "<task-progress" in page.text
            for address in re.findall(r'"(/static/.+?)"', page.text):
                assert client.get(address).status_code == 200
            run = page.url.path.split("/")[2]
            seen = [*watch(client, url, run)]
            assert seen == sorted(seen, key=lambda envelope: envelope["current"])
            assert len({envelope["percent"] for envelope in seen}) >= 5
            assert seen[-1]["state"] == "succeeded"
            assert seen[-1]["percent"] == 100
            assert seen[-1]["result"] == {"copied": 500}
            assert "Succeeded" in client.get(page.url).text
        with httpx.Client(base_url=url, timeout=30) as stranger:
            assert stranger.get(page.url).status_code == 403
    finally:
        worker.kill()
        web.kill()


def answers(client):
    try:
        return client.get("/")
    except httpx.HTTPError:
        return None


def watch(client, url, run):
    """Every envelope of a run until its end, as a page gets them."""
    cookies = "; ".join(f"{c.name}={c.value}" for c in client.cookies.jar)
    with connect(
        url.replace("http", "ws") + "/ws/progress/",
        origin=url,
        additional_headers={"Cookie": cookies},
    ) as socket:
        socket.send(json.dumps({"action": "watch", "run": run}))
        while True:
            message = json.loads(socket.recv(timeout=30))
            if message["type"] == "run":
                yield message
                if message["ended"]:
                    return


def test_every_setting_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", README, re.M))
    assert rows == {name: str(default) for name, default in DEFAULTS.items()}


def test_what_the_readme_links_to_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
