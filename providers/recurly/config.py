"""What a connection to Recurly is made of."""

from providers.guide import Guide, Kind, Setting, another_address, api_key, charge_through, timeout

GUIDE = Guide(
    title="Recurly",
    modes=("collect", "charge", "observe"),
    settings=(
        api_key("a private API key, from Integrations, API credentials"),
        Setting(
            name="region",
            label="Region",
            help="us or eu: the data centre of the site",
            kind=Kind.CHOICE,
            choices=("us", "eu"),
            default="us",
        ),
        Setting(
            name="automatic_retries",
            label="Recurly's own retries",
            help="off once they are switched off in Recurly's dunning settings: its API cannot do it",
            kind=Kind.CHOICE,
            choices=("on", "off"),
            default="on",
        ),
        Setting(
            name="currency",
            label="Currency",
            help="the currency of a site that has only one, where XML webhooks come without an API key: they name none",
        ),
        charge_through(),
        another_address("https://proxy.example"),
        timeout(30.0, 120.0),
    ),
    events=(
        *("payment." + name for name in "succeeded failed processing refunded voided".split()),
        *("charge_invoice." + name for name in "paid processing past_due failed closed reopened".split()),
        "payment.transaction_status_updated",
        "dunning_event.created",
        "billing_info.updated",
        *("subscription." + name for name in "canceled expired".split()),
    ),
    where="Recurly, Integrations, Webhooks: an endpoint of the type JSON with this address.",
    signed_with="One of the endpoint's two signing keys; with XML webhooks user:password of its Basic authentication.",
)
