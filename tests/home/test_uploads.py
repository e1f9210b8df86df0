from datetime import timedelta

from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from HomeApp import uploads


def kept():
    return uploads.keep(ContentFile(b"when,sensor,value\n"))


def test_two_uploads_never_share_a_name():
    assert kept() != kept()


def test_nothing_to_prune_before_the_first_upload():
    assert uploads.prune(timezone.now()) == 0


def test_old_uploads_are_removed_unless_they_are_needed():
    old, needed = kept(), kept()
    assert uploads.prune(timezone.now() + timedelta(hours=1), {needed}) == 1
    assert not default_storage.exists(old)
    assert default_storage.exists(needed)


def test_young_uploads_stay():
    young = kept()
    assert uploads.prune(timezone.now() - timedelta(hours=1)) == 0
    assert default_storage.exists(young)
