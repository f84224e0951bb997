"""Tenants are sealed by the database: a row can only point at rows of its own merchant."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key, tenant_key


class Migration(migrations.Migration):
    dependencies = [("tokens", "0001_initial"), ("invoices", "0003_tenant_keys")]

    operations = [
        tenant_key("tokens_card"),
        tenant_key("tokens_token"),
        tenant_foreign_key("tokens_card", "connection_id", "invoices_connection"),
        tenant_foreign_key("tokens_token", "connection_id", "invoices_connection"),
        tenant_foreign_key("tokens_token", "customer_id", "invoices_customer"),
        tenant_foreign_key("tokens_token", "card_id", "tokens_card"),
        tenant_foreign_key("invoices_attempt", "card_id", "tokens_card"),
        tenant_foreign_key("invoices_attempt", "token_id", "tokens_token"),
    ]
