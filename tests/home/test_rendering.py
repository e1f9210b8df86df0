import json
import threading
from http.server import ThreadingHTTPServer

import pytest

from HomeApp import elsewhere, rendering
from HomeApp.forms import RenderForm
from HomeApp.render_service import FRAMES_PER_SECOND, MOODS, Handler, Job, main, url
from HomeApp.rendering import PATIENCE, Course, GivenUp

NOW = 1_763_700_000.0


def job(mood, frames=100):
    """A job, and a function that lets seconds pass."""
    clock = [0.0]

    def go(seconds):
        clock[0] += seconds

    return Job(frames, mood, clock=lambda: clock[0]), go


def said(done, state="rendering", frames=100):
    return {"state": state, "done": done, "frames": frames}


# --- The service ---------------------------------------------------------------------


def test_a_steady_job_ends_on_time():
    steady, go = job("steady")
    assert steady.answer() == (200, said(0))
    go(99 / FRAMES_PER_SECOND)
    assert steady.answer() == (200, said(99))
    go(60)
    assert steady.answer() == (200, said(100, "done"))


def test_a_falling_job_takes_frames_back_and_ends():
    falling, go = job("falling")
    go(60 / FRAMES_PER_SECOND)
    before = falling.done()
    go(1 / FRAMES_PER_SECOND)
    assert falling.done() < before
    go(60)
    assert falling.answer() == (200, said(100, "done"))


def test_a_broken_job_has_errors_for_a_while():
    broken, go = job("broken")
    go(40 / FRAMES_PER_SECOND)
    assert broken.answer() == (500, {"error": "Out of paint"})
    go(60)
    assert broken.answer()[0] == 200


def test_an_endless_job_stays_one_frame_short():
    endless, go = job("endless")
    go(1e6)
    assert endless.answer() == (200, said(99))


def test_the_form_offers_every_mood():
    assert [mood for mood, _ in RenderForm().fields["mood"].choices] == list(MOODS)
    form = RenderForm({})
    assert form.is_valid()
    assert form.cleaned_data == {"frames": 200, "mood": "steady"}


@pytest.mark.parametrize("params", [{"frames": 0}, {"frames": "x"}, {"mood": "kind"}])
def test_a_wrong_wish_is_refused(params):
    assert list(RenderForm(params).errors) == list(params)


# --- What is made of its answers -----------------------------------------------------


def test_progress_is_passed_on():
    course = Course(NOW).heard(said(30), NOW + 1)
    assert course == Course(NOW + 1, 30, 100)
    assert course.heard(said(100, "done"), NOW + 2).finished


def test_a_course_survives_json():
    course = Course(NOW, 30, 100, misses=2, message="…")
    assert Course(**json.loads(json.dumps(course.as_dict()))) == course


def test_a_fall_is_told_until_it_is_made_good():
    told = "The service was at 60 frames before, and went back."
    course = Course(NOW, 60, 100)
    for second, done in enumerate((40, 50, 59), start=1):
        course = course.heard(said(done), NOW + second)
        assert (course.done, course.message) == (done, told)
    assert course.heard(said(60), NOW + 4).message == ""


def test_a_standstill_is_told_and_given_up_in_the_end():
    course = Course(NOW, 99, 100)
    assert course.heard(said(99), NOW + 5).message == ""
    course = course.heard(said(99), NOW + 12)
    assert course.message == "No new frame for 12 s."
    with pytest.raises(GivenUp, match="stopped at 99 of 100 frames"):
        course.heard(said(99), NOW + PATIENCE + 1)


def test_a_service_without_an_answer_is_asked_again_for_a_while():
    course = Course(NOW, 30, 100).missed("It does not answer.", NOW + 1)
    course = course.missed("It does not answer.", NOW + 2)
    assert (course.done, course.total, course.misses) == (30, 100, 2)
    assert course.message == "It does not answer. Asked 2 times."
    assert course.heard(said(31), NOW + 3).message == ""
    with pytest.raises(GivenUp, match="of no help: It does not answer"):
        course.missed("It does not answer.", NOW + PATIENCE + 1)


def test_an_answer_takes_back_that_there_was_none():
    course = Course(NOW, 30, 100).missed("It does not answer.", NOW + 1)
    assert course.heard(said(30), NOW + 2) == Course(NOW, 30, 100)


# --- Over HTTP -----------------------------------------------------------------------


@pytest.fixture
def service(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setenv("RENDER_URL", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    rendering.client.cache_clear()
    yield server
    rendering.client().close()
    rendering.client.cache_clear()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_taken_port_is_one_sentence(service):
    taken = service.server_port
    with pytest.raises(SystemExit) as ended:
        main()
    assert str(ended.value) == (
        f"The render service cannot use http://127.0.0.1:{taken} (address already in "
        f"use): stop what uses it, or choose another address: "
        f"RENDER_URL=http://127.0.0.1:{taken + 1} make run"
    )


@pytest.mark.parametrize(("web", "port"), [("8000", 8900), ("65535", 64_635)])
def test_each_web_port_has_a_port_of_its_own(monkeypatch, web, port):
    monkeypatch.delenv("RENDER_URL", raising=False)
    monkeypatch.setenv("PORT", web)
    assert url() == f"http://127.0.0.1:{port}"


def test_asking_twice_makes_one_job(service):
    Handler.jobs.clear()
    rendering.ask("a-run", 100, "steady", Course(NOW), NOW)
    course = rendering.ask("a-run", 100, "steady", Course(NOW), NOW)
    assert course.total == 100
    assert list(Handler.jobs) == ["/jobs/a-run"]


def test_a_job_can_be_looked_up(service):
    rendering.ask("looked-up", 100, "steady", Course(NOW), NOW)
    assert rendering.client().get("/jobs/looked-up").json()["frames"] == 100
    assert rendering.client().get("/jobs/unknown").status_code == 404


def test_a_refusal_is_final(service):
    with pytest.raises(GivenUp, match="refused: 400"):
        rendering.ask("refused", 100, "kind", Course(NOW), NOW)


def test_an_error_of_the_service_is_a_miss(service):
    broken, go = job("broken")
    go(40 / FRAMES_PER_SECOND)
    Handler.jobs["/jobs/broken"] = broken
    course = rendering.ask("broken", 100, "broken", Course(NOW), NOW)
    assert course.message == "The render service has an error (500). Asked 1 time."


def test_a_service_that_is_down_is_a_miss(monkeypatch):
    monkeypatch.setenv("RENDER_URL", "http://127.0.0.1:1")
    rendering.client.cache_clear()
    course = rendering.ask("down", 100, "steady", Course(NOW), NOW)
    assert course.message == "The render service does not answer. Asked 1 time."
    rendering.client().close()
    rendering.client.cache_clear()


def test_a_finished_job_ends_the_task(service):
    Handler.jobs["/jobs/done"], go = job("steady")
    go(60)
    task = elsewhere.render_elsewhere
    task.push_request(id="done")
    try:
        assert task.run(frames=100) == {"frames": 100}
    finally:
        task.pop_request()
