"""What is closed or killed is gone: a subscription under way, and a private broker's program."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from node.deliver import BrokerAddress
from node.network import PrivateBroker, Subscription

OWNER = """
import time
from node.network import PrivateBroker
with PrivateBroker() as broker:
    print(broker.port, flush=True)
    time.sleep(60)
"""


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.02)
    return True


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_subscription_closed_while_it_connects_ends_at_once_and_quietly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        words = Subscription(BrokerAddress.from_url(f"mqtt://127.0.0.1:{mute.getsockname()[1]}"))
        closing = threading.Timer(0.3, words.close)
        closing.start()
        begun_s = time.monotonic()
        with words:
            assert list(words) == []
            assert list(words.within(30)) == []
        assert time.monotonic() - begun_s < 2
        closing.join()


def test_a_signal_ends_a_subscription_that_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        words = Subscription(BrokerAddress.from_url(f"mqtt://127.0.0.1:{mute.getsockname()[1]}"))
        before = signal.signal(signal.SIGALRM, lambda *_: words.close())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            begun_s = time.monotonic()
            with words:
                assert list(words) == []
            assert time.monotonic() - begun_s < 2
        finally:
            signal.signal(signal.SIGALRM, before)


def test_a_subscription_closed_before_it_is_entered_never_connects() -> None:
    words = Subscription(BrokerAddress.from_url("mqtt://127.0.0.1:1"))
    words.close()
    with words:
        assert list(words) == []
        assert words.next() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_private_broker_does_not_outlive_the_process_that_started_it(
    number: signal.Signals,
) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        port = int(owner.stdout.readline())
        assert listens(port)
        owner.send_signal(number)
        owner.wait(5)
        assert within(5, lambda: not listens(port))


def test_a_private_broker_still_ends_in_good_order() -> None:
    with PrivateBroker() as broker:
        assert listens(broker.port)
    assert not listens(broker.port)
