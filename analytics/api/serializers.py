"""The dashboards' figures as JSON: each with its definition, amounts in minor units, shares from 0 to 1."""

from rest_framework import serializers

from retries.states import NextStep


class DefinitionSerializer(serializers.Serializer):
    """What a figure means."""

    key = serializers.CharField()
    name = serializers.CharField()
    sentence = serializers.CharField(help_text="What is counted over what.")
    unit = serializers.CharField()


class PeriodSerializer(serializers.Serializer):
    """Whole days in the merchant's time zone, up to now."""

    days = serializers.IntegerField()
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    timezone = serializers.CharField(source="zone.key")


class RiskRowSerializer(serializers.Serializer):
    step = serializers.ChoiceField(choices=NextStep.choices)
    currency = serializers.CharField()
    amount_minor = serializers.IntegerField()
    cases = serializers.IntegerField()


class RecoveredRowSerializer(serializers.Serializer):
    currency = serializers.CharField()
    cases = serializers.IntegerField()
    gross_minor = serializers.IntegerField()
    back_minor = serializers.IntegerField(help_text="Went back since: refunds, lost disputes, bank returns.")
    net_minor = serializers.IntegerField()
    net_by_day = serializers.DictField(child=serializers.IntegerField())


class TallySerializer(serializers.Serializer):
    """Cases of one group as they stand now."""

    total = serializers.IntegerField()
    recovered = serializers.IntegerField()
    open = serializers.IntegerField()
    lost = serializers.IntegerField(help_text="Lost, canceled or written off.")
    rate = serializers.FloatField(allow_null=True)
    final = serializers.BooleanField(help_text="False while open cases can still raise the rate.")


class MoneyTallySerializer(TallySerializer):
    currency = serializers.CharField()
    amount_minor = serializers.IntegerField()
    recovered_minor = serializers.IntegerField()
    amount_rate = serializers.FloatField(allow_null=True)


class BucketTallySerializer(TallySerializer):
    opened_from = serializers.DateField(help_text="First day of the week, or the day in a period of 7 days.")


class CohortsSerializer(serializers.Serializer):
    overall = TallySerializer()
    by_currency = MoneyTallySerializer(many=True)
    by_opening = BucketTallySerializer(many=True)


class TimeBucketSerializer(serializers.Serializer):
    label = serializers.CharField()  # type: ignore[assignment]  # the metaclass takes fields out
    cases = serializers.IntegerField()


class TimeToRecoverSerializer(serializers.Serializer):
    buckets = TimeBucketSerializer(many=True)
    recovered = serializers.IntegerField()
    open = serializers.IntegerField()
    ended = serializers.IntegerField(help_text="Without being recovered.")
    median_days = serializers.FloatField(allow_null=True)
    p75_days = serializers.FloatField(allow_null=True)
    p90_days = serializers.FloatField(allow_null=True)


class ExpectedSerializer(serializers.Serializer):
    currency = serializers.CharField()
    due_minor = serializers.IntegerField()
    expected_minor = serializers.IntegerField(allow_null=True, help_text="Null without any history to judge by.")


class WaitingSerializer(serializers.Serializer):
    questions = serializers.IntegerField(help_text="Counted up to 100.")
    customers = serializers.IntegerField(help_text="Open cases that wait for their customer.")
    alerts = serializers.IntegerField(help_text="Counted up to 100.")


class OverviewFiguresSerializer(serializers.Serializer):
    revenue_at_risk = RiskRowSerializer(many=True)
    recovered_net = RecoveredRowSerializer(many=True)
    cohort_recovery_rate = CohortsSerializer()
    time_to_recover = TimeToRecoverSerializer()
    forecast = ExpectedSerializer(many=True)
    needs_a_person = WaitingSerializer()


class FailureRowSerializer(serializers.Serializer):
    key = serializers.CharField(help_text="Empty where nobody told it.")
    failed = serializers.IntegerField()
    attempts = serializers.IntegerField()
    cases = serializers.IntegerField()
    recovered = serializers.IntegerField()


class FailureDaySerializer(serializers.Serializer):
    day = serializers.DateField()
    failed = serializers.DictField(child=serializers.IntegerField(), help_text="By category.")


class FailuresByCategorySerializer(serializers.Serializer):
    rows = FailureRowSerializer(many=True)
    days = FailureDaySerializer(many=True)


class CodeRowSerializer(serializers.Serializer):
    provider = serializers.CharField()
    code = serializers.CharField(help_text="Empty where nobody told it.")
    category = serializers.CharField()
    attempts = serializers.IntegerField()
    cases = serializers.IntegerField()
    recovered = serializers.IntegerField()


class FailureFiguresSerializer(serializers.Serializer):
    failures_by_category = FailuresByCategorySerializer()
    top_decline_codes = CodeRowSerializer(many=True)
    failures_by_network = FailureRowSerializer(many=True)
    failures_by_country = FailureRowSerializer(many=True)
    failures_by_connection = FailureRowSerializer(many=True)


class NumberRowSerializer(serializers.Serializer):
    number = serializers.IntegerField()
    tried = serializers.IntegerField()
    succeeded = serializers.IntegerField()
    recovered = serializers.IntegerField()
    success_rate = serializers.FloatField(allow_null=True)


class ByNumberSerializer(serializers.Serializer):
    rows = NumberRowSerializer(many=True)
    outside = serializers.IntegerField(help_text="Recovered without an attempt known here.")


class SenderRowSerializer(serializers.Serializer):
    sender = serializers.CharField()
    attempts = serializers.IntegerField()
    finished = serializers.IntegerField()
    succeeded = serializers.IntegerField()


class SourceRowSerializer(serializers.Serializer):
    source_name = serializers.CharField()
    cases = serializers.IntegerField()
    net_minor = serializers.DictField(child=serializers.IntegerField(), help_text="By currency.")


class BudgetRowSerializer(serializers.Serializer):
    network = serializers.CharField()
    limit = serializers.IntegerField()
    window_seconds = serializers.IntegerField(source="seconds", allow_null=True, help_text="Null: a calendar month.")
    counted_per = serializers.CharField(source="key")
    cards = serializers.IntegerField()
    unused = serializers.IntegerField()
    up_to_half = serializers.IntegerField(source="half")
    more = serializers.IntegerField()
    used_up = serializers.IntegerField(source="spent")


class RetryFiguresSerializer(serializers.Serializer):
    recovered_by_attempt = ByNumberSerializer()
    attempts_by_sender = SenderRowSerializer(many=True)
    recovered_by_source = SourceRowSerializer(many=True)
    budget_use = BudgetRowSerializer(many=True)


class PolicyRowSerializer(serializers.Serializer):
    version = serializers.IntegerField()
    segment = serializers.CharField()
    by_currency = MoneyTallySerializer(many=True)


class PolicyFiguresSerializer(serializers.Serializer):
    recovery_by_policy = PolicyRowSerializer(many=True)


class BrokenRowSerializer(serializers.Serializer):
    promise = serializers.CharField(help_text="One of the definitions.")
    count = serializers.IntegerField(help_text="Counted up to 501.")


class BoardFiguresSerializer(serializers.Serializer):
    must_be_zero = BrokenRowSerializer(many=True)


class AnswerSerializer(serializers.Serializer):
    """Figures by the keys of their definitions, which stand beside them."""

    period = PeriodSerializer()
    definitions = DefinitionSerializer(many=True)


class OverviewSerializer(AnswerSerializer):
    figures = OverviewFiguresSerializer()


class FailuresSerializer(AnswerSerializer):
    figures = FailureFiguresSerializer()


class RetriesSerializer(AnswerSerializer):
    figures = RetryFiguresSerializer()


class PoliciesSerializer(AnswerSerializer):
    figures = PolicyFiguresSerializer()


class BoardSerializer(AnswerSerializer):
    figures = BoardFiguresSerializer()
