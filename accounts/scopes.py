"""What an API key may be used for."""

from django.db import models


class Scope(models.TextChoices):
    READ = "read", "Read everything of the merchant"
    PAYMENTS = "payments", "Start, retry and cancel payments"
    REFUNDS = "refunds", "Refund payments"
    SETTINGS = "settings", "Change connections, policies and endpoints"
