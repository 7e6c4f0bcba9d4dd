"""The pages of a browser: used again by the next test, and told of where a test of them fails."""

import pytest

MAX_EVENTS = 40  # of the last ones
MAX_TEXT = 4000  # characters of a page


def watch(context) -> None:
    """From now on keep what its pages complain of, requests that fail, and pages that are left."""
    context.events, context.left, context.failed = [], [], False
    events = context.events
    context.on("console", lambda said: said.type == "error" and events.append(said.text))
    context.on("weberror", lambda error: events.append(f"uncaught: {error.error}"))
    context.on(
        "requestfailed",
        lambda request: events.append(f"{request.method} {request.url}: {request.failure}"),
    )
    context.on("response", lambda answer: answer.status >= 400 and events.append(_line(answer)))


def _line(answer) -> str:
    return f"{answer.request.method} {answer.url}: {answer.status}"


SIZE = {"width": 1280, "height": 720}  # what Playwright gives a new page


def take_page(context):
    """A page for one test, to be left with `leave_page`: one that was left opens an address in a
    third of the time that a new one takes, since its process is there and has the scripts."""
    return context.left.pop() if context.left else context.new_page()


def leave_page(page) -> None:
    """Nothing of this page stays but its process; what it was waiting for is called off. One that
    a test gave scripts of its own is closed by that test."""
    if page.is_closed():
        return
    if page.context.failed:
        page.context.failed = False
        return page.close()
    if page.url.startswith("http"):
        page.evaluate("sessionStorage.clear()")
    page.goto("about:blank")
    page.mouse.move(0, 0)
    page.set_viewport_size(SIZE)
    page.emulate_media(color_scheme="null")
    page.context.left.append(page)


def account(context) -> str:
    """The events, and the text and the boxes of every page that is open."""
    lines = context.events[-MAX_EVENTS:]
    for page in context.pages:
        lines += ["", page.url, page.inner_text("body", timeout=5000)[:MAX_TEXT]]
        for box in page.locator("textarea:visible, input:visible").all():
            lines.append(f"{box.get_attribute('type')}: {box.input_value(timeout=1000)[:200]!r}")
    return "\n".join(lines)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A plugin's hook: adds the account to the report of a test that failed in a browser."""
    report = yield
    context = getattr(item, "funcargs", {}).get("browser")
    if report.when == "call" and report.failed and context:
        context.failed = True  # its page is left to no other test
        try:
            report.sections.append(("pages", account(context)))
        except Exception as error:  # a page that hangs is an account, too
            report.sections.append(("pages", f"They do not answer: {error}"))
    return report
