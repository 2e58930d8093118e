from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from layerwright.errors import BugError, Cancelled, MachineLacks
from layerwright.runtime.worker import Worker, WorkerEnded
from tests.runtime.conftest import traces, wait_until
from tests.runtime.tasks import SOURCES, Peculiar, start_worker

pytestmark = pytest.mark.needs_root


def test_a_call_gives_what_the_task_returns(worker: Worker) -> None:
    assert worker.call("echo", {"some": (1, b"\xff")}) == {"some": (1, b"\xff")}


def test_arguments_and_results_may_be_larger_than_a_socket_holds(worker: Worker) -> None:
    large = os.urandom(5_000_000)
    assert worker.call("echo", large) == large


def test_events_come_in_order_in_the_calling_thread(worker: Worker) -> None:
    seen: list[tuple[int, int]] = []
    worker.call("count", 1000, on_event=lambda number: seen.append((number, threading.get_ident())))
    assert seen == [(number, threading.get_ident()) for number in range(1000)]


def test_many_calls_run_at_once(worker: Worker) -> None:
    worker.call("echo", 0)
    started = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda number: worker.call("nap", 0.5 + number / 1000), range(20))) == [0.5 + number / 1000 for number in range(20)]
    assert time.monotonic() - started < 5  # one after another they would take 10 s


def test_the_answer_of_a_call_does_not_wait_for_another(worker: Worker) -> None:
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(worker.call, "nap", 100, cancel=cancel)
        time.sleep(0.1)
        assert worker.call("echo", "short") == "short"
        assert not long.done()
        cancel.set()
        with pytest.raises(Cancelled):
            long.result()


def test_an_error_comes_with_class_and_fields(worker: Worker) -> None:
    with pytest.raises(MachineLacks) as lacks:
        worker.call("fail", "lacks")
    assert (lacks.value.what, lacks.value.where, lacks.value.mend, lacks.value.exit_code) == ("no such thing", "/there", "apt-get install thing", 3)
    assert str(lacks.value) == "/there: no such thing\n  apt-get install thing"


def test_an_error_with_a_constructor_of_its_own_comes_too(worker: Worker) -> None:
    with pytest.raises(Peculiar) as peculiar:
        worker.call("fail", "peculiar")
    assert (peculiar.value.what, peculiar.value.second, peculiar.value.exit_code) == ("1 and 2", 2, 2)
    assert "tasks.py" in str(peculiar.value.__cause__)


@pytest.mark.parametrize(("how", "said"), [("bug", "ValueError: a bug"), ("pipe", "a pipe of the task's own"), ("unpicklable", "lambda")])
def test_any_other_error_is_a_bug_with_its_traceback(worker: Worker, how: str, said: str) -> None:
    with pytest.raises(BugError, match=said):
        worker.call("fail", how)


def test_an_unknown_task_is_a_bug(worker: Worker) -> None:
    with pytest.raises(BugError, match="no_such_task"):
        worker.call("no_such_task", None)


def test_a_request_that_dies_is_told_and_others_go_on(worker: Worker) -> None:
    with pytest.raises(WorkerEnded, match="exit status 7"):
        worker.call("end", 7)
    assert worker.call("echo", 1) == 1


def test_a_request_sees_no_process_or_file_but_its_own(worker: Worker) -> None:
    umask = os.umask(0o077)
    try:
        with start_worker() as strict:
            assert strict.call("look", None) == {"umask": 0o022, "files": 4, "pids": ["1"]}
    finally:
        os.umask(umask)


def test_open_files_go_along_with_a_call(worker: Worker) -> None:
    reader, writer = os.pipe()
    try:
        assert worker.call("write_to", b"through", fds=[writer]) == 7
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
        os.close(writer)


def test_a_cancelled_call_leaves_no_process_and_no_mount(worker: Worker, tmp_path: Path) -> None:
    cancel = threading.Event()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        worker.call("settle", str(tmp_path), cancel=cancel, on_event=lambda _: cancel.set())
    assert traces(str(tmp_path)) == []
    assert time.monotonic() - started < 5


def test_a_call_left_by_an_exception_leaves_nothing(worker: Worker, tmp_path: Path) -> None:
    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.call("settle", str(tmp_path), on_event=interrupt)
    assert traces(str(tmp_path)) == []


def test_a_cancelled_call_is_not_started(worker: Worker) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        worker.call("echo", 1, cancel=cancel)


def test_closing_ends_the_calls_under_way(tmp_path: Path) -> None:
    settled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with start_worker() as closing:
            long = pool.submit(closing.call, "settle", str(tmp_path), on_event=lambda _: settled.set())
            assert settled.wait(10)
        with pytest.raises(WorkerEnded):
            long.result()
    assert traces(str(tmp_path)) == []
    with pytest.raises(WorkerEnded, match="closed"):
        closing.call("echo", 1)


def test_a_worker_that_was_never_needed_is_never_started() -> None:
    with Worker(["/no/such/program"], {}):
        pass


def test_a_started_worker_answers_like_any_other() -> None:
    with start_worker() as started:
        started.start()
        started.start()
        assert started.call("echo", 1) == 1


@pytest.mark.parametrize("room", ["worker", "bundle", "runtimes", "script", "mount_points"])
def test_the_main_process_loads_no_system_calls(room: str) -> None:
    program = f"import sys, layerwright.runtime.{room}; sys.exit('ctypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": f"{SOURCES}/src"}).returncode == 0


def test_a_worker_killed_from_outside_is_told(tmp_path: Path) -> None:
    with start_worker() as killed:
        killed.call("echo", 1)
        os.kill(killed._pid, signal.SIGKILL)
        wait_until(lambda: _refuses(killed))


def _refuses(worker: Worker) -> bool:
    try:
        worker.call("echo", 1)
    except WorkerEnded:
        return True
    return False


_CLIENT = """
import sys, threading
from tests.runtime.tasks import start_worker
worker = start_worker()
# From a thread that ends long before the process: a parent-death signal of the worker would come now.
first = threading.Thread(target=worker.call, args=("echo", 1))
first.start()
first.join()
worker.call("settle", sys.argv[1], on_event=lambda _: print("settled", flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_main_process_ends_everything(tmp_path: Path, how: signal.Signals) -> None:
    client = _settled_client(tmp_path)
    client.send_signal(how)
    client.wait(20)
    wait_until(lambda: traces(str(tmp_path)) == [])


@pytest.mark.parametrize("generation", [0, 1])
def test_the_end_of_any_generation_ends_all_below(tmp_path: Path, generation: int) -> None:
    client = _settled_client(tmp_path)
    try:
        keeper = _child(client.pid)
        os.kill([keeper, _child(keeper)][generation], signal.SIGKILL)
        assert client.wait(20) != 0
        wait_until(lambda: traces(str(tmp_path)) == [])
    finally:
        client.kill()


def _settled_client(directory: Path) -> subprocess.Popen[str]:
    env = {"PYTHONPATH": f"{SOURCES}/src:{SOURCES}"}
    client = subprocess.Popen([sys.executable, "-c", _CLIENT, str(directory)], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert client.stdout is not None
    with client.stdout:
        assert client.stdout.readline() == "settled\n"
    assert len(traces(str(directory))) >= 3  # the client, the process, and its mount namespace
    return client


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


_SERVE = "from tests.runtime.tasks import TASKS; from layerwright.runtime.serve import serve; import os; {before}; serve(TASKS)"


@pytest.mark.parametrize(
    ("start", "before", "mend"),
    [
        (["setpriv", "--inh-caps=-all", "--bounding-set=-sys_admin"], "pass", "docker run --privileged"),
    ],
)
def test_without_the_right_to_mount_the_error_says_what_to_do(start: list[str], before: str, mend: str) -> None:
    env = {"PYTHONPATH": f"{SOURCES}/src:{SOURCES}", "PATH": os.environ["PATH"]}
    with Worker([*start, sys.executable, "-c", _SERVE.format(before=before)], env) as weak:
        for _ in range(2):
            with pytest.raises(MachineLacks) as lacks:
                weak.call("echo", 1)
            assert mend in lacks.value.mend
            assert lacks.value.exit_code == 3
