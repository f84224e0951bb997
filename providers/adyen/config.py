"""What a connection to Adyen is made of."""

from providers.guide import Guide, Kind, Setting, another_address, api_key, timeout

GUIDE = Guide(
    title="Adyen",
    modes=("charge", "observe"),
    settings=(
        api_key("the key of a web service user with the role Checkout webservice role"),
        Setting(
            name="merchant_account",
            label="Merchant account",
            help="the name of the merchant account, such as AcmeECOM",
            required=True,
        ),
        Setting(
            name="environment",
            label="Environment",
            help="test or live",
            kind=Kind.CHOICE,
            choices=("test", "live"),
            required=True,
        ),
        Setting(
            name="live_prefix",
            label="Prefix of live addresses",
            help="the prefix that Adyen gives the account for live, from Developers, API URLs",
        ),
        another_address("https://proxy.example/checkout/v71"),
        timeout(30.0, 120.0),
    ),
    events=(
        "AUTHORISATION",
        "CANCELLATION",
        "CAPTURE",
        "CAPTURE_FAILED",
        "EXPIRE",
        "CANCEL_OR_REFUND",
        "REFUND",
        "REFUND_FAILED",
        "REFUNDED_REVERSED",
        "NOTIFICATION_OF_CHARGEBACK",
        "CHARGEBACK",
        "CHARGEBACK_REVERSED",
        "SECOND_CHARGEBACK",
        "PREARBITRATION_WON",
        "PREARBITRATION_LOST",
        "AUTORESCUE",
        "AUTORESCUE_NEXT_ATTEMPT",
        "CANCEL_AUTORESCUE",
        "RECURRING_CONTRACT",
        "recurring.token.created",
        "recurring.token.updated",
        "recurring.token.disabled",
    ),
    where="Adyen's Customer Area, Developers, Webhooks: a Standard webhook and a Recurring tokens webhook.",
    signed_with="user:password:KEY: the webhook's Basic authentication and its HMAC key in hexadecimal.",
)
