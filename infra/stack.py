"""From a model's folder to a URL, as one stack.

    visitor -- CloudFront --------------- load balancer -- tasks on GPUs -- model in S3
    program -- CloudFront -- REST API --- (by VPC link)

Nothing but CloudFront and the API is reachable from outside, and nothing inside reaches out.
"""

from aws_cdk import CfnOutput, Environment, RemovalPolicy, Stack, Tags
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.alarms import Alarms
from infra.config import Config
from infra.edge import Edge
from infra.model_store import ModelStore
from infra.network import Network
from infra.rest_api import PATH, STAGE, RestApi
from infra.service import Service
from infra.task import Task


class DrawingStack(Stack):
    """Everything that one installation consists of."""

    def __init__(self, scope: Construct, id: str, config: Config):
        super().__init__(
            scope, id, env=Environment(region=config.region),
            description="Pictures from words: the page and its APIs, on GPUs",
        )  # fmt: skip
        Tags.of(self).add("project", "sd-pokemon")
        log_group = logs.LogGroup(
            self, "Log", retention=_days(config.log_days), removal_policy=RemovalPolicy.DESTROY
        )
        network = Network(self, "Network", config, log_group)
        store = ModelStore(self, "Store", config)
        store.allow_only_through(network.s3)
        task = Task(self, "Task", config, network, store, log_group)
        service = Service(self, "Drawing", config, network, task, store.logs)
        api = RestApi(self, "Rest", config, network, service)
        edge = Edge(self, "Edge", config, service.load_balancer, api, store.logs)
        edge.node.add_dependency(network.gateway_attachment)
        task.show_as(edge.address)
        Alarms(self, "Alarms", config, service, api)
        self._tell(edge, api, store, task)

    def _tell(self, edge: Edge, api: RestApi, store: ModelStore, task: Task) -> None:
        for name, value in {
            "Url": f"https://{edge.address}",
            "RestUrl": f"https://{edge.address}/{STAGE}{PATH}",
            "DistributionName": edge.distribution.distribution_domain_name,
            "ApiKeyId": api.key.key_id,
            "PasswordSecret": task.password.secret_arn,
            "ModelBucket": store.models.bucket_name,
        }.items():
            CfnOutput(self, name, value=value)


def _days(number: int) -> logs.RetentionDays:
    """CloudWatch keeps logs for certain numbers of days only: the next longer one."""
    allowed = {1: "ONE_DAY", 7: "ONE_WEEK", 30: "ONE_MONTH", 90: "THREE_MONTHS", 365: "ONE_YEAR"}
    return logs.RetentionDays[next((allowed[d] for d in allowed if d >= number), "ONE_YEAR")]
