"""A world whose messages are followed and sent, as the worker does, without waiting for one."""

from dataclasses import dataclass, field

from django.core import mail
from django.core.mail import EmailMultiAlternatives

from invoices.models import Customer, Event, Invoice
from notifications.models import Message, MessageSettings, MessageTemplate
from notifications.services.planning import messages_follow, planning_wanted
from notifications.services.work import messages_drain
from tests.console.world import World

WARM = {"locale": "en-US", "timezone": "America/New_York", "name": "Ann Lee"}


@dataclass
class Post(World):
    """`drain` hands every new event to the planning consumer, then sends what is due at the world's clock."""

    followed: set[int] = field(default_factory=set)

    def drain(self) -> dict[str, int]:
        for event in Event.objects.filter(merchant=self.merchant).order_by("id"):
            if event.pk not in self.followed and planning_wanted(event.kind):
                messages_follow(event)
                self.followed.add(event.pk)
        return messages_drain(now=self.at)

    def drain_after(self, **gap: float) -> dict[str, int]:
        self.wait(**gap)
        return self.drain()

    def know(self, invoice: Invoice, **facts: str) -> None:
        """What a provider would have told of the customer."""
        Customer.objects.filter(pk=invoice.customer_id).update(**facts)

    def settings(self, **values: object) -> MessageSettings:
        return MessageSettings.objects.update_or_create(merchant=self.merchant, defaults=values)[0]

    def template(self, **values: str) -> MessageTemplate:
        known = {"name": "update_card", "locale": "en", "subject": "S", "body": "B\n\nBye", "button": "Go"}
        return MessageTemplate.objects.create(merchant=self.merchant, **{**known, **values})

    def states(self, invoice: Invoice) -> dict[str, str]:
        """Template and status of the invoice's messages, by step."""
        rows = Message.objects.filter(invoice=invoice).order_by("step", "pk")
        return dict(rows.values_list("template", "status"))

    def message(self, invoice: Invoice, template: str) -> Message:
        return Message.objects.get(invoice=invoice, template=template)


def sent() -> list[EmailMultiAlternatives]:
    return [message for message in mail.outbox if isinstance(message, EmailMultiAlternatives)]


def html_of(message: EmailMultiAlternatives) -> str:
    ((content, kind),) = message.alternatives
    assert kind == "text/html"
    return str(content)
