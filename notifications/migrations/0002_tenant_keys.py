"""Tenants are sealed by the database: a row can only point at rows of its own merchant."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key


class Migration(migrations.Migration):
    dependencies = [("notifications", "0001_initial"), ("invoices", "0003_tenant_keys")]

    operations = [
        tenant_foreign_key("notifications_alert", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("notifications_alert", "event_id", "invoices_event"),
    ]
