"""Every patch of gradio, and every use of its private attributes (the share tunnel's are in
gradio_tunnel.py).

Each says what it mends. tests/test_gradio_patches.py shows of each that it works, and that gradio
without it still misbehaves: after an upgrade a failing test names the patch that can go.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio.http_server
import gradio.queueing
import gradio.routes
import gradio.utils
from gradio import networking
from gradio.blocks import Block, BlocksConfig
from gradio.queueing import Event, Queue
from gradio.state_holder import SessionState
from jinja2 import BaseLoader, Environment

from webapp.connections import BoundedServer

if TYPE_CHECKING:
    from fastapi import FastAPI
    from gradio import Blocks, EventData
    from starlette.types import ASGIApp

SESSIONS = 100  # visitors that are remembered, at 80 KB each; 20 can wait, others lose nothing
TIMES_ASKED = 5  # whether the server answers, each for 3 s
IDLE_SECONDS = 1.0  # between two looks at a queue that is empty, whatever `push` has said


class Patch(NamedTuple):
    """An attribute of gradio's, and what takes its place."""

    owner: Any
    name: str
    replacement: object


def apply_patches() -> None:
    """To be called before the page is laid out."""
    for patch in PATCHES:
        setattr(*patch)


# The page


def replace_whole(old: object, new: object) -> list:
    """The edit that makes an output's next update out of its last, in place of `gradio.utils.diff`.

    gradio's own lists the parts that differ, and the page edits the last update in place. A page
    too busy to have rendered that one yet renders what is left of it: a picture followed by
    "nothing new here" is never seen.
    """
    return [] if old == new else [["replace", [], new]]


class HeadTags(BaseLoader):
    """Template loader: the page's HTML with our `head` tags in place of gradio's.

    gradio names itself and shows its own banner in link previews, twice. `head` of the server's
    state renders ours.
    """

    TAGS = re.compile(r"<meta\s+(?:property=\"og:|name=\"twitter:)[^>]*>\s*")
    OURS = (
        "{% if request.app.state.head is defined %}{{ request.app.state.head(request) }}{% endif %}"
    )

    def __init__(self, original: BaseLoader):
        self._original = original

    def get_source(self, environment: Environment, template: str) -> tuple:
        source, *rest = self._original.get_source(environment, template)
        if template == "frontend/index.html":
            source = self.TAGS.sub("", source).replace("</head>", f"{self.OURS}\n</head>", 1)
        return source, *rest


def event_data(event: EventData) -> dict:
    """What the page's script sent with an event; empty where it is no object, as anybody may send.

    gradio's own attribute access raises TypeError on those.
    """
    return event._data if isinstance(event._data, dict) else {}


# Sessions


class SessionConfig(BlocksConfig):
    """The page's configuration as one session has it, without descriptions of its elements.

    gradio describes all elements when a session begins, and each again at every update, for links
    to the whole state of a page. There are no such links here, and that was most of the work of a
    server with many visitors.
    """

    @staticmethod
    def config_for_block(*_: object) -> dict:
        return {}


def copy_for_session(page: BlocksConfig) -> BlocksConfig:
    """In place of `BlocksConfig.__copy__`, which begins a session."""
    copied = ORIGINAL_COPY(page)
    copied.__class__ = SessionConfig
    return copied


def set_session_item(session: SessionState, key: int, value: object) -> None:
    """Remember an updated element under its number on the page: `SessionState.__setitem__`.

    gradio numbers each update as a new element and remembers the next value under that number as
    well, so that a session grows by some copies with every drawing (gradio issue 11602 is the same
    symptom; its fix in pull request 13756 leaves these).
    """
    if isinstance(value, Block):
        value._id = key
    ORIGINAL_SET_ITEM(session, key, value)


def no_heartbeat(*_: object, **__: object) -> bool:
    """Whether each page holds a connection open for as long as it is: `connect_heartbeat`.

    A browser opens six connections to a host at most: with six tabs, none would hear anything
    more. What nobody listens to is cancelled without it (disconnects.py), and sessions are few.
    """
    return False


def delete_if_there(cache: gradio.utils.LRUCache, key: str) -> None:
    """Delete a key or do nothing: `LRUCache.__delitem__`.

    Where two connections listen to one session, gradio deletes its messages as each of them closes,
    and the second time raises KeyError.
    """
    if key in cache:
        OrderedDict.__delitem__(cache, key)


class SessionEvents:
    """Events in gradio's queue by session. For the thread of the event loop only."""

    def __init__(self, page: Blocks):
        self._queue = page._queue

    def has_messages(self, session: str | None) -> bool:
        """Whether there is, or was, an event that a listener of this session would hear of."""
        return session in self._queue.pending_messages_per_session

    def is_pending(self, session: str, event_id: object) -> bool:
        """Whether the session asked for this event, and it is not done."""
        return event_id in self._queue.pending_event_ids_session.get(session, ())

    async def cancel(self, session: str, before: float) -> None:
        """Cancel what the session asked for before a time of time.monotonic(), and forget the
        session where nothing else of it is left."""
        for event in self._of(session):
            if event.enqueue_time < before:
                await self._queue.clean_events(event_id=event._id)
        if not any(event.alive for event in self._of(session)):
            self._queue.pending_messages_per_session.pop(session, None)
            self._queue.pending_event_ids_session.pop(session, None)

    def _of(self, session: str) -> list[Event]:
        events = self._queue.event_ids_to_events.values()
        return [event for event in events if event.session_hash == session]


# The queue


class IdleQueue(Queue):
    """gradio's event queue, which sleeps while it is empty.

    gradio's own looks every millisecond whether there is an event, and every 10 ms whether one has
    progress to report: 7 % of a core while nobody is there. It also keeps the last 10,000 events,
    and makes statistics of all of them after each, for a route that is closed here.
    """

    stopped: bool

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._pushed = asyncio.Event()
        self.progress_update_sleep_when_free = IDLE_SECONDS  # no function here has a gr.Progress
        self.ANALYTICS_MAX_EVENTS = 1

    def start(self) -> None:
        self._pushed = asyncio.Event()  # of the event loop that is running now
        super().start()

    async def push(self, *arguments: Any, **options: Any) -> tuple:
        pushed = await super().push(*arguments, **options)
        self._pushed.set()
        return pushed

    async def start_processing(self) -> None:
        try:
            while not self.stopped:
                if not len(self):
                    await self._until_pushed()
                await Queue.start_processing(QueueUntilEmpty(self))
        finally:
            self.stopped = True
            self._cancel_asyncio_tasks()

    async def _until_pushed(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                await self._pushed.wait()
        self._pushed.clear()

    def compute_analytics_summary(self, records: list) -> dict:
        return self.cached_event_analytics_summary


class QueueUntilEmpty:
    """A queue as gradio's own processing loop is given it: stopped as soon as it is empty, so that
    the loop ends, and unharmed by that end."""

    def __init__(self, queue: IdleQueue):
        self._queue = queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def stopped(self) -> bool:
        return self._queue.stopped or not len(self._queue)

    @stopped.setter
    def stopped(self, _: bool) -> None: ...

    def _cancel_asyncio_tasks(self) -> None: ...


# The server


def wrap_outermost(server: Any, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
    """Put middleware around a server that was launched; gradio puts its own around that of
    `app_kwargs`."""
    server.middleware_stack = wrap(server.middleware_stack)


def launched_without_server(page: Blocks, app_kwargs: dict, options: dict) -> FastAPI:
    """What `launch` makes of a page, as an ASGI application: gradio takes a page that runs already
    as one that needs no server. Its queue starts with the application's lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        page.run_startup_events()
        await page.run_extra_startup_events()
        yield

    page.is_running, page.is_colab, page.local_url = True, False, ""
    app_kwargs = app_kwargs | {"lifespan": lifespan}
    server, _, _ = page.launch(app_kwargs=app_kwargs, _frontend=False, **options)
    server.startup_events_triggered = True
    server.middleware_stack = server.build_middleware_stack()
    return server


@contextmanager
def without_proxy() -> Iterator[None]:
    """For `launch`, which asks its own server over HTTP whether it is there: by way of a proxy,
    where the environment names one."""
    earlier = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "*"
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if earlier is not None:
            os.environ["no_proxy"] = earlier


@contextmanager
def patiently() -> Iterator[None]:
    """For `launch`, which gives its own server up that has not answered within 3 s: on a busy
    machine it may need longer."""
    plain = networking.url_ok
    networking.url_ok = lambda url: any(plain(url) for _ in range(TIMES_ASKED))
    try:
        yield
    finally:
        networking.url_ok = plain


def patch_mcp_server(
    server: Any,
    client: Callable[[], object],
    headers_of: Callable[[Any], dict[str, str]],
    flatten: Callable[[object], list],
) -> None:
    """Make gradio's MCP server call the app by `client()`, with the headers that `headers_of` gives
    for an assistant's request, and answer with what `flatten` makes of the outputs.

    gradio's own client knows no password, goes by way of any proxy and is one for all assistants;
    of files within a list they get the address alone, and of a dict Python's repr.
    """
    prepare, postprocess = server._prepare_tool_call_args, server.postprocess_output_data

    def prepare_with_headers(name: str, arguments: dict) -> tuple:
        endpoint, values, headers, function = prepare(name, arguments)
        request = server.mcp_server.request_context.request
        return endpoint, values, headers | headers_of(request), function

    server._prepare_tool_call_args = prepare_with_headers
    server._get_or_create_client = client
    server.postprocess_output_data = lambda data, url: postprocess(flatten(data), url)


ORIGINAL_COPY, ORIGINAL_SET_ITEM = BlocksConfig.__copy__, SessionState.__setitem__
TEMPLATES = gradio.routes.templates.env
PATCHES = (
    Patch(gradio.utils, "diff", replace_whole),
    Patch(gradio.utils, "connect_heartbeat", no_heartbeat),
    Patch(gradio.utils.LRUCache, "__delitem__", delete_if_there),
    Patch(TEMPLATES, "loader", HeadTags(TEMPLATES.loader)),
    Patch(BlocksConfig, "__copy__", copy_for_session),
    Patch(SessionState, "__setitem__", set_session_item),
    Patch(gradio.queueing, "Queue", IdleQueue),
    Patch(gradio.http_server, "Server", BoundedServer),
)
ORIGINALS = tuple(patch._replace(replacement=getattr(patch.owner, patch.name)) for patch in PATCHES)
