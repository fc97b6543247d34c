"""The proxy that disturbs connections during a fault run."""

import threading
from contextlib import closing
from unittest.mock import Mock, call

from faults.proxy import Proxy


def test_a_connection_that_has_lost_data_forwards_nothing_more():
    with closing(Proxy()) as proxy:

        def received():
            yield b"kept"
            proxy.swallow(True)
            yield b"lost"
            proxy.swallow(False)
            yield b"later"
            yield b""

        source, sink = Mock(recv=Mock(side_effect=received())), Mock()
        proxy._forward(source, sink, threading.Event())
        assert sink.sendall.mock_calls == [call(b"kept")]
