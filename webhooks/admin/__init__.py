from webhooks.admin import inbound as inbound
from webhooks.admin import outbound as outbound
