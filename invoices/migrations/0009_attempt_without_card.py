from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("invoices", "0008_schedule_mode"),
        ("tokens", "0005_token_held"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(
                condition=models.Q(("card__isnull", True), ("counts", True), ("kind", "CHARGE")),
                fields=["customer", "attempted_at"],
                name="attempt_without_card",
            ),
        ),
    ]
