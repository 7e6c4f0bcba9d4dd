"""What the pages of a browser show and have met: told where a test of them fails."""

import pytest

MAX_EVENTS = 40  # of the last ones
MAX_TEXT = 4000  # characters of a page


def watch(context) -> None:
    """From now on keep what its pages complain of, and requests that fail."""
    context.events = events = []
    context.on("console", lambda said: said.type == "error" and events.append(said.text))
    context.on("weberror", lambda error: events.append(f"uncaught: {error.error}"))
    context.on(
        "requestfailed",
        lambda request: events.append(f"{request.method} {request.url}: {request.failure}"),
    )
    context.on("response", lambda answer: answer.status >= 400 and events.append(_line(answer)))


def _line(answer) -> str:
    return f"{answer.request.method} {answer.url}: {answer.status}"


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
        try:
            report.sections.append(("pages", account(context)))
        except Exception as error:  # a page that hangs is an account, too
            report.sections.append(("pages", f"They do not answer: {error}"))
    return report
