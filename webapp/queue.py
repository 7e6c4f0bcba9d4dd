"""Fair queue of jobs: addresses take turns, and so do the clients of an address."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UserError
from sampling.request import BOUNDS, Request

if TYPE_CHECKING:
    from webapp.job import Job

DEFAULT_SIDE = 512  # pixels; the cost of a side that is left to the model
MAX_COST_OF_REQUEST = (
    BOUNDS["steps"][1] * BOUNDS["num_images"][1] * BOUNDS["width"][1] * BOUNDS["height"][1]
)
MAX_WAITING_JOBS = 28
MAX_WAITING_COST = 5 * MAX_COST_OF_REQUEST
# However many names the clients of an address make up: together they get no further than this, and
# the remaining places are for other addresses.
MAX_SHARED_JOBS = 20
MAX_SHARED_COST = 4 * MAX_COST_OF_REQUEST
MAX_JOBS_OF_CLIENT = 4
MAX_COST_OF_CLIENT = MAX_COST_OF_REQUEST
# Pictures of words that are being typed.
MAX_LIVE_JOBS_OF_CLIENT = 1  # as LiveQueue has it
MAX_LIVE_JOBS = 28
MAX_SHARED_LIVE_JOBS = 20


class Client(NamedTuple):
    """Where a job comes from: an address, and a name among those who share it."""

    address: str = ""  # "" for the app itself, which may fill the queue
    name: str = ""  # chosen by the client, who may use several


class Busy(UserError):
    """The queue is full. The same request may be accepted a minute later."""


class ClientBusy(Busy):
    """This client's share of the queue is full."""


def cost_of(requests: Sequence[Request]) -> int:
    """Steps x pixels x pictures: about proportional to the time that drawing takes."""
    return sum(
        r.denoising_steps * r.num_images * (r.width or DEFAULT_SIDE) * (r.height or DEFAULT_SIDE)
        for r in requests
    )


class FairQueue:
    """Waiting jobs in the order of drawing: round robin over addresses, and within an address over
    its clients. Not thread-safe.
    """

    def __init__(self) -> None:
        # By address and client name, both in the order of their turns.
        self._jobs: dict[str, dict[str, deque[Job]]] = {}

    def __iter__(self) -> "Iterator[Job]":
        return _in_turn(_in_turn(clients.values()) for clients in self._jobs.values())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, job: "Job") -> None:
        """Raises Busy where the queue is full, ClientBusy where the client's share of it is."""
        self._check_room(job)
        address, name = job.client
        self._jobs.setdefault(address, {}).setdefault(name, deque()).append(job)

    def _check_room(self, job: "Job") -> None:
        address, name = job.client
        clients = self._jobs.get(address, {})
        own, share = clients.get(name, ()), (MAX_JOBS_OF_CLIENT, MAX_COST_OF_CLIENT)
        if address and _is_full(own, job, *share):
            raise ClientBusy(
                f"Enough of your drawings are waiting already ({len(own)}). "
                "Try again when one is done."
            )
        beyond_share = address and _is_full([*chain(*clients.values())], job, *share)
        shared, whole = (MAX_SHARED_JOBS, MAX_SHARED_COST), (MAX_WAITING_JOBS, MAX_WAITING_COST)
        if _is_full([*self], job, *(shared if beyond_share else whole)):
            raise Busy(f"{len(self)} drawings are waiting already. Try again in a minute.")

    def take(self) -> "Job | None":
        """Remove and return the next job; None where the queue is empty. Its address, and its
        client within the address, go to the back."""
        job = next(iter(self), None)
        if job:
            address, name = job.client
            clients = self._jobs.pop(address)
            jobs = clients.pop(name)
            jobs.popleft()
            if jobs:
                clients[name] = jobs
            if clients:
                self._jobs[address] = clients
        return job

    def remove(self, job: "Job") -> bool:
        """Remove a job. Returns whether it was waiting."""
        address, name = job.client
        clients = self._jobs.get(address, {})
        if job not in clients.get(name, ()):
            return False
        clients[name].remove(job)
        if not clients[name]:
            del clients[name]
        if not clients:
            del self._jobs[address]
        return True


class LiveQueue(FairQueue):
    """Waiting live jobs: one of each client, the latest. Not thread-safe."""

    def add(self, job: "Job") -> None:
        """In the place of an earlier job of its client. Raises Busy where the queue is full."""
        earlier = self.of(job.client)
        if earlier is None:
            return super().add(job)
        address, name = job.client
        self._jobs[address][name] = deque([job])

    def of(self, client: Client) -> "Job | None":
        """The waiting job of a client."""
        return next(iter(self._jobs.get(client.address, {}).get(client.name, ())), None)

    def put_back(self, job: "Job") -> None:
        """Before all others: it had begun. A later job of its client keeps its place instead."""
        address, name = job.client
        others = self._jobs.pop(address, {})
        self._jobs = {address: {name: deque([job]), **others}, **self._jobs}

    def _check_room(self, job: "Job") -> None:
        of_address = len(self._jobs.get(job.client.address, {}))
        if len(self) >= MAX_LIVE_JOBS or of_address >= MAX_SHARED_LIVE_JOBS:
            raise Busy("Many people are drawing. A picture comes when you ask for it.")


def _in_turn(queues: "Iterable[Iterable[Job]]") -> "Iterator[Job]":
    """The first of each, then the second of each, and so on."""
    rounds = zip_longest(*queues)
    return (job for job in chain.from_iterable(rounds) if job)


def _is_full(waiting: "Collection[Job]", job: "Job", max_jobs: int, max_cost: int) -> bool:
    if not waiting:  # then even the largest job is accepted
        return False
    cost = sum(cost_of(j.requests) for j in (*waiting, job))
    return len(waiting) >= max_jobs or cost > max_cost
