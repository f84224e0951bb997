"""Indexes that another one answers for: every new row was written into each of them.

`..._like` serves LIKE on a public id, which nothing asks; the others repeat the beginning of a longer index.
"""

import django.db.models.deletion
from django.db import migrations, models

_OWN = """
DROP INDEX IF EXISTS
    retries_case_merchant_id_bf1f4cb7,
    retries_case_public_id_7aba84ba_like,
    retries_retryjob_merchant_id_2b2bf3fd,
    retries_retryjob_public_id_6217d297_like
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0008_access_indexes"),
        ("invoices", "0016_fewer_indexes"),
        ("retries", "0013_case_of_the_past"),
    ]

    operations = [
        # By name, in one statement: to drop the index of a column's own, Django drops every index of that column alone,
        # also those that are unique under a condition.
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(_OWN, migrations.RunSQL.noop)],
            state_operations=[
                migrations.AlterField(
                    model_name="case",
                    name="merchant",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
                migrations.AlterField(
                    model_name="retryjob",
                    name="merchant",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
            ],
        ),
        migrations.AddIndex(
            model_name="case",
            index=models.Index(fields=["merchant", "segment", "-id"], name="case_by_segment"),
        ),
    ]
