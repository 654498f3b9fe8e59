"""A name server for the tests: one name with several addresses, as a headless Service has."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

TYPE_A, CLASS_IN = 1, 1
ANSWER = 0x8400  # flags: an authoritative answer


class NameServer:
    """Answers every question for an A record with `addresses`, over UDP."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def serve(self) -> None:
        """Answer until the socket is closed."""
        while True:
            message, sender = self._socket.recvfrom(4096)
            if message == b"end":
                return
            self._socket.sendto(self._answer(message), sender)

    def end(self) -> None:
        """Let `serve` return."""
        self._socket.sendto(b"end", ("127.0.0.1", self.port))

    def close(self) -> None:
        self._socket.close()

    def _answer(self, message: bytes) -> bytes:
        """Answer one question (RFC 1035, 4.1)."""
        self.questions += 1
        end = message.index(0, 12) + 5  # of the question: labels, a zero, type and class
        kind = struct.unpack(">H", message[end - 4 : end - 2])[0]
        found = self.addresses if kind == TYPE_A else []
        records = b"".join(
            struct.pack(">HHHIH", 0xC00C, TYPE_A, CLASS_IN, 1, 4) + socket.inet_aton(each)
            for each in found
        )
        header = message[:2] + struct.pack(">HHHHH", ANSWER, 1, len(found), 0, 0)
        return header + message[12:end] + records


@contextmanager
def start_name_server(addresses: Sequence[str]) -> Iterator[NameServer]:
    """Serve names on a free port of the loopback address."""
    server = NameServer(addresses)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join()
        server.close()
