"""Shared code of the scripted children: reading and writing frames as bytes, and the journal of read frames."""

import json
import os
import sys
import threading
import time

writing = threading.Lock()


def write(data):
    with writing:
        while data:
            data = data[os.write(1, data) :]


def encoded(text):
    """Returns a frame: bytes unchanged, text with one byte per character, any other value as JSON."""
    if isinstance(text, str):
        return text.encode("latin-1")
    return text if isinstance(text, bytes) else json.dumps(text).encode()


def complain(text):
    print(text, file=sys.stderr, flush=True)


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def keep(journal, raw):
    """Appends a frame to the journal in a single write, because several children share the file."""
    if journal:
        file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, b"%d %s\n" % (os.getpid(), raw))
        os.close(file)
