"""The shipped rules, how they change by date, and what a merchant may and may not limit."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tokens.networks import NETWORKS, normalise_network
from tokens.rules import (
    DEFAULT_PATH,
    Counts,
    Key,
    RuleError,
    RuleOverride,
    WindowKind,
    load_rules,
    overrides_from_mapping,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY, MONTH = "max_retries_per_day", "max_retry_count_for_thirty_day"


def shown(rules):
    return [(rule.name, rule.limit, rule.window_text, rule.key.value, rule.counts.value) for rule in rules]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("visa", [(MONTH, 15, "30 days", "card_amount", "declines")]),
        (
            "mastercard",
            [(DAY, 10, "24 hours", "card", "declines"), (MONTH, 35, "30 days", "card", "declines")],
        ),
        ("maestro", [(DAY, 10, "24 hours", "card", "declines"), (MONTH, 35, "30 days", "card", "declines")]),
        ("amex", [(DAY, 1, "24 hours", "card", "declines"), (MONTH, 15, "30 days", "card", "declines")]),
        ("discover", [(DAY, 1, "24 hours", "card", "declines"), (MONTH, 15, "30 days", "card", "declines")]),
        ("diners", [(DAY, 1, "24 hours", "card", "declines"), (MONTH, 15, "30 days", "card", "declines")]),
        ("jcb", [(DAY, 1, "24 hours", "card", "declines"), (MONTH, 15, "30 days", "card", "declines")]),
        ("unionpay", [(DAY, 1, "24 hours", "card", "declines"), (MONTH, 15, "30 days", "card", "declines")]),
        (
            "elo",
            [
                (
                    "max_retry_count_for_calendar_month",
                    15,
                    "calendar month (UTC)",
                    "card_amount",
                    "declines",
                )
            ],
        ),
        ("ach", [("max_entries_per_invoice", 3, "180 days", "invoice", "declines")]),
        ("sepa", [("max_entries_per_invoice", 3, "180 days", "invoice", "declines")]),
        ("bacs", [("max_entries_per_invoice", 4, "180 days", "invoice", "declines")]),
        ("unknown", [(DAY, 10, "24 hours", "card", "declines"), (MONTH, 15, "30 days", "card", "declines")]),
    ],
)
def test_shipped_rules(network, expected):
    assert shown(load_rules().active(network, NOW)) == expected


def test_every_network_has_a_rule_at_every_time_and_each_rule_a_source():
    book = load_rules()
    assert {rule.network for rule in book.rules} == set(NETWORKS)
    for network in NETWORKS:
        for year in (1999, 2020, 2026, 2100):
            assert book.active(network, datetime(year, 1, 1, tzinfo=UTC))
    assert all(rule.source.strip() for rule in book.rules)


def test_a_network_nobody_knows_gets_the_cautious_rules():
    book = load_rules()
    for name in ("", "cartes_bancaires", "💳", "x" * 500):
        assert book.active(name, NOW) == book.active("unknown", NOW)


def test_visa_allows_20_only_where_chosen_and_only_since_its_date():
    book = load_rules()
    change = datetime(2025, 5, 19, tzinfo=UTC)
    assert [rule.limit for rule in book.active("visa", change, visa_limit=20)] == [20]
    assert [rule.limit for rule in book.active("visa", change - timedelta(microseconds=1), visa_limit=20)] == [15]
    assert [rule.limit for rule in book.active("visa", change, visa_limit=15)] == [15]
    assert [rule.limit for rule in book.for_network("visa", visa_limit=20)] == [15, 20]


@pytest.mark.parametrize("limit", [0, 16, 21, 30])
def test_no_other_visa_limit_can_be_chosen(limit):
    with pytest.raises(RuleError, match="set it to 15 or 20"):
        load_rules().active("visa", NOW, visa_limit=limit)


def test_a_stricter_limit_replaces_the_networks():
    overrides = [RuleOverride("mastercard", DAY, 3)]
    rules = load_rules().active("mastercard", NOW, overrides=overrides)
    assert [(rule.name, rule.limit) for rule in rules] == [(DAY, 3), (MONTH, 35)]
    assert [rule.limit for rule in load_rules().active("visa", NOW, overrides=overrides)] == [15]


def test_the_same_limit_is_allowed_and_a_looser_one_is_refused():
    book = load_rules()
    assert book.active("mastercard", NOW, overrides=[RuleOverride("mastercard", DAY, 10)])[0].limit == 10
    with pytest.raises(RuleError, match=r"max_retries_per_day = 11 .* looser than the network's 10; give 10 or less"):
        book.active("mastercard", NOW, overrides=[RuleOverride("mastercard", DAY, 11)])
    with pytest.raises(ValueError, match="looser"):
        book.check_override(RuleOverride("visa", MONTH, 20), NOW)
    book.check_override(RuleOverride("visa", MONTH, 20), NOW, visa_limit=20)


def test_a_stored_limit_that_became_too_loose_never_loosens_a_rule():
    """Charging asks `for_network`, which must go on within the rule instead of failing every charge."""
    rules = load_rules().for_network("mastercard", overrides=[RuleOverride("mastercard", DAY, 50)])
    assert [rule.limit for rule in rules] == [10, 35]


def test_a_merchant_may_limit_where_the_network_does_not():
    added = load_rules().active("visa", NOW, overrides=[RuleOverride("visa", DAY, 2)])[-1]
    assert (added.name, added.limit, added.window, added.key, added.counts) == (
        DAY,
        2,
        timedelta(hours=24),
        Key.CARD,
        Counts.DECLINES,
    )


def test_a_limit_for_all_networks_lowers_what_is_higher():
    overrides = [RuleOverride("*", DAY, 5)]
    book = load_rules()
    limits = {
        network: [rule.limit for rule in book.active(network, NOW, overrides=overrides) if rule.name == DAY]
        for network in ("visa", "mastercard", "amex")
    }
    assert limits == {"visa": [5], "mastercard": [5], "amex": [1]}


def test_a_limit_without_a_rule_to_tighten_is_refused():
    with pytest.raises(RuleError, match="no rule 'max_tries_per_week' to make stricter"):
        load_rules().active("visa", NOW, overrides=[RuleOverride("visa", "max_tries_per_week", 2)])
    with pytest.raises(RuleError, match="give at least 1"):
        load_rules().for_network("visa", overrides=[RuleOverride("visa", DAY, 0)])


def test_limits_are_read_from_settings():
    assert overrides_from_mapping({"visa": {MONTH: 10}, "*": {DAY: 4}}) == (
        RuleOverride("visa", MONTH, 10),
        RuleOverride("*", DAY, 4),
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"vsa": {DAY: 1}}, "Unknown network 'vsa'"),
        ({"visa": {DAY: "3"}}, "write a whole number"),
        ({"visa": {DAY: True}}, "write a whole number"),
        ({"visa": {DAY: 2.5}}, "write a whole number"),
        ({"visa": {DAY: 0}}, "give at least 1"),
    ],
)
def test_limits_that_cannot_be_read_say_what_to_write(document, message):
    with pytest.raises(RuleError, match=message):
        overrides_from_mapping(document)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("Visa", "visa"),
        ("visastandarddebit", "visa"),
        ("MasterCard", "mastercard"),
        ("mc", "mastercard"),
        ("American Express", "amex"),
        ("diners_club", "diners"),
        ("China UnionPay", "unionpay"),
        ("us_bank_account", "ach"),
        ("sepa_debit", "sepa"),
        ("bacs_debit", "bacs"),
        ("Elo", "elo"),
        ("girocard", "unknown"),
        (None, "unknown"),
    ],
)
def test_spellings_of_networks(spelling, name):
    assert normalise_network(spelling) == name


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        load_rules().active("visa", datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


GOOD = """
[[rule]]
networks = ["visa"]
name = "one"
window = "rolling"
days = 30
limit = 15
key = "card"
counts = "all"
source = "somewhere"
"""


def _file(tmp_path: Path, change=None, extra=""):
    """The shipped file, with every rule of Visa replaced by one, changed as told."""
    head, *rules = DEFAULT_PATH.read_text().split("\n[[advice]]")[0].split("\n[[rule]]")
    kept = [part for part in rules if 'networks = ["visa"]' not in part]
    text = GOOD if change is None else GOOD.replace(*change)
    path = tmp_path / "rules.toml"
    path.write_text("\n[[rule]]".join([head, *kept]) + text + extra)
    return path


def test_a_file_of_ones_own_is_read(tmp_path):
    (rule,) = load_rules(_file(tmp_path)).active("visa", NOW)
    assert (rule.name, rule.window_kind, rule.counts) == ("one", WindowKind.ROLLING, Counts.ALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"visa"', '"vsa"'), "use some of visa, mastercard"),
        (('window = "rolling"', 'window = "tumbling"'), "'tumbling'; use one of rolling, calendar_month"),
        (("days = 30", ""), "needs either hours or days"),
        (("days = 30", "days = 0"), "needs either hours or days"),
        (("days = 30", "days = 30\nhours = 2"), "needs either hours or days"),
        (('window = "rolling"', 'window = "calendar_month"'), "a calendar month has no days"),
        (("limit = 15", "limit = 0"), "at least one attempt must be allowed"),
        (("limit = 15", "limit = true"), "limit is True; give it as int"),
        (('key = "card"', 'key = "token"'), "use one of card, card_amount, invoice"),
        (('counts = "all"', 'counts = "some"'), "use one of declines, all"),
        (('source = "somewhere"', 'source = " "'), "the source of the rule"),
        (("limit = 15", "limit = 15\nlimits = 3"), "unknown field 'limits'"),
        (("limit = 15", 'limit = 15\nvalid_from = "2025-01-01"'), "write a date"),
        (
            ("limit = 15", "limit = 15\nvalid_from = 2025-02-01\nvalid_to = 2025-01-01"),
            "valid_from must lie before valid_to",
        ),
        (("limit = 15", "limit = 15\nvalid_from = 2025-01-01"), "leave a time without any rule"),
        (("limit = 15", "limit = 15\nvalid_to = 2025-01-01"), "leave a time without any rule"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, change, message):
    with pytest.raises(RuleError, match=message):
        load_rules(_file(tmp_path, change))


def test_two_versions_of_a_rule_at_one_time_are_refused(tmp_path):
    with pytest.raises(RuleError, match="two versions at one time"):
        load_rules(_file(tmp_path, extra=GOOD))


def test_a_gap_between_two_versions_is_refused_and_a_seam_is_not(tmp_path):
    old = ("limit = 15", "limit = 15\nvalid_to = 2025-01-01")
    seam = GOOD.replace("limit = 15", "limit = 9\nvalid_from = 2025-01-01")
    gap = GOOD.replace("limit = 15", "limit = 9\nvalid_from = 2025-01-02")
    assert len(load_rules(_file(tmp_path, old, seam)).for_network("visa")) == 2
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(RuleError, match="leave a time without any rule"):
        load_rules(_file(other, old, gap))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = 2\n", "must say format = 1"),
        ("format = [\n", "no valid TOML"),
        ("format = 1\nother = 3\n", "may hold only format"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(RuleError, match=message):
        load_rules(path)
    with pytest.raises(RuleError, match="cannot be read"):
        load_rules(tmp_path / "absent.toml")
