"""How the demo's merchants write to people: who answers, one text of their own, and where alerts go."""

from accounts.models import Merchant
from notifications.services.alert_delivery import alert_route_set
from notifications.services.settings import message_settings_set, message_template_set
from notifications.states import AlertChannel

_ACTOR = "demo"
_OWN_TEXT = """{greeting}

your payment of {amount} for {description} did not go through. {reason}

You have been with us for a long time, so nothing changes for you while we sort this out together.

Your team at {merchant}"""


def merchant_settle(merchant: Merchant) -> None:
    """Settings of a new merchant of the demo; repeating it changes nothing."""
    host = merchant.name.split()[0].lower() + ".example.com"
    message_settings_set(
        merchant=merchant,
        values={"reply_to": f"billing@{host}", "contact": f"billing@{host}"},
        actor=_ACTOR,
    )
    message_template_set(
        merchant=merchant,
        name="payment_failed",
        locale="en",
        segment="high_value",
        category="",
        subject="About your payment to {merchant}",
        body=_OWN_TEXT,
        button="Sort it out",
        enabled=True,
        actor=_ACTOR,
    )
    alert_route_set(
        merchant=merchant,
        name="On call",
        channel=AlertChannel.MAIL,
        target=f"on-call@{host}",
        kinds=["paid_twice", "paid_after_cancel", "configuration", "fraud", "staff_waits", "high_value_failing"],
        actor=_ACTOR,
    )
