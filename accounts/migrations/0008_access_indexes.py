from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0007_access_of_pages"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="apiaccess",
            index=models.Index(fields=["merchant", "actor", "-id"], name="api_access_by_actor"),
        ),
        migrations.AddIndex(
            model_name="apiaccess",
            index=models.Index(fields=["request_id"], name="api_access_by_request"),
        ),
    ]
