"""The task: the app, before it what fetches the model, beside it what reads its metrics."""

from pathlib import Path

from aws_cdk import Duration, RemovalPolicy, Size, Stack
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_ecr_assets as ecr_assets
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.config import Config
from infra.model_store import MODELS, ModelStore
from infra.nag import acknowledge
from infra.network import APP_PORT, Network

ROOT = Path(__file__).resolve().parent.parent
SIDECARS = Path(__file__).resolve().parent / "sidecars"
MODEL_FOLDER = "/model"
NAMESPACE = "SdPokemon"  # of the metrics
PASSWORD = "SD_POKEMON_PASSWORD"
PATIENCE = Duration.minutes(5)  # with a drawing that waits for others, and with idle connections


class Task(Construct):
    """The task's definition, and the secret that opens the app."""

    def __init__(
        self, scope: Construct, id: str, config: Config, network: Network, store: ModelStore,
        log_group: logs.ILogGroup,
    ):  # fmt: skip
        super().__init__(scope, id)
        self._config, self._log_group = config, log_group
        self.password = self._password()
        self.definition = ecs.Ec2TaskDefinition(
            self, "Definition", network_mode=ecs.NetworkMode.AWS_VPC
        )
        self.app = self._add_app(network)
        if config.model:
            self._add_model(store)
        self._add_collector()
        acknowledge(
            self.definition, "Settings, none of them secret; the password is a secret.",
            "AwsSolutions-ECS2",
        )  # fmt: skip
        acknowledge(
            self.definition.obtain_execution_role(),
            "ecr:GetAuthorizationToken takes no resource; what may be pulled is named.",
            "AwsSolutions-IAM5[Resource::*]",
        )

    def show_as(self, address: str) -> None:
        """Tell the app the address under which visitors see it."""
        self.app.add_environment("GRADIO_ROOT_PATH", f"https://{address}")

    def _password(self) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            "Password",
            description="of the page and of its APIs",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                exclude_punctuation=True, password_length=32
            ),
        )
        acknowledge(
            secret, "People know it: whoever changes it tells them, and starts the tasks anew.",
            "AwsSolutions-SMG4",
        )  # fmt: skip
        return secret

    def _add_app(self, network: Network) -> ecs.ContainerDefinition:
        # The load balancer closes an idle connection first: no request meets one that closes.
        keep_alive = int(PATIENCE.to_seconds()) + 60
        command = ["python", "app.py", "--host", "0.0.0.0", "--port", str(APP_PORT)]
        command.append(f"--keep_alive={keep_alive}")
        if self._config.model:
            command += ["--model", MODEL_FOLDER]
        return self.definition.add_container(
            "app",
            image=self._image(),
            command=command,
            # What the load balancer says of a visitor's address is believed.
            environment={"FORWARDED_ALLOW_IPS": network.vpc.vpc_cidr_block},
            secrets=self._secrets(),
            gpu_count=1,
            memory_limit_mib=self._config.task_memory_mib,
            port_mappings=[ecs.PortMapping(container_port=APP_PORT)],
            linux_parameters=self._app_rights(),
            readonly_root_filesystem=True,
            stop_timeout=Duration.seconds(30),
            logging=self._logged("app"),
        )

    def _app_rights(self) -> ecs.LinuxParameters:
        """As few as a sidecar's; pictures, uploads and compiled kernels are kept in memory."""
        rights = self._few_rights("AppRights")
        for folder in ("/tmp", "/data"):
            rights.add_tmpfs(
                ecs.Tmpfs(
                    container_path=folder,
                    size=Size.gibibytes(2).to_mebibytes(),
                    mount_options=[ecs.TmpfsMountOption.EXEC],
                )
            )
        return rights

    def _image(self) -> ecs.ContainerImage:
        config = self._config
        if config.image_repository:
            repository = ecr.Repository.from_repository_name(
                self, "Images", config.image_repository
            )
            return ecs.ContainerImage.from_ecr_repository(repository, config.image_tag)
        return ecs.ContainerImage.from_asset(
            str(ROOT),
            file="deploy/Dockerfile",
            target=config.image_target,
            platform=ecr_assets.Platform.LINUX_AMD64,
        )

    def _add_model(self, store: ModelStore) -> None:
        """It ends before the app starts, and where a file is not what it should be, in failure."""
        model = self._config.model
        self.definition.add_volume(name="model")
        fetch = self.definition.add_container(
            "model",
            image=self._sidecar("model_sync"),
            essential=False,
            memory_limit_mib=512,
            environment={
                "MODEL_URL": store.models.s3_url_for_object(MODELS + model),
                "MODEL_SHA256": model,
                "AWS_DEFAULT_REGION": Stack.of(self).region,
            },
            linux_parameters=self._few_rights("ModelRights"),
            logging=self._logged("model"),
        )
        for container, read_only in ((fetch, False), (self.app, True)):
            container.add_mount_points(
                ecs.MountPoint(
                    source_volume="model", container_path=MODEL_FOLDER, read_only=read_only
                )
            )
        done = ecs.ContainerDependencyCondition.SUCCESS
        self.app.add_container_dependencies(
            ecs.ContainerDependency(container=fetch, condition=done)
        )
        store.allow_reading(self.definition.task_role, model)

    def _add_collector(self) -> None:
        """It reads /metrics, and writes what scaling and alarms need to CloudWatch."""
        written = logs.LogGroup(
            self, "Metrics", retention=logs.RetentionDays.ONE_WEEK,
            removal_policy=RemovalPolicy.DESTROY,
        )  # fmt: skip
        self.definition.add_container(
            "collector",
            image=self._sidecar("collector"),
            essential=False,
            enable_restart_policy=True,  # without it nobody would see the queue
            memory_limit_mib=256,
            environment={
                "AWS_REGION": Stack.of(self).region,
                "SERVICE": Stack.of(self).stack_name,
                "NAMESPACE": NAMESPACE,
                "LOG_GROUP": written.log_group_name,
            },
            secrets=self._secrets(),
            linux_parameters=self._few_rights("CollectorRights"),
            readonly_root_filesystem=True,
            logging=self._logged("collector"),
        )
        self.definition.task_role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["logs:CreateLogStream", "logs:PutLogEvents"],
                resources=[written.log_group_arn],
            )
        )

    def _secrets(self) -> dict[str, ecs.Secret]:
        return {PASSWORD: ecs.Secret.from_secrets_manager(self.password)}

    def _sidecar(self, name: str) -> ecs.ContainerImage:
        """An image that `cdk deploy` copies into this account: tasks reach no other registry."""
        return ecs.ContainerImage.from_asset(
            str(SIDECARS / name), platform=ecr_assets.Platform.LINUX_AMD64
        )

    def _few_rights(self, id: str) -> ecs.LinuxParameters:
        rights = ecs.LinuxParameters(self, id, init_process_enabled=True)
        rights.drop_capabilities(ecs.Capability.ALL)
        return rights

    def _logged(self, name: str) -> ecs.LogDriver:
        return ecs.LogDrivers.aws_logs(
            stream_prefix=name,
            log_group=self._log_group,
            mode=ecs.AwsLogDriverMode.NON_BLOCKING,  # a drawing does not wait for its log
        )
