"""The stack of infra/, synthesised without an account: what must never be open, and what must work.

    make lint-infra

runs these in an environment of their own; where aws_cdk is not installed they are skipped.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

aws_cdk = pytest.importorskip(
    "aws_cdk", reason="aws_cdk is not installed: `make lint-infra` has it"
)
import airspeed  # noqa: E402
from aws_cdk.assertions import Match, Template  # noqa: E402

from infra import drawing_query  # noqa: E402
from infra.config import Config, ConfigError  # noqa: E402
from infra.kubernetes import check  # noqa: E402
from infra.rest_api import PATH, STAGE  # noqa: E402
from infra.stack import DrawingStack  # noqa: E402

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
SETTINGS = json.loads((ROOT / "infra/cdk.json").read_text())["context"]
MODEL = "0123456789abcdef" * 4
CERTIFICATE = "arn:aws:acm:us-east-1:111122223333:certificate/0"
PLAIN = Config(image_repository="drawing", email="me@example.org")
FULL = Config(
    image_repository="drawing", email="me@example.org", model=MODEL, domain="draw.example.org",
    certificate=CERTIFICATE, web_acl="arn:aws:wafv2:us-east-1:111122223333:global/webacl/a/0",
)  # fmt: skip


def template_of(config: Config) -> Template:
    app = aws_cdk.App(context=SETTINGS)
    return Template.from_stack(DrawingStack(app, "SdPokemon", config))


@pytest.fixture(scope="module")
def plain() -> Template:
    return template_of(PLAIN)


@pytest.fixture(scope="module")
def full() -> Template:
    return template_of(FULL)


@pytest.fixture(params=["plain", "full"])
def template(request) -> Template:
    return request.getfixturevalue(request.param)


def of_kind(template: Template, kind: str) -> list[dict]:
    return [resource["Properties"] for resource in template.find_resources(kind).values()]


def containers(template: Template) -> dict[str, dict]:
    (task,) = of_kind(template, "AWS::ECS::TaskDefinition")
    return {container["Name"]: container for container in task["ContainerDefinitions"]}


# What must never be open


def test_no_address_of_the_internet_may_enter(template):
    rules = of_kind(template, "AWS::EC2::SecurityGroupIngress")
    for group in of_kind(template, "AWS::EC2::SecurityGroup"):
        rules += group.get("SecurityGroupIngress", [])
    assert rules
    assert not [rule for rule in rules if "CidrIp" in rule or "CidrIpv6" in rule]


def test_only_cloudfront_and_the_rest_api_reach_the_load_balancer(template):
    groups = template.find_resources("AWS::EC2::SecurityGroup")
    (balancer,) = [
        name for name, group in groups.items()
        if group["Properties"]["GroupDescription"] == "load balancer"
    ]  # fmt: skip
    sources = {
        rule.get("SourcePrefixListId") or rule["Description"]
        for rule in of_kind(template, "AWS::EC2::SecurityGroupIngress")
        if balancer in json.dumps(rule["GroupId"])
    }
    assert sources == {PLAIN.cloudfront_prefix_list, "API Gateway"}
    template.has_resource_properties(
        "AWS::ElasticLoadBalancingV2::LoadBalancer", {"Scheme": "internal"}
    )


def test_no_subnet_has_a_way_to_the_internet(template):
    template.resource_count_is("AWS::EC2::Route", 0)
    template.resource_count_is("AWS::EC2::NatGateway", 0)
    template.resource_count_is("AWS::EC2::EIP", 0)
    assert not [s for s in of_kind(template, "AWS::EC2::Subnet") if s["MapPublicIpOnLaunch"]]
    template.has_resource_properties(
        "AWS::ECS::Service",
        {"NetworkConfiguration": {"AwsvpcConfiguration": {"AssignPublicIp": "DISABLED"}}},
    )


def test_no_permission_names_all_actions_or_more_resources_than_it_must(template):
    # Actions that take no resource, or, of the agent, only the condition that names the cluster.
    without_resource = {
        "ecr:GetAuthorizationToken", "ecs:DiscoverPollEndpoint", "ecs:Poll",
        "ecs:StartTelemetrySession",
    }  # fmt: skip
    for policy in of_kind(template, "AWS::IAM::Policy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            actions = {actions} if isinstance(actions, str) else set(actions)
            assert not [action for action in actions if "*" in action]
            if statement["Resource"] == "*":
                assert actions <= without_resource


def test_the_network_reads_models_and_images_from_s3_and_nothing_else(plain):
    (gateway,) = [
        endpoint for endpoint in of_kind(plain, "AWS::EC2::VPCEndpoint")
        if endpoint["VpcEndpointType"] == "Gateway"
    ]  # fmt: skip
    statements = gateway["PolicyDocument"]["Statement"]
    assert {statement["Action"] for statement in statements} == {"s3:GetObject", "s3:ListBucket"}
    assert not [statement for statement in statements if statement["Resource"] == "*"]


def test_buckets_are_private_encrypted_and_refuse_plain_http(template):
    buckets = of_kind(template, "AWS::S3::Bucket")
    assert len(buckets) == len(of_kind(template, "AWS::S3::BucketPolicy")) == 2
    for bucket in buckets:
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket["BucketEncryption"]
    refusal = {"Bool": {"aws:SecureTransport": "false"}}
    for policy in of_kind(template, "AWS::S3::BucketPolicy"):
        statements = policy["PolicyDocument"]["Statement"]
        assert [s for s in statements if s["Effect"] == "Deny" and s.get("Condition") == refusal]


def test_models_have_versions_and_outlive_the_stack(plain):
    plain.has_resource(
        "AWS::S3::Bucket",
        {
            "Properties": {"VersioningConfiguration": {"Status": "Enabled"}},
            "DeletionPolicy": "Retain",
        },
    )


def test_the_password_is_made_by_aws_and_stands_nowhere_in_the_template(template):
    template.has_resource_properties(
        "AWS::SecretsManager::Secret", {"GenerateSecretString": Match.any_value()}
    )
    assert "resolve:secretsmanager" not in json.dumps(template.to_json())
    for container in containers(template).values():
        names = {variable["Name"] for variable in container["Environment"]}
        assert "SD_POKEMON_PASSWORD" not in names


def test_volumes_are_encrypted_and_containers_have_few_rights(template):
    template.has_resource_properties(
        "AWS::EC2::LaunchTemplate",
        {
            "LaunchTemplateData": {
                "BlockDeviceMappings": [{"Ebs": Match.object_like({"Encrypted": True})}],
                "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            }
        },
    )
    for container in containers(template).values():
        assert container["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
        assert not container.get("Privileged")
    assert containers(template)["app"]["ReadonlyRootFilesystem"] is True


def test_visitors_come_by_tls_and_browsers_are_told_to_stay_with_it(template):
    (distribution,) = of_kind(template, "AWS::CloudFront::Distribution")
    config = distribution["DistributionConfig"]
    behaviours = [config["DefaultCacheBehavior"], *config["CacheBehaviors"]]
    assert {b["ViewerProtocolPolicy"] for b in behaviours} == {"redirect-to-https"}
    template.has_resource_properties(
        "AWS::CloudFront::ResponseHeadersPolicy",
        {
            "ResponseHeadersPolicyConfig": {
                "SecurityHeadersConfig": {"StrictTransportSecurity": Match.any_value()}
            }
        },
    )


def test_with_a_domain_every_step_of_the_way_to_the_load_balancer_is_tls(full):
    listeners = of_kind(full, "AWS::ElasticLoadBalancingV2::Listener")
    assert [listener["Protocol"] for listener in listeners] == ["HTTPS"]
    full.has_resource_properties(
        "AWS::CloudFront::VpcOrigin",
        {"VpcOriginEndpointConfig": {"OriginProtocolPolicy": "https-only"}},
    )
    full.has_resource_properties(
        "AWS::CloudFront::Distribution",
        {
            "DistributionConfig": {
                "Aliases": ["draw.example.org"],
                "ViewerCertificate": {"MinimumProtocolVersion": "TLSv1.2_2021"},
            }
        },
    )
    for method in of_kind(full, "AWS::ApiGateway::Method"):
        assert method["Integration"]["Uri"].startswith("https://draw.example.org:443/")


def test_each_method_of_the_api_asks_for_a_key_and_for_the_password(template):
    methods = of_kind(template, "AWS::ApiGateway::Method")
    assert {method["HttpMethod"] for method in methods} == {"GET", "POST"}
    for method in methods:
        assert method["ApiKeyRequired"] is True
        assert method["RequestParameters"]["method.request.header.Authorization"] is True


# What must work


def test_the_api_reaches_the_load_balancer_by_a_link_of_the_second_kind(template):
    (balancer,) = template.find_resources("AWS::ElasticLoadBalancingV2::LoadBalancer")
    (link,) = template.find_resources("AWS::ApiGatewayV2::VpcLink")
    for method in of_kind(template, "AWS::ApiGateway::Method"):
        integration = method["Integration"]
        assert integration["ConnectionType"] == "VPC_LINK"
        assert integration["ConnectionId"] == {"Ref": link}
        assert integration["IntegrationTarget"] == {"Ref": balancer}


def test_a_stage_in_the_path_is_taken_off_before_the_app_sees_it(plain):
    (rule,) = of_kind(plain, "AWS::ElasticLoadBalancingV2::ListenerRule")
    (rewrite,) = rule["Transforms"][0]["UrlRewriteConfig"]["Rewrites"]
    replacement = rewrite["Replace"].replace("$1", r"\1")
    assert re.sub(rewrite["Regex"], replacement, f"/{STAGE}{PATH}") == PATH
    assert rule["Conditions"][0]["PathPatternConfig"]["Values"] == [f"/{STAGE}/*"]


def test_what_may_take_long_streams_and_what_is_kept_depends_on_all_that_was_asked(plain):
    by_verb = {m["HttpMethod"]: m["Integration"] for m in of_kind(plain, "AWS::ApiGateway::Method")}
    assert by_verb["POST"]["ResponseTransferMode"] == "STREAM"
    assert by_verb["POST"]["TimeoutInMillis"] == 300_000  # else it is 29 seconds all the same
    get = by_verb["GET"]
    passed = set(re.findall(r"params\('(\w+)'\)", get["RequestTemplates"]["application/json"]))
    kept_by = {name.rpartition(".")[2] for name in get["CacheKeyParameters"]}
    assert kept_by == passed | {"Authorization"}


def test_the_api_is_throttled_has_a_quota_and_a_cache_that_encrypts(plain):
    plain.has_resource_properties(
        "AWS::ApiGateway::Stage",
        {
            "CacheClusterEnabled": True,
            "MethodSettings": [
                Match.object_like(
                    {"CacheDataEncrypted": True, "ThrottlingRateLimit": 5, "CacheTtlInSeconds": 60}
                )
            ],
        },
    )
    plain.has_resource_properties(
        "AWS::ApiGateway::UsagePlan",
        {"Quota": {"Limit": 50_000, "Period": "MONTH"}, "Throttle": Match.any_value()},
    )


def test_cloudfront_keeps_nothing_and_hands_on_what_a_page_needs(template):
    disabled = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"  # AWS's policy CachingDisabled
    all_viewer = "216adef6-5c7f-47e4-b989-5492eafa07d3"
    (distribution,) = of_kind(template, "AWS::CloudFront::Distribution")
    config = distribution["DistributionConfig"]
    page, (api,) = config["DefaultCacheBehavior"], config["CacheBehaviors"]
    assert page["CachePolicyId"] == api["CachePolicyId"] == disabled
    assert page["OriginRequestPolicyId"] == all_viewer  # with cookies and the Host
    assert page["Compress"] is False  # events arrive as they are sent
    assert api["PathPattern"] == f"/{STAGE}/*"


def test_a_page_stays_with_its_task_and_goes_where_a_model_is_open(plain):
    (targets,) = of_kind(plain, "AWS::ElasticLoadBalancingV2::TargetGroup")
    attributes = {a["Key"]: a["Value"] for a in targets["TargetGroupAttributes"]}
    assert attributes["stickiness.enabled"] == "true"
    assert attributes["stickiness.type"] == "lb_cookie"
    assert targets["HealthCheckPath"] == "/readyz"


def test_the_load_balancer_closes_idle_connections_before_the_app_does(plain):
    (balancer,) = of_kind(plain, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    attributes = {row["Key"]: row["Value"] for row in balancer["LoadBalancerAttributes"]}
    (kept,) = re.findall(r"--keep_alive=(\d+)", " ".join(containers(plain)["app"]["Command"]))
    assert int(attributes["idle_timeout.timeout_seconds"]) < int(kept)


def test_scaling_follows_the_metric_that_the_collector_writes(plain):
    collector = (ROOT / "infra/sidecars/collector/collector.yaml").read_text()
    settings = {v["Name"]: v["Value"] for v in containers(plain)["collector"]["Environment"]}
    (policy,) = of_kind(plain, "AWS::ApplicationAutoScaling::ScalingPolicy")
    metric = policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]
    assert metric["Namespace"] == settings["NAMESPACE"]
    assert metric["Dimensions"] == [{"Name": "Service", "Value": settings["SERVICE"]}]
    assert f"^{metric['MetricName']}$" in collector.replace("$$", "$")


def test_the_app_starts_when_the_model_is_there_whole(full, plain):
    app, fetch = containers(full)["app"], containers(full)["model"]
    assert app["DependsOn"] == [{"Condition": "SUCCESS", "ContainerName": "model"}]
    assert app["Command"][-2:] == ["--model", "/model"]
    assert {"Name": "MODEL_SHA256", "Value": MODEL} in fetch["Environment"]
    assert "model" not in containers(plain)  # the one in the image draws until one is published
    assert "--model" not in containers(plain)["app"]["Command"]


def test_logs_end_and_somebody_is_told(plain):
    assert all(group["RetentionInDays"] for group in of_kind(plain, "AWS::Logs::LogGroup"))
    plain.resource_count_is("AWS::CloudWatch::Alarm", 5)
    for alarm in of_kind(plain, "AWS::CloudWatch::Alarm"):
        assert alarm["AlarmActions"]
    plain.has_resource_properties("AWS::SNS::Subscription", {"Endpoint": "me@example.org"})
    plain.resource_count_is("AWS::Budgets::Budget", 1)


def test_nothing_costs_that_the_table_of_costs_does_not_name(plain):
    """Another kind of resource needs a look at infra/costs.py, then a place here."""
    free = {
        "AWS::ApiGateway::Account", "AWS::ApiGateway::ApiKey", "AWS::ApiGateway::Deployment",
        "AWS::ApiGateway::Method", "AWS::ApiGateway::Model", "AWS::ApiGateway::RequestValidator",
        "AWS::ApiGateway::Resource", "AWS::ApiGateway::UsagePlan",
        "AWS::ApiGateway::UsagePlanKey", "AWS::ApiGatewayV2::VpcLink",
        "AWS::ApplicationAutoScaling::ScalableTarget", "AWS::AutoScaling::AutoScalingGroup",
        "AWS::ApplicationAutoScaling::ScalingPolicy", "AWS::Budgets::Budget",
        "AWS::CloudFront::ResponseHeadersPolicy", "AWS::CloudFront::VpcOrigin",
        "AWS::EC2::InternetGateway", "AWS::EC2::LaunchTemplate", "AWS::EC2::RouteTable",
        "AWS::EC2::SecurityGroup", "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress", "AWS::EC2::Subnet",
        "AWS::EC2::SubnetRouteTableAssociation", "AWS::EC2::VPC",
        "AWS::EC2::VPCGatewayAttachment", "AWS::ECS::CapacityProvider",
        "AWS::ECS::ClusterCapacityProviderAssociations", "AWS::ECS::Service",
        "AWS::ECS::TaskDefinition", "AWS::ElasticLoadBalancingV2::Listener",
        "AWS::ElasticLoadBalancingV2::ListenerRule", "AWS::IAM::InstanceProfile",
        "AWS::ElasticLoadBalancingV2::TargetGroup", "AWS::IAM::Policy", "AWS::IAM::Role",
        "AWS::S3::BucketPolicy", "AWS::SNS::Subscription", "AWS::SNS::Topic",
        "AWS::SNS::TopicPolicy",
    }  # fmt: skip
    in_the_table = {
        "AWS::ApiGateway::RestApi", "AWS::ApiGateway::Stage", "AWS::CloudFront::Distribution",
        "AWS::CloudWatch::Alarm", "AWS::EC2::FlowLog", "AWS::EC2::VPCEndpoint",
        "AWS::ECS::Cluster", "AWS::ElasticLoadBalancingV2::LoadBalancer", "AWS::Logs::LogGroup",
        "AWS::S3::Bucket", "AWS::SecretsManager::Secret",
    }  # fmt: skip
    kinds = {resource["Type"] for resource in plain.to_json()["Resources"].values()}
    assert kinds - free == in_the_table


def test_the_image_is_built_from_this_tree_where_no_other_is_named():
    if not (ROOT / "deploy/Dockerfile").exists():
        pytest.skip("deploy/Dockerfile is not there: this installation has no container image")
    app = aws_cdk.App(context=SETTINGS)
    DrawingStack(app, "SdPokemon", Config())
    assets = json.loads((Path(app.synth().directory) / "SdPokemon.assets.json").read_text())
    sources = [image["source"] for image in assets["dockerImages"].values()]
    (own,) = [source for source in sources if source.get("dockerFile")]
    assert (own["dockerFile"], own["dockerBuildTarget"]) == ("deploy/Dockerfile", "cuda")


# A drawing as the query of a GET, as Velocity reads the template


class Text(str):
    """A string of Java's, which airspeed hands to the template."""

    def replaceAll(self, _, by: str) -> "Text":
        return Text(self.replace("\\'", by))  # airspeed has read the pattern's backslashes itself


class Util:
    def escapeJavaScript(self, text: str) -> Text:
        """As Apache Commons' StringEscapeUtils does."""
        escaped = json.dumps(text)[1:-1]
        return Text(escaped.replace("'", "\\'").replace("/", "\\/"))


class Input:
    def __init__(self, query: dict[str, str]):
        self._query = query

    def params(self, name: str) -> str:
        return self._query.get(name, "")


def body_of(query: dict[str, str]) -> dict:
    values = {"util": Util(), "input": Input(query)}
    return json.loads(airspeed.Template(drawing_query.template()).merge(values))


@pytest.mark.parametrize(
    "prompt",
    ["a red cat", 'the cat\'s "hat"', "back\\slash, \\' and \\\"", "two\nlines / ü 猫 $x #if"],
)
def test_words_arrive_as_they_were_written(prompt):
    body = body_of({"prompt": prompt, "seed": "7", "negative_prompt": prompt})
    assert body == {"prompt": prompt, "seed": 7, "negative_prompt": prompt}


def test_settings_arrive_as_numbers_where_they_are_given():
    body = body_of({"prompt": "x", "seed": "7", "steps": "20", "width": "512", "height": "768"})
    assert body == {"prompt": "x", "seed": 7, "steps": 20, "width": 512, "height": 768}


@pytest.mark.parametrize("seed", ['7, "num_images": 9', "7}", '"', "seven"])
def test_a_number_brings_no_setting_of_its_own(seed):
    with pytest.raises(json.JSONDecodeError):
        body_of({"prompt": "x", "seed": seed})


# Kubernetes


def test_kubernetes_takes_the_manifests_and_not_what_is_misspelt(tmp_path):
    for file in sorted((ROOT / "infra/kubernetes").glob("*.yaml")):
        for document in check.documents(file):
            assert not [fault for fault in check.faults(document, {}) if "wrong" in fault]
    (deployment, *_) = check.documents(ROOT / "infra/kubernetes/app.yaml")
    deployment["spec"]["template"]["spec"]["container"] = []
    assert [fault for fault in check.faults(deployment, {}) if "container" in fault]


def test_a_definition_of_a_custom_kind_is_used_where_it_is_there(tmp_path):
    whole = {"type": "object", "properties": {"size": {"type": "integer"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {
        "apiVersion": {}, "kind": {}, "metadata": {"type": "object"}, "spec": whole,
    }}}  # fmt: skip
    definition = {"spec": {
        "group": "example.org", "names": {"kind": "Thing"},
        "versions": [{"name": "v1", "schema": schema}],
    }}  # fmt: skip
    (tmp_path / "things.yaml").write_text(json.dumps(definition))
    custom = check.definitions(tmp_path)
    thing = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}}
    assert not [*check.faults(thing | {"spec": {"size": 1}}, custom)]
    assert "wrong" in next(check.faults(thing | {"spec": {"breadth": 1}}, custom))
    assert "unchecked" in next(check.faults(thing, {}))


# What checks the whole


def synthesised(folder: Path, **context: str) -> subprocess.CompletedProcess:
    """As the CDK's command line runs it, without credentials."""
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    environment |= {
        "CDK_OUTDIR": str(folder), "PYTHONPATH": str(ROOT),
        "CDK_CONTEXT_JSON": json.dumps(SETTINGS | context),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "infra"],
        cwd=ROOT / "infra", env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("config", [PLAIN, FULL], ids=["plain", "full"])
def test_cdk_nag_and_cfn_lint_have_nothing_to_say(tmp_path, config):
    context = {name: value for name, value in vars(config).items() if isinstance(value, str)}
    run = synthesised(tmp_path, **{name: value for name, value in context.items() if value})
    assert run.returncode == 0, run.stdout + run.stderr
    remarks = [file.read_text() for file in tmp_path.glob("*.json")]
    assert not [text for text in remarks if re.search("aws:cdk:(warning|error)", text)]
    lint = Path(sys.executable).with_name("cfn-lint")
    template = tmp_path / "SdPokemon.template.json"
    found = subprocess.run([lint, template], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    "context, sentence",
    [
        ({"model": "my-model"}, "Give the 64 characters"),
        ({"domain": "draw.example.org"}, "Give both or neither"),
        ({"min_tasks": "3"}, "no more than max_tasks"),
        ({"max_tasks": "many"}, "Give a whole number"),
        ({"endpoint_zones": "3"}, "Give 1 or 2"),
        ({"api_cache_seconds": "86400"}, "Give 1 to 3600"),
    ],
)
def test_a_wrong_parameter_ends_in_one_sentence(context, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Config.from_context(context.get)
