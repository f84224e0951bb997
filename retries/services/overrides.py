"""A merchant's own reading of decline codes, in versions."""

from django.db import IntegrityError, transaction
from django.db.models import Max

from accounts.models import Merchant
from providers.decline_tables import providers_with_codes
from recovery_site.common.errors import Conflict, InvalidInput
from retries.categories import Category
from retries.classification.types import override_key
from retries.models import DeclineOverride

_LONGEST_CODE = 100


@transaction.atomic
def decline_override_set(
    *, merchant: Merchant, provider: str, code: str, category: str, note: str, created_by: str
) -> DeclineOverride:
    """Read `code` as `category` from now on; an empty category takes the override back. Past failures keep their
    reading.

    Raises InvalidInput, Conflict if somebody does the same at once. Stops and look-ups are not overruled (DESIGN
    section 8): classification sees to that whatever stands here.
    """
    code = code.strip()
    if provider not in providers_with_codes():
        raise InvalidInput(f"{provider!r} has no decline codes; use one of {', '.join(providers_with_codes())}.")
    if not code or len(code) > _LONGEST_CODE or not code.isprintable():
        raise InvalidInput(f"A code has 1 to {_LONGEST_CODE} printable characters.")
    if category and category not in Category.__members__:
        raise InvalidInput(f"{category!r} is no category; use one of {', '.join(Category)}.")
    _, key = override_key(provider, code)
    rows = DeclineOverride.objects.filter(merchant=merchant, provider=provider, code=key)
    version = (rows.aggregate(version=Max("version"))["version"] or 0) + 1
    if version == 1 and not category:
        raise InvalidInput("There is no override of this code that could be taken back.")
    try:
        with transaction.atomic():
            return DeclineOverride.objects.create(
                merchant=merchant,
                provider=provider,
                code=key,
                version=version,
                category=category,
                note=note.strip()[:200],
                created_by=created_by[:100],
            )
    except IntegrityError as error:
        raise Conflict("Somebody has just changed this override; look at it again.") from error
