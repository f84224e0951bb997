"""Refunds that we send: asked for by people or programs, capped by what was paid, sent under the charge protocol."""

from retries.refunding.request import refund_approve as refund_approve
from retries.refunding.request import refund_refuse as refund_refuse
from retries.refunding.request import refund_request as refund_request
