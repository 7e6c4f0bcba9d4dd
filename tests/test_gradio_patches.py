"""webapp/gradio_patches.py and gradio_tunnel.py: each patch works, and gradio still needs it.

A test named `test_gradio_itself_...` fails when gradio has mended the fault: the patch can go.
"""

import asyncio
import inspect
import logging
import os
import re
from contextlib import ExitStack, suppress
from itertools import count
from types import SimpleNamespace
from uuid import uuid4

import gradio as gr
import gradio.queueing
import httpx
import pytest
import virtual_time
from gradio import networking, tunneling
from gradio.blocks import BlocksConfig
from gradio.data_classes import PredictBodyInternal
from gradio.http_server import start_server
from gradio_client.utils import apply_diff
from PIL import Image
from ports import some_port
from test_rest_api import until
from test_uploads import gate_of

import app
from benchmarks import load_clients
from benchmarks.load_clients import Seen, Visitor
from benchmarks.load_server import Books, SleepingGenerator
from webapp import gradio_patches
from webapp.gradio_patches import IdleQueue, event_data, patiently, without_proxy

PATIENCE_SECONDS = 60
NUMBERS = count(1)  # of visitors


@pytest.fixture(scope="module")
def demo():
    demo = app.build_app(SleepingGenerator(0, Books()))
    app.serve(demo, "127.0.0.1", some_port())
    yield demo
    demo.close(verbose=False)


@pytest.fixture
def unpatch(monkeypatch):
    """Put back what gradio has under a name."""

    def put_back(name: str) -> object:
        (original,) = (each for each in gradio_patches.ORIGINALS if each.name == name)
        monkeypatch.setattr(*original)
        return original.replacement

    return put_back


async def draw(demo, times: int = 1, after=lambda: None) -> list:
    """A visitor draws so many times; what `after` gives after each."""
    url, given = f"http://127.0.0.1:{demo.server_port}", []
    visitor = Visitor(url, next(NUMBERS), Seen())  # of a session of its own
    for _ in range(times):
        await visitor.act()
        given.append(after())
    await visitor.close()
    return given


# The page


def edits_of_updates(demo, monkeypatch) -> list:
    edits = []

    def noted(shown: object, edit: list) -> object:
        edits.extend(edit)
        return apply_diff(shown, edit)

    monkeypatch.setattr(load_clients, "apply_diff", noted)
    asyncio.run(draw(demo))
    return [(action, path) for action, path, _ in edits]


def test_no_update_of_an_element_edits_the_one_before(demo, monkeypatch):
    edits = edits_of_updates(demo, monkeypatch)
    assert edits and all(edit == ("replace", []) for edit in edits)


def test_gradio_itself_edits_the_update_before(demo, monkeypatch, unpatch):
    unpatch("diff")
    assert any(path for _, path in edits_of_updates(demo, monkeypatch))


def page_source(loader) -> str:
    source, *_ = loader.get_source(gradio_patches.TEMPLATES, "frontend/index.html")
    return source


def test_the_page_has_our_tags_and_none_of_gradios(demo):
    source = page_source(gradio_patches.TEMPLATES.loader)
    assert "og:" not in source and "twitter:" not in source
    assert source.count(gradio_patches.HeadTags.OURS) == 1


def test_gradio_itself_shows_its_own_banner_for_a_link(unpatch):
    source = page_source(unpatch("loader"))
    assert re.search('property="og:image"[^>]*content="[^"]*gradio', source)


@pytest.mark.parametrize("sent", [None, 3, ["name"], "name", {"other": 1}])
def test_an_event_that_anybody_made_up_holds_nothing(sent):
    assert event_data(gr.EventData(None, sent)).get("name") is None
    assert event_data(gr.EventData(None, {"name": 7})).get("name") == 7


@pytest.mark.parametrize("sent", [None, 3, ["name"], "name"])
def test_gradio_itself_raises_for_an_event_that_anybody_made_up(sent):
    with pytest.raises(TypeError):
        _ = gr.EventData(None, sent).name


# Sessions


def holds_a_connection(demo) -> bool:
    return demo.get_config_file()["connect_heartbeat"]


def test_a_page_that_draws_nothing_holds_no_connection(demo):
    assert not holds_a_connection(demo)


def test_gradio_itself_holds_a_connection_for_each_page(demo, unpatch):
    unpatch("connect_heartbeat")
    assert holds_a_connection(demo)


def elements_remembered(demo) -> int:
    *_, session = demo.state_holder.session_data.values()  # the newest
    return len(session.blocks_config.blocks)


def test_a_visit_remembers_no_more_with_each_drawing(demo):
    remembered = asyncio.run(draw(demo, 3, lambda: elements_remembered(demo)))
    assert remembered == [len(demo.blocks)] * 3


def test_gradio_itself_remembers_more_with_each_drawing(demo, unpatch):
    unpatch("__setitem__")
    first, second, third = asyncio.run(draw(demo, 3, lambda: elements_remembered(demo)))
    assert len(demo.blocks) < first < second < third


def descriptions_made(demo, monkeypatch) -> int:
    """How many elements are described for a visit that draws."""
    described, original = [], BlocksConfig.config_for_block

    def noted(number: int, *rest) -> dict:
        described.append(number)
        return original(number, *rest)

    monkeypatch.setattr(BlocksConfig, "config_for_block", staticmethod(noted))
    asyncio.run(draw(demo))
    return len(described)


def test_a_visit_describes_no_element_of_the_page(demo, monkeypatch):
    assert descriptions_made(demo, monkeypatch) == 0


def test_gradio_itself_describes_every_element_for_a_visit(demo, monkeypatch, unpatch):
    unpatch("__copy__")
    assert descriptions_made(demo, monkeypatch) > 10


def two_listeners_leave(demo) -> None:
    """Two connections follow the events of a session that never ends, and close."""
    url, session = f"http://127.0.0.1:{demo.server_port}", uuid4().hex
    demo._queue.pending_messages_per_session[session] = asyncio.Queue()
    demo._queue.pending_event_ids_session[session] = {"never done"}
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_SECONDS) as client:
        with ExitStack() as streams:
            for _ in range(2):
                path = f"/gradio_api/queue/data?session_hash={session}"
                streams.enter_context(client.stream("GET", path))
        until(lambda: not gate_of(demo)._streams, PATIENCE_SECONDS)  # both answers have ended


@pytest.fixture
def logged():
    """The server's records of what went wrong in the app."""
    handler, records = logging.Handler(), []
    handler.emit = records.append
    logging.getLogger("uvicorn.error").addHandler(handler)
    yield records
    logging.getLogger("uvicorn.error").removeHandler(handler)


def test_two_listeners_of_a_session_may_leave(demo, logged):
    two_listeners_leave(demo)
    assert not logged


def test_gradio_itself_stumbles_over_the_second_listener_that_leaves(demo, logged, unpatch):
    unpatch("__delitem__")
    two_listeners_leave(demo)
    until(lambda: any(record.exc_info[0] is KeyError for record in logged), PATIENCE_SECONDS)


# The queue


def page_of_one_button() -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as page:
        gr.Button().click(lambda: None)
    return page


def count_wakeups(kind: type, virtual_seconds: float) -> int:
    """How often the loops of an empty queue ask to be woken."""

    async def idle() -> int:
        loop, wakeups = asyncio.get_running_loop(), []
        call_at = loop.call_at
        loop.call_at = lambda *given, **more: wakeups.append(1) or call_at(*given, **more)
        queue = kind(True, 40, 1.0, None, page_of_one_button(), None)
        queue.start()
        await asyncio.sleep(virtual_seconds)
        queue.close()
        return len(wakeups)

    return virtual_time.run(idle())


def test_an_empty_queue_sleeps():
    assert count_wakeups(IdleQueue, 60) < 200


def test_gradio_itself_polls_an_empty_queue(unpatch):
    assert count_wakeups(unpatch("Queue"), 1) > 500


def test_a_click_does_not_wait_for_a_queue_that_sleeps():
    waited = []

    async def click_after(pause: float, queue: IdleQueue) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(pause)
        clicked, done = loop.time(), asyncio.Event()

        async def process(events, *_) -> None:
            queue.active_jobs[queue.active_jobs.index(events)] = None
            waited.append(loop.time() - clicked)
            done.set()

        queue.process_events = process
        body = PredictBodyInternal(fn_index=0, data=[], session_hash="s")
        assert (await queue.push(body, None, None))[0]
        await asyncio.wait_for(done.wait(), 10)

    async def clicks() -> None:
        queue = IdleQueue(True, 40, 1.0, None, page_of_one_button(), None)
        queue.start()
        for pause in (0.0, 0.5, 5.0, 0.0, 61.7):
            await click_after(pause, queue)
        assert not queue.stopped and len(queue) == 0
        queue.close()

    virtual_time.run(clicks())
    assert waited == [pytest.approx(0, abs=0.002)] * 5


def test_a_queue_that_is_closed_ends_its_loop_and_what_it_runs():
    async def close() -> None:
        queue = IdleQueue(True, 40, 1.0, None, page_of_one_button(), None)
        processing = asyncio.create_task(queue.start_processing())
        running = asyncio.create_task(asyncio.sleep(3600))
        queue._asyncio_tasks.add(running)
        await asyncio.sleep(0.1)
        assert not running.cancelled()
        queue.close()
        await asyncio.wait_for(processing, 10)
        await asyncio.wait([running])
        assert running.cancelled()

    virtual_time.run(close())


def test_no_function_of_the_page_reports_progress_by_the_queue(demo):
    assert not any(function.tracks_progress for function in demo.fns.values())


def statistics_made(queue, monkeypatch) -> list:
    made = []
    monkeypatch.setattr(type(queue), "_get_df", staticmethod(lambda records: made.append(records)))
    queue.events_recorded = 1
    record = {"function": "f", "status": "success", "process_time": 1.0}
    with suppress(AttributeError):  # of None, which stands for a table
        queue.compute_analytics_summary([record])
    return made


def test_no_statistics_are_made_of_events(demo, monkeypatch):
    asyncio.run(draw(demo, 3))
    assert isinstance(demo._queue, IdleQueue) and len(demo._queue.event_analytics) <= 1
    assert statistics_made(demo._queue, monkeypatch) == []


def test_gradio_itself_makes_statistics_of_events(monkeypatch, unpatch):
    queue = unpatch("Queue")(True, 40, 1.0, None, page_of_one_button(), None)
    assert queue.ANALYTICS_MAX_EVENTS > 1000
    assert len(statistics_made(queue, monkeypatch)) == 1


# The server


def test_gradio_itself_gives_no_way_to_configure_uvicorn():
    given = set(inspect.signature(gr.Blocks.launch).parameters)
    assert not [name for name in given if re.search("uvicorn|backlog|limit|keep_alive", name)]
    ssl = {"ssl_keyfile", "ssl_certfile", "ssl_keyfile_password"}
    taken = set(inspect.signature(start_server).parameters)
    assert taken == {"app", "server_name", "server_port"} | ssl


def test_our_middleware_is_around_gradios(demo):
    server = demo.app
    assert type(server.middleware_stack).__name__ == "SecurityHeaders"


def test_gradio_itself_puts_its_middleware_around_that_of_app_kwargs(demo):
    outermost = demo.app.user_middleware[0].cls
    assert outermost.__module__.startswith("gradio")


def asks_by_proxy(monkeypatch) -> bool:
    """Whether gradio's look at its own server goes to a proxy of the environment."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    pools = []

    def noted(url: str, **_) -> httpx.Response:
        with httpx.Client() as client:
            pools.append(type(client._transport_for_url(httpx.URL(url))._pool).__name__)
        return httpx.Response(200)

    monkeypatch.setattr(networking.httpx, "head", noted)
    assert networking.url_ok("http://127.0.0.1:8/")
    return "Proxy" in pools[0]


def test_gradio_asks_its_own_server_without_a_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "example.org")
    with without_proxy():
        assert not asks_by_proxy(monkeypatch)
    assert asks_by_proxy(monkeypatch)
    assert os.environ["no_proxy"] == "example.org"


def test_gradio_itself_asks_its_own_server_by_way_of_a_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert asks_by_proxy(monkeypatch)


@pytest.mark.parametrize("late, answers", [(4, True), (5, False)])
def test_a_server_that_answers_late_is_waited_for(monkeypatch, late, answers):
    tries = []

    def slow(url: str, **_) -> httpx.Response:
        tries.append(url)
        if len(tries) <= late:
            raise httpx.ReadTimeout("timed out")
        return httpx.Response(200)

    monkeypatch.setattr(networking.httpx, "head", slow)
    assert not networking.url_ok("http://127.0.0.1:8/")  # gradio alone gives up at once
    tries.clear()
    with patiently():
        assert networking.url_ok("http://127.0.0.1:8/") is answers


# Tools for assistants


@pytest.fixture
def mcp_server():
    pytest.importorskip("mcp", reason="mcp is not installed")
    from gradio.mcp import GradioMCPServer

    with gr.Blocks(analytics_enabled=False) as page:
        gr.api(lambda: [], api_name="draw")
    return GradioMCPServer(page)


def test_gradio_itself_gives_assistants_no_picture_within_a_list(mcp_server, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    file = gr.FileData(path=str(path)).model_dump() | {"url": "http://here/a.png"}
    kinds = [part.type for part in mcp_server.postprocess_output_data([file], "http://here")]
    assert "image" in kinds
    (only,) = mcp_server.postprocess_output_data([[file]], "http://here")
    assert only.type == "text"


def test_gradio_itself_gives_assistants_settings_as_python_writes_them(mcp_server):
    (settings,) = mcp_server.postprocess_output_data([{"a": None}], "http://here")
    assert settings.text == "{'a': None}"


def test_gradio_itself_calls_the_app_without_a_password(mcp_server):
    made = inspect.getsource(type(mcp_server)._get_or_create_client)
    assert "trust_env" not in made and "auth" not in made and "ookie" not in made


# The tunnel program


@pytest.fixture
def tunnel():
    return tunneling.Tunnel("127.0.0.1", 9, "127.0.0.1", 7860, "token", None)


def test_gradio_itself_reads_on_when_the_tunnel_program_has_exited(tunnel, monkeypatch, capfd):
    reads, clock = [], iter(range(10**6))
    output = SimpleNamespace(readline=lambda: reads.append(1) or b"")
    tunnel.proc = SimpleNamespace(stdout=output)
    monkeypatch.setattr(tunneling.time, "time", lambda: next(clock))
    with pytest.raises(ValueError, match="Could not create share URL"):
        tunnel._read_url_from_tunnel_stream()
    assert len(reads) > 10
    assert capfd.readouterr().err  # its log


def test_gradio_itself_trusts_a_tunnel_program_that_is_there(tunnel, monkeypatch, tmp_path):
    program = tmp_path / "frpc"
    program.write_text("another program")
    monkeypatch.setattr(tunneling, "BINARY_PATH", str(program))
    tunnel.download_binary()


def test_gradio_itself_keeps_a_tunnel_program_with_a_wrong_checksum(tunnel, monkeypatch, tmp_path):
    monkeypatch.setattr(tunneling, "BINARY_FOLDER", str(tmp_path))
    monkeypatch.setattr(tunneling, "BINARY_PATH", str(tmp_path / "frpc"))
    monkeypatch.setitem(tunneling.CHECKSUMS, tunneling.BINARY_URL, "0" * 64)
    answer = httpx.Response(200, content=b"another", request=httpx.Request("GET", "http://x"))
    monkeypatch.setattr(tunneling.httpx, "get", lambda *_, **__: answer)
    with pytest.raises(tunneling.ChecksumMismatchError):
        tunnel.download_binary()
    assert (tmp_path / "frpc").exists()


def test_gradio_itself_writes_the_certificate_into_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRADIO_SHARE_SERVER_ADDRESS", raising=False)
    address = [{"host": "127.0.0.1", "port": 9, "root_ca": "a certificate"}]
    answer = SimpleNamespace(status_code=200, json=lambda: address)
    monkeypatch.setattr(networking.httpx, "get", lambda *_, **__: answer)
    monkeypatch.setattr(networking.Tunnel, "start_tunnel", lambda tunnel: "http://x")
    networking.setup_tunnel("127.0.0.1", 7860, "token", None, None)
    assert list(tmp_path.rglob("certificate.pem"))
