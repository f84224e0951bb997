"""Tenants are sealed by the database: a row can only point at rows of its own merchant."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key, tenant_key


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial"), ("invoices", "0003_tenant_keys")]

    operations = [
        tenant_key("webhooks_webhookendpoint"),
        tenant_foreign_key("webhooks_webhookendpoint", "connection_id", "invoices_connection"),
        tenant_foreign_key("webhooks_inboxevent", "endpoint_id", "webhooks_webhookendpoint"),
    ]
