"""The promises against everything that breaks: each seed is a story of killed workers, dead servers and lost answers.

`CHAOS_SEEDS=17 pytest tests/durability/test_chaos.py` tells one story again, `CHAOS_SEEDS=100-199` a hundred others.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recovery_site.embedded.manager import remove_services
from tests.durability.chaos.plan import DRAMAS, plan_of, seeds_of
from tests.durability.chaos.story import Stage, Story, stage_set

pytestmark = pytest.mark.timeout(900)
SEEDS = seeds_of(os.environ.get("CHAOS_SEEDS", ""), range(20))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A PostgreSQL, a Redis, a sandbox and a host of the harness's own, which it may break."""
    with tempfile.TemporaryDirectory(prefix="recovery-test-") as parent:
        Path(parent).chmod(0o711)  # root's servers are not root
        services = Path(parent) / ".data"
        try:
            with stage_set(services, Path(parent)) as ready:
                yield ready
        finally:
            remove_services(services)


def hold(stage: Stage, seed: int) -> None:
    story = Story(stage, plan_of(seed))
    problems = story.play()
    assert problems == [], f"seed {seed}: {story.plan}\n{story.log}"


@pytest.mark.parametrize("seed", SEEDS)
def test_promises_hold_whatever_breaks(stage: Stage, seed: int) -> None:
    hold(stage, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20, 1000))
def test_promises_hold_through_a_thousand_stories(stage: Stage, seed: int) -> None:
    hold(stage, seed)


@pytest.mark.parametrize("guard", DRAMAS)
def test_each_guard_is_needed(stage: Stage, guard: str) -> None:
    """Without it the story goes wrong, with it the same story ends well. Locks and constraints: tests/concurrency."""
    assert Story(stage, DRAMAS[guard], [guard]).play() != [], f"nothing went wrong without {guard!r}"
    assert Story(stage, DRAMAS[guard]).play() == []
