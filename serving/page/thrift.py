"""What gradio would keep in memory, or work out again and again, although nobody asks for it."""

import os

import gradio as gr
from gradio.blocks import Block
from gradio.state_holder import SessionState

SESSIONS = 100  # visitors that are remembered, at 80 KB each; 20 can wait, others lose nothing
NEVER = "1000000000"


def spare_memory_and_time() -> None:
    """To be called before the page is laid out."""
    # Else it keeps the last 10,000 events and after each one makes statistics of all of them.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", NEVER)
    # Else it derives this anew at every update of a page, also of those that wait: more than half
    # of all that a server with many visitors did.
    described = gr.Gallery(render=False).api_info()
    gr.Gallery.api_info = lambda _: described
    SessionState.__setitem__ = _set_item


_gradios_own = SessionState.__setitem__


def _set_item(session: SessionState, key: int, value: object) -> None:
    """Remember an updated element by the number that it has on the page.

    gradio gives each update of an element a number of its own; under it the element's next value
    is remembered as well, and so a visit grows by some copies with each drawing.
    """
    if isinstance(value, Block):
        value._id = key
    _gradios_own(session, key, value)
