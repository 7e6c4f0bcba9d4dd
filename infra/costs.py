"""What the stack costs a month, at three sizes: `python -m infra.costs` prints README's table.

The prices are assumptions: Amazon's list prices of us-east-1 in USD without tax, discounts and free
tiers, as they were known in November 2026. Look at yours before you believe the sums.
"""

import sys
from dataclasses import dataclass

HOURS = 730  # of a month
MILLION = 1_000_000
GPU_HOUR = 0.8048  # g6.xlarge, on demand; g5.xlarge 1.006
DISK_GB_MONTH, DISK_GB = 0.08, 80  # gp3
ENDPOINT_HOUR, ENDPOINTS = 0.01, 7  # in each zone; that of S3 is free
BALANCER_HOUR, BALANCER_UNIT_HOUR = 0.0225, 0.008
CACHE_HOUR = {"": 0.0, "0.5": 0.02, "1.6": 0.038}  # by GB
API_MILLION = 3.5
EDGE_GB, EDGE_MILLION = 0.085, 1.0  # Europe and North America, HTTPS
LOG_GB, METRIC_MONTH, ALARM_MONTH, SECRET_MONTH, OBJECT_GB = 0.5, 0.3, 0.1, 0.4, 0.023
OWN_METRICS = 5  # drawings waiting, and done, failed, cancelled, refused
INSIGHTS = 40  # metrics of Container Insights: cluster, service, task
ALARMS = 5 + 2  # ours, and those by which the service is scaled
PICTURE_MB = 0.5  # of 512 x 512 pixels
PAGE_REQUESTS = 20  # to CloudFront, for each picture


@dataclass(frozen=True)
class Size:
    """How much is drawn, and by what."""

    name: str
    gpus: float  # on average
    pictures: int  # a month
    by_programs: float  # share of them that the REST API draws
    endpoint_zones: int = 1
    cache_gb: str = "0.5"
    model_gb: float = 10


SIZES = (
    Size("a group: 1 GPU, 10,000 pictures", 1, 10_000, 0.1),
    Size("a product: 3 GPUs, 300,000 pictures", 3, 300_000, 0.5),
    Size("a service: 10 GPUs, 3,000,000 pictures", 10, 3 * MILLION, 0.5, 2, "1.6", 50),
)


def costs(size: Size) -> dict[str, float]:
    """USD a month, by what they are for."""
    traffic_gb = size.pictures * PICTURE_MB / 1000
    requests = size.pictures * PAGE_REQUESTS
    return {
        "GPU machines": size.gpus * GPU_HOUR * HOURS,
        "their disks": size.gpus * DISK_GB * DISK_GB_MONTH,
        "VPC endpoints": ENDPOINTS * size.endpoint_zones * ENDPOINT_HOUR * HOURS,
        "load balancer": (BALANCER_HOUR + BALANCER_UNIT_HOUR * max(1, size.gpus / 2)) * HOURS,
        "REST API and its cache": (
            size.pictures * size.by_programs * API_MILLION / MILLION
            + CACHE_HOUR[size.cache_gb] * HOURS
        ),
        "CloudFront": traffic_gb * EDGE_GB + requests / MILLION * EDGE_MILLION,
        "logs, metrics, alarms": (
            (1 + size.gpus + requests * 1e-6) * LOG_GB
            + (OWN_METRICS + INSIGHTS) * METRIC_MONTH
            + ALARMS * ALARM_MONTH
        ),
        "secret, buckets": SECRET_MONTH + (size.model_gb + traffic_gb * 0.01) * OBJECT_GB,
    }


def table() -> str:
    """The costs of all sizes, in Markdown."""
    columns = [costs(size) for size in SIZES]
    lines = [
        "| USD a month | " + " | ".join(size.name for size in SIZES) + " |",
        "| --- |" + " ---: |" * len(SIZES),
        *(
            f"| {what} | " + " | ".join(f"{column[what]:,.0f}" for column in columns) + " |"
            for what in columns[0]
        ),
        "| **together** | " + " | ".join(f"**{sum(c.values()):,.0f}**" for c in columns) + " |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
