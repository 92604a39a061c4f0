"""Two hosts on this machine: network namespaces with a cable between them. They need root and iproute2."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CAN_START = os.name == "posix" and os.geteuid() == 0 and shutil.which("ip") is not None
NAMES = tuple(f"host{letter}{os.getpid()}" for letter in "ab")
CABLES = tuple(f"v{letter}{os.getpid()}" for letter in "ab")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Yield the names of two hosts, which know each other by name and share all files."""
    try:
        for name in NAMES:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            folder = Path("/etc/netns") / name  # what `ip netns exec` shows as /etc
            folder.mkdir(parents=True)
            lines = [f"10.77.0.{n} {host}\n" for n, host in enumerate(NAMES, 1)]
            (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(lines))
        _ip("link", "add", CABLES[0], "type", "veth", "peer", "name", CABLES[1])
        for n, (name, cable) in enumerate(zip(NAMES, CABLES, strict=True), 1):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "addr", "add", f"10.77.0.{n}/24", "dev", cable)
            _ip("-n", name, "link", "set", cable, "up")
        yield NAMES[0], NAMES[1]
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def cut() -> None:
    """Pull the cable out: no host hears of the other again, not even that a connection ended."""
    _ip("-n", NAMES[0], "link", "set", CABLES[0], "down")


def start(host: str, command: Sequence[str], cwd: Path, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command on a host with its output in `log`."""
    named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, *command]
    with open(log, "wb") as out:
        return subprocess.Popen(["ip", "netns", "exec", host, *named], cwd=cwd, env=env, stdout=out, stderr=out)
