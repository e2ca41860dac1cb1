"""What has to be said to the sound libraries themselves, past PortAudio.

Keeps what they print from drowning what the node says.

What ALSA and JACK say while PortAudio looks for devices goes to the log, at debug level.

Looking for devices means opening every one that a configuration names, present or not, which
prints a hundred lines on a machine without a fault. Only the libraries' own message hooks are
used, and only while the devices are listed: nothing is hidden from whoever asks for the debug log,
an abort still says why on stderr, and errors of the stream itself are printed as ever, until its
device is lost: then PortAudio's thread prints the same error without end, 70 MB a second, and
`hush` cuts it off.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

log = logging.getLogger(__name__)

STDERR: Final = 2  # the file descriptor

_AlsaHandler = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p
)
_JackHandler = ctypes.CFUNCTYPE(None, ctypes.c_char_p)


def _alsa_said(file: bytes, line: int, function: bytes, _error: int, text: bytes) -> None:
    # The text is a format whose arguments ctypes cannot reach; the place tells what is meant.
    log.debug("alsa %s:%d (%s) %s", _str(file), line, _str(function), _str(text).strip())


def _jack_said(text: bytes) -> None:
    log.debug("jack %s", _str(text).strip())


_alsa_handler = _AlsaHandler(_alsa_said)
_jack_handler = _JackHandler(_jack_said)


def _str(text: bytes | None) -> str:
    return (text or b"").decode(errors="replace")


def _library(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


@contextmanager
def chatter_to_log() -> Iterator[None]:
    """Send messages of libasound and libjack to the debug log inside the `with`."""
    alsa, jack = _library("libasound.so.2"), _library("libjack.so.0")
    if alsa:
        alsa.snd_lib_error_set_handler(_alsa_handler)
    if jack:
        jack.jack_set_error_function(_jack_handler)
        jack.jack_set_info_function(_jack_handler)
    try:
        yield
    finally:
        if alsa:
            alsa.snd_lib_error_set_handler(None)


def forget_cards() -> None:
    """Have ALSA read its configuration anew when PortAudio starts next.

    It reads it once in a process, with what belongs to the cards that are there by then: a card
    plugged in later would be opened without. No stream may be open.
    """
    if alsa := _library("libasound.so.2"):
        alsa.snd_config_update_free_global()


def hush() -> None:
    """Send what C libraries print to stderr to nowhere, for the rest of the process.

    A second call changes nothing. Python's own `sys.stderr`, and the logging handlers that write
    to it, go on as before, by a copy of the file descriptor.
    """
    before = sys.stderr
    try:
        shared = before is not None and before.fileno() == STDERR
        if shared:
            before.flush()
            copy = os.fdopen(
                os.dup(STDERR), "w", buffering=1, encoding=before.encoding, errors=before.errors
            )
            sys.stderr = copy
            for handler in _stream_handlers():
                if handler.stream is before:
                    handler.setStream(copy)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDERR, inheritable=True)
        os.close(nowhere)
    except (OSError, ValueError) as error:
        log.warning("cannot silence PortAudio: %s", error)


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in getattr(logger, "handlers", ()):  # a placeholder has none
            if isinstance(handler, logging.StreamHandler):
                yield handler
