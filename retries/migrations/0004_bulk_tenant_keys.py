"""The tenant's seal on the new tables (see 0002)."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key, tenant_key


class Migration(migrations.Migration):
    dependencies = [("retries", "0003_gates_bulk_runs_lanes"), ("invoices", "0006_invoice_invoice_by_number")]

    operations = [
        tenant_key("retries_bulkrun"),
        tenant_foreign_key("retries_bulkitem", "run_id", "retries_bulkrun"),
        tenant_foreign_key("retries_bulkitem", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("retries_providergate", "connection_id", "invoices_connection"),
        tenant_foreign_key("retries_outage", "connection_id", "invoices_connection"),
    ]
