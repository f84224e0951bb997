"""Indexes that another one answers for: every new row was written into each of them.

`..._like` serves LIKE on a public id, which nothing asks; the others repeat the beginning of a longer index.
"""

import django.db.models.deletion
from django.db import migrations, models

_OWN = """
DROP INDEX IF EXISTS
    tokens_card_connection_id_13cdb180,
    tokens_card_merchant_id_1655c96c,
    tokens_card_public_id_9a92968f_like,
    tokens_token_connection_id_03eef30c,
    tokens_token_customer_id_d26f5c99,
    tokens_token_merchant_id_1eb4bdd8,
    tokens_token_public_id_2514edfe_like
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0008_access_indexes"),
        ("invoices", "0016_fewer_indexes"),
        ("tokens", "0011_cards_lock"),
    ]

    operations = [
        # By name, in one statement: to drop the index of a column's own, Django drops every index of that column alone,
        # also those that are unique under a condition.
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(_OWN, migrations.RunSQL.noop)],
            state_operations=[
                migrations.AlterField(
                    model_name="card",
                    name="connection",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                migrations.AlterField(
                    model_name="card",
                    name="merchant",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="accounts.merchant",
                    ),
                ),
                migrations.AlterField(
                    model_name="token",
                    name="connection",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="invoices.connection",
                    ),
                ),
                migrations.AlterField(
                    model_name="token",
                    name="customer",
                    field=models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="tokens",
                        to="invoices.customer",
                    ),
                ),
                migrations.AlterField(
                    model_name="token",
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
    ]
