"""The container's files agree with the app; deploy/prove_container.sh builds and runs the image."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import app
from webapp.http_security import OPEN_PATHS
from webapp.limits import MAX_DRAWING_BYTES, MAX_KEPT_BYTES, MAX_SLICE_BYTES, MAX_UPLOADED

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
PYTHON_OF = {"bookworm": "3.11", "trixie": "3.13"}  # Debian's releases
NOT_IN_AN_IMAGE = {"benchmarks", "deploy", "docs", "infra", "tests"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsq6r7QAAAABJRU5ErkJggg=="


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions, each with its words."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M)
    lines = text.replace("\\\n", "").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def words(instruction: str, mark: str = "") -> list[str]:
    """The JSON list of the only such instruction."""
    (found,) = (rest for name, rest in dockerfile() if name == instruction)
    return json.loads(found[found.index("[") :] if not mark else found.split(mark)[1])


def stages() -> dict[str, str]:
    """The stages by name, with what they start from."""
    pairs = [rest.split(" AS ") for name, rest in dockerfile() if name == "FROM"]
    return {pair[1] if len(pair) > 1 else "": pair[0] for pair in pairs}


def argument(name: str) -> str:
    return next(r for n, r in dockerfile() if n == "ARG" and r.startswith(f"{name}=")).split("=")[1]


def compose(name: str = "compose.yaml") -> dict:
    return yaml.safe_load((DEPLOY / name).read_text())


def proxy(directive: str) -> list[str]:
    """The values of a directive of nginx."""
    return re.findall(rf"^\s*{directive} (.+);", (DEPLOY / "nginx.conf").read_text(), re.M)


def test_the_python_of_the_image_is_one_that_is_tested_on_linux():
    release = re.fullmatch(
        r"debian:([a-z]+)-\d{8}-slim@sha256:[0-9a-f]{64}", argument("BASE").strip()
    )[1]
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    rows = matrix["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert PYTHON_OF[release] in {row["python"] for row in rows if "ubuntu" in row["os"]}
    assert f' {release} "$work/base.tar"' in (DEPLOY / "prove_container.sh").read_text()


def test_images_of_others_are_pinned_by_their_digests():
    ours = {"sd-pokemon:cpu", "sd-pokemon:cuda"}
    used = {service["image"] for service in compose()["services"].values()} - ours
    assert used and all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", image) for image in used)
    assert set(stages().values()) - {"${BASE}"} <= set(stages())


def test_there_is_a_target_for_each_kind_of_machine_and_the_cpu_needs_no_name():
    assert {"cpu", "cuda", "dev"} <= set(stages()) and stages()[""] == "cpu"
    assert stages()["cpu"] == stages()["cuda"] == "runtime"


def test_what_the_image_runs_is_understood_and_lets_nobody_in_without_a_password():
    python, program, *options = words("CMD")
    args = app.parse_args(options)
    assert (python, program) == ("python", "app.py")
    assert args.host == "0.0.0.0" and args.password is not None and not args.public


def test_ports_agree():
    port = app.parse_args([]).port
    assert ("EXPOSE", str(port)) in dockerfile()
    assert f"'127.0.0.1', {port}," in words("HEALTHCHECK")[-1]
    assert proxy("proxy_pass") == ["http://app"] and f"app:{port}" in proxy("server")
    published = {row.split(":")[1] for row in compose()["services"]["proxy"]["ports"]}
    assert published == {value.split()[0] for value in proxy("listen")}


class Page(BaseHTTPRequestHandler):
    """A page of the app, as far as health checks and a script that draws see it."""

    codes: dict[str, int]  # by path; 200 for any other
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.answer(b"ok")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Authorization"]))
        self.answer(json.dumps({"images": [{"image": PNG, "seed": 7}]}).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(self.codes.get(self.path, 200))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def page():
    handler = type("PageOfThisTest", (Page,), {"codes": {}, "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def health(port: int) -> int:
    """The exit code of the image's health check, asked of another port."""
    kind, python, *rest = ["CMD", *words("HEALTHCHECK", " CMD ")]
    assert (kind, python) == ("CMD", "python")
    asked = [word.replace(str(app.parse_args([]).port), str(port)) for word in rest]
    done = subprocess.run([sys.executable, *asked], env={"http_proxy": "http://127.0.0.1:9"})
    return done.returncode


def test_an_image_is_well_while_the_server_answers_and_only_then(page):
    assert any(f"'{path}'" in words("HEALTHCHECK")[-1] for path in OPEN_PATHS)
    assert health(page.server_port) == 0
    page.RequestHandlerClass.codes["/healthz"] = 503
    assert health(page.server_port) == 1
    page.server_close()
    assert health(page.server_port) == 1


def draw(page, *more: str) -> subprocess.CompletedProcess:
    script = [sys.executable, DEPLOY / "draw_once.py", f"http://127.0.0.1:{page.server_port}"]
    return subprocess.run([*script, *more], capture_output=True, text=True)


def test_one_picture_is_drawn_as_a_trial_with_the_password(page, tmp_path):
    (tmp_path / "password").write_text("a secret of ours\n")
    done = draw(page, "--password_file", tmp_path / "password", "--output", tmp_path / "red.png")
    assert done.returncode == 0 and "1 x 1 pixels" in done.stdout, done.stderr
    assert (tmp_path / "red.png").read_bytes().startswith(b"\x89PNG")
    assert page.RequestHandlerClass.seen == [("/api/generate", "Bearer a secret of ours")]


def test_a_page_that_refuses_or_is_never_ready_fails_the_trial(page):
    page.RequestHandlerClass.codes["/api/generate"] = 401
    refused = draw(page)
    assert refused.returncode == 1 and "answered 401" in refused.stderr
    page.RequestHandlerClass.codes["/readyz"] = 503
    late = draw(page, "--seconds", "0")
    assert late.returncode == 1 and "not ready" in late.stderr


def is_sent(path: str) -> bool:
    """Whether the builder gets to see a file, by .dockerignore: the last line that fits decides."""
    sent = True
    within = [str(part) for part in (*Path(path).parents, Path(path))]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!"))
            pattern = pattern.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            if any(part != "." and re.fullmatch(pattern, part) for part in within):
                sent = line.startswith("!")
    return sent


def test_the_builder_sees_all_that_an_image_is_made_of_and_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [name for name in listed.stdout.splitlines() if not name.startswith(".")]
    copied = {"setup_env.sh", "deploy/requirements.txt", "deploy/install_packages.sh"}
    needed = copied | {"LICENSE", "NOTICE"}
    for name in files:
        folder, _, rest = name.partition("/")
        if (rest and folder not in NOT_IN_AN_IMAGE) or (not rest and name.endswith(".py")):
            needed.add(name)
    assert {name for name in files if is_sent(name)} == needed
    others = [".git/config", ".venv/x.py", ".env", "deploy/secrets/password", "runs/a/run.json"]
    others += ["core/__pycache__/a.pyc", "sd-pokemon-model/checkpoint-9/x", "my-model/run.json"]
    assert not any(map(is_sent, others))
    sources = [rest for name, rest in dockerfile() if name == "COPY" and "--from" not in rest]
    assert {word for rest in sources for word in rest.split()[:-1]} == copied | {"."}


def pins(path: str) -> dict[str, str]:
    lines = (ROOT / path).read_text().splitlines()
    return dict(line.split("==", 1) for line in lines if re.match(r"[a-z]", line))


def test_the_image_has_the_versions_that_are_tested_and_no_tools_of_developers():
    ours, all_pins = pins("deploy/requirements.txt"), pins("requirements.txt")
    assert {name for name in ours if name not in all_pins} == {"openvino", "openvino-telemetry"}
    assert all(all_pins.get(name, pin) == pin for name, pin in ours.items())
    assert {"torch", "gradio", "mcp", "pillow-heif"} <= set(ours)
    assert not {"pytest", "ruff", "mypy", "playwright", "hypothesis"} & set(ours)


def test_the_app_of_the_compose_file_is_reached_through_the_proxy_alone():
    services, networks = compose()["services"], compose()["networks"]
    inside, outside = services["app"]["networks"], services["proxy"]["networks"]
    assert "ports" not in services["app"] and list(inside) == ["inside"]
    assert networks["inside"]["internal"] is True and set(outside) == {"inside", "outside"}
    address = outside["inside"]["ipv4_address"]
    assert services["app"]["environment"]["FORWARDED_ALLOW_IPS"] == address
    assert inside["inside"]["ipv4_address"] != address  # which it might be given, started first
    headers = dict(value.split() for value in proxy("proxy_set_header"))
    assert headers["X-Forwarded-For"] == "$remote_addr"  # never what a visitor sent


def test_both_services_can_do_as_little_as_they_must():
    for service in compose()["services"].values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"] and service["pids_limit"] and service["tmpfs"]


def test_the_app_of_the_compose_file_reads_its_password_from_a_secret():
    services, secrets = compose()["services"], compose()["secrets"]
    _, program, *options = services["app"]["command"]
    args = app.parse_args(options)
    assert program == "app.py" and args.host == "0.0.0.0"
    assert args.password_file == "/run/secrets/password" and services["app"]["secrets"] == [
        "password"
    ]
    files = [f"deploy/{secret['file']}" for secret in secrets.values()]
    ignored = subprocess.run(
        ["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert ignored.stdout.split() == files


def test_the_proxy_lets_through_what_the_app_takes_and_little_more():
    (limit,) = proxy("client_max_body_size")
    most = max(MAX_DRAWING_BYTES, MAX_SLICE_BYTES, MAX_UPLOADED)
    assert most <= int(limit.removesuffix("m")) * 2**20 <= 2 * most
    assert proxy("limit_req") and proxy("limit_conn") and proxy("limit_req_status") == ["429"]


def test_the_proxy_closes_idle_connections_before_the_app_does():
    (kept,) = proxy("keepalive_timeout")
    args = app.parse_args(compose()["services"]["app"]["command"][2:])
    assert int(kept.split("s")[0]) < args.keep_alive


def test_there_is_room_for_the_pictures_that_pages_show():
    (temporary,) = compose()["services"]["app"]["tmpfs"]
    room = int(re.search(r"size=(\d+)g", temporary)[1]) * 2**30
    assert MAX_KEPT_BYTES < room < int(compose()["services"]["app"]["mem_limit"][:-1]) * 2**30


def test_on_a_card_the_same_app_runs_from_the_target_for_cards():
    (name, service), *more = compose("compose.cuda.yaml")["services"].items()
    assert not more and name in compose()["services"]
    assert service["build"]["target"] in stages() and service["image"].endswith(":cuda")


def test_the_container_for_developers_is_a_target_and_calls_targets_of_make():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text()
    container = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
    build, (make, *targets) = container["build"], container["postCreateCommand"].split()
    assert build["target"] in stages() and make == "make"
    assert (ROOT / ".devcontainer" / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        rule = re.escape(target.replace(".venv/.ready", "$(READY)"))
        assert re.search(rf"^{rule}:", makefile, re.M)
