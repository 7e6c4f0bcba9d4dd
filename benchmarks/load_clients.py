"""The clients of benchmarks/load.py: programs and pages, patient and rude; all check what they get.

A client draws with a prompt and a seed that nobody else has, and knows the colour of its picture.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing

import httpx
from gradio_client.utils import apply_diff
from PIL import Image

from benchmarks.load_server import SIDE, colour_of
from sampling.request import SEEDS, Request
from webapp.api_drawings import RETRY_SECONDS
from webapp.queue import MAX_JOBS_OF_CLIENT, MAX_SHARED_JOBS

PATIENCE_SECONDS = 120  # what has not come by then is lost
PAUSE_SECONDS = 2.0  # between two things that a client does, on average
REFUSALS = (  # the sentences of a full line, each with the number that must stand there
    (re.compile(r"Enough of your drawings are waiting already \((\d+)\)\. "), MAX_JOBS_OF_CLIENT),
    (re.compile(r"(\d+) drawings are waiting already\. Try again in a minute\."), MAX_SHARED_JOBS),
)
NONSENSE = (
    b"", b"{", b"[]", b"null", b'{"prompt": "a", "steps": NaN}', b'{"prompt": "a", "seed": -1}',
    b'{"prompt": " "}', b'{"prompt": "a", "steps": 1e9}', b'{"prompt": "a", "scheduler": "x"}',
    b'{"prompt": "a", "width": 513}', b'{"prompt": "a", "prompt": "b"}', b"\xff\xfe",
    b'{"prompt": ["a"]}', b'{"prompt": "a", "num_images": 1000000}',
)  # fmt: skip


class Wrong(Exception):
    """An answer that should not have come, in a sentence."""


class Seen:
    """What all clients together have seen."""

    def __init__(self):
        self.counts = Counter()  # "drawn", "refused", "cancelled", "left", "nonsense"
        self.seconds: dict[str, list[float]] = defaultdict(list)  # of what was waited for
        self.wrong: list[str] = []


class Client:
    """Does one thing again and again, with pauses. Subclasses say what in `act`."""

    def __init__(self, url: str, number: int, seen: Seen):
        self.seen, self.random = seen, random.Random(number)
        # Shorter than the server's: else it may hang up just when the next request is sent.
        idle = httpx.Limits(keepalive_expiry=2)
        self.http = httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS, limits=idle)
        self._number, self._asked = number, 0

    async def act(self) -> None:
        raise NotImplementedError

    async def run(self, end: float) -> None:
        """Until `end` of time.monotonic(). What goes wrong is noted, and the client goes on."""
        while time.monotonic() < end:
            await asyncio.sleep(self.random.uniform(0, 2 * PAUSE_SECONDS))
            try:
                await self.act()
            except (Wrong, httpx.HTTPError, OSError) as error:  # also nothing, and no picture
                self.seen.wrong.append(f"{type(self).__name__} {self._number}: {error!r}")
        await self.close()

    async def close(self) -> None:
        await self.http.aclose()

    def question(self) -> dict:
        """A drawing that nobody else asks for."""
        self._asked += 1
        return {
            "prompt": f"creature {self._asked} of client {self._number}",
            "seed": self.random.randrange(SEEDS - 1),
            "num_images": self.random.choice((1, 1, 1, 2)),
            "steps": self.random.randint(3, 10),
        }

    def check_refusal(self, sentence: str) -> None:
        """Raises Wrong where this is no sentence of a line that is full."""
        for words, number in REFUSALS:
            if (found := words.search(sentence)) and int(found[1]) == number:
                self.seen.counts["refused"] += 1
                return
        raise Wrong(f"A full line was answered by: {sentence}")

    def check_pictures(self, asked: dict, pictures: list[bytes]) -> None:
        """Raises Wrong where these are not the PNGs that were asked for."""
        expected = [(asked["seed"] + i) % SEEDS for i in range(asked["num_images"])]
        if len(pictures) != len(expected):
            raise Wrong(f"{len(pictures)} pictures came where {len(expected)} were asked for.")
        for content, seed in zip(pictures, expected, strict=True):
            with Image.open(io.BytesIO(content)) as png:
                mine = json.loads(png.text["sd-pokemon"])["prompt"] == asked["prompt"]
                painted = png.convert("RGB").getpixel((SIDE // 2, SIDE // 2))
                if not mine or painted != colour_of(asked["prompt"], seed):
                    raise Wrong(f"A foreign picture came for {asked}: {png.text['parameters']!r}")
        self.seen.counts["drawn"] += 1


class Program(Client):
    """Draws by the REST API."""

    async def act(self) -> None:
        asked, started = self.question(), time.monotonic()
        answer = await self.http.post("/api/generate", json=asked)
        if answer.status_code == 429:
            self.seen.seconds["REST, refused"].append(time.monotonic() - started)
            if answer.headers.get("retry-after") != str(RETRY_SECONDS):
                raise Wrong("A 429 came without its Retry-After.")
            self.check_refusal(answer.json()["error"])
        elif answer.status_code == 200:
            images = [base64.b64decode(each["image"]) for each in answer.json()["images"]]
            self.check_pictures(asked, images)
        else:
            raise Wrong(f"{answer.status_code} came for {asked}: {answer.text[:200]}")


class HangingUp(Program):
    """Draws by the REST API, and mostly hangs up before the answer is there."""

    async def act(self) -> None:
        try:
            async with asyncio.timeout(self.random.uniform(0.02, PAUSE_SECONDS)):
                await super().act()
        except TimeoutError:
            self.seen.counts["left"] += 1


class Nonsense(Client):
    """Sends what is no request, and asks how the server is doing."""

    async def act(self) -> None:
        started, body = time.monotonic(), self.random.choice(NONSENSE)
        headers = {"Content-Type": "application/json"}
        answer = await self.http.post("/api/generate", content=body, headers=headers)
        self.seen.seconds["REST, nonsense"].append(time.monotonic() - started)
        if answer.status_code != 400 or list(answer.json()) != ["error"]:
            raise Wrong(f"{answer.status_code} came for {body!r}: {answer.text[:200]}")
        self.seen.counts["nonsense"] += 1
        started = time.monotonic()
        if (answer := await self.http.get("/healthz")).status_code != 200:
            raise Wrong(f"/healthz said {answer.status_code}.")
        self.seen.seconds["/healthz"].append(time.monotonic() - started)


class OpenPage:
    """One visit of the page: a session of gradio's queue, spoken to as a browser does."""

    def __init__(self, http: httpx.AsyncClient, session: str, config: dict):
        self._http, self._session = http, session
        names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self._usual = {names[c["id"]]: c["props"].get("value") for c in config["components"]}
        self._functions = {}  # what an event calls: (number, inputs, outputs), by "element.event"
        for function in config["dependencies"]:
            inputs, outputs = ([names[i] for i in function[k]] for k in ("inputs", "outputs"))
            for target, event in function["targets"]:
                name = f"{names.get(target) or 'page'}.{event}"
                self._functions[name] = (function["id"], inputs, outputs)
        self._alive = asyncio.create_task(self._stay())

    @classmethod
    async def opened(cls, http: httpx.AsyncClient, session: str) -> OpenPage:
        """The page, loaded."""
        page = cls(http, session, (await http.get("/config")).json())
        async for _ in page.follow("page.load", await page.join("page.load", {})):
            pass
        return page

    async def _stay(self) -> None:
        url = f"/gradio_api/heartbeat/{self._session}"
        async with self._http.stream("GET", url, timeout=None) as stream:
            async for _ in stream.aiter_raw():
                pass

    async def close(self) -> None:
        self._alive.cancel()
        await asyncio.gather(self._alive, return_exceptions=True)

    async def join(self, event: str, values: dict) -> str:
        """Queue what `event` calls, with values of elements, of others the usual ones; its id."""
        number, inputs, _ = self._functions[event]
        data = [values.get(name, self._usual.get(name)) for name in inputs]
        body = {"data": data, "fn_index": number, "session_hash": self._session}
        answer = await self._http.post("/gradio_api/queue/join", json=body)
        if answer.status_code != 200:
            raise Wrong(f"The queue said {answer.status_code}: {answer.text[:200]}")
        return answer.json()["event_id"]

    async def follow(self, event: str, event_id: str) -> AsyncIterator[dict]:
        """What the page shows, by element, after each update. Raises Wrong for an error."""
        names, shown = self._functions[event][2], None
        query = {"session_hash": self._session}
        async with self._http.stream("GET", "/gradio_api/queue/data", params=query) as stream:
            async for line in stream.aiter_lines():
                message = json.loads(line.removeprefix("data:") or "{}")
                kind = message.get("msg")
                if kind == "close_stream":
                    return
                if kind == "unexpected_error" or message.get("success") is False:
                    raise Wrong(f"The page got an error: {line[:200]}")
                if message.get("event_id") != event_id or "output" not in message:
                    continue
                data = message["output"].get("data", [])
                if kind == "process_generating" and shown is not None:
                    data = [apply_diff(*pair) for pair in zip(shown, data, strict=True)]
                shown = data
                yield dict(zip(names, shown, strict=False))
        raise Wrong("The stream of the page's queue ended before the drawing.")


class Visitor(Client):
    """Draws on the page."""

    drawings_of_visit = 5  # then somebody else opens the page
    cancels = False  # whether a drawing may end with that
    page: OpenPage | None = None

    async def act(self) -> None:
        if self.page is None or self._asked % self.drawings_of_visit == 0:
            await self._reopen()
        asked, started, status, pictures = self.question(), time.monotonic(), "", []
        values = {"negative_prompt": "", "guidance_scale": 5, "width": SIDE, "height": SIDE}
        values["scheduler"] = Request("usual").scheduler
        event_id = await self.page.join("generate.click", asked | values | {"new_seed": False})
        updates, joined = self.page.follow("generate.click", event_id), False
        async with asyncio.timeout(PATIENCE_SECONDS), aclosing(updates):
            async for shown in updates:
                if not joined:
                    self.seen.seconds["page, joined"].append(time.monotonic() - started)
                    joined = True
                    self.once_joined()
                if isinstance(shown["status"], str):
                    status = shown["status"]
                pictures = shown["gallery"].get("value") or pictures
                if self.is_enough(status):
                    self.seen.counts["left"] += 1
                    return await self._leave()
        await self._check(asked, status, pictures)

    def once_joined(self) -> None:
        """What the visitor does when the drawing is in line, or was refused."""

    def is_enough(self, status: str) -> bool:
        """Whether the visitor closes the page now."""
        return False

    async def _check(self, asked: dict, status: str, pictures: list[dict]) -> None:
        if "Cancelled." in status and self.cancels:
            self.seen.counts["cancelled"] += 1
        elif 'class="problem"' in status:
            self.check_refusal(status)
        else:
            urls = [each["image"]["url"] for each in pictures]
            answers = [await self.http.get(url) for url in urls]
            if any(answer.status_code != 200 for answer in answers):
                raise Wrong(f"A picture just drawn is not there: {urls}")
            self.check_pictures(asked, [answer.content for answer in answers])

    async def _reopen(self) -> None:
        await self._leave()
        session = f"{self._number}-{self.random.getrandbits(40):x}"
        self.page = await OpenPage.opened(self.http, session)

    async def _leave(self) -> None:
        if self.page:
            await self.page.close()
            self.page = None

    async def close(self) -> None:
        await self._leave()
        await super().close()


class Cancelling(Visitor):
    """Draws on the page, and mostly calls it off before the end."""

    cancels = True
    _calling_off: asyncio.Task | None = None

    async def act(self) -> None:
        try:
            await super().act()
        finally:
            if self._calling_off:
                self._calling_off.cancel()  # too late
                (end,) = await asyncio.gather(self._calling_off, return_exceptions=True)
                if isinstance(end, Exception):
                    raise end

    def once_joined(self) -> None:
        self._calling_off = asyncio.create_task(self._call_off(self.page))

    async def _call_off(self, page: OpenPage) -> None:
        await asyncio.sleep(self.random.uniform(0, PAUSE_SECONDS))
        await page.join("cancel.click", {})


class Closing(Visitor):
    """Closes the page in the middle of a drawing, or while it waits."""

    def is_enough(self, status: str) -> bool:
        waits = "Waiting" in status or "Step" in status
        return waits and self.random.random() < 0.2
