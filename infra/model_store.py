"""Where models and access logs lie: two private buckets."""

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.config import Config
from infra.nag import acknowledge

MODELS = "models/"  # below it a folder for each model, named after the SHA-256 of its SHA256SUMS


class ModelStore(Construct):
    """The bucket of models, and that of everybody's access logs."""

    def __init__(self, scope: Construct, id: str, config: Config):
        super().__init__(scope, id)
        self.logs = s3.Bucket(
            self,
            "Logs",
            **_closed(),
            # CloudFront and S3 itself write their logs by ACL.
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_PREFERRED,
            lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(config.log_days))],
        )
        acknowledge(
            self.logs, "It holds the access logs; its own would describe each other.",
            "AwsSolutions-S1",
        )  # fmt: skip
        self.models = s3.Bucket(
            self,
            "Models",
            **_closed(),
            versioned=True,
            server_access_logs_bucket=self.logs,
            server_access_logs_prefix="models/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=Duration.days(90),
                    abort_incomplete_multipart_upload_after=Duration.days(7),
                )
            ],
            removal_policy=RemovalPolicy.RETAIN,  # a trained model is not made again in an hour
        )

    def allow_reading(self, role: iam.IRole, model: str) -> None:
        """One model, and nothing else of the bucket."""
        prefix = f"{MODELS}{model}/"
        role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["s3:GetObject"], resources=[self.models.arn_for_objects(prefix + "*")]
            )
        )
        role.add_to_principal_policy(
            iam.PolicyStatement(
                actions=["s3:ListBucket"],
                resources=[self.models.bucket_arn],
                conditions={"StringLike": {"s3:prefix": prefix + "*"}},
            )
        )
        bucket = Stack.of(self).get_logical_id(self.models.node.default_child)
        acknowledge(
            role, "The objects of one model, whose names the template cannot know.",
            f"AwsSolutions-IAM5[Resource::<{bucket}.Arn>/{prefix}*]",
        )  # fmt: skip

    def allow_only_through(self, endpoint: ec2.GatewayVpcEndpoint) -> None:
        """From the network, S3 gives models and the layers of images, and takes nothing."""
        stack = Stack.of(self)
        layers = f"arn:{stack.partition}:s3:::prod-{stack.region}-starport-layer-bucket/*"
        for actions, resources in (
            (["s3:GetObject"], [self.models.arn_for_objects("*"), layers]),
            (["s3:ListBucket"], [self.models.bucket_arn]),
        ):
            endpoint.add_to_policy(
                iam.PolicyStatement(
                    principals=[iam.AnyPrincipal()], actions=actions, resources=resources
                )
            )


def _closed() -> dict:
    return {
        "block_public_access": s3.BlockPublicAccess.BLOCK_ALL,
        "encryption": s3.BucketEncryption.S3_MANAGED,
        "enforce_ssl": True,
        "minimum_tls_version": 1.2,
    }
