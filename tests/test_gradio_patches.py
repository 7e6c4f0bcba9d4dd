"""What gradio would keep or lose, and does not."""

import asyncio

import pytest
from gradio_client.utils import apply_diff
from ports import some_port

import app
from benchmarks import load_clients
from benchmarks.load_clients import Seen, Visitor
from benchmarks.load_server import Books, SleepingGenerator


@pytest.fixture
def demo():
    demo = app.build_app(SleepingGenerator(0, Books()))
    app.serve(demo, "127.0.0.1", some_port())
    yield demo
    demo.close(verbose=False)


def test_a_visit_remembers_no_more_with_each_drawing(demo):
    async def draw(times: int) -> list[int]:
        visitor, elements = Visitor(f"http://127.0.0.1:{demo.server_port}", 1, Seen()), []
        for _ in range(times):
            await visitor.act()
            (visit,) = demo.state_holder.session_data.values()
            elements.append(len(visit.blocks_config.blocks))
        await visitor.close()
        return elements

    assert asyncio.run(draw(3)) == [len(demo.blocks)] * 3


def test_no_update_of_an_element_edits_the_one_before(demo, monkeypatch):
    edits = []

    def noted(shown: object, edit: list) -> object:
        edits.extend(edit)
        return apply_diff(shown, edit)

    async def draw() -> None:
        visitor = Visitor(f"http://127.0.0.1:{demo.server_port}", 1, Seen())
        await visitor.act()
        await visitor.close()

    monkeypatch.setattr(load_clients, "apply_diff", noted)
    asyncio.run(draw())
    assert edits
    assert all((action, path) == ("replace", []) for action, path, _ in edits)
