"""What a connection to Chargebee is made of."""

from providers.guide import Guide, Kind, Setting, timeout

GUIDE = Guide(
    title="Chargebee",
    modes=("collect", "charge", "observe"),
    settings=(
        Setting(
            name="site",
            label="Site",
            help="the name of the site, such as acme-test of acme-test.chargebee.com",
            required=True,
        ),
        Setting(
            name="api_key",
            label="API key",
            help="a full-access API key of the site",
            kind=Kind.SECRET,
            required=True,
        ),
        Setting(
            name="gateway",
            label="Charge through",
            help="for mode charge the id of this merchant's gateway connection, con_...",
            kind=Kind.CONNECTION,
        ),
        Setting(
            name="base_url",
            label="Another address",
            help="only for a proxy or an imitation, such as https://proxy.example/api/v2",
            kind=Kind.URL,
        ),
        timeout(30.0, 120.0),
    ),
    events=(
        "payment_failed",
        "payment_succeeded",
        "payment_initiated",
        "payment_refunded",
        "refund_initiated",
        "transaction_updated",
        "invoice_generated",
        "invoice_updated",
        "invoice_deleted",
        "credit_note_created",
        "dunning_updated",
        "card_updated",
        "card_deleted",
        "card_expired",
        "card_expiry_reminder",
        "payment_source_added",
        "payment_source_updated",
        "payment_source_deleted",
        "payment_source_expired",
        "payment_source_expiring",
        "subscription_cancelled",
    ),
    where="Chargebee, Settings, Configure Chargebee, Webhooks: this address, API version 2, with Basic authentication.",
    signed_with="user:password, as entered for the webhook's Basic authentication.",
)
