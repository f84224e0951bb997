"""What Hyperswitch's payments say of cards and refusals, in webhooks and answers alike."""

from providers.base import CardFacts, DeclineFacts
from providers.countries import country_code
from providers.hyperswitch.reading import Node

REFERENCE_KEY = "attempt"
_UMBRELLAS = frozenset({"", "card_declined", "NO_ERROR_CODE", "No error code"})


def reference(thing: Node) -> str:
    """Our attempt's public id, if we made it."""
    return thing.node("metadata").identifier(REFERENCE_KEY)


def card(payment: Node) -> CardFacts | None:
    face = payment.node("payment_method_data").node("card")
    if not face:
        return None
    return CardFacts(
        fingerprint=payment.identifier("fingerprint"),
        network=face.text("card_network", 40).lower(),
        last4=face.text("last4", 4),
        exp_month=face.month("card_exp_month"),
        exp_year=face.year("card_exp_year"),
        funding=face.text("card_type", 20).lower(),
        country=country_code(face.text("card_issuing_country", 60)),
        bin=face.text("card_isin", 8),
        issuer=face.text("card_issuer", 100),
    )


def decline(payment: Node) -> DeclineFacts:
    """The connector's own code where the outer one is only an umbrella, with the issuer's and the network's words."""
    details = payment.node("error_details")
    issuer, unified = details.node("issuer_details"), details.node("unified_details")
    outer = payment.code("error_code")
    inner = details.node("connector_details").code("code") or unified.code("standardised_code")
    return DeclineFacts(
        raw_code=(inner if outer in _UMBRELLAS else outer) or outer or payment.code("unified_code"),
        network_code=payment.text("issuer_error_code", 40) or issuer.text("code", 40),
        advice_code=payment.node("network_details").text("network_advice_code", 40)
        or issuer.node("network_details").text("advice_code", 40),
        provider_advice=unified.text("recommended_action", 40),
        message=payment.text("error_message")
        or payment.text("issuer_error_message")
        or payment.text("unified_message"),
        gateway=payment.text("connector", 40).lower(),
    )
