"""Tenants are sealed by the database: a row can only point at rows of its own merchant."""

from django.db import migrations

from recovery_site.common.db import tenant_foreign_key, tenant_key


class Migration(migrations.Migration):
    dependencies = [("invoices", "0002_initial")]

    operations = [
        tenant_key("invoices_connection"),
        tenant_key("invoices_customer"),
        tenant_key("invoices_invoice"),
        tenant_key("invoices_transaction"),
        tenant_key("invoices_attempt"),
        tenant_key("invoices_event"),
        tenant_foreign_key("invoices_customer", "connection_id", "invoices_connection"),
        tenant_foreign_key("invoices_invoice", "connection_id", "invoices_connection"),
        tenant_foreign_key("invoices_invoice", "customer_id", "invoices_customer"),
        tenant_foreign_key("invoices_providerpayment", "connection_id", "invoices_connection"),
        tenant_foreign_key("invoices_providerpayment", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("invoices_transaction", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("invoices_transaction", "refund_of_id", "invoices_transaction"),
        tenant_foreign_key("invoices_transaction", "duplicate_of_id", "invoices_transaction"),
        tenant_foreign_key("invoices_attempt", "connection_id", "invoices_connection"),
        tenant_foreign_key("invoices_attempt", "customer_id", "invoices_customer"),
        tenant_foreign_key("invoices_attempt", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("invoices_attempt", "transaction_id", "invoices_transaction"),
        tenant_foreign_key("invoices_dispute", "connection_id", "invoices_connection"),
        tenant_foreign_key("invoices_dispute", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("invoices_dispute", "attempt_id", "invoices_attempt"),
        tenant_foreign_key("invoices_event", "invoice_id", "invoices_invoice"),
        tenant_foreign_key("invoices_outboxmessage", "event_id", "invoices_event"),
        tenant_foreign_key("invoices_reviewitem", "invoice_id", "invoices_invoice"),
    ]
