"""The public link: gradio's tunnel code with servers and tunnel programs of ours, offline."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gradio import networking, tunneling
from ports import some_port

import app
from core.errors import UserError
from webapp import gradio_tunnel, tunnel
from webapp.allowed_hosts import check_share_server
from webapp.tunnel import ENDED, THREAD_NAME, ShareLink

PROJECT = Path(app.__file__).parent
OPENS = "echo 'start proxy success: http://abc.gradio.live'; exec sleep 60"
ADDRESS = [{"host": "127.0.0.1", "port": 9, "root_ca": "a certificate"}]


class FakeServer(ThreadingHTTPServer):
    """Gives share server addresses at /api, and the tunnel program at /program."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.answers = {"/api": (200, json.dumps(ADDRESS).encode()), "/program": (404, b"")}
        self.seconds = 0.0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(self.server.seconds)
        status, body = self.server.answers[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """gradio's share server, as far as gradio can tell; nothing leaves the machine."""
    server = FakeServer()
    monkeypatch.chdir(tmp_path)
    for name in (*gradio_tunnel.PROXIES, "GRADIO_SHARE_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(networking, "GRADIO_API_SERVER", f"{server.url}/api")
    monkeypatch.setattr(tunneling, "CURRENT_TUNNELS", [])
    monkeypatch.setattr(tunneling, "BINARY_URL", f"{server.url}/program")
    monkeypatch.setattr(tunneling, "BINARY_FOLDER", str(tmp_path / "programs"))
    monkeypatch.setattr(tunneling, "BINARY_PATH", str(tmp_path / "programs" / "frpc"))
    yield server
    for opened in tunneling.CURRENT_TUNNELS:
        opened.kill()
    server.shutdown()
    server.server_close()


@pytest.fixture
def program(server, monkeypatch):
    """Make gradio run a shell script as its tunnel program."""

    def write(script: str) -> Path:
        path = Path(tunneling.BINARY_PATH)
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        monkeypatch.setitem(tunneling.CHECKSUMS, tunneling.BINARY_URL, checksum)
        return path

    return write


def link(server: str | None = None) -> ShareLink:
    return ShareLink("127.0.0.1", 7860, "token", server)


def until(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def nothing_is_left_running() -> bool:
    threads = [thread.name for thread in threading.enumerate()]
    programs = [tunnel.proc for tunnel in tunneling.CURRENT_TUNNELS if tunnel.proc]
    return THREAD_NAME not in threads and all(p.poll() is not None for p in programs)


def refusal(capfd, reason: str, **options) -> None:
    """Open a link that cannot be opened: one sentence, soon, nothing else said or left."""
    started = time.monotonic()
    seconds = 1 if "no answer" in reason else 20  # a busy machine may be slow to start a program
    sentence = link(**options).open(timeout_seconds=seconds)
    assert time.monotonic() - started < seconds + 4
    assert sentence.startswith("No public link: ") and reason in sentence
    assert "\n" not in sentence and "--host 0.0.0.0" in sentence and len(sentence) < 450
    until(nothing_is_left_running)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_tunnel_that_opens_gives_its_link_with_its_end_and_the_password(program, capfd):
    program(OPENS)
    opened = link()
    sentence = opened.open(timeout_seconds=20, password="a-password")
    assert sentence.endswith(": https://abc.gradio.live (password: a-password)")
    until_when = sentence.removeprefix("Public link, until ").partition(" at the latest")[0]
    end = datetime.strptime(until_when, "%A, %d %B %Y, %H:%M")
    assert abs(end - datetime.now() - timedelta(days=7)) < timedelta(minutes=2)
    assert not Path(".gradio").exists()  # gradio would keep the certificate in this folder
    opened.close()
    until(nothing_is_left_running)
    assert capfd.readouterr() == ("", "")


def test_a_link_that_ends_by_itself_says_so_and_one_that_is_closed_does_not(program, monkeypatch):
    monkeypatch.setattr(tunnel, "GRACE_SECONDS", 0.2)
    program("echo 'start proxy success: http://abc.gradio.live'; sleep 0.2")
    opened, said = link(), []
    assert "https://" in opened.open(timeout_seconds=20)
    opened.watch(said.append)
    assert said == [ENDED]
    program(OPENS)
    closed = link()
    assert "https://" in closed.open(timeout_seconds=20)
    closed.close()
    closed.watch(said.append)
    assert said == [ENDED]


def test_a_chatty_tunnel_does_not_stand_still_because_nobody_reads(program, tmp_path):
    program(
        "echo 'start proxy success: http://abc.gradio.live'; "
        f"head -c 300000 /dev/zero; touch {tmp_path}/through; exec sleep 60"
    )
    opened = link()
    assert "https://" in opened.open(timeout_seconds=20)
    until((tmp_path / "through").exists)
    opened.close()


def test_ones_own_share_server_is_passed_to_the_program(program, tmp_path):
    program(
        f'echo "$@" > {tmp_path}/told; echo "start proxy success: http://x.example:80"; '
        "exec sleep 60"
    )
    opened = link(server="share.example.org:7000")
    sentence = opened.open(timeout_seconds=20)
    assert sentence == "Public link, for as long as its server keeps it: http://x.example:80"
    opened.close()
    told = (tmp_path / "told").read_text()
    assert "--server_addr share.example.org:7000" in told and "-l 7860 -i 127.0.0.1" in told


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec sleep 60", "no answer in 1 s"),
        ("while true; do echo trying; sleep 0.1; done", "no answer in 1 s"),
        ("exit 3", "the tunnel program stopped"),
        ("echo one; echo no such option; exit 2", "the tunnel program stopped: no such option"),
        (
            "echo 'login to server failed: dial tcp: lookup x: no such host'; exec sleep 60",
            "the share server refuses: dial tcp: lookup x: no such host",
        ),
    ],
)
@pytest.mark.parametrize("own", [None, "127.0.0.1:9"])
def test_a_tunnel_program_that_fails(program, capfd, script, reason, own):
    program(script)
    refusal(capfd, reason, server=own)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (500, b"oh no", "gradio's share server gives no address: status 500"),
        (200, b"<html>a hotel's login page", "gives an answer that is no address"),
        (200, b'{"host": 1}', "gives an answer that is no address"),
        (200, b'[{"host": "127.0.0.1"}]', "gives an answer that is no address"),
    ],
)
def test_a_server_that_answers_nonsense(server, program, capfd, status, body, reason):
    program(OPENS)
    server.answers["/api"] = (status, body)
    refusal(capfd, reason)


def test_a_server_that_is_silent(server, program, capfd):
    program(OPENS)
    server.seconds = 2
    refusal(capfd, "no answer in 1 s")


def test_an_address_that_is_none_is_a_sentence(program, capfd, monkeypatch):
    program("echo 'start proxy success: http://[nonsense'; exec sleep 60")
    refusal(capfd, "the tunnel program gives an address that is none")
    monkeypatch.setenv("GRADIO_SHARE_SERVER_ADDRESS", "nowhere")
    refusal(capfd, "Give HOST:PORT")


def test_no_name_service(program, capfd, monkeypatch):
    program(OPENS)

    def unknown(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refusal(capfd, "gives no address: [Errno -3] Temporary failure in name resolution")


@pytest.mark.parametrize(
    "proxy", ["http://127.0.0.1:9", "nonsense://proxy:1", "socks5://127.0.0.1"]
)
def test_a_proxy_that_does_not_work_is_named(program, capfd, monkeypatch, proxy):
    program(OPENS)
    monkeypatch.setenv("all_proxy", proxy)
    refusal(capfd, "(through the proxy of all_proxy)")


def test_a_tunnel_program_that_cannot_be_fetched(server, capfd):
    refusal(capfd, "the tunnel program cannot be fetched: status 404")
    server.answers["/program"] = (403, b"")
    refusal(capfd, "this platform is incompatible")


def test_a_program_with_another_checksum_is_never_run(server, program, capfd, tmp_path):
    monkey = f"touch {tmp_path}/ran; {OPENS}"
    path = program(OPENS)
    path.write_text(f"#!/bin/sh\n{monkey}\n")
    refusal(capfd, f"{path} is not gradio's tunnel program (wrong checksum); delete it")
    path.unlink()
    server.answers["/program"] = (200, f"#!/bin/sh\n{monkey}\n".encode())
    refusal(capfd, "the tunnel program came with a wrong checksum; it is deleted")
    assert not path.exists() and not (tmp_path / "ran").exists()


def test_a_folder_that_cannot_be_written(server, capfd, tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # root may write into any folder, but not below a file
    monkeypatch.setattr(tunneling, "BINARY_FOLDER", str(tmp_path / "file" / "programs"))
    monkeypatch.setattr(tunneling, "BINARY_PATH", str(tmp_path / "file" / "programs" / "frpc"))
    refusal(capfd, "HF_HOME names another folder")


def test_a_program_that_is_none(program, capfd):
    program("").chmod(0o644)
    refusal(capfd, "the tunnel program cannot be run: Permission denied")


def test_a_folder_without_write_permission_does_not_matter(program, tmp_path, monkeypatch):
    program(OPENS)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    os.rmdir(tmp_path / "here")  # nothing can be written into a folder that is gone
    opened = link()
    assert "https://" in opened.open(timeout_seconds=20)
    opened.close()


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":7000", "host:x", "host:70000", "http://h:1", "h:1:2", "h:٣"]
)
def test_a_share_server_is_host_and_port(address):
    with pytest.raises(UserError, match="Give HOST:PORT"):
        check_share_server(address)


def test_a_share_server_may_have_any_kind_of_host():
    for address in ("share.example.org:7000", "10.0.0.1:1", "[::1]:65535", "my-host_1:80"):
        check_share_server(address)


APP = """
import sys
sys.path[:0] = {paths!r}
import hashlib, app
from pathlib import Path
from fakes import FakeGenerator
from gradio import networking, tunneling

class Opening(FakeGenerator):
    def __init__(self, model): super().__init__()
    def open(self, **options): pass

app.OpeningGenerator = Opening
networking.GRADIO_API_SERVER = {api!r}
tunneling.BINARY_PATH = {program!r}
tunneling.CHECKSUMS[tunneling.BINARY_URL] = {checksum!r}
app.run({arguments!r})
"""


def start_app(program: Path, api: str, *arguments: str) -> tuple[subprocess.Popen, int]:
    port = some_port()
    script = APP.format(
        paths=[str(PROJECT), str(PROJECT / "tests")],
        api=api,
        program=str(program),
        checksum=hashlib.sha256(program.read_bytes()).hexdigest(),
        arguments=["--port", str(port), *arguments],
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return running, port


def lines_until(running: subprocess.Popen, words: str) -> str:
    said = ""
    for line in running.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"ended without {words!r}: {said}{running.stderr.read()}")


def test_the_command_shares_with_a_password_and_ends_the_program_when_terminated(
    server, program, tmp_path
):
    import httpx

    path = program(f"echo $$ > {tmp_path}/id; {OPENS}")
    running, port = start_app(path, f"{server.url}/api", "--share")
    said = lines_until(running, "Public link, until")
    password = said.rpartition("(password: ")[2].rstrip(")\n")
    assert len(password) == 22 and f"Password: {password}\n" in said
    assert httpx.get(f"http://127.0.0.1:{port}/config").status_code == 401
    bearer = {"Authorization": f"Bearer {password}"}
    assert httpx.get(f"http://127.0.0.1:{port}/config", headers=bearer).status_code == 200
    program_id = int((tmp_path / "id").read_text())
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 128 + signal.SIGTERM
    assert running.stderr.read() == ""
    with pytest.raises(ProcessLookupError):
        os.kill(program_id, 0)


def test_without_a_link_the_command_keeps_running_even_behind_a_dead_proxy(
    program, monkeypatch, tmp_path
):
    import httpx

    path = program(OPENS)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    running, port = start_app(path, "http://127.0.0.1:9/api", "--share", "--public")
    said = lines_until(running, "No public link")
    assert "assword" not in said.partition("No public link")[0]
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"http://127.0.0.1:{port}/config").status_code == 200
    running.terminate()
    running.wait(20)
    assert running.stderr.read() == ""


def test_a_public_link_opens_the_page_by_its_own_name_alone(server, program):
    import httpx

    running, port = start_app(program(OPENS), f"{server.url}/api", "--share", "--public")
    lines_until(running, "Public link, until")
    names = ("abc.gradio.live", f"127.0.0.1:{port}", "evil.example")
    url = f"http://127.0.0.1:{port}/config"
    answers = [httpx.get(url, headers={"Host": name}, trust_env=False) for name in names]
    running.terminate()
    running.wait(60)
    assert [answer.status_code for answer in answers] == [200, 200, 421]


def test_a_password_of_the_environment_is_shown_to_nobody(server, program, monkeypatch, tmp_path):
    monkeypatch.setenv("SD_POKEMON_PASSWORD", "password-of-theirs")
    path = program(f"env > {tmp_path}/inherited; {OPENS}")
    running, _ = start_app(path, f"{server.url}/api", "--share")
    said = lines_until(running, "Public link, until")
    listed = Path(f"/proc/{running.pid}/cmdline")
    shown = listed.read_bytes() if listed.exists() else b""  # no such list on a Mac
    running.terminate()
    running.wait(60)
    inherited = (tmp_path / "inherited").read_text()
    assert "Password: the one you gave" in said and "PATH" in inherited
    assert "password-of-theirs" not in said + inherited and b"password-of-theirs" not in shown
