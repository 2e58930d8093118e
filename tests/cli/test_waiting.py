from __future__ import annotations

import os
import threading
import time

from layerwright.cli.waiting import patient

TEXT = "line\n" * 60_000  # several times what a pipe holds


def test_a_pipe_that_does_not_block_gets_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got: list[bytes] = []

    def read() -> None:
        time.sleep(0.1)
        while piece := os.read(reader, 10_000):
            got.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    with open(writer, "w", encoding="utf-8") as given:
        out = patient(given)
        out.write(TEXT)
        out.flush()
    thread.join()
    os.close(reader)
    assert b"".join(got).decode() == TEXT
