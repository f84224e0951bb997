"""The charge protocol of DESIGN section 6: claim, write down the intent, send, write down the result."""

from retries.engine.drain import DrainCounts as DrainCounts
from retries.engine.drain import retries_drain as retries_drain
