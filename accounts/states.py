from django.db import models


class Role(models.TextChoices):
    """What a person may do for a merchant, from least to most."""

    VIEWER = "viewer", "Viewer"
    SUPPORT = "support", "Support"
    MANAGER = "manager", "Manager"
    OWNER = "owner", "Owner"
