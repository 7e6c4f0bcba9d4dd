"""What gradio would keep, and does not."""

import asyncio

import pytest
from ports import some_port

import app
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
