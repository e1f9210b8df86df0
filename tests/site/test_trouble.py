"""The page of the tasks that go wrong: seven buttons in one form."""

import re

import pytest

from channels_progress import wire

BUTTON = re.compile('<button formaction="([^"]+)" name="key" value="([^"]+)">')


@pytest.fixture
def choices(visitor):
    """Each button of one page: where it leads, and the key that it sends."""
    return BUTTON.findall(visitor.get("/trouble/").content.decode())


def test_each_choice_of_one_page_is_a_run_of_its_own(visitor, choices):
    runs = [visitor.post(path, {"key": key})["Location"] for path, key in choices]
    assert len(set(runs)) == 7


def test_a_choice_that_is_sent_twice_is_one_run(visitor, choices):
    path, key = choices[0]
    first, second = (visitor.post(path, {"key": key})["Location"] for _ in range(2))
    assert first == second


def test_a_key_is_one_that_the_wire_takes(choices):
    assert [wire.key(key) for _, key in choices] == [key for _, key in choices] != []


def test_the_form_sends_no_other_key(visitor, choices):
    html = visitor.get("/trouble/").content.decode()
    assert html.count('name="key"') == len(choices)
