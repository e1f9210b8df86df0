"""`{% task_progress run %}` and its companions."""

import pytest
from django.urls import set_script_prefix

from channels_progress import access, runs
from tests.page.conftest import RUN, render, snapshot


@pytest.fixture
def tag(request_of):
    """`tag(run)`: what the tag writes for the run's owner."""

    def write(run, owner="a:me", text="{% task_progress run again='/more/' %}"):
        context = {"run": run, "request": request_of(owner), "csrf_token": "secret"}
        return render(text, **context)

    return write


def test_the_page_holds_what_the_script_needs(tag):
    html = tag(snapshot(details={"current": 42, "total": 100}))
    assert f'run="{RUN}"' in html
    assert 'state="running"' in html
    assert 'socket="/ws/progress/"' in html
    assert f'src="/progress/runs/{RUN}/"' in html
    assert 'value="42"' in html
    assert "42 of 100 rows" in html


def test_the_token_is_the_viewers(tag, request_of):
    html = tag(snapshot())
    token = html.partition('token="')[2].partition('"')[0]
    assert access.check_token(access.viewer_of(request_of()), RUN, token)
    assert not access.check_token(access.viewer_of(request_of("a:you")), RUN, token)


def test_html_in_a_title_is_text(tag):
    html = tag(
        snapshot(details={"title": "<script>alert(1)</script>", "message": "<b>"})
    )
    assert "<script" not in html
    assert "<b>" not in html


def test_without_a_total_the_bar_has_no_value(tag):
    assert "value=" not in tag(snapshot()).partition("<progress")[2].partition(">")[0]


@pytest.mark.parametrize(
    ("fields", "verbs"),
    [
        ({"state": "running"}, {"cancel"}),
        ({"state": "running", "details": {"pausable": True}}, {"cancel", "pause"}),
        (
            {"state": "running", "details": {"pausable": True}, "asked": "pause"},
            {"cancel"},
        ),
        ({"state": "running", "asked": "cancel"}, set()),
        ({"state": "paused"}, {"cancel", "resume"}),
        ({"state": "succeeded"}, {"again"}),
    ],
)
def test_the_buttons_fit_the_state(tag, fields, verbs):
    html = tag(snapshot(**fields)).partition("<noscript>")[0]
    pieces = [piece.partition(">")[0] for piece in html.split("data-verb=")[1:]]
    assert {p.split('"')[1] for p in pieces if "hidden" not in p} == verbs


def test_who_may_only_watch_gets_no_buttons(tag):
    html = tag(snapshot(), owner="a:you")
    assert "<form" not in html


def test_a_button_comes_back_to_this_page(tag):
    html = tag(snapshot())
    assert 'name="next" value="/runs/?page=2"' in html
    assert 'name="csrfmiddlewaretoken" value="secret"' in html


def test_without_a_run_the_element_waits_for_one(tag):
    html = tag(None)
    assert " run=" not in html
    assert "/progress/runs/00000000-0000-0000-0000-000000000000/" in html
    assert 'data-verb="cancel"' in html


def test_what_a_start_returned_will_do(tag):
    assert f'run="{RUN}"' in tag(runs.Started(RUN, snapshot(), True))


def test_below_a_path_the_socket_is_there_too(tag):
    set_script_prefix("/below/")
    try:
        html = tag(snapshot())
        start = render("{% start_socket 'copy' %}")
    finally:
        set_script_prefix("/")
    assert 'socket="/below/ws/progress/"' in html
    assert start == "/below/ws/start/copy/"


def test_the_head_holds_no_inline_script():
    html = render("{% progress_assets 'row' %}")
    scripts = html.split("<script")[1:]
    assert len(scripts) == 2
    assert all("src=" in each or "application/json" in each for each in scripts)
    assert '"row": ["rows", "row"' in html
