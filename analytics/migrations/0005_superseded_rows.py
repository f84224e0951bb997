"""Count merchants anew that have invoices whose place another one took: these count for nothing from now on."""

from django.db import migrations

_ANEW = """
DELETE FROM analytics_rollupzone WHERE merchant_id IN (
    SELECT merchant_id FROM invoices_invoice WHERE cancel_reason = 'superseded'
)
"""


class Migration(migrations.Migration):
    dependencies = [("analytics", "0004_counted_facts"), ("invoices", "0018_superseded_invoices")]

    operations = [migrations.RunSQL(_ANEW, migrations.RunSQL.noop)]
