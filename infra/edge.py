"""CloudFront: the one public name, for the page and for the REST API below /rest."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import Config
from infra.nag import acknowledge
from infra.rest_api import STAGE, RestApi

# What a visitor waits for a picture without a byte arriving; more needs a quota.
ANSWER = Duration.seconds(120)
SECURITY_POLICY = cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021


class Edge(Construct):
    """The distribution. It keeps nothing: all that is shown depends on who asks."""

    def __init__(
        self, scope: Construct, id: str, config: Config,
        load_balancer: elbv2.ApplicationLoadBalancer, api: RestApi, access_logs: s3.IBucket,
    ):  # fmt: skip
        super().__init__(scope, id)
        self._headers = self._strict_transport()
        options: dict = {}
        if config.domain:
            arn = config.edge_certificate or config.certificate
            options["domain_names"] = [config.domain]
            options["minimum_protocol_version"] = SECURITY_POLICY
            options["certificate"] = acm.Certificate.from_certificate_arn(self, "Certificate", arn)
        self.distribution = cloudfront.Distribution(
            self,
            "Distribution",
            default_behavior=self._page(config, load_balancer),
            additional_behaviors={f"/{STAGE}/*": self._api(api)},
            http_version=cloudfront.HttpVersion.HTTP2_AND_3,
            price_class=cloudfront.PriceClass.PRICE_CLASS_100,
            web_acl_id=config.web_acl or None,
            enable_logging=True,
            log_bucket=access_logs,
            log_file_prefix="cloudfront/",
            error_responses=[  # that a refusal is not kept
                cloudfront.ErrorResponse(http_status=status, ttl=Duration.seconds(0))
                for status in (404, 500, 502, 503, 504)
            ],
            **options,
        )
        self.address = config.domain or self.distribution.distribution_domain_name
        self._acknowledge(config)

    def _page(
        self, config: Config, balancer: elbv2.ApplicationLoadBalancer
    ) -> cloudfront.BehaviorOptions:
        policy = cloudfront.OriginProtocolPolicy
        origin = origins.VpcOrigin.with_application_load_balancer(
            balancer,
            # The certificate names the domain, which is also what the Host header says.
            domain_name=config.domain or None,
            protocol_policy=policy.HTTPS_ONLY if config.domain else policy.HTTP_ONLY,
            origin_ssl_protocols=[cloudfront.OriginSslPolicy.TLS_V1_2],
            read_timeout=ANSWER,
            keepalive_timeout=Duration.seconds(60),
        )
        return cloudfront.BehaviorOptions(
            origin=origin,
            # Host too: the app compares it with the Origin of a page.
            origin_request_policy=cloudfront.OriginRequestPolicy.ALL_VIEWER,
            **self._dynamic(),
        )

    def _api(self, api: RestApi) -> cloudfront.BehaviorOptions:
        region = Stack.of(self).region
        origin = origins.HttpOrigin(
            f"{api.api.rest_api_id}.execute-api.{region}.{Stack.of(self).url_suffix}",
            protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
            origin_ssl_protocols=[cloudfront.OriginSslPolicy.TLS_V1_2],
            read_timeout=ANSWER,
        )
        return cloudfront.BehaviorOptions(
            origin=origin,
            origin_request_policy=cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
            **self._dynamic(),
        )

    def _dynamic(self) -> dict:
        return {
            "allowed_methods": cloudfront.AllowedMethods.ALLOW_ALL,
            "cache_policy": cloudfront.CachePolicy.CACHING_DISABLED,
            "viewer_protocol_policy": cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
            "response_headers_policy": self._headers,
            "compress": False,  # a stream of events would wait to be compressed
        }

    def _strict_transport(self) -> cloudfront.IResponseHeadersPolicy:
        """Browsers come back by TLS only, also where the app itself does not see TLS."""
        return cloudfront.ResponseHeadersPolicy(
            self,
            "Headers",
            security_headers_behavior=cloudfront.ResponseSecurityHeadersBehavior(
                strict_transport_security=cloudfront.ResponseHeadersStrictTransportSecurity(
                    access_control_max_age=Duration.days(365),
                    include_subdomains=True,
                    override=True,
                )
            ),
        )

    def _acknowledge(self, config: Config) -> None:
        acknowledge(self.distribution, "Visitors may come from anywhere.", "AwsSolutions-CFR1")
        if not config.web_acl:
            acknowledge(
                self.distribution,
                "The app bounds every request itself and limits each address (docs/limits.md). A "
                "web ACL costs 6 USD a month and more; parameter web_acl names yours.",
                "AwsSolutions-CFR2",
            )
        if not config.domain:
            acknowledge(
                self.distribution,
                "CloudFront's own certificate comes with its own minimum; with a domain it is "
                "TLS 1.2. The way to the load balancer is then TLS, too.",
                "AwsSolutions-CFR4",
            )
