"""One call to Braintree through its SDK: a value, an absence, or what exactly went wrong.

The SDK lets its HTTP be replaced. Ours knows what left this machine, never follows or repeats, and keeps the answer,
because the SDK's errors drop the headers. No text of the SDK or of Braintree becomes part of a message.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

from braintree.braintree_gateway import BraintreeGateway
from braintree.configuration import Configuration
from braintree.exceptions.authentication_error import AuthenticationError
from braintree.exceptions.authorization_error import AuthorizationError
from braintree.exceptions.braintree_error import BraintreeError
from braintree.exceptions.not_found_error import NotFoundError
from braintree.exceptions.too_many_requests_error import TooManyRequestsError

from providers.base import ProviderUnavailable, ProviderUncertain
from providers.wire.api import NETWORK_ERROR, RATE_LIMITED, UNAUTHORISED, errored, wait
from providers.wire.transport import Answer, Unanswered, Unsent, transport
from recovery_site.common.errors import InvalidInput

ResultT = TypeVar("ResultT")
# What the SDK stumbles over when the body is not Braintree's.
_NOT_BRAINTREES = (ExpatError, AttributeError, KeyError, TypeError, ValueError, ArithmeticError, LookupError)


@dataclass(frozen=True, slots=True)
class Access:
    merchant_id: str
    public_key: str
    private_key: str
    environment: str
    base_url: str  # empty: the environment's own
    timeout_seconds: float


class Exchange:
    """The SDK's gateway with our HTTP underneath."""

    def __init__(self, access: Access) -> None:
        self._http: _Http | None = None

        def strategy(config: Any, _environment: Any) -> "_Http":
            self._http = _Http(config.base_url(), access.base_url or config.base_url(), access.timeout_seconds)
            return self._http

        self.gateway = BraintreeGateway(
            Configuration(
                environment=access.environment,
                merchant_id=access.merchant_id,
                public_key=access.public_key,
                private_key=access.private_key,
                http_strategy=strategy,
            )
        )

    def write(self, call: Callable[[], Any]) -> Any:
        """The SDK's result object, or an ERRORED ChargeResult. Raises ProviderUncertain."""
        try:
            result = call()
        except Unsent as error:
            return errored(NETWORK_ERROR, raw={"error": str(error)})
        except Unanswered as error:
            raise self.uncertain(f"gave no answer ({error})") from None
        except TooManyRequestsError:
            answer = self.last
            return errored(RATE_LIMITED, raw={"status": 429}, retry_after=wait(answer) if answer else None)
        except (AuthenticationError, AuthorizationError):
            return errored(UNAUTHORISED, raw=self._status())
        except NotFoundError:
            return errored("not_found", raw=self._status())
        except (BraintreeError, *_NOT_BRAINTREES) as error:
            raise self.uncertain(f"gave no usable answer ({type(error).__name__})") from None
        if result is None:
            raise self.uncertain("answered without a result")
        return result

    def read(self, call: Callable[[], ResultT]) -> ResultT | None:
        """What was asked for, None if Braintree does not know it. Raises ProviderUnavailable."""
        try:
            return call()
        except NotFoundError:
            return None
        except (AuthenticationError, AuthorizationError):
            raise ProviderUnavailable(
                "Braintree refuses the keys; replace them in the connection's settings.", **self._status()
            ) from None
        except (Unsent, Unanswered, BraintreeError, InvalidInput, *_NOT_BRAINTREES) as error:
            name = str(error) if isinstance(error, Unsent | Unanswered) else type(error).__name__
            raise ProviderUnavailable(
                f"Braintree cannot be read now ({name}); it is asked again later.", **self._status()
            ) from None

    def uncertain(self, what: str) -> ProviderUncertain:
        return ProviderUncertain(
            f"Braintree {what}; look the payment up before sending anything again.", **self._status()
        )

    @property
    def last(self) -> Answer | None:
        return self._http.last if self._http else None

    def _status(self) -> dict[str, Any]:
        return {"status": self.last.status} if self.last else {}


class _Http:
    """The SDK's HTTP strategy."""

    def __init__(self, spoken: str, base_url: str, timeout_seconds: float) -> None:
        self._spoken = spoken
        self._base_url = base_url
        self._timeout_seconds = timeout_seconds
        self.last: Answer | None = None

    def http_do(self, verb: str, path: str, headers: dict[str, Any], body: Any) -> tuple[int, str]:
        self.last = None
        told = {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
        # The credentials go with each request: the SDK writes them, so the kept connection needs none of its own.
        connection = transport(self._base_url, {}, self._timeout_seconds)
        self.last = connection.send(verb, path.removeprefix(self._spoken), data=body or None, headers=told)
        return self.last.status, self.last.text

    def handle_exception(self, error: Exception) -> None:
        raise error

    def close(self) -> None:
        """Connections are kept by the process, not by the client."""
