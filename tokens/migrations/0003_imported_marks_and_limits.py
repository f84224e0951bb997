"""History that came as a file, merchants' own limits, and the counter that orders writes to Redis."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

from recovery_site.common.db import tenant_foreign_key


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0001_initial"),
        ("tokens", "0002_tenant_keys"),
    ]

    operations = [
        migrations.CreateModel(
            name="ImportedMark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField()),
                ("count", models.PositiveSmallIntegerField()),
                ("amount_minor", models.BigIntegerField(blank=True, null=True)),
                ("currency", models.CharField(blank=True, default="", max_length=3)),
                ("source", models.CharField(max_length=60)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "card",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="imported_marks", to="tokens.card"
                    ),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.merchant"
                    ),
                ),
                (
                    "token",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="imported_marks", to="tokens.token"
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["card", "at"], name="imported_mark_by_card")],
                "constraints": [
                    models.UniqueConstraint(fields=("token", "at", "source"), name="imported_mark_once"),
                    models.CheckConstraint(condition=models.Q(("count__gte", 1)), name="imported_mark_counts"),
                ],
            },
        ),
        migrations.CreateModel(
            name="RetryLimit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("network", models.CharField(max_length=20)),
                ("name", models.CharField(max_length=60)),
                ("limit", models.PositiveSmallIntegerField()),
                ("changed_by", models.CharField(max_length=100)),
                (
                    "changed_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "merchant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.merchant"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("merchant", "network", "name"), name="retry_limit_once"),
                    models.CheckConstraint(condition=models.Q(("limit__gte", 1)), name="retry_limit_at_least_one"),
                ],
            },
        ),
        migrations.RunSQL("CREATE SEQUENCE tokens_mirror_version", "DROP SEQUENCE IF EXISTS tokens_mirror_version"),
        tenant_foreign_key("tokens_importedmark", "card_id", "tokens_card"),
        tenant_foreign_key("tokens_importedmark", "token_id", "tokens_token"),
    ]
