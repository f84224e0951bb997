"""Tenants, people, keys and switches in the admin; `base` is what the other apps' admins build on."""

from accounts.admin import access as access
from accounts.admin import applications as applications
from accounts.admin import people as people
