"""The messages that Rust's tests of the native lane read are what the Python services answer."""

from tests.support.native_messages import FILE, lines


def test_recorded_messages_are_what_the_services_answer() -> None:
    assert FILE.read_text(encoding="ascii").splitlines() == list(lines())
