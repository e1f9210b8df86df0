"""The second language is complete: nothing in the sources is left untranslated.

`manage.py makemessages -l de --no-wrap --no-obsolete --add-location file` finds what is
new; after that `manage.py compilemessages` makes what the site reads.
"""

import ast
import gettext
import re
from pathlib import Path

import pytest
from django.utils.translation.template import templatize

from tests.site.conftest import Hand, start

ROOT = Path(__file__).resolve().parents[2]
CATALOGUES = {"channels_progress": "channels_progress", "site": "."}
FUNCTIONS = {"_", "gettext", "gettext_lazy", "gettext_noop"}
PLURALS = {"ngettext", "ngettext_lazy"}
CONTEXTS = {"pgettext", "pgettext_lazy"}
PLACES = re.compile(r"%\(\w+\)[sd]|%[sd]|{\w+}")
TEXT = r"""u?(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
CALL = re.compile(rf"\b(?:gettext|ngettext|pgettext)\({TEXT}(?:, {TEXT})?")


def folder(catalogue):
    return ROOT / CATALOGUES[catalogue] / "locale" / "de" / "LC_MESSAGES"


def entries(catalogue):
    """The catalogue's text, as (context, msgid, [msgstr, ...])."""
    text = (folder(catalogue) / "django.po").read_text()
    for block in text.split("\n\n")[1:]:
        said = re.findall(r'^(msg\w+(?:\[\d])?) "(.*)"$', block, re.M)
        values = {name: ast.literal_eval(f'"{value}"') for name, value in said}
        strings = [value for name, value in values.items() if "msgstr" in name]
        yield values.get("msgctxt"), values["msgid"], strings


def keys_of(source):
    """The keys of a catalogue that this Python source asks for."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        texts = []
        for argument in node.args:
            if not isinstance(argument, ast.Constant):
                break
            texts.append(argument.value)
        if name in FUNCTIONS and texts:
            yield texts[0]
        elif name in PLURALS and len(texts) > 1:
            yield texts[0], 1
        elif name in CONTEXTS and len(texts) > 1:
            yield f"{texts[0]}\4{texts[1]}"


def sources(catalogue):
    """What is to be translated there: path and Python source."""
    names = ["channels_progress"] if catalogue != "site" else ["HomeApp"]
    names += [] if catalogue != "site" else ["CeleryProgressbar"]
    for name in names:
        for path in sorted((ROOT / name).rglob("*.py")):
            yield path, path.read_text()
        for path in sorted((ROOT / name).rglob("*.html")):
            calls = CALL.findall(templatize(path.read_text(), origin=str(path)))
            yield path, "\n".join(f"{call})" for call in calls)


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_text_of_the_sources_is_translated(catalogue):
    with (folder(catalogue) / "django.mo").open("rb") as file:
        known = gettext.GNUTranslations(file)._catalog
    wanted = {(key, path) for path, text in sources(catalogue) for key in keys_of(text)}
    missing = {
        f"{path.relative_to(ROOT)}: {key!r}"
        for key, path in wanted
        if not known.get(key) and not known.get((key, 0))
    }
    assert not missing
    assert len({key for key, _ in wanted}) == len(list(entries(catalogue)))


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_no_text_is_empty_or_fuzzy(catalogue):
    assert "fuzzy" not in (folder(catalogue) / "django.po").read_text()
    empty = [key for _, key, said in entries(catalogue) if not said or not all(said)]
    assert not empty


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_a_translation_has_the_places_of_its_text(catalogue):
    for _, text, said in entries(catalogue):
        for translated in said:
            assert sorted(PLACES.findall(text)) == sorted(PLACES.findall(translated))


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_the_compiled_catalogue_is_the_one_that_can_be_read(catalogue):
    with (folder(catalogue) / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)._catalog
    written = {}
    for context, text, said in entries(catalogue):
        key = f"{context}\4{text}" if context else text
        plural = {(key, n): one for n, one in enumerate(said)}
        written |= {key: said[0]} if len(said) == 1 else plural
    compiled.pop("")
    assert compiled == written


def test_the_language_can_be_switched(visitor):
    answer = visitor.post("/i18n/setlang/", {"language": "de", "next": "/runs/"})
    assert answer["Location"] == "/runs/"
    html = visitor.get("/runs/").content.decode()
    assert '<html lang="de"' in html
    assert "Meine Läufe" in html
    assert "Hier ist noch nichts" in html
    visitor.post("/i18n/setlang/", {"language": "en"})
    assert "My runs" in visitor.get("/runs/").content.decode()


def test_a_browser_that_prefers_german_gets_it(visitor):
    html = visitor.get("/", headers={"Accept-Language": "de-AT,de;q=0.9"})
    assert "START" in html.content.decode()
    assert "Geschwindigkeit" in html.content.decode()


def test_a_receipt_has_german_words_and_numbers(visitor):
    run = start(visitor)
    Hand(run, unit="row", total=12345).end(current=12345)
    headers = {"Accept-Language": "de"}
    html = visitor.get(f"/runs/{run}/", headers=headers).content.decode()
    assert "Quittung" in html
    assert "12.345 Zeilen" in html
    assert "Erfolgreich" in html
    assert '"row": ["Zeilen", "Zeile"' in html.replace("&quot;", '"')


def test_a_refusal_is_german_too(visitor, stranger):
    run = start(visitor)
    headers = {"Accept-Language": "de"}
    answer = stranger.get(f"/progress/runs/{run}/", headers=headers)
    assert answer.json()["message"].startswith("Diesen Lauf gibt es nicht")


def test_so_is_the_page_of_a_button_that_is_refused(visitor):
    run = start(visitor)
    headers = {"Accept-Language": "de", "Accept": "text/html"}
    pause, sent = f"/progress/runs/{run}/pause/", {"next": "/runs/"}
    html = visitor.post(pause, sent, headers=headers).content.decode()
    assert '<html lang="de" dir="ltr">' in html
    assert "<h1>Das hat nicht geklappt</h1>" in html
    assert "Diese Aufgabe lässt sich nicht pausieren" in html
    assert ">Zurück</a>" in html
