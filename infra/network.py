"""The closed network: subnets without a way to the internet, and endpoints for what tasks need."""

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.config import Config

APP_PORT = 7860
ZONES = 2  # which a load balancer needs, and all that CDK knows of without an account
HTTPS = ec2.Port.tcp(443)
ENDPOINTS = {  # without which a task does not start, or cannot say anything
    "EcrApi": ec2.InterfaceVpcEndpointAwsService.ECR,
    "EcrDocker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
    "Ecs": ec2.InterfaceVpcEndpointAwsService.ECS,
    "EcsAgent": ec2.InterfaceVpcEndpointAwsService.ECS_AGENT,
    "EcsTelemetry": ec2.InterfaceVpcEndpointAwsService.ECS_TELEMETRY,
    "Logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "Secrets": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
}


class Network(Construct):
    """VPC, endpoints, and the security groups of whatever talks in it."""

    def __init__(self, scope: Construct, id: str, config: Config, flow_logs: logs.ILogGroup):
        super().__init__(scope, id)
        isolated = ec2.SubnetConfiguration(
            name="Private", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=20
        )
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.0.0.0/16"),
            max_azs=ZONES,
            nat_gateways=0,
            subnet_configuration=[isolated],
            restrict_default_security_group=False,  # it would take a Lambda; nothing uses the group
        )
        self.subnets = ec2.SubnetSelection(subnets=self.vpc.isolated_subnets)
        self.vpc.add_flow_log(
            "Flow",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(flow_logs),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )
        self._mark_for_cloudfront()
        self.machines = self._group("Machines", "ECS agent of the GPU machines")
        self.tasks = self._group("Tasks", "containers")
        self.load_balancer = self._group("LoadBalancer", "load balancer")
        self.vpc_link = self._group("VpcLink", "the way in of API Gateway")
        self._connect(config)
        self._add_endpoints(config)

    def _group(self, id: str, description: str) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(
            self, id, vpc=self.vpc, description=description, allow_all_outbound=False
        )

    def _mark_for_cloudfront(self) -> None:
        """CloudFront takes origins only in a VPC with an internet gateway. No route leads to it."""
        gateway = ec2.CfnInternetGateway(self, "Gateway")
        self.gateway_attachment = ec2.CfnVPCGatewayAttachment(
            self, "Attached", vpc_id=self.vpc.vpc_id, internet_gateway_id=gateway.ref
        )

    def _connect(self, config: Config) -> None:
        """Who may talk to whom: a list to be read from the outside in."""
        entry = ec2.Port.tcp(443 if config.domain else 80)
        edge = ec2.Peer.prefix_list(config.cloudfront_prefix_list)
        self.load_balancer.add_ingress_rule(edge, entry, "CloudFront")
        self.load_balancer.connections.allow_from(self.vpc_link, entry, "API Gateway")
        self.tasks.connections.allow_from(
            self.load_balancer, ec2.Port.tcp(APP_PORT), "the load balancer, and nobody else"
        )
        for group in (self.tasks, self.machines):
            # Routes lead to the endpoints and to S3 only, whose addresses a template cannot know.
            group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "endpoints and S3")

    def _add_endpoints(self, config: Config) -> None:
        self.s3 = self.vpc.add_gateway_endpoint("S3", service=ec2.GatewayVpcEndpointAwsService.S3)
        group = self._group("Endpoints", "VPC endpoints")
        for client in (self.tasks, self.machines):
            group.connections.allow_from(client, HTTPS, "tasks and machines")
        where = ec2.SubnetSelection(subnets=self.vpc.isolated_subnets[: config.endpoint_zones])
        for name, service in ENDPOINTS.items():
            self.vpc.add_interface_endpoint(
                name, service=service, subnets=where, security_groups=[group], open=False
            )
