"""What a failed attempt means: category, whether and by whom it may be tried again, and one sentence why.

Pure: codes, tables and overrides in, a `Classification` out. `decide.py` holds the order of authority.
"""

from retries.classification.decide import classify as classify
from retries.classification.decide import doubted as doubted
from retries.classification.explain import payer_text_key as payer_text_key
from retries.classification.types import Classification as Classification
from retries.classification.types import ClassificationInput as ClassificationInput
from retries.classification.types import DeclineOverride as DeclineOverride
from retries.classification.types import TransportError as TransportError
from retries.classification.types import newest_overrides as newest_overrides
