"""Hashed names: every module of the script is found, by its hash or without one."""

import re

import pytest
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage
from django.core.management import call_command

IMPORT = re.compile(r'\bfrom "(\.[^"]+)"')
HASHED = re.compile(r"\.[0-9a-f]{12}\.js$")


class Aggregating(ManifestStaticFilesStorage):
    support_js_module_import_aggregation = True


@pytest.fixture(params=[ManifestStaticFilesStorage, Aggregating])
def storage(request, settings, tmp_path):
    storage = request.param
    settings.STATIC_ROOT = tmp_path
    backend = f"{storage.__module__}.{storage.__qualname__}"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": backend}}
    call_command("collectstatic", verbosity=0, interactive=False)
    return storage


def test_what_a_hashed_module_imports_is_there(storage, tmp_path):
    modules = [path for path in tmp_path.rglob("*.js") if HASHED.search(path.name)]
    imported = [
        module.parent / name
        for module in modules
        for name in IMPORT.findall(module.read_text())
    ]
    assert {"hub", "connection"} <= {path.name.partition(".")[0] for path in imported}
    assert [path for path in imported if not path.is_file()] == []
    if storage is Aggregating:
        assert all(HASHED.search(path.name) for path in imported)
