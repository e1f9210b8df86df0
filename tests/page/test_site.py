"""The site's pages, as far as they need no store."""

import gzip
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.test import Client

from HomeApp.templatetags.charts import peaks, spectrum
from HomeApp.templatetags.figures import grouped

BUDGET = 30_000  # bytes, compressed
OURS = ("channels_progress", "HomeApp")


def sources():
    for name in OURS:
        for path in sorted(Path(finders.find(name)).iterdir()):
            if path.suffix in {".js", ".css"}:
                yield path


def test_script_and_style_together_stay_small():
    sizes = {p.name: len(gzip.compress(p.read_bytes())) for p in sources()}
    assert sum(sizes.values()) < BUDGET, sizes


def test_nothing_is_written_as_html_by_a_script():
    for path in sources():
        text = path.read_text()
        assert "innerHTML" not in text, path
        assert "insertAdjacentHTML" not in text, path


def test_a_module_fits_on_two_screens():
    for path in sources():
        if path.suffix == ".js":
            assert len(path.read_text().splitlines()) <= 270, path


def test_a_spectrum_names_its_peaks_in_hertz():
    values = [0.01] * 100
    values[15], values[42], values[70] = 0.1, 0.3, 0.2
    drawn = spectrum({"transforms": 9, "hertz": [1, 1000], "spectrum": values})
    assert drawn["peaks"] == [155, 425, 705]
    assert len(drawn["points"].split()) == 100


@pytest.mark.parametrize("values", [[], [1], [0, 0, 0]])
def test_a_spectrum_without_peaks_has_none(values):
    assert peaks(values) == []
    spectrum({"transforms": 1, "hertz": [1, 1000], "spectrum": values})


def test_numbers_are_grouped():
    assert grouped(1234567) == "1,234,567"


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    ["/", "/tasks/fft_random/", "/tasks/import_rows/", "/trouble/", "/accounts/login/"],
)
def test_each_page_has_one_heading_and_no_inline_code(client, path):
    answer = client.get(path)
    html = answer.content.decode()
    assert answer.status_code == 200
    assert html.count("<h1") == 1
    assert " style=" not in html
    assert " onclick=" not in html
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.django_db
def test_a_page_that_offers_a_start_names_the_viewer_and_is_never_cached(client):
    answer = client.get("/")
    assert answer.cookies["progress_viewer"]["httponly"]
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.django_db
def test_a_task_that_does_not_exist_is_not_found(client):
    assert client.get("/tasks/nothing/").status_code == 404


@pytest.mark.django_db
def test_a_form_that_may_be_forged_is_refused_on_a_page_of_the_site():
    answer = Client(enforce_csrf_checks=True).post("/", {"speed": 5})
    assert answer.status_code == 403
    assert b"<h1>That page was too old</h1>" in answer.content
    assert b"HomeApp/site.css" in answer.content
    assert not answer.cookies  # a new token would make every open page too old


@pytest.mark.django_db
def test_a_wrong_parameter_is_said_beside_its_field(client):
    answer = client.post("/tasks/fft_random/", {"n": "abc"})
    assert answer.status_code == 400
    assert b'aria-invalid="true"' in answer.content
    assert b"Enter a whole number from 1 to 1,000,000." in answer.content


@pytest.mark.django_db
def test_without_a_store_the_page_says_so_and_comes_back(client):
    answer = client.get("/runs/6c923248-ff32-5e00-a7cc-020d29813e81/")
    assert answer.status_code in {403, 503}
    assert b"<h1>" in answer.content
