"""The tasks behind their load balancer, as many as the queue asks for."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import Config
from infra.machines import Machines
from infra.network import APP_PORT, Network
from infra.task import NAMESPACE, PATIENCE, Task

WAITING, JOBS = "drawing_jobs_waiting", "drawing_jobs_total"  # as the app's /metrics names them
DRAIN = Duration.minutes(2)  # that a drawing may take when its task is to go


class Service(Construct):
    """Load balancer, tasks and scaling."""

    def __init__(
        self, scope: Construct, id: str, config: Config, network: Network, task: Task,
        access_logs: s3.IBucket,
    ):  # fmt: skip
        super().__init__(scope, id)
        self._network = network
        machines = Machines(self, "Machines", config, network)
        self.load_balancer = self._load_balancer(access_logs)
        self.targets = self._targets()
        self.listener = self._listener(config)
        self.service = self._service(config, machines, task)
        self._scale(config)

    @property
    def waiting(self) -> cloudwatch.Metric:
        """Waiting drawings per task: each task reports its own queue under the same name."""
        return self._metric(WAITING, "Average", Duration.minutes(1))

    def jobs(self, outcome: str) -> cloudwatch.Metric:
        """Jobs that are over, of all tasks."""
        return self._metric(JOBS, "Sum", Duration.minutes(5), outcome=outcome)

    def _metric(
        self, name: str, statistic: str, period: Duration, **labels: str
    ) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=NAMESPACE,
            metric_name=name,
            dimensions_map={"Service": Stack.of(self).stack_name, **labels},
            statistic=statistic,
            period=period,
        )

    def _load_balancer(self, access_logs: s3.IBucket) -> elbv2.ApplicationLoadBalancer:
        balancer = elbv2.ApplicationLoadBalancer(
            self,
            "LoadBalancer",
            vpc=self._network.vpc,
            vpc_subnets=self._network.subnets,
            internet_facing=False,
            security_group=self._network.load_balancer,
            drop_invalid_header_fields=True,
            idle_timeout=PATIENCE,
        )
        balancer.log_access_logs(access_logs, "load-balancer")
        return balancer

    def _targets(self) -> elbv2.ApplicationTargetGroup:
        return elbv2.ApplicationTargetGroup(
            self,
            "Targets",
            vpc=self._network.vpc,
            port=APP_PORT,
            protocol=elbv2.ApplicationProtocol.HTTP,
            target_type=elbv2.TargetType.IP,
            # A new task, with nothing to do yet, gets the next visitors.
            load_balancing_algorithm_type=(
                elbv2.TargetGroupLoadBalancingAlgorithmType.LEAST_OUTSTANDING_REQUESTS
            ),
            # A visitor's session, uploads and place in the queue are in one task.
            stickiness_cookie_duration=Duration.days(1),
            deregistration_delay=DRAIN,
            health_check=elbv2.HealthCheck(
                path="/readyz",
                healthy_http_codes="200",
                interval=Duration.seconds(15),
                timeout=Duration.seconds(5),
                healthy_threshold_count=2,
                unhealthy_threshold_count=4,
            ),
        )

    def _listener(self, config: Config) -> elbv2.ApplicationListener:
        """TLS where there is a certificate; without a domain, HTTP within the network."""
        options: dict = {"protocol": elbv2.ApplicationProtocol.HTTP, "port": 80}
        if config.domain:
            options = {
                "protocol": elbv2.ApplicationProtocol.HTTPS,
                "port": 443,
                "ssl_policy": elbv2.SslPolicy.RECOMMENDED_TLS,
                "certificates": [elbv2.ListenerCertificate.from_arn(config.certificate)],
            }
        return self.load_balancer.add_listener(
            "Listener", default_target_groups=[self.targets], open=False, **options
        )

    def _service(self, config: Config, machines: Machines, task: Task) -> ecs.Ec2Service:
        capacity = ecs.CapacityProviderStrategy(
            capacity_provider=machines.capacity.capacity_provider_name, weight=1
        )
        service = ecs.Ec2Service(
            self,
            "Service",
            cluster=machines.cluster,
            task_definition=task.definition,
            capacity_provider_strategies=[capacity],
            security_groups=[self._network.tasks],
            vpc_subnets=self._network.subnets,
            desired_count=config.min_tasks,
            min_healthy_percent=100,  # the old version serves until the new one is ready
            max_healthy_percent=200,
            health_check_grace_period=Duration.minutes(10),
            circuit_breaker=ecs.DeploymentCircuitBreaker(rollback=True),
            enable_ecs_managed_tags=True,
        )
        self.targets.add_target(service)
        service.node.add_dependency(self.listener)
        return service

    def _scale(self, config: Config) -> None:
        count = self.service.auto_scale_task_count(
            min_capacity=config.min_tasks, max_capacity=config.max_tasks
        )
        count.scale_to_track_custom_metric(
            "Waiting",
            metric=self.waiting,
            target_value=config.waiting_per_task,
            scale_out_cooldown=Duration.minutes(5),  # a machine takes as long to come
            scale_in_cooldown=Duration.minutes(15),
        )
