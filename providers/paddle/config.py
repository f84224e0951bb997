"""What a connection to Paddle is made of: Paddle collects its own money, so there is nothing to charge with."""

from providers.guide import Guide

GUIDE = Guide(
    title="Paddle",
    modes=("observe",),
    events=(
        *("transaction." + name for name in "billed paid completed payment_failed past_due canceled updated".split()),
        "subscription.canceled",
        *("adjustment." + name for name in "created updated".split()),
        *("payment_method." + name for name in "saved deleted".split()),
    ),
    where="Paddle's dashboard, Developer tools, Notifications: a destination of the type webhook with this address.",
    signed_with="The destination's secret key, pdl_ntfset_...",
)
