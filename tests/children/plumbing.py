"""What the scripted children share: frames as bytes in and out, and a journal of what was read."""

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
    """A frame: bytes as they are, text with one byte per character, anything else as JSON."""
    if isinstance(text, str):
        return text.encode("latin-1")
    return text if isinstance(text, bytes) else json.dumps(text).encode()


def complain(text):
    print(text, file=sys.stderr, flush=True)


def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.005)


def keep(journal, raw):
    """Leaves a frame for a test to read; one write each, since several children share the file."""
    if journal:
        file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, b"%d %s\n" % (os.getpid(), raw))
        os.close(file)
