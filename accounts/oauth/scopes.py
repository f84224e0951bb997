"""Which scopes an application can be given."""

from oauth2_provider.scopes import BaseScopes

from accounts.models import OAuthApplication
from accounts.scopes import Scope


class MerchantScopes(BaseScopes):
    """Those that its merchant gave the application; all of them where it asks for none by name."""

    def get_all_scopes(self) -> dict[str, str]:
        return {scope.value: str(scope.label) for scope in Scope}

    def get_available_scopes(
        self, application: OAuthApplication | None = None, request: object = None, *args: object, **kwargs: object
    ) -> list[str]:
        return list(application.scopes) if application is not None else list(Scope.values)

    def get_default_scopes(
        self, application: OAuthApplication | None = None, request: object = None, *args: object, **kwargs: object
    ) -> list[str]:
        return self.get_available_scopes(application, request)
