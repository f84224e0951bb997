"""The providers this house speaks to. Adding one = one folder beside this file and one line below."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from providers.base import Dialect, ProviderClient
from providers.guide import Guide
from providers.payer import PayerPages, TrialForm
from recovery_site.common.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """`dialect`, `client`, `guide`, `payer` are `module:attribute` paths, imported on first use; empty: it has none."""

    name: str
    title: str
    guide: str
    dialect: str = ""
    client: str = ""
    payer: str = ""


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="stripe",
            title="Stripe",
            guide="providers.stripe.config:GUIDE",
            dialect="providers.stripe.dialect:StripeDialect",
            client="providers.stripe.client:StripeClient",
            payer="providers.stripe.payer:StripePayer",
        ),
        Provider(
            name="hyperswitch",
            title="Hyperswitch",
            guide="providers.hyperswitch.config:GUIDE",
            dialect="providers.hyperswitch.dialect:HyperswitchDialect",
            client="providers.hyperswitch.client:HyperswitchClient",
        ),
        Provider(
            name="adyen",
            title="Adyen",
            guide="providers.adyen.config:GUIDE",
            dialect="providers.adyen.dialect:AdyenDialect",
            client="providers.adyen.client:AdyenClient",
        ),
        Provider(
            name="braintree",
            title="Braintree",
            guide="providers.braintree.config:GUIDE",
            dialect="providers.braintree.dialect:BraintreeDialect",
            client="providers.braintree.client:BraintreeClient",
        ),
        Provider(
            name="paddle",
            title="Paddle",
            guide="providers.paddle.config:GUIDE",
            dialect="providers.paddle.dialect:PaddleDialect",
        ),
        Provider(
            name="chargebee",
            title="Chargebee",
            guide="providers.chargebee.config:GUIDE",
            dialect="providers.chargebee.dialect:ChargebeeDialect",
            client="providers.chargebee.client:ChargebeeClient",
            payer="providers.chargebee.client:ChargebeeClient",
        ),
        Provider(
            name="recurly",
            title="Recurly",
            guide="providers.recurly.config:GUIDE",
            dialect="providers.recurly.dialect:RecurlyDialect",
            client="providers.recurly.client:RecurlyClient",
            payer="providers.recurly.client:RecurlyClient",
        ),
        Provider(
            name="sandbox",
            title="Sandbox",
            guide="providers.sandbox.config:GUIDE",
            dialect="providers.sandbox.dialect:SandboxDialect",
            client="providers.sandbox.client:SandboxClient",
            payer="providers.sandbox.payer:SandboxPayer",
        ),
        Provider(
            name="simulator",
            title="Simulator",
            guide="providers.simulator.config:GUIDE",
            dialect="providers.simulator.dialect:SimulatorDialect",
            client="providers.simulator.client:SimulatorClient",
            payer="providers.simulator.payer:SimulatorPayer",
        ),
        Provider(
            name="generic",
            title="Generic",
            guide="providers.generic.config:GUIDE",
            dialect="providers.generic.dialect:GenericDialect",
        ),
    )
}


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def provider(name: str) -> Provider:
    """The registered provider, or InvalidInput listing the names there are."""
    try:
        return PROVIDERS[name]
    except KeyError:
        raise InvalidInput(f"Unknown provider {name!r}; use one of {', '.join(sorted(PROVIDERS))}.") from None


def dialect(name: str) -> Dialect:
    """The webhook dialect of a provider, or InvalidInput if it sends none."""
    path = provider(name).dialect
    if not path:
        raise InvalidInput(f"{name} sends no webhooks that this service understands.")
    return cast(Dialect, _load(path)())


def guide(name: str) -> Guide:
    """What a person has to know and enter to connect an account of the provider."""
    return cast(Guide, _load(provider(name).guide))


def charges(name: str) -> bool:
    """True if this service can send charges to the provider."""
    return bool(provider(name).client)


def client(name: str, config: Mapping[str, Any]) -> ProviderClient:
    """A client for one connection's decrypted `config`; InvalidInput if the provider cannot be charged."""
    path = provider(name).client
    if not path:
        raise InvalidInput(f"{name} can only report payments; it has no API through which this service could charge.")
    return cast(ProviderClient, _load(path)(config))


def payer(name: str, config: Mapping[str, Any]) -> PayerPages | TrialForm | None:
    """What payers can do at the provider by themselves, for one connection's decrypted `config`; None: nothing."""
    path = provider(name).payer
    return cast(PayerPages | TrialForm, _load(path)(config)) if path else None
