"""Gates and outages of providers, bulk runs, and one lane per connection in the index of due jobs."""

import django.db.models.deletion
import functools
import recovery_site.common.ids
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0003_alter_globalswitch_options"),
        ("invoices", "0006_invoice_invoice_by_number"),
        ("retries", "0002_tenant_keys"),
        ("tokens", "0005_token_held"),
    ]

    operations = [
        migrations.CreateModel(
            name="BulkItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("WAITING", "Waiting"),
                            ("DONE", "Done"),
                            ("REFUSED", "Refused"),
                            ("SKIPPED", "Not worked"),
                        ],
                        default="WAITING",
                        max_length=8,
                    ),
                ),
                ("message", models.CharField(blank=True, default="", max_length=500)),
                ("worked_at", models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="BulkRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "public_id",
                    models.CharField(
                        default=functools.partial(recovery_site.common.ids.public_id, *("blk",), **{}),
                        editable=False,
                        max_length=40,
                        unique=True,
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[("retry", "Retry"), ("pause", "Pause"), ("resume", "Resume"), ("cancel", "Cancel")],
                        max_length=10,
                    ),
                ),
                (
                    "token_rule",
                    models.CharField(
                        choices=[("best", "The best one"), ("other", "Another one than last time")],
                        default="best",
                        max_length=10,
                    ),
                ),
                ("due_at", models.DateTimeField(blank=True, null=True)),
                ("reason", models.CharField(max_length=180)),
                ("actor", models.CharField(max_length=100)),
                ("total", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("stopped_by", models.CharField(blank=True, default="", max_length=100)),
            ],
        ),
        migrations.CreateModel(
            name="Outage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("began_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("error", models.CharField(blank=True, default="", max_length=200)),
            ],
        ),
        migrations.CreateModel(
            name="ProviderGate",
            fields=[
                (
                    "connection",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="gate",
                        serialize=False,
                        to="invoices.connection",
                    ),
                ),
                ("per_second", models.FloatField(blank=True, null=True)),
                ("next_free_at", models.DateTimeField(blank=True, null=True)),
                ("asked_until", models.DateTimeField(blank=True, null=True)),
                ("strain", models.PositiveSmallIntegerField(default=0)),
                ("strained_since", models.DateTimeField(blank=True, null=True)),
                ("shut_until", models.DateTimeField(blank=True, null=True)),
                ("shut_times", models.PositiveSmallIntegerField(default=0)),
                ("last_error", models.CharField(blank=True, default="", max_length=200)),
            ],
        ),
        migrations.RemoveIndex(
            model_name="retryjob",
            name="job_due",
        ),
        migrations.AddField(
            model_name="declineoverride",
            name="note",
            field=models.CharField(blank=True, default="", max_length=200),
        ),
        migrations.AlterField(
            model_name="declineoverride",
            name="category",
            field=models.CharField(blank=True, default="", max_length=30),
        ),
        migrations.AddIndex(
            model_name="retryjob",
            index=models.Index(
                condition=models.Q(("status", "SCHEDULED")),
                fields=["merchant", "connection", "band", "due_at"],
                name="job_due",
            ),
        ),
        migrations.AddField(
            model_name="bulkitem",
            name="invoice",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="invoices.invoice"
            ),
        ),
        migrations.AddField(
            model_name="bulkitem",
            name="merchant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.merchant"
            ),
        ),
        migrations.AddField(
            model_name="bulkrun",
            name="merchant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.merchant"
            ),
        ),
        migrations.AddField(
            model_name="bulkitem",
            name="run",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="items", to="retries.bulkrun"
            ),
        ),
        migrations.AddField(
            model_name="outage",
            name="connection",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="outages", to="invoices.connection"
            ),
        ),
        migrations.AddField(
            model_name="outage",
            name="merchant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.merchant"
            ),
        ),
        migrations.AddField(
            model_name="providergate",
            name="merchant",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="+", to="accounts.merchant"
            ),
        ),
        migrations.AddIndex(
            model_name="bulkrun",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", True)), fields=["created_at"], name="bulk_run_open"
            ),
        ),
        migrations.AddIndex(
            model_name="bulkitem",
            index=models.Index(
                condition=models.Q(("status", "WAITING")), fields=["run", "id"], name="bulk_item_waiting"
            ),
        ),
        migrations.AddConstraint(
            model_name="bulkitem",
            constraint=models.UniqueConstraint(fields=("run", "invoice"), name="bulk_item_once"),
        ),
        migrations.AddIndex(
            model_name="outage",
            index=models.Index(fields=["connection", "began_at"], name="outage_by_connection"),
        ),
        migrations.AddConstraint(
            model_name="outage",
            constraint=models.UniqueConstraint(
                condition=models.Q(("ended_at__isnull", True)),
                fields=("connection",),
                name="outage_one_open_per_connection",
            ),
        ),
        migrations.AddConstraint(
            model_name="providergate",
            constraint=models.CheckConstraint(
                condition=models.Q(("per_second__isnull", True), ("per_second__gt", 0), _connector="OR"),
                name="gate_rate_above_0",
            ),
        ),
    ]
