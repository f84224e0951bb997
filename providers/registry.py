"""The providers this house speaks to. Adding one = one folder beside this file and one line below."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from providers.base import Dialect, ProviderClient
from recovery_site.common.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Provider:
    """`dialect` and `client` are `module:attribute` paths, imported on first use; empty means it has none."""

    name: str
    title: str
    dialect: str = ""
    client: str = ""


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            "stripe",
            "Stripe",
            "providers.stripe.dialect:StripeDialect",
            "providers.stripe.client:StripeClient",
        ),
        Provider(
            "sandbox",
            "Sandbox",
            "providers.sandbox.dialect:SandboxDialect",
            "providers.sandbox.client:SandboxClient",
        ),
        Provider(
            "simulator",
            "Simulator",
            "providers.simulator.dialect:SimulatorDialect",
            "providers.simulator.client:SimulatorClient",
        ),
        Provider("generic", "Generic", "providers.generic.dialect:GenericDialect"),
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


def charges(name: str) -> bool:
    """True if this service can send charges to the provider."""
    return bool(provider(name).client)


def client(name: str, config: Mapping[str, Any]) -> ProviderClient:
    """A client for one connection's decrypted `config`; InvalidInput if the provider cannot be charged."""
    path = provider(name).client
    if not path:
        raise InvalidInput(f"{name} can only report payments; it has no API through which this service could charge.")
    return cast(ProviderClient, _load(path)(config))
