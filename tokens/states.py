from django.db import models


class TokenStatus(models.TextChoices):
    LIVE = "live", "Live"
    DECLINED = "declined", "Hard declined"
    REMOVED = "removed", "Removed"
