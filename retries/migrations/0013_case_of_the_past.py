from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_access_of_pages"),
        ("invoices", "0015_list_indexes"),
        ("retries", "0012_list_indexes"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="case",
            name="case_one_open_per_invoice",
        ),
        migrations.AddConstraint(
            model_name="case",
            constraint=models.UniqueConstraint(
                condition=models.Q(("closed_at", None), ("status", "OPEN")),
                fields=("invoice",),
                name="case_one_open_per_invoice",
            ),
        ),
    ]
