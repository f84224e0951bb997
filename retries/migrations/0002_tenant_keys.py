"""Tenants are sealed by the database: a row can only point at rows of its own merchant."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key, tenant_key


class Migration(migrations.Migration):
    dependencies = [("retries", "0001_initial"), ("tokens", "0002_tenant_keys")]

    operations = [
        tenant_key("retries_policyversion"),
        tenant_key("retries_case"),
        tenant_foreign_key("retries_case", "connection_id", "invoices_connection"),
        tenant_foreign_key("retries_case", "customer_id", "invoices_customer"),
        tenant_foreign_key("retries_case", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("retries_case", "policy_version_id", "retries_policyversion"),
        tenant_foreign_key("retries_retryjob", "connection_id", "invoices_connection"),
        tenant_foreign_key("retries_retryjob", "customer_id", "invoices_customer"),
        tenant_foreign_key("retries_retryjob", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("retries_retryjob", "transaction_id", "invoices_transaction"),
        tenant_foreign_key("retries_retryjob", "attempt_id", "invoices_attempt"),
        tenant_foreign_key("retries_retryjob", "case_id", "retries_case"),
        tenant_foreign_key("retries_retryjob", "token_id", "tokens_token"),
    ]
