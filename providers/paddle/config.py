"""What a connection to Paddle is made of: Paddle collects its own money, so there is nothing to charge with."""

from providers.guide import Guide, Kind, Setting

GUIDE = Guide(
    title="Paddle",
    modes=("observe",),
    settings=(Setting(name="api_key", label="API key", help="a key that may read transactions", kind=Kind.SECRET),),
    events=(
        *("transaction." + name for name in "billed paid completed payment_failed past_due canceled updated".split()),
        *("subscription." + name for name in "past_due canceled paused updated".split()),
        *("adjustment." + name for name in "created updated".split()),
        *("payment_method." + name for name in "saved deleted".split()),
    ),
    where="Paddle's dashboard, Developer tools, Notifications: a destination of the type webhook with this address.",
    signed_with="The destination's secret key, pdl_ntfset_...",
)
