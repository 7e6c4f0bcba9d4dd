"""Ask a page that is being served for one picture: does it draw?

python draw_once.py http://127.0.0.1:7860 --password_file FILE --output red.png

Waits until the model is open. It needs nothing but Python. Exit code 0: a picture came.
"""

import argparse
import base64
import json
import ssl
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("url")
parser.add_argument("--prompt", default="a red creature with wings")
parser.add_argument("--password_file", type=Path, help="of the page")
parser.add_argument("--certificate", help="of a server that made its own")
parser.add_argument("--output", help="the PNG file to write")
parser.add_argument("--seconds", type=float, default=600, help="to wait for it (%(default)s)")
args = parser.parse_args()

password = args.password_file.read_text().strip() if args.password_file else ""
context = ssl.create_default_context(cafile=args.certificate)
opened = build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open
began = time.monotonic()
while True:
    try:
        opened(f"{args.url}/readyz", timeout=10)
        break
    except (HTTPError, URLError, OSError) as error:
        if time.monotonic() > began + args.seconds:
            late = f"{args.url} was not ready after {args.seconds:.0f} s: {error}"
            raise SystemExit(late) from None
        time.sleep(0.5)
ready = time.monotonic()

body = json.dumps({"prompt": args.prompt, "seed": 7}).encode()
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {password}"}
try:
    answer = json.load(opened(Request(f"{args.url}/api/generate", body, headers), timeout=600))
except HTTPError as error:
    raise SystemExit(f"{args.url} answered {error.code}: {error.read(1000).decode()}") from None
picture = base64.b64decode(answer["images"][0]["image"])
if not picture.startswith(b"\x89PNG"):
    raise SystemExit(f"{args.url} answered with something that is no PNG: {picture[:20]!r}")
if args.output:
    with open(args.output, "wb") as file:
        file.write(picture)
width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
sys.stdout.write(
    f"ready after {ready - began:.1f} s; a picture of {width} x {height} pixels, "
    f"{len(picture):,} bytes, in {time.monotonic() - ready:.1f} s\n"
)
