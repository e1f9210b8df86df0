from django.contrib import admin

from HomeApp.models import ImportReport, Measurement


@admin.register(Measurement)
class MeasurementAdmin(admin.ModelAdmin):
    list_display = ["when", "sensor", "value"]
    date_hierarchy = "when"
    search_fields = ["sensor"]
    # Counting a large table for each page takes longer than the page.
    show_full_result_count = False


@admin.register(ImportReport)
class ImportReportAdmin(admin.ModelAdmin):
    """Imports are looked at here; only their own task changes them."""

    list_display = ["name", "created", "rows", "inserted", "updated", "bad", "ended"]
    search_fields = ["run", "name"]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False
