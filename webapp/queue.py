"""Who is drawn next: addresses take turns, at each its clients, and nobody fills the line alone."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UserError
from sampling.request import BOUNDS, Request

if TYPE_CHECKING:
    from webapp.worker import Job

USUAL_SIDE = 512  # pixels; what a side counts for that is left to the model
LARGEST_COST = (
    BOUNDS["steps"][1] * BOUNDS["num_images"][1] * BOUNDS["width"][1] * BOUNDS["height"][1]
)
MAX_WAITING_JOBS = 28
MAX_WAITING_COST = 5 * LARGEST_COST
# Whatever names the clients of an address make up: what an address has beyond one client's share is
# among the first of the line, and the last places are for other addresses.
MAX_COMMON_JOBS = 20
MAX_COMMON_COST = 4 * LARGEST_COST
MAX_JOBS_OF_CLIENT = 4
MAX_COST_OF_CLIENT = LARGEST_COST


class Client(NamedTuple):
    """Who asks: an address, and one of those who share it."""

    address: str = ""  # "" is nobody in particular, and may fill the line
    name: str = ""  # made up by the client, who may have others


class Busy(UserError):
    """Too much waits already. The same request may be welcome a minute later."""


class ClientBusy(Busy):
    """Too much of this client's waits already."""


def cost_of(requests: Sequence[Request]) -> int:
    """Steps x pixels x pictures, to which the time of drawing is about proportional."""
    return sum(
        r.denoising_steps * r.num_images * (r.width or USUAL_SIDE) * (r.height or USUAL_SIDE)
        for r in requests
    )


class FairQueue:
    """Waiting jobs, in the order in which they will be drawn: one of each address in turn, and of
    the clients of an address one of each in turn.

    Not for two threads at once.
    """

    def __init__(self):
        # By address and name; the first of each is next.
        self._jobs: dict[str, dict[str, deque[Job]]] = {}

    def __iter__(self) -> "Iterator[Job]":
        return _in_turn(_in_turn(names.values()) for names in self._jobs.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, job: "Job") -> None:
        """Raises Busy when the line, or the share of the client or the address, is full."""
        address, name = job.client
        names = self._jobs.get(address, {})
        mine, share = names.get(name, ()), (MAX_JOBS_OF_CLIENT, MAX_COST_OF_CLIENT)
        if address and _is_full(mine, job, *share):
            raise ClientBusy(
                f"Enough of your drawings are waiting already ({len(mine)}). "
                "Try again when one is done."
            )
        beyond_share = address and _is_full([*chain(*names.values())], job, *share)
        common, whole = (MAX_COMMON_JOBS, MAX_COMMON_COST), (MAX_WAITING_JOBS, MAX_WAITING_COST)
        if _is_full([*self], job, *(common if beyond_share else whole)):
            raise Busy(f"{len(self)} drawings are waiting already. Try again in a minute.")
        self._jobs.setdefault(address, {}).setdefault(name, deque()).append(job)

    def take(self) -> "Job | None":
        """The next job, None for an empty line. Its address goes behind all others, and so does
        its client at the address."""
        job = next(iter(self), None)
        if job:
            address, name = job.client
            names = self._jobs.pop(address)
            rest = names.pop(name)
            rest.popleft()
            if rest:
                names[name] = rest
            if names:
                self._jobs[address] = names
        return job

    def remove(self, job: "Job") -> bool:
        """Whether the job was waiting; now it is not."""
        address, name = job.client
        names = self._jobs.get(address, {})
        if job not in names.get(name, ()):
            return False
        names[name].remove(job)
        if not names[name]:
            del names[name]
        if not names:
            del self._jobs[address]
        return True


def _in_turn(queues: "Iterable[Iterable[Job]]") -> "Iterator[Job]":
    """The first of each, then the second of each, and so on."""
    return (job for job in chain.from_iterable(zip_longest(*queues)) if job)


def _is_full(waiting: "Collection[Job]", job: "Job", max_jobs: int, max_cost: int) -> bool:
    if not waiting:  # then even the largest job may come
        return False
    cost = sum(cost_of(j.requests) for j in (*waiting, job))
    return len(waiting) >= max_jobs or cost > max_cost
