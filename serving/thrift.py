"""What gradio would keep in memory, or work out again and again, although nobody asks for it."""

import os

import gradio as gr

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
