"""Bodies in and out: strict JSON whatever the Accept header says."""

from typing import Any

from django.conf import settings
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer

from accounts.api.problems import CONTENT_TYPE, BodyTooLarge
from recovery_site.common.strict_json import strict_object


class StrictJSONParser(BaseParser):
    """One JSON object of a bounded size. An empty body is an empty object, so that every field is named as missing."""

    media_type = "application/json"

    def parse(self, stream, media_type=None, parser_context=None) -> dict[str, Any]:
        limit = settings.WEBHOOK_MAX_BODY_BYTES
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise BodyTooLarge(f"The body is larger than {limit} bytes.")
        return strict_object(body) if body.strip() else {}


class ProblemRenderer(JSONRenderer):
    """So that clients which accept only problem details get them as such."""

    media_type = CONTENT_TYPE


class JsonAlways(DefaultContentNegotiation):
    """Answers are JSON: an Accept header for something else would only hide what happened."""

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type
