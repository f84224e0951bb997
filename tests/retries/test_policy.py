"""The shipped policies give the documented answers, and a mistake in a document is named by its field."""

import copy
import json
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from retries.categories import Category, RetryClass
from retries.documents import FOLDER, schema_problems
from retries.policy import (
    PAYER_CATEGORIES,
    PRESETS,
    SCHEMA,
    Audience,
    FinalAction,
    PolicyError,
    Trigger,
    parse_policy,
    preset_document,
)

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
FAILED_AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


def ladder(policy, category, segment="standard", known=True, retry_class=None):
    """All delays the policy grants, the end of them included in the question."""
    strategy = policy.strategy_for(segment, category, known, retry_class)
    delays = [strategy.delay(number, "seed") for number in range(1, strategy.max_attempts + 2)]
    assert delays[-1] is None
    return delays[:-1]


def preset(name, **parameters):
    return parse_policy(preset_document(name), **parameters)


# --- the default answers, line by line ------------------------------------------------------------


@pytest.mark.parametrize("name", ["standard", "doubling"])
@pytest.mark.parametrize("segment", ["standard", "new_customer", "some_other"])
@pytest.mark.parametrize(
    ("category", "delays"),
    [
        (Category.HARD_DECLINE, []),
        (Category.INSUFFICIENT_FUNDS, [24 * HOUR] * 2),
        (Category.SOFT_DECLINE, [3 * HOUR, 24 * HOUR, 72 * HOUR]),
        (Category.AUTHENTICATION_REQUIRED, [5 * MINUTE] * 2),
        (Category.NETWORK_ERROR, [timedelta()] * 3),
        (Category.RATE_LIMITED, [30 * MINUTE, 60 * MINUTE, 120 * MINUTE]),
        (Category.CONFIG_ERROR, []),
        (Category.FRAUD_FLAGGED, []),
    ],
)
def test_the_default_answer_of_each_category(name, segment, category, delays):
    assert ladder(preset(name), category, segment) == delays


@pytest.mark.parametrize("category", [Category.PROCESSING_ERROR, Category.SERVICE_UNAVAILABLE])
@pytest.mark.parametrize(
    ("name", "minutes"),
    [
        ("standard", [1, 5, 30]),
        ("doubling", [1, 2, 4]),
        ("high_value", [1, 5, 30]),
        ("low_value", [1, 5, 30]),
    ],
)
def test_processing_errors_and_outages(category, name, minutes):
    assert ladder(preset(name), category) == [minute * MINUTE for minute in minutes]


@pytest.mark.parametrize("name", PRESETS)
def test_unknown_codes_get_two_tries_five_minutes_apart(name):
    assert ladder(preset(name), Category.SOFT_DECLINE, known=False) == [5 * MINUTE] * 2


def test_doubling_differs_from_standard_in_nothing_else():
    standard, doubling = preset_document("standard"), preset_document("doubling")
    changed = {key for key in standard if standard[key] != doubling[key]}
    assert changed == {"name", "description", "categories"}
    assert {key for key in standard["categories"] if standard["categories"][key] != doubling["categories"][key]} == {
        "PROCESSING_ERROR",
        "SERVICE_UNAVAILABLE",
    }


def test_a_network_error_that_is_told_to_wait_is_spaced_like_an_outage():
    policy = preset("standard")
    later = ladder(policy, Category.NETWORK_ERROR, retry_class=RetryClass.LATER)
    assert later == [MINUTE, 5 * MINUTE, 30 * MINUTE]
    assert ladder(policy, Category.NETWORK_ERROR, retry_class=RetryClass.IMMEDIATE) == [timedelta()] * 3


def test_high_value_customers_are_tried_more_and_low_value_customers_less():
    policy = preset("standard")
    soft = {name: len(ladder(policy, Category.SOFT_DECLINE, name)) for name in ("high_value", "standard", "low_value")}
    funds = {
        name: len(ladder(policy, Category.INSUFFICIENT_FUNDS, name)) for name in ("high_value", "standard", "low_value")
    }
    assert soft == {"high_value": 5, "standard": 3, "low_value": 2}
    assert funds == {"high_value": 4, "standard": 2, "low_value": 1}


@pytest.mark.parametrize("segment", ["high_value", "low_value"])
def test_the_presets_of_a_segment_are_what_standard_gives_that_segment(segment):
    assert preset("standard").for_segment(segment) == preset(segment).default


def test_only_a_new_customers_first_failure_alerts_staff_at_once():
    policy = preset("standard")
    assert policy.alerts_at_first_failure("new_customer")
    assert not any(policy.alerts_at_first_failure(name) for name in ("standard", "high_value", "low_value", "other"))


def test_standard_sends_mail_after_the_first_failed_retry_of_a_soft_decline():
    chosen = preset("standard").for_segment("standard")
    due = [
        (step.after, step.template)
        for step in chosen.messages
        if step.concerns(Category.SOFT_DECLINE, failed_retries=1)
    ]
    assert due == [(3 * HOUR, "payment_failed"), (7 * DAY, "reminder"), (14 * DAY, "final_notice")]
    first = [step.template for step in chosen.messages if step.concerns(Category.SOFT_DECLINE, failed_retries=0)]
    assert first == ["reminder", "final_notice"]
    for category in (Category.FRAUD_FLAGGED, Category.CONFIG_ERROR, Category.NETWORK_ERROR):
        assert not any(step.concerns(category, 9) for step in chosen.messages)


def test_the_limits_of_standard():
    chosen = preset("standard").for_segment("standard")
    assert (chosen.horizon, chosen.grace, chosen.final_action) == (21 * DAY, 28 * DAY, FinalAction.LEAVE_OPEN)
    assert chosen.budgets == {
        Trigger.AUTOMATIC: 8,
        Trigger.CARD_UPDATE: 3,
        Trigger.STAFF: 10,
        Trigger.CUSTOMER: 10,
    }
    assert chosen.quiet is not None
    assert (chosen.quiet.hours.start, chosen.quiet.hours.end) == (time(21), time(8))
    assert (chosen.quiet.messages, chosen.quiet.retries) == (True, False)


def test_max_attempts_of_the_settings_holds_where_the_document_has_none():
    policy = preset("standard", default_max_attempts=5)
    assert ladder(policy, Category.PROCESSING_ERROR) == [minutes * MINUTE for minutes in (1, 5, 30, 30, 30)]
    assert len(ladder(policy, Category.SOFT_DECLINE)) == 5
    assert len(ladder(policy, Category.INSUFFICIENT_FUNDS)) == 2
    assert len(ladder(policy, Category.SOFT_DECLINE, known=False)) == 2
    assert len(ladder(preset("standard", default_max_attempts=1), Category.NETWORK_ERROR)) == 1
    with pytest.raises(ValueError, match="RETRY_MAX_ATTEMPTS must be at least 1"):
        preset("standard", default_max_attempts=0)


def test_there_is_no_other_preset():
    with pytest.raises(PolicyError, match="use one of standard, doubling, high_value, low_value"):
        preset_document("../policy")
    assert {path.stem for path in (FOLDER / "presets").glob("*.json")} == set(PRESETS)


# --- documents ------------------------------------------------------------------------------------


def test_the_published_schema_is_a_schema_and_knows_every_category():
    schema = json.loads((FOLDER / SCHEMA).read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["category"]["enum"] == [category.value for category in Category]
    assert list(schema["$defs"]["categories"]["properties"]) == [category.value for category in Category]
    assert schema["$defs"]["final_action"]["enum"] == [action.value for action in FinalAction]
    assert list(schema["$defs"]["budgets"]["properties"]) == [trigger.value for trigger in Trigger]


def changed(path, value, base="standard"):
    """A preset with one field replaced, or removed where `value` is None."""
    document = preset_document(base)
    target = document
    for part in path[:-1]:
        target = target[part]
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "pointer", "message"),
    [
        (["format"], 2, "/format", "write 1."),
        (["name"], "Ours!", "/name", "lower-case letters, digits and underscores"),
        (["horizon"], None, "/horizon", "This field is missing; add it."),
        (
            ["horizon"],
            "3 weeks",
            "/horizon",
            '"3 weeks" has the wrong form; write a duration like 30s, 5m, 3h or 14d.',
        ),
        (["horizon"], 21, "/horizon", "21 has the wrong type; give a text."),
        (["horizon"], "400d", "/horizon", "'400d' is too long; the longest is 365d."),
        (["grace"], "20d", "/grace", "make it at least as long."),
        (
            ["final_action"],
            "sue",
            "/final_action",
            '"sue" is not known; use one of leave_open, cancel, write_off',
        ),
        (
            ["finalaction"],
            "cancel",
            "/finalaction",
            "There is no field of this name here; use alert_at_first_failure",
        ),
        (["categories", "SOFT_DECLINE"], None, "/categories/SOFT_DECLINE", "This category is missing"),
        (
            ["categories", "SOFT"],
            {"strategy": "never"},
            "/categories/SOFT",
            "There is no field of this name here",
        ),
        (
            ["categories", "HARD_DECLINE"],
            {"strategy": "fixed"},
            "/categories/HARD_DECLINE/strategy",
            '"fixed" is not possible here; write "never".',
        ),
        (
            ["categories", "SOFT_DECLINE", "delays"],
            [],
            "/categories/SOFT_DECLINE/delays",
            "give at least one entry",
        ),
        (
            ["categories", "SOFT_DECLINE", "delays", 1],
            "soon",
            "/categories/SOFT_DECLINE/delays/1",
            "a duration like 30s",
        ),
        (
            ["categories", "SOFT_DECLINE", "max_attempts"],
            0,
            "/categories/SOFT_DECLINE/max_attempts",
            "the lowest is 1",
        ),
        (
            ["categories", "SOFT_DECLINE", "max_attempts"],
            51,
            "/categories/SOFT_DECLINE/max_attempts",
            "highest is 50",
        ),
        (
            ["categories", "SOFT_DECLINE", "max_attempts"],
            1.5,
            "/categories/SOFT_DECLINE/max_attempts",
            "whole number",
        ),
        (
            ["categories", "SOFT_DECLINE", "strategy"],
            "lunar",
            "/categories/SOFT_DECLINE/strategy",
            "no timing strategy",
        ),
        (["categories", "RATE_LIMITED", "cap"], "1m", "/categories/RATE_LIMITED/cap", "at least as long"),
        (["categories", "RATE_LIMITED", "cap"], None, "/categories/RATE_LIMITED/cap", "is missing"),
        (["categories", "RATE_LIMITED", "factor"], 11, "/categories/RATE_LIMITED/factor", "highest is 10"),
        (["unknown_code", "delays", 0], "1y", "/unknown_code/delays/0", "a duration like"),
        (["quiet_hours", "end"], None, "/quiet_hours/end", "is missing beside the others"),
        (["quiet_hours", "end"], "21:00", "/quiet_hours/end", "leave them out"),
        (["quiet_hours", "end"], "25:00", "/quiet_hours/end", "a time of day like 08:00"),
        (["quiet_hours", "weekdays"], ["mon", "mon"], "/quiet_hours/weekdays", "listed twice"),
        (["messages", 2, "after"], "29d", "/messages/2/after", "after the grace period"),
        (["messages", 2, "template"], None, "/messages/2/template", "is missing"),
        (["messages", 2, "categories"], ["BROKE"], "/messages/2/categories/0", '"BROKE" is not known'),
        (["budgets", "automatic"], -1, "/budgets/automatic", "the lowest is 0"),
        (["budgets", "robots"], 3, "/budgets/robots", "use automatic, card_update, customer, staff"),
        (["segments", 0, "when"], None, "/segments/0/when", "is missing"),
        (["segments", 0, "name"], "standard", "/segments/0/name", "is for everybody else"),
        (["segments", 1, "name"], "high_value", "/segments/1/name", "There is a segment of this name above"),
        (["segments", 0, "grace"], "1d", "/segments/0/grace", "at least as long"),
        (["segments", 0, "when", "op"], "=>", "/segments/0/when/op", "cannot be compared by '=>'"),
        (
            ["segments", 0, "categories", "SOFT_DECLINE", "delays", 0],
            "x",
            "/segments/0/categories/SOFT_DECLINE/delays/0",
            "a duration like",
        ),
    ],
)
def test_a_mistake_is_named_by_its_field_in_one_sentence(path, value, pointer, message):
    with pytest.raises(PolicyError) as caught:
        parse_policy(changed(path, value))
    first = caught.value.problems[0]
    assert first.pointer.startswith(pointer)
    assert message in first.message
    assert str(caught.value) == f"{first.pointer}: {first.message}"
    assert first.message.endswith(".")
    assert caught.value.http_status == 400


@pytest.mark.parametrize("document", [None, [], "policy", 3, {}])
def test_what_is_no_document_is_refused(document):
    with pytest.raises(PolicyError):
        parse_policy(document)


def test_all_mistakes_are_reported_at_once():
    document = changed(["horizon"], "x")
    document["final_action"] = "sue"
    with pytest.raises(PolicyError) as caught:
        parse_policy(document)
    assert [problem.pointer for problem in caught.value.problems] == ["/final_action", "/horizon"]
    assert len(caught.value.data["problems"]) == 2


def test_parsing_changes_nothing_in_the_document():
    document = preset_document("standard")
    before = copy.deepcopy(document)
    parse_policy(document)
    assert document == before


def test_a_segment_replaces_only_what_it_names():
    document = preset_document("standard")
    document["segments"] = [
        {
            "name": "vip",
            "when": {"field": "country", "op": "==", "value": "CH"},
            "categories": {"INSUFFICIENT_FUNDS": {"strategy": "never"}},
            "budgets": {"automatic": None},
            "final_action": "webhook",
        }
    ]
    policy = parse_policy(document)
    vip, default = policy.for_segment("vip"), policy.default
    assert ladder(policy, Category.INSUFFICIENT_FUNDS, "vip") == []
    assert ladder(policy, Category.INSUFFICIENT_FUNDS) == [24 * HOUR] * 2
    assert {category for category in Category if vip.strategies[category] != default.strategies[category]} == {
        Category.INSUFFICIENT_FUNDS
    }
    assert vip.budgets == {**default.budgets, Trigger.AUTOMATIC: None}
    assert vip.final_action is FinalAction.WEBHOOK
    assert (vip.horizon, vip.grace, vip.messages, vip.quiet) == (
        default.horizon,
        default.grace,
        default.messages,
        default.quiet,
    )


def test_messages_are_for_payers_unless_they_are_for_staff():
    document = changed(["messages"], [{"after": "1h", "template": "a"}])
    document["messages"].append({"after": "1h", "template": "b", "audience": "staff"})
    to_payer, to_staff = parse_policy(document).default.messages
    assert (to_payer.audience, to_payer.categories) == (Audience.CUSTOMER, PAYER_CATEGORIES)
    assert (to_staff.audience, to_staff.categories) == (Audience.STAFF, frozenset(Category))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
paths = st.sampled_from(
    [
        (),
        ("horizon",),
        ("categories",),
        ("categories", "SOFT_DECLINE"),
        ("categories", "SOFT_DECLINE", "delays"),
        ("messages",),
        ("quiet_hours",),
        ("budgets",),
        ("segments",),
        ("segments", 0, "when"),
        ("segments", 1, "when", "all"),
    ]
)


@given(paths, json_values)
@settings(max_examples=200, deadline=None)
def test_no_document_whatever_does_more_than_be_refused(path, value):
    document = value if not path else changed(list(path), value if value is not None else 0)
    problems = ()
    policy = None
    try:
        policy = parse_policy(document)
    except PolicyError as error:
        problems = error.problems
    if policy is None:
        assert problems
        assert all(problem.message for problem in problems)
    else:
        assert not schema_problems(document, SCHEMA)
        assert set(policy.default.strategies) == set(Category)
