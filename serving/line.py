"""Who is drawn next: clients take turns, and nobody fills the line alone."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from errors import UserError
from serving.request import BOUNDS, Request

if TYPE_CHECKING:
    from serving.worker import Job

USUAL_SIDE = 512  # pixels; what a side counts for that is left to the model
LARGEST_COST = (
    BOUNDS["steps"][1] * BOUNDS["num_images"][1] * BOUNDS["width"][1] * BOUNDS["height"][1]
)
MAX_WAITING_JOBS = 20
MAX_WAITING_COST = 4 * LARGEST_COST
MAX_JOBS_OF_CLIENT = 4
MAX_COST_OF_CLIENT = LARGEST_COST


class Busy(UserError):
    """Too much waits already. The same request may be welcome a minute later."""


def cost_of(requests: Sequence[Request]) -> int:
    """Steps x pixels x pictures, to which the time of drawing is about proportional."""
    return sum(
        r.steps * r.num_images * (r.width or USUAL_SIDE) * (r.height or USUAL_SIDE)
        for r in requests
    )


class Line:
    """Waiting jobs, in the order in which they will be drawn: one of each client in turn.

    A client is whoever `Job.client` says; "" is nobody in particular, and may fill the line.
    Not for two threads at once.
    """

    def __init__(self):
        self._jobs: dict[str, deque[Job]] = {}  # of each client; the first client is next

    def __iter__(self) -> "Iterator[Job]":
        rounds = zip_longest(*self._jobs.values())
        return (job for job in chain.from_iterable(rounds) if job)

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def add(self, job: "Job") -> None:
        """Raises Busy when the line, or the client's share of it, is full."""
        mine = self._jobs.get(job.client, ())
        if job.client and _is_full(mine, job, MAX_JOBS_OF_CLIENT, MAX_COST_OF_CLIENT):
            raise Busy(
                f"Enough of your drawings are waiting already ({len(mine)}). "
                "Try again when one is done."
            )
        if _is_full(self, job, MAX_WAITING_JOBS, MAX_WAITING_COST):
            raise Busy(f"{len(self)} drawings are waiting already. Try again in a minute.")
        self._jobs.setdefault(job.client, deque()).append(job)

    def take(self) -> "Job | None":
        """The next job, None for an empty line. Its client goes behind all others."""
        job = next(iter(self), None)
        if job:
            rest = self._jobs.pop(job.client)
            rest.popleft()
            if rest:
                self._jobs[job.client] = rest
        return job

    def remove(self, job: "Job") -> bool:
        """Whether the job was waiting; now it is not."""
        mine = self._jobs.get(job.client, ())
        if job not in mine:
            return False
        mine.remove(job)
        if not mine:
            del self._jobs[job.client]
        return True


def _is_full(waiting: "Collection[Job]", job: "Job", max_jobs: int, max_cost: int) -> bool:
    if not waiting:  # then even the largest job may come
        return False
    cost = sum(cost_of(j.requests) for j in (*waiting, job))
    return len(waiting) >= max_jobs or cost > max_cost
