"""What the web server says where the proxy in front does not send the stream's address to the stream's process."""

from django.conf import settings
from django.http import HttpRequest, JsonResponse

from accounts.api.problems import CONTENT_TYPE, problem


def stream_elsewhere(request: HttpRequest) -> JsonResponse:
    where = "The live stream has a process of its own; the proxy in front must send this address there."
    if settings.STREAM_URL not in ("", settings.PUBLIC_URL):
        where = f"The live stream has a process of its own: ask at {settings.STREAM_URL}/api/v1/stream."
    body = problem("misdirected", 421, where, instance=request.path)
    return JsonResponse(body, status=421, content_type=CONTENT_TYPE)
