from django.db import models


class TokenStatus(models.TextChoices):
    LIVE = "live", "Live"
    DECLINED = "declined", "Hard declined"
    # Nothing is wrong with the card: our set-up at the provider cannot charge it until somebody repairs that.
    HELD = "held", "Waits for a repair"
    REMOVED = "removed", "Removed"
