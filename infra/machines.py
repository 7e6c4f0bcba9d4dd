"""The GPU machines of the cluster, which come and go with the tasks that need one."""

from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.config import Config
from infra.nag import acknowledge
from infra.network import Network

DISK_GB = 80  # the images, twice while a new version comes in


class Machines(Construct):
    """A cluster, and what starts machines for it."""

    def __init__(self, scope: Construct, id: str, config: Config, network: Network):
        super().__init__(scope, id)
        self.cluster = ecs.Cluster(
            self, "Cluster", vpc=network.vpc, container_insights_v2=ecs.ContainerInsights.ENABLED
        )
        group = self._group(config, network)
        self.capacity = ecs.AsgCapacityProvider(self, "Capacity", auto_scaling_group=group)
        self.cluster.add_asg_capacity_provider(self.capacity)

    def _group(self, config: Config, network: Network) -> autoscaling.AutoScalingGroup:
        types = [ec2.InstanceType(name) for name in config.instance_type_list]
        policy = autoscaling.MixedInstancesPolicy(
            launch_template=self._launch(types[0], network),
            launch_template_overrides=[
                autoscaling.LaunchTemplateOverrides(instance_type=each) for each in types
            ],
            instances_distribution=autoscaling.InstancesDistribution(
                on_demand_allocation_strategy=autoscaling.OnDemandAllocationStrategy.PRIORITIZED,
                on_demand_percentage_above_base_capacity=100,
            ),
        )
        group = autoscaling.AutoScalingGroup(
            self,
            "Group",
            vpc=network.vpc,
            vpc_subnets=network.subnets,
            mixed_instances_policy=policy,
            min_capacity=0,
            max_capacity=config.max_tasks + 1,  # a new version starts beside the old one
            new_instances_protected_from_scale_in=True,  # ECS takes away only those without tasks
        )
        acknowledge(
            group, "The service's alarms tell what matters to visitors; machines come and go.",
            "AwsSolutions-AS3",
        )  # fmt: skip
        acknowledge(
            group, "The rule cannot read a launch template; its volume is encrypted (see below).",
            "AwsSolutions-EC26",
        )  # fmt: skip
        return group

    def _launch(self, instance_type: ec2.InstanceType, network: Network) -> ec2.LaunchTemplate:
        user_data = ec2.UserData.for_linux()
        # Containers have roles of their own; that of the machine is none of their business.
        user_data.add_commands("echo ECS_AWSVPC_BLOCK_IMDS=true >> /etc/ecs/ecs.config")
        disk = ec2.BlockDeviceVolume.ebs(
            DISK_GB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3
        )
        return ec2.LaunchTemplate(
            self,
            "Launch",
            machine_image=ecs.EcsOptimizedImage.amazon_linux2023(ecs.AmiHardwareType.GPU),
            instance_type=instance_type,
            security_group=network.machines,
            associate_public_ip_address=False,
            role=self._role(),
            user_data=user_data,
            require_imdsv2=True,
            http_put_response_hop_limit=1,
            block_devices=[ec2.BlockDevice(device_name="/dev/xvda", volume=disk)],
        )

    def _role(self) -> iam.IRole:
        """What the ECS agent needs, in place of CDK's wider grants: images, logs and secrets are
        the business of the task's roles."""
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        cluster = self.cluster.cluster_arn
        own = (
            "RegisterContainerInstance", "DeregisterContainerInstance", "SubmitTaskStateChange",
            "SubmitContainerStateChange", "SubmitAttachmentStateChanges",
        )  # fmt: skip
        for actions, resource, conditions in (
            (own, cluster, {}),
            (("Poll", "StartTelemetrySession"), "*", {"ArnEquals": {"ecs:cluster": cluster}}),
            (("DiscoverPollEndpoint",), "*", {}),
        ):
            role.add_to_policy(
                iam.PolicyStatement(
                    actions=[f"ecs:{action}" for action in actions],
                    resources=[resource],
                    conditions=conditions,
                )
            )
        acknowledge(
            role, "DiscoverPollEndpoint takes no resource; the others are tied to the cluster.",
            "AwsSolutions-IAM5[Resource::*]",
        )  # fmt: skip
        return role.without_policy_updates()
