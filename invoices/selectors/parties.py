"""Reads about connections."""

from typing import Any

from invoices.models import Attempt, Connection
from invoices.states import ConnectionMode
from providers import registry
from providers.base import ProviderClient
from recovery_site.common.crypto import decrypt_json
from recovery_site.common.errors import RecoveryError

# Kept beside the provider's own settings, and none of its client's business.
OUR_SETTINGS = frozenset({"max_per_second"})


def connection_config(connection: Connection) -> dict[str, Any]:
    """The config a client is built from, secrets decrypted: never log it."""
    secrets = decrypt_json(connection.secrets_encrypted) if connection.secrets_encrypted else {}
    address = {"base_url": connection.base_url} if connection.base_url else {}
    settings = {name: value for name, value in connection.settings.items() if name not in OUR_SETTINGS}
    return {**settings, **secrets, **address}


def connection_client(connection: Connection) -> ProviderClient:
    """The provider's API client for this connection."""
    return registry.client(connection.provider, connection_config(connection))


def charging_connection(connection: Connection) -> Connection:
    """The account through which this connection's invoices are charged: a biller's gateway, else its own."""
    if connection.mode == ConnectionMode.CHARGE and connection.gateway is not None:
        return connection.gateway
    return connection


def attempt_account(attempt: Attempt) -> Connection:
    """The account through which an attempt of ours was sent, whatever its connection says by now."""
    return attempt.gateway if attempt.gateway is not None else attempt.connection


def charging_obstacle(connection: Connection) -> str:
    """Why nothing can be charged through this connection as it is now, in words; empty if it can."""
    if not connection.enabled:
        return "the connection is disabled"
    if connection.paused_reason:
        return connection.paused_reason
    account = charging_connection(connection)
    return "its gateway connection is disabled" if not account.enabled else account.paused_reason


def asking_obstacle(connection: Connection) -> str:
    """Why the provider cannot be asked through this connection, in words: it is switched off, or lacks its key."""
    if obstacle := charging_obstacle(connection):
        return obstacle
    try:
        connection_client(connection)
    except RecoveryError as error:
        return error.message
    return ""
