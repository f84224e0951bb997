from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tokens", "0004_token_described_at"),
    ]

    operations = [
        migrations.AlterField(
            model_name="token",
            name="status",
            field=models.CharField(
                choices=[
                    ("live", "Live"),
                    ("declined", "Hard declined"),
                    ("held", "Waits for a repair"),
                    ("removed", "Removed"),
                ],
                default="live",
                max_length=10,
            ),
        ),
    ]
