"""Tests that only grow with `make test-long`: with LONG=1 they carry the marker by which it selects what it runs."""

import os

import pytest

LONG = os.environ.get("LONG") == "1"
MARKS = [pytest.mark.long] if LONG else []
