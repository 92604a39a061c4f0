"""A Hub of Hugging Face, or a proxy before it, that ends each connection without an answer."""

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def mute_hub() -> Iterator[tuple[str, list[int]]]:
    """Yield its address and a list that grows with each connection."""
    calls: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as hub:

        def listen() -> None:
            with contextlib.suppress(OSError):  # the test has ended
                while True:
                    caller, (_, port) = hub.accept()
                    calls.append(port)
                    caller.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{hub.getsockname()[1]}", calls
        hub.shutdown(socket.SHUT_RDWR)
