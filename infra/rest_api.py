"""The REST API for programs: keys, throttling, quotas and a cache, by a VPC link to the service."""

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_apigatewayv2 as apigatewayv2
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra import drawing_query
from infra.config import Config
from infra.nag import acknowledge
from infra.network import Network
from infra.service import Service
from infra.task import PATIENCE

STAGE = "rest"  # also the path below which CloudFront hands on to the API
PATH = "/api/generate"
PASSWORD = "method.request.header.Authorization"
WAIT = "method.response.header.Retry-After"
OTHER = "502"  # what the app says otherwise, which it should not
STATUSES = ("200", "400", "401", "413", "429", "500", OTHER, "503")


class RestApi(Construct):
    """POST draws and streams the answer; GET draws by seed, and the same again comes from a cache.

    Callers send their API key, which says how much they may draw, and the password of the service,
    which lets them in: no secret stands in the configuration of the API.
    """

    def __init__(
        self, scope: Construct, id: str, config: Config, network: Network, service: Service
    ):  # fmt: skip
        super().__init__(scope, id)
        self._config, self._balancer = config, service.load_balancer
        self._link = apigatewayv2.VpcLink(
            self,
            "Link",
            vpc=network.vpc,
            subnets=network.subnets,
            security_groups=[network.vpc_link],
        )
        self._strip_stage(service)
        self.api = self._api()
        self._validator = self.api.add_request_validator(
            "Validator", validate_request_parameters=True, validate_request_body=True
        )
        drawing = self.api.root.add_resource("api").add_resource("generate")
        self._add_post(drawing)
        self._add_get(drawing)
        self.key = self._usage()

    def _strip_stage(self, service: Service) -> None:
        """A private integration may send the stage along in the path; the app knows none."""
        rewrite = elbv2.CfnListenerRule.RewriteConfigProperty(
            regex=f"^/{STAGE}/(.*)$", replace="/$1"
        )
        elbv2.CfnListenerRule(
            self,
            "StripStage",
            listener_arn=service.listener.listener_arn,
            priority=1,
            conditions=[
                {"field": "path-pattern", "pathPatternConfig": {"values": [f"/{STAGE}/*"]}}
            ],
            actions=[{"type": "forward", "targetGroupArn": service.targets.target_group_arn}],
            transforms=[
                elbv2.CfnListenerRule.TransformProperty(
                    type="url-rewrite",
                    url_rewrite_config=elbv2.CfnListenerRule.RewriteConfigObjectProperty(
                        rewrites=[rewrite]
                    ),
                )
            ],
        )

    def _api(self) -> apigateway.RestApi:
        config = self._config
        access = logs.LogGroup(
            self, "Access", retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )  # fmt: skip
        cached = bool(config.api_cache_gb)
        api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name="pictures-from-words",
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            cloud_watch_role=True,
            deploy_options=apigateway.StageOptions(
                stage_name=STAGE,
                throttling_rate_limit=config.api_requests_per_second,
                throttling_burst_limit=config.api_burst,
                caching_enabled=cached,
                cache_cluster_enabled=cached,
                cache_cluster_size=config.api_cache_gb or None,
                cache_data_encrypted=cached,
                cache_ttl=Duration.seconds(config.api_cache_seconds),
                logging_level=apigateway.MethodLoggingLevel.ERROR,  # INFO would log prompts
                access_log_destination=apigateway.LogGroupLogDestination(access),
                access_log_format=apigateway.AccessLogFormat.custom(ACCESS_LOG),
            ),
        )
        acknowledge(
            api, "AWS's own policy for the one role by which API Gateway writes logs.",
            "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/"
            "AmazonAPIGatewayPushToCloudWatchLogs]",
        )  # fmt: skip
        acknowledge(
            api.deployment_stage,
            "Without an API key the gateway refuses, with one it throttles. A web ACL costs 6 USD "
            "a month and more; parameter web_acl puts yours before CloudFront.",
            "AwsSolutions-APIG3",
        )
        return api

    def _add_post(self, resource: apigateway.Resource) -> None:
        """The app's own request and answer. It streams, beyond 29 seconds and 10 MB, too."""
        integration = apigateway.Integration(
            type=apigateway.IntegrationType.HTTP_PROXY,
            integration_http_method="POST",
            uri=self._uri,
            options=apigateway.IntegrationOptions(
                request_parameters=CALLER,
                response_transfer_mode=apigateway.ResponseTransferMode.STREAM,
                timeout=PATIENCE,
            ),
        )
        method = resource.add_method(
            "POST", integration, api_key_required=True,
            request_parameters={PASSWORD: True}, request_validator=self._validator,
            request_models={"application/json": self._drawing()},
        )  # fmt: skip
        self._connect(method)

    def _add_get(self, resource: apigateway.Resource) -> None:
        query = {
            f"method.request.querystring.{setting.name}": setting.is_required
            for setting in drawing_query.SETTINGS
        }
        integration = apigateway.Integration(
            type=apigateway.IntegrationType.HTTP,
            integration_http_method="POST",
            uri=self._uri,
            options=apigateway.IntegrationOptions(
                # The password is a part of the key: nobody gets what another one was let in for.
                cache_key_parameters=[*query, PASSWORD],
                request_parameters={
                    **CALLER,
                    "integration.request.header.Authorization": PASSWORD,
                    "integration.request.header.Content-Type": "'application/json'",
                },
                request_templates={"application/json": drawing_query.template()},
                passthrough_behavior=apigateway.PassthroughBehavior.NEVER,
                integration_responses=_answers(),
            ),
        )
        method = resource.add_method(
            "GET", integration, api_key_required=True, request_validator=self._validator,
            request_parameters={**query, PASSWORD: True},
            method_responses=[
                apigateway.MethodResponse(status_code=status, response_parameters={WAIT: False})
                for status in STATUSES
            ],
        )  # fmt: skip
        self._connect(method)

    @property
    def _uri(self) -> str:
        if self._config.domain:  # which the certificate names
            return f"https://{self._config.domain}:443{PATH}"
        return f"http://{self._balancer.load_balancer_dns_name}:80{PATH}"

    def _connect(self, method: apigateway.Method) -> None:
        """By the VPC link V2, straight to the load balancer; the L2 construct knows V1 only."""
        resource = method.node.default_child
        assert isinstance(resource, apigateway.CfnMethod)
        resource.add_property_override("Integration.ConnectionType", "VPC_LINK")
        resource.add_property_override("Integration.ConnectionId", self._link.vpc_link_id)
        resource.add_property_override(
            "Integration.IntegrationTarget", self._balancer.load_balancer_arn
        )
        acknowledge(
            method, "Each method asks for an API key, and the app for its password.",
            "AwsSolutions-COG4", "AwsSolutions-APIG4",
        )  # fmt: skip

    def _drawing(self) -> apigateway.Model:
        """The least that a body must have. The app knows the rest, and says what is wrong."""
        schema = apigateway.JsonSchema(type=apigateway.JsonSchemaType.OBJECT, required=["prompt"])
        return self.api.add_model("Drawing", content_type="application/json", schema=schema)

    def _usage(self) -> apigateway.IApiKey:
        config = self._config
        plan = self.api.add_usage_plan(
            "Plan",
            throttle=apigateway.ThrottleSettings(
                rate_limit=config.api_requests_per_second, burst_limit=config.api_burst
            ),
            quota=apigateway.QuotaSettings(
                limit=config.api_requests_per_month, period=apigateway.Period.MONTH
            ),
        )
        plan.add_api_stage(stage=self.api.deployment_stage)
        key = self.api.add_api_key("Key")
        plan.add_api_key(key)
        return key


# The app gives each caller a place of its own in the queue; the password is passed on as it is.
CALLER = {"integration.request.header.X-Client-Id": "context.identity.apiKeyId"}
ACCESS_LOG = (
    '{"time":"$context.requestTime","key":"$context.identity.apiKeyId",'
    '"method":"$context.httpMethod","status":"$context.status",'
    '"bytes":"$context.responseLength","ms":"$context.responseLatency",'
    '"error":"$context.error.message","request":"$context.requestId"}'
)


def _answers() -> list[apigateway.IntegrationResponse]:
    """The app's own status and sentence, and until when to wait where it says so."""
    return [
        apigateway.IntegrationResponse(
            status_code=status,
            selection_pattern=None if status == OTHER else status,
            response_parameters={WAIT: "integration.response.header.Retry-After"},
        )
        for status in STATUSES
    ]
