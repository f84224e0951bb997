"""What each row of the ledger was last counted as.

No facts are written here. Merchants lose the row that says that their rollups are whole, so the next advance builds rollups
and facts of each anew; until then pages read the ledger.
"""

import django.db.models.deletion
from django.db import migrations, models

from recovery_site.common.db import tenant_foreign_key


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_access_of_pages"),
        ("analytics", "0003_spikes"),
        ("invoices", "0015_list_indexes"),
    ]

    operations = [
        migrations.CreateModel(
            name="AttemptFact",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("invoice_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("hour", models.DateTimeField()),
                ("code", models.CharField(max_length=100)),
                ("network", models.CharField(max_length=20)),
                ("country", models.CharField(max_length=2)),
                ("number", models.PositiveSmallIntegerField()),
                ("sender", models.CharField(max_length=21)),
                ("category", models.CharField(max_length=30)),
                ("status", models.CharField(max_length=10)),
                (
                    "connection",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["merchant", "invoice_id"], name="attempt_fact_by_invoice")],
            },
        ),
        migrations.CreateModel(
            name="CaseFact",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("invoice_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("segment", models.CharField(max_length=40)),
                ("policy", models.PositiveIntegerField()),
                ("code", models.CharField(max_length=100)),
                ("network", models.CharField(max_length=20)),
                ("country", models.CharField(max_length=2)),
                ("hours", models.PositiveSmallIntegerField(null=True)),
                ("source", models.CharField(max_length=20)),
                ("category", models.CharField(max_length=30)),
                ("currency", models.CharField(max_length=3)),
                ("status", models.CharField(max_length=12)),
                ("amount_minor", models.BigIntegerField()),
                ("recovered_minor", models.BigIntegerField()),
                (
                    "connection",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["merchant", "invoice_id"], name="case_fact_by_invoice")],
            },
        ),
        migrations.CreateModel(
            name="RecoveryFact",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("invoice_id", models.BigIntegerField()),
                ("day", models.DateField()),
                ("currency", models.CharField(max_length=3)),
                ("source", models.CharField(max_length=20)),
                ("number", models.PositiveSmallIntegerField()),
                ("gross_minor", models.BigIntegerField()),
                ("back_minor", models.BigIntegerField()),
                (
                    "connection",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["merchant", "invoice_id"], name="recovery_fact_by_invoice")],
            },
        ),
        tenant_foreign_key("analytics_attemptfact", "connection_id", "invoices_connection"),
        tenant_foreign_key("analytics_casefact", "connection_id", "invoices_connection"),
        tenant_foreign_key("analytics_recoveryfact", "connection_id", "invoices_connection"),
        migrations.RunSQL("DELETE FROM analytics_rollupzone", migrations.RunSQL.noop),
    ]
