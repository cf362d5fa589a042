"""Who gets in: other users, foreign folders, and clients that say what is not so."""

import io
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zmq
from tests.storage.recording import Recorded
from tests.system.harness import (
    Trainer,
    daemon,
    environment,
    flightlogd,
    kill_all,
    make_home,
    read_rows,
    status,
    wait_until,
    worker_pid,
)

from flightlog._daemon import find_socket
from flightlog_storage.event import FileRequested, WriterId
from flightlog_storage.frame import FLAG_GAP, pack_frame
from flightlog_storage.home import Home
from flightlog_storage.inbox import make_token
from flightlog_storage.protocol import (
    TOKEN_SIZE,
    Hello,
    Refused,
    Welcome,
    decode_reply,
    encode,
    writer_of,
)

pytestmark = pytest.mark.once

STRANGER = 12345  # A uid that nobody has.
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root to be two users")

BECOMES_A_STRANGER = f"""
import errno, hashlib, json, os, socket, sys, zmq
from flightlog_storage.frame import pack_frame
from flightlog_storage.protocol import *
os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})
"""
# With a umask that shields nothing, and all that leaves files in a home.
BUSY = """
import os, sys
os.umask(0)
from pathlib import Path
import flightlog
Path("out").mkdir()
Path("w.bin").write_bytes(b"w" * 70000)
run = flightlog.init(project="p", id="r", resume="auto")
run.watch_outputs(output_dirs="out")
run.log_image("x", b"image")
run.log({"h": flightlog.Histogram([1.0, 2.0]), "a": 1})
artifact = flightlog.Artifact("weights", type="model")
artifact.add_file("w.bin")
run.log_artifact(artifact)
run.save("w.bin")
run.log_dataset("d", "out", save=True)
Path("out/model.bin").write_bytes(b"m" * 1000)
run.scan_outputs_once(output_dirs="out")
run.dir
run.log_config(extra={"lr": 1})
for i in range(3000):
    run.log({"a": i})
run.flush()
print("busy", flush=True)
sys.stdin.readline()
run.finish()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def home(place: Path) -> Iterator[Home]:
    home = make_home(place)
    yield home
    kill_all(home)


def as_stranger(code: str, *arguments: str) -> Any:
    """Return what the code, run as another user, leaves in `found`."""
    program = f"{BECOMES_A_STRANGER}{code}print(json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def walk(root: Path) -> list[tuple[str, str]]:
    """Return what in a home others could use, with its mode."""
    found = []
    for path in (root, *root.rglob("*")):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue  # Deleted meanwhile.
        wanted = 0o700 if stat.S_ISDIR(mode) else 0o600
        if stat.S_IMODE(mode) != wanted:
            found.append((str(path.relative_to(root)), oct(mode)))
    return found


@pytest.mark.fault(46)
def test_all_that_a_home_holds_is_for_its_owner_alone(home: Home, place: Path) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", BUSY],
        env=environment(home),
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with training:
        assert training.stdout is not None
        assert training.stdout.readline() == b"busy\n"
        assert walk(home.root) == []

        training.communicate(b"\n", timeout=60)
    assert training.returncode == 0
    assert walk(home.root) == []
    assert flightlogd(home, "stop").returncode == 0
    assert walk(home.root) == []
    kinds = {path.relative_to(home.root).parts[0] for path in home.root.rglob("*")}
    assert kinds >= {"log", "state.db", "histories", "blobs", "files", "resume"}


# --- another user ---

CONNECTS = """
found = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        socket.socket(socket.AF_UNIX, kind).connect(sys.argv[1])
        found.append("connected")
    except OSError as error:
        found.append(errno.errorcode[error.errno])
"""
OPENS = """
found = []
for path in json.loads(sys.argv[1]):
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT):
        try:
            os.open(path, flags)
            found.append(path)
        except OSError:
            pass
"""
# Says hello, and frames of which the first would do as a first one, and listens.
SPEAKS = """
token = bytes(32)
with zmq.Context() as context, context.socket(zmq.DEALER) as client:
    client.setsockopt(zmq.LINGER, 0)
    client.connect("ipc://" + sys.argv[1])
    found = []
    for parts in (
        [encode(StatusRequest())],
        [encode(Hello(writer_of(token), token))],
        list(pack_frame(writer_of(token), 1, 1, b"\\x90\\xc0")),
    ):
        client.send_multipart(parts)
        if client.poll(30_000):
            found.append(client.recv().decode(errors="replace"))
"""


@pytest.mark.fault(46)
@needs_root
def test_another_user_gets_no_way_in(home: Home) -> None:
    with daemon(home), closing(Trainer(home, 100, how="wait")) as trainer:
        trainer.wait_for(100)
        paths = [str(path) for path in home.root.rglob("*")]
        assert len(paths) > 10

        for _ in range(2):
            assert as_stranger(CONNECTS, str(home.socket)) == ["EACCES"] * 2
            assert as_stranger(OPENS, json.dumps(paths)) == []
            # A slip of its owner opens the folder; what is in it is closed as well.
            home.root.chmod(0o711)


@pytest.mark.fault(46)
@needs_root
def test_another_user_that_gets_a_connection_is_told_to_go(home: Home) -> None:
    with daemon(home):
        home.root.chmod(0o755)
        home.socket.chmod(0o777)

        answers = as_stranger(SPEAKS, str(home.socket))

        assert len(answers) == 3
        for answer in answers:
            assert f"of uid {os.getuid()}, and you come as uid {STRANGER}" in answer
        known = status(home)
        assert known["end_offset"] == 0
        assert known["counters"]["refused"] == 3


@pytest.mark.fault(65)
@needs_root
def test_a_uid_without_a_number_here_is_refused(home: Home) -> None:
    """As those outside are to a daemon in a user namespace, or in a container."""
    try:
        subprocess.run(["unshare", "-Ur", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no user namespace can be made: {error}")
    with daemon(home, prefix=("unshare", "-Ur"), wait=False):
        wait_until(lambda: status(home))
        home.root.chmod(0o755)
        home.socket.chmod(0o777)

        answers = as_stranger(SPEAKS, str(home.socket))

        assert len(answers) == 3
        assert "you come as uid 65534" in answers[0]


# --- foreign folders ---


def refusal(home: Home) -> str:
    """Return why neither a daemon nor a trainer takes this home."""
    training = subprocess.run(
        [sys.executable, "-c", "import flightlog; flightlog.init(project='p')"],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert training.returncode == 1
    done = flightlogd(home, "run")
    assert done.returncode == 1
    assert done.stderr.removeprefix("Error: ").strip() in training.stderr
    return done.stderr


@pytest.mark.fault(23)
@needs_root
def test_the_home_of_another_user_is_refused(home: Home) -> None:
    os.chown(home.root, STRANGER, STRANGER)

    assert f"belongs to uid {STRANGER}, not to you (0)" in refusal(home)

    assert list(home.spool.iterdir()) == []


@pytest.mark.fault(23)
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o730, 0o777])
def test_a_home_that_others_could_write_is_refused(home: Home, mode: int) -> None:
    home.root.chmod(mode)

    assert "others can write in it" in refusal(home)

    assert stat.S_IMODE(home.root.stat().st_mode) == mode
    assert list(home.spool.iterdir()) == []


@pytest.mark.fault(23)
def test_a_socket_in_a_folder_that_others_could_write_is_refused(
    home: Home, place: Path
) -> None:
    shared = place / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    home = Home(home.root, socket_override=shared / "s.sock")

    done = flightlogd(home, "run")

    assert done.returncode == 1
    assert "others can write in it" in done.stderr
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777, "it may be /tmp"
    assert list(shared.iterdir()) == []


@pytest.mark.fault(23)
@needs_root
def test_nobody_talks_to_the_socket_of_another_user(place: Path) -> None:
    place.chmod(0o777)
    path = place / "s.sock"
    squats = "found = socket.socket(socket.AF_UNIX); found.bind(sys.argv[1])\n"
    serves = "found.listen(); print(flush=True); sys.stdin.read(); found = 0\n"
    code = (sys.executable, "-c", BECOMES_A_STRANGER + squats + serves, str(path))
    with subprocess.Popen(
        code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as squatter:
        assert squatter.stdout is not None
        squatter.stdout.readline()
        home = Home(place / "home", socket_override=path)

        assert find_socket(home) is None
        place.chmod(0o755)
        assert find_socket(home) is None, "closed, but what is in it is another's"

    path.unlink()
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(path))
        ours.listen()
        assert find_socket(home) == str(path)


# --- a client of the same user ---


@pytest.mark.fault(64)
def test_a_forger_changes_nothing_of_a_run(home: Home) -> None:
    """It knows the writer's id, and its next sequence; the socket is open to it."""
    with daemon(home), closing(Trainer(home, 2000, 0.001, how="wait")) as trainer:
        trainer.wait_for(50)
        (writer,) = (WriterId(bytes.fromhex(each.name)) for each in spools(home))
        other = bytes(TOKEN_SIZE)
        attacks = [
            [encode(Hello(writer))],
            [encode(Hello(writer, writer))],
            [encode(Hello(writer, other))],
            [encode(Hello(writer_of(other), other))],
            *(forged(writer, sequence) for sequence in range(1, 2100, 7)),
            list(pack_frame(writer, 2**62, 1, b"\x90\xc0", FLAG_GAP)),
        ]
        with zmq.Context() as context, context.socket(zmq.DEALER) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(f"ipc://{home.socket}")
            for parts in attacks:
                client.send_multipart(parts)
            answers = [decode_reply(client.recv()) for _ in attacks]

        assert [type(each) for each in answers] == [
            *(Refused, Refused, Refused, Welcome),
            *[Refused] * (len(attacks) - 4),
        ]
        trainer.wait_for(2000)
        trainer.go_on()
        assert trainer.wait() == 0
        wait_until(lambda: not spools(home))
        assert read_rows(home) == [(n, n) for n in range(2000)]


def spools(home: Home) -> list[Path]:
    return [each for each in home.spool.iterdir() if len(each.name) == 32]


def forged(writer: WriterId, sequence: int) -> list[bytes]:
    return list(pack_frame(writer, sequence, 1, b"\x90\xc0"))


# --- what is shown, and what is kept ---

ESCAPE = "\x1b]0;owned\x07\x1b[31m\r\x9b"
SPITEFUL = f"""
import os, sys
import numpy, flightlog
evil = {ESCAPE!r}
run = flightlog.init(
    project="p", id="evil", name=evil, notes=evil, tags=[evil], config={{evil: evil}}
)
run.log({{evil: evil, "m": 1.0}})
run.log_image(evil, numpy.zeros((2, 2, 3), "uint8"))
run.summary[evil] = evil
run.alert(evil, evil)
os.mkdir(evil)
open(evil + "/" + evil, "wb").write(b"x")
run.save(evil + "/*")
run.log_dataset(evil, evil, save=True)
artifact = flightlog.Artifact("weights", type="model", description=evil)
artifact.add_dir(evil)
run.log_artifact(artifact, aliases=["a"])
run.finish()
"""
COMMANDS = (
    *(
        ("ls",),
        ("show", "p/evil"),
        ("jobs",),
        ("doctor",),
        ("export", "p/evil", "--to", "x.zip"),
    ),
    *(("gc", "--dry-run"), ("sql", "FROM runs"), ("verify", "--full"), ("replay",)),
)


def test_no_command_sends_a_terminal_what_a_run_says(place: Path) -> None:
    """Home, run, keys, files and values are called so that they steer a terminal."""
    home = make_home(place / f"of{ESCAPE}")
    with daemon(home):
        trained = run_in(place, home, "-c", SPITEFUL)
        assert trained.returncode == 0, trained.stderr
        assert_harmless(trained)
        for name in ("status", "run", "start"):
            assert_harmless(flightlogd(home, name))
    for name in ("status", "stop", "install-service"):
        assert_harmless(flightlogd(home, name))
    assert_plain(home.daemon_log.read_text())
    for words in COMMANDS:
        assert_harmless(run_in(place, home, "-c", PEOPLE, *words))


PEOPLE = "from flightlog.cli import main; main()"


def run_in(
    folder: Path, home: Home, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(home) | {"FLIGHTLOG_QUIET": "0"} | environ,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def assert_harmless(done: subprocess.CompletedProcess[str]) -> None:
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert_plain(said)


def assert_plain(said: str) -> None:
    assert [
        char for char in said if not char.isprintable() and char not in "\n\t"
    ] == []


def test_no_name_makes_a_line_of_its_own_in_daemon_log(tmp_path: Path) -> None:
    recorded = Recorded(tmp_path)
    name, token = f"a{ESCAPE}\n2026 ERROR all is lost", make_token("0" * 32, 1)
    owed = FileRequested(time=2.0, name=name, token=token, size=5)
    recorded.tell(recorded.start("r"), owed)
    recorded.log.close()

    with daemon(recorded.home):
        said = wait_until(
            lambda: (
                "is lost: what it was" in (text := recorded.home.daemon_log.read_text())
                and text
            )
        )

    assert "\n2026 ERROR" not in said
    assert_plain(said)


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-hush",
    "HF_TOKEN": "hf-hush",
    "MY_API_KEY": "key-hush",
    "DATABASE_URL": "postgres://me:url-hush@host/db",
}
TRAINS = """
import flightlog
with flightlog.init(project="p", id="r", config={"lr": 1}, workspace_root=".",
                    snapshot_code=True) as run:
    run.log({"a": 1})
"""


def test_no_secret_of_environment_and_arguments_is_kept(
    home: Home, place: Path
) -> None:
    work = place / "work"
    work.mkdir()
    (work / "train.py").write_text(TRAINS)
    (work / ".env").write_text("TOKEN=file-hush\n")
    arguments = ("--api-key=argument-hush", "--url", "https://me:too-hush@host/")

    done = run_in(work, home, "train.py", *arguments, **SECRETS)

    assert done.returncode == 0, done.stderr
    assert flightlogd(home, "stop").returncode == 0
    exported = run_in(place, home, "-c", PEOPLE, "export", "r", "--to", "x.zip")
    assert exported.returncode == 0, exported.stderr
    archive = zipfile.ZipFile(place / "x.zip")
    kept = [archive.read(name) for name in archive.namelist()]
    code = [zipfile.ZipFile(io.BytesIO(each)) for each in kept if each[:2] == b"PK"]
    kept += [each.read(name) for each in code for name in each.namelist()]
    kept += [path.read_bytes() for path in home.root.rglob("*") if path.is_file()]
    assert any(b"import flightlog" in each for each in kept), "the code is kept"
    assert [each for each in kept if b"hush" in each] == []


def test_no_daemon_dumps_its_core(home: Home) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    allow = partial(resource.setrlimit, resource.RLIMIT_CORE, (hard, hard))
    with daemon(home, preexec=allow) as process:
        worker_pid(home)  # The last one to be there.
        found = status(home)
        for pid in (process.pid, found["materializer_pid"], found["worker_pid"]):
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
