"""Which page a request goes to, where there are several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

if TYPE_CHECKING:
    from ray.serve._private.request_router.common import PendingRequest


class AddressRouter(ConsistentHashRouter):
    """Sends an address to the same page as before: what that page knows of a visitor, how much of
    the queue is theirs and which passwords they tried, no other page does.

    A load balancer that names sessions in the header X-Session-Id decides instead.
    """

    def _routing_key(self, pending_request: PendingRequest | None) -> str | None:
        if pending_request is not None and not pending_request.metadata.session_id:
            address, _, _ = pending_request.metadata._client.rpartition(":")
            if address:
                return address
        return super()._routing_key(pending_request)
