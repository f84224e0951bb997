"""The engine in the admin: what it has decided, the policies it follows, how it reads codes, and bulk runs."""

from retries.admin import bulk as bulk
from retries.admin import codes as codes
from retries.admin import policies as policies
from retries.admin import records as records
