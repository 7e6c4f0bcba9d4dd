"""The parameters of the stack: defaults here, other values by `cdk deploy -c NAME=VALUE`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any


class ConfigError(Exception):
    """A parameter that cannot be: one sentence that says which, and what to give."""


@dataclass(frozen=True)
class Config:
    """What may differ between two installations; everything else is the same for all."""

    # What is drawn
    model: str = ""  # the name that publish_model.sh printed; empty: the model in the image
    image_repository: str = ""  # in ECR, of this account and region; empty: built from this tree
    image_tag: str = "latest"
    image_target: str = "cuda"  # of the Dockerfile, where the image is built from this tree

    # Where, and under which name
    region: str = "us-east-1"
    # com.amazonaws.global.cloudfront.origin-facing in that region
    cloudfront_prefix_list: str = "pl-3b927c52"
    domain: str = ""  # empty: a name below cloudfront.net
    certificate: str = ""  # ARN of a certificate for `domain`, in `region`
    edge_certificate: str = (
        ""  # the same in us-east-1, where CloudFront looks; empty: `certificate`
    )
    web_acl: str = ""  # ARN of a WAF web ACL of scope CLOUDFRONT; empty: none

    # How much
    instance_types: str = "g6.xlarge,g5.xlarge"  # whichever the region has left, the first first
    task_memory_mib: int = 11_000  # of the 16 GiB that these have
    min_tasks: int = 1  # a GPU each
    max_tasks: int = 2
    waiting_per_task: int = 3  # drawings, above which another task is started
    endpoint_zones: int = 1  # of the two, where VPC endpoints stand: each costs money by the hour

    # Programs
    api_requests_per_second: int = 5
    api_burst: int = 10
    api_requests_per_month: int = 50_000  # of each API key
    api_cache_gb: str = "0.5"  # 0.5, 1.6, 6.1, ... as API Gateway sells them; empty: no cache
    api_cache_seconds: int = 60  # refusals are kept as long as pictures are

    # Watching
    email: str = ""  # of alarms and the budget; empty: nobody is told
    budget_usd: int = 1_000  # a month, of the whole account
    log_days: int = 30

    def __post_init__(self) -> None:
        for wrong, sentence in self._faults():
            if wrong:
                raise ConfigError(sentence)

    def _faults(self) -> list[tuple[bool, str]]:
        return [
            (
                bool(self.model) and not re.fullmatch(r"[0-9a-f]{64}", self.model),
                f"model is {self.model!r}. Give the 64 characters that publish_model.sh printed.",
            ),
            (
                bool(self.domain) != bool(self.certificate),
                "domain and certificate go together. Give both or neither.",
            ),
            (
                bool(self.domain) and self.region != "us-east-1" and not self.edge_certificate,
                "CloudFront takes certificates of us-east-1 only. Give edge_certificate, too.",
            ),
            (
                not 1 <= self.min_tasks <= self.max_tasks,
                f"min_tasks is {self.min_tasks} and max_tasks {self.max_tasks}. "
                "Give at least 1, and no more than max_tasks.",
            ),
            (
                self.endpoint_zones not in (1, 2),
                f"endpoint_zones is {self.endpoint_zones}. Give 1 or 2.",
            ),
            (
                not 0 < self.api_cache_seconds <= 3600,
                f"api_cache_seconds is {self.api_cache_seconds}. Give 1 to 3600.",
            ),
        ]

    @classmethod
    def from_context(cls, value_of: Callable[[str], object]) -> "Config":
        """`value_of`: the value of a name in cdk's context, None where it is not there."""
        given: dict[str, Any] = {}
        for field in fields(cls):
            if (value := value_of(field.name)) is not None:
                given[field.name] = value if field.type is str else _number(field.name, value)
        return cls(**given)

    @property
    def instance_type_list(self) -> list[str]:
        return [name.strip() for name in self.instance_types.split(",")]


def _number(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ConfigError(f"{name} is {value!r}. Give a whole number.") from None
