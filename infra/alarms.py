"""Who is told, and of what: five alarms and a budget."""

from aws_cdk import Duration
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.config import Config
from infra.rest_api import RestApi
from infra.service import Service

MANY, FEW = (
    cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
    cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
)
SILENT_IS_BAD, SILENT_IS_GOOD = (
    cloudwatch.TreatMissingData.BREACHING,
    cloudwatch.TreatMissingData.NOT_BREACHING,
)


class Alarms(Construct):
    """Alarms to a topic of SNS, and a budget; by mail where there is an address."""

    def __init__(
        self, scope: Construct, id: str, config: Config, service: Service, api: RestApi
    ):  # fmt: skip
        super().__init__(scope, id)
        self._topic = sns.Topic(self, "Topic", enforce_ssl=True)
        if config.email:
            self._topic.add_subscription(subscriptions.EmailSubscription(config.email))
            self._add_budget(config)
        minute, five = Duration.minutes(1), Duration.minutes(5)
        targets, errors = service.targets.metrics, elbv2.HttpCodeTarget.TARGET_5XX_COUNT
        broken = api.api.metric_server_error(period=five, statistic="Sum")
        self._alarm("NobodyDraws", targets.healthy_host_count(period=minute), FEW, 1, 3,
                    "no task is ready", SILENT_IS_BAD)  # fmt: skip
        self._alarm("Errors", targets.http_code_target(errors, period=five), MANY, 10, 1,
                    "the app answers 5xx")  # fmt: skip
        self._alarm("LongQueue", service.waiting, MANY, 2 * config.waiting_per_task, 15,
                    "drawings wait although tasks may be added")  # fmt: skip
        self._alarm("FailedDrawings", service.jobs("failed"), MANY, 5, 1, "drawings fail")
        self._alarm("ApiErrors", broken, MANY, 10, 1, "the API does not reach the app")

    def _alarm(
        self, id: str, metric: cloudwatch.IMetric, than: cloudwatch.ComparisonOperator,
        threshold: float, periods: int, says: str,
        silent: cloudwatch.TreatMissingData = SILENT_IS_GOOD,
    ) -> None:  # fmt: skip
        alarm = cloudwatch.Alarm(
            self, id, metric=metric, comparison_operator=than, threshold=threshold,
            evaluation_periods=periods, alarm_description=says, treat_missing_data=silent,
        )  # fmt: skip
        alarm.add_alarm_action(actions.SnsAction(self._topic))
        alarm.add_ok_action(actions.SnsAction(self._topic))

    def _add_budget(self, config: Config) -> None:
        to = budgets.CfnBudget.SubscriberProperty(address=config.email, subscription_type="EMAIL")
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=config.budget_usd, unit="USD"),
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type=kind,
                        threshold=percent,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[to],
                )
                for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
        )
