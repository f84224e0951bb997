"""Segments: the first rule that holds for certain, and messages that name the field."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retries.policy import parse_policy, preset_document
from retries.segments import DEEPEST, SegmentFacts, read_condition, read_segments, segment_of

SHIPPED = parse_policy(preset_document("standard")).segments


def holds(condition, **facts):
    problems = []
    read = read_condition(condition, [], problems)
    assert problems == []
    return read.holds(SegmentFacts(**facts))


def compare(field, op, value):
    return {"field": field, "op": op, "value": value}


def test_the_shipped_segments_in_order():
    assert [segment.name for segment in SHIPPED] == ["high_value", "low_value", "new_customer"]


@pytest.mark.parametrize(
    ("facts", "segment"),
    [
        ({"lifetime_value_minor": 200_000, "tenure_days": 400, "settled_invoices": 20}, "high_value"),
        ({"lifetime_value_minor": 199_999, "tenure_days": 400, "settled_invoices": 20}, "standard"),
        # Worth much already although new: the first match wins.
        ({"lifetime_value_minor": 200_000, "tenure_days": 3, "settled_invoices": 1}, "high_value"),
        (
            {"lifetime_value_minor": 4999, "tenure_days": 90, "amount_minor": 999, "settled_invoices": 5},
            "low_value",
        ),
        (
            {"lifetime_value_minor": 5000, "tenure_days": 90, "amount_minor": 999, "settled_invoices": 5},
            "standard",
        ),
        (
            {"lifetime_value_minor": 4999, "tenure_days": 89, "amount_minor": 999, "settled_invoices": 5},
            "standard",
        ),
        (
            {"lifetime_value_minor": 4999, "tenure_days": 90, "amount_minor": 1000, "settled_invoices": 5},
            "standard",
        ),
        # A small first payment is a new customer, not one worth little.
        (
            {"lifetime_value_minor": 0, "tenure_days": 0, "amount_minor": 500, "settled_invoices": 0},
            "new_customer",
        ),
        ({"lifetime_value_minor": 9000, "tenure_days": 29, "settled_invoices": 3}, "new_customer"),
        ({"lifetime_value_minor": 9000, "tenure_days": 30, "settled_invoices": 3}, "standard"),
        ({"lifetime_value_minor": 0, "tenure_days": 60, "settled_invoices": 0}, "new_customer"),
        ({}, "standard"),
    ],
)
def test_the_shipped_segments_at_their_edges(facts, segment):
    assert segment_of(SHIPPED, SegmentFacts(**facts)) == segment


def test_without_segments_everybody_is_standard():
    assert segment_of((), SegmentFacts(amount_minor=1)) == "standard"


@pytest.mark.parametrize(
    ("op", "below", "equal", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        ("==", False, True, False),
        ("!=", True, False, True),
        (">=", False, True, True),
        (">", False, False, True),
    ],
)
def test_comparisons_of_numbers(op, below, equal, above):
    condition = compare("tenure_days", op, 10)
    assert [holds(condition, tenure_days=days) for days in (9, 10, 11)] == [below, equal, above]
    assert holds(condition) is None


def test_lists_and_texts_ignore_case():
    assert holds(compare("country", "in", ["de", "AT"]), country="DE") is True
    assert holds(compare("country", "not_in", ["de", "AT"]), country="at") is False
    assert holds(compare("country", "==", "CH"), country="ch") is True
    assert holds(compare("currency", "!=", "EUR"), currency="USD") is True
    assert holds(compare("settled_invoices", "in", [0, 1]), settled_invoices=1) is True
    assert holds(compare("country", "!=", "CH"), country="") is None


def test_all_any_and_not():
    old, swiss = compare("tenure_days", ">", 10), compare("country", "==", "CH")
    assert holds({"all": [old, swiss]}, tenure_days=11, country="CH") is True
    assert holds({"all": [old, swiss]}, tenure_days=11, country="DE") is False
    assert holds({"any": [old, swiss]}, tenure_days=1, country="CH") is True
    assert holds({"not": {"any": [old, swiss]}}, tenure_days=1, country="DE") is True


def test_what_is_not_known_neither_matches_nor_fails():
    old, swiss = compare("tenure_days", ">", 10), compare("country", "==", "CH")
    assert holds({"not": swiss}) is None
    assert holds({"all": [old, swiss]}, tenure_days=11) is None
    assert holds({"all": [old, swiss]}, tenure_days=1) is False
    assert holds({"any": [old, swiss]}, tenure_days=11) is True
    assert holds({"any": [old, swiss]}, tenure_days=1) is None
    segments = read_segments([{"name": "abroad", "when": {"not": swiss}}], [], [])
    assert segment_of(segments, SegmentFacts()) == "standard"
    assert segment_of(segments, SegmentFacts(country="DE")) == "abroad"


@pytest.mark.parametrize(
    ("condition", "pointer", "message"),
    [
        ("rich", "/when", "A condition is an object"),
        ({}, "/when", "A condition has field, op and value"),
        ({"field": "amount_minor", "op": "<"}, "/when", "A condition has field, op and value"),
        ({"all": []}, "/when/all", "at least one condition"),
        ({"all": {}}, "/when/all", "at least one condition"),
        (
            {"any": [compare("age", "<", 3)]},
            "/when/any/0/field",
            "There is no fact 'age'; use one of amount_minor",
        ),
        (compare(["age"], "<", 3), "/when/field", "There is no fact"),
        (compare("amount_minor", "~", 3), "/when/op", "cannot be compared by '~'"),
        (
            compare("country", "<", "DE"),
            "/when/op",
            "country cannot be compared by '<'; use !=, ==, in, not_in.",
        ),
        (compare("amount_minor", "<", "3"), "/when/value", "amount_minor < needs whole numbers."),
        (compare("amount_minor", "<", True), "/when/value", "needs whole numbers"),
        (compare("amount_minor", "<", 2.5), "/when/value", "needs whole numbers"),
        (compare("amount_minor", "in", 3), "/when/value", "needs a list of whole numbers"),
        (compare("country", "in", []), "/when/value", "needs a list of codes such as DE or EUR"),
        (compare("country", "==", 49), "/when/value", "needs codes such as DE or EUR"),
        ({"not": {"not": 3}}, "/when/not/not", "A condition is an object"),
    ],
)
def test_a_mistake_is_named_by_its_field(condition, pointer, message):
    problems = []
    read_condition(condition, ["when"], problems)
    (problem,) = problems
    assert problem.pointer == pointer
    assert message in problem.message


def test_conditions_cannot_be_nested_without_end():
    def nested(levels):
        condition = compare("amount_minor", "<", 3)
        for _ in range(levels):
            condition = {"not": condition}
        return condition

    assert holds(nested(DEEPEST - 1), amount_minor=2) is (DEEPEST % 2 == 1)
    problems = []
    read_condition(nested(2000), [], problems)
    assert [problem.message for problem in problems] == ["Conditions are nested more than 10 deep; flatten them."]


# --- an oracle for three-valued logic: every value the unknown facts could have -------------------

fields = st.sampled_from(["tenure_days", "settled_invoices"])
comparisons = st.builds(compare, fields, st.sampled_from(["<", "==", ">="]), st.integers(0, 3))
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"all": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"any": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"not": part}, inner),
    ),
    max_leaves=6,
)
values = st.one_of(st.none(), st.integers(0, 4))


@given(conditions, values, values)
@settings(max_examples=300, deadline=None)
def test_a_certain_answer_stays_the_same_whatever_the_unknown_turns_out_to_be(condition, tenure, settled):
    answer = holds(condition, tenure_days=tenure, settled_invoices=settled)
    possible = {
        holds(condition, tenure_days=one, settled_invoices=other)
        for one in ([tenure] if tenure is not None else range(5))
        for other in ([settled] if settled is not None else range(5))
    }
    assert None not in possible
    if answer is not None:
        assert possible == {answer}
    if tenure is not None and settled is not None:
        assert answer is not None
