"""Indexes that another one answers for: every new row was written into each of them.

`..._like` serves LIKE on a public id, which nothing asks; the others repeat the beginning of a longer index.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

_OWN = """
DROP INDEX IF EXISTS
    invoices_customer_connection_id_55cf9322,
    invoices_customer_merchant_id_9a2a2dd2,
    invoices_customer_public_id_7338ca22_like,
    invoices_invoice_connection_id_52e8a200,
    invoices_invoice_public_id_63b0b357_like,
    invoices_providerpayment_connection_id_2795e359,
    invoices_transaction_duplicate_of_id_1db34d08,
    invoices_transaction_merchant_id_2b4a23e0,
    invoices_transaction_refund_of_id_7e4d4f13,
    invoices_transaction_public_id_ceef031a_like,
    invoices_attempt_public_id_3d3605a9_like
"""


# For the beginning of a name, as Django asks for it (istartswith).
_BY_NAME = "CREATE INDEX customer_by_name ON invoices_customer (merchant_id, upper(name::text) text_pattern_ops)"


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0008_access_indexes"),
        ("invoices", "0015_list_indexes"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL(_BY_NAME, "DROP INDEX customer_by_name"),
        migrations.AlterField(
            model_name="attempt",
            name="origin",
            field=models.CharField(
                choices=[("OURS", "This service"), ("PROVIDER", "The provider"), ("OUTSIDE", "Outside")], max_length=8
            ),
        ),
        migrations.RemoveIndex(
            model_name="customer",
            name="customer_by_merchant",
        ),
        migrations.RemoveIndex(
            model_name="event",
            name="event_by_merchant",
        ),
        migrations.RemoveIndex(
            model_name="invoice",
            name="invoice_by_merchant",
        ),
        # By name, in one statement: to drop the index of a column's own, Django drops every index of that column alone,
        # also those that are unique under a condition.
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(_OWN, migrations.RunSQL.noop)],
            state_operations=[
                migrations.AlterField(
                    model_name="customer",
                    name="connection",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="customers",
                        to="invoices.connection",
                    ),
                ),
                migrations.AlterField(
                    model_name="customer",
                    name="merchant",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
                migrations.AlterField(
                    model_name="invoice",
                    name="connection",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                migrations.AlterField(
                    model_name="providerpayment",
                    name="connection",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                migrations.AlterField(
                    model_name="transaction",
                    name="duplicate_of",
                    field=models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="duplicates",
                        to="invoices.transaction",
                    ),
                ),
                migrations.AlterField(
                    model_name="transaction",
                    name="merchant",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
                migrations.AlterField(
                    model_name="transaction",
                    name="refund_of",
                    field=models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="refunds",
                        to="invoices.transaction",
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="invoice",
            index=models.Index(fields=["merchant", "currency", "-id"], name="invoice_by_currency"),
        ),
        migrations.AddIndex(
            model_name="transaction",
            index=models.Index(fields=["merchant", "status", "-id"], name="transaction_by_status"),
        ),
        migrations.AddIndex(
            model_name="transaction",
            index=models.Index(
                condition=models.Q(("refund_of__isnull", False)), fields=["refund_of"], name="transaction_refund_of"
            ),
        ),
        migrations.AddIndex(
            model_name="transaction",
            index=models.Index(
                condition=models.Q(("duplicate_of__isnull", False)),
                fields=["duplicate_of"],
                name="transaction_duplicate_of",
            ),
        ),
    ]
