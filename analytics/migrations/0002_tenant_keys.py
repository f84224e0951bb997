"""Tenants are sealed by the database: a row can only point at rows of its own merchant."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key


class Migration(migrations.Migration):
    dependencies = [("analytics", "0001_initial"), ("invoices", "0003_tenant_keys")]

    operations = [
        tenant_foreign_key("analytics_attemptrollup", "connection_id", "invoices_connection"),
        tenant_foreign_key("analytics_caserollup", "connection_id", "invoices_connection"),
        tenant_foreign_key("analytics_recoveryrollup", "connection_id", "invoices_connection"),
    ]
