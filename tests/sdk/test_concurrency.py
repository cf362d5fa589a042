"""Threads, signals, forks and event loops that log."""

import multiprocessing
import os
import sys
import threading

import pytest
from tests.sdk.conftest import Lab, rows_of, state_of
from tests.system.harness import wait_until

import flightlog
from flightlog._summary import Overlay


@pytest.mark.fault(56)
@pytest.mark.usefixtures("home")
def test_threads_lose_nothing(lab: Lab) -> None:
    run = flightlog.init()

    def work(worker: int) -> None:
        for n in range(500):
            run.log({"n": worker * 1000 + n, f"worker/{worker}": n})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()

    read = lab.ended(run.id)
    found = rows_of(read, "n")
    assert [step for step, _ in found] == list(range(16_000))
    assert sorted(n for _, n in found) == [  # type: ignore[type-var]
        worker * 1000 + n for worker in range(32) for n in range(500)
    ]
    assert [n for _, n in rows_of(read, "worker/7")] == list(range(500))


def test_a_summary_may_be_read_while_another_thread_sets_it() -> None:
    overlay = Overlay()
    has_read = threading.Event()

    def set_keys() -> None:
        for n in range(5_000):
            overlay.set(0.0, [([f"k{n}"], n)], [])
            if has_read.is_set():
                return

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=set_keys)
    thread.start()
    try:
        while thread.is_alive():
            overlay.over([])
    finally:
        has_read.set()
        thread.join()
        sys.setswitchinterval(interval_s)

    assert len(overlay.over([])) == 5_000


@pytest.mark.fault(56)
@pytest.mark.parametrize("kind", ["mapped", "plain"])
def test_signal_handlers_may_log_inside_log(lab: Lab, kind: str) -> None:
    id = f"signals-{kind}"
    told = lab.run_script(
        f"""
        import itertools, signal
        import flightlog
        from flightlog_storage import buffers
        if {kind == "plain"}:
            buffers._MAPPABLE = frozenset()
        run = flightlog.init(id={id!r})
        counter = itertools.count()

        def handle(number, frame):
            n = next(counter)  # Handlers may be interrupted by handlers.
            run.log({{"handler": n, f"also/{{n % 50}}": 1}})

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for n in range(60_000):
            row = {{"n": n, "text": "x" * 100}}
            if n % 100 == 0:
                row[f"new/{{n}}"] = 1
            run.log(row)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(next(counter))
        """
    )

    read = lab.ended(id)
    in_loop, in_handler = rows_of(read, "n"), rows_of(read, "handler")
    assert [n for _, n in in_loop] == list(range(60_000))
    assert sorted(n for _, n in in_handler) == list(range(int(told)))  # type: ignore[type-var]
    steps = sorted(step for step, _ in in_loop + in_handler)  # type: ignore[type-var]
    assert steps == list(range(60_000 + int(told)))
    assert int(told) > 20


@pytest.mark.fault(56)
def test_finalizers_may_log(lab: Lab) -> None:
    lab.run_script(
        """
        import flightlog, gc
        gc.set_threshold(20)
        run = flightlog.init(id="finalizers")

        class Node:
            def __init__(self, n):
                self.n, self.me = n, self
            def __del__(self):
                run.log({"freed": self.n})
                freed.append(self.n)

        freed = []
        for n in range(3000):
            Node(n)
            run.log({"n": n, "more": [{"a": {"b": n}}]})
        while len(freed) < 3000:  # Another thread may be collecting: then it is none.
            gc.collect()
        """
    )

    read = lab.ended("finalizers")

    assert [n for _, n in rows_of(read, "n")] == list(range(3000))
    assert sorted(n for _, n in rows_of(read, "freed")) == list(range(3000))  # type: ignore[type-var]


@pytest.mark.fault(55)
@pytest.mark.parametrize("from_thread", [False, True], ids=["main", "thread"])
def test_forked_child_logs_by_itself(lab: Lab, from_thread: bool) -> None:
    id = f"fork-{from_thread}"
    lab.run_script(
        f"""
        import flightlog, os, sys, threading
        run = flightlog.init(id={id!r})
        run.log({{"parent": 0}})

        def fork():
            child = os.fork()
            if not child:
                for n in range(100): run.log({{"child": n}}, step=n)
                run.finish()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0

        if {from_thread}:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
        else:
            fork()
        for n in range(1, 100): run.log({{"parent": n}})
        """
    )

    read = lab.ended(id)

    assert rows_of(read, "parent") == [(n, n) for n in range(100)]
    assert rows_of(read, "child") == [(n, n) for n in range(100)]
    assert read.state == "finished"


@pytest.mark.fault(55)
def test_forked_child_may_log_no_row_and_begin_a_run_in_a_thread(lab: Lab) -> None:
    lab.run_script(
        """
        import flightlog, os, threading
        run = flightlog.init(id="fork-without-rows")
        run.log({"a": 1})
        child = os.fork()
        if not child:
            run.config["child"] = 1
            def begin():
                flightlog.init(id="in-thread", reinit="create_new").finish()

            thread = threading.Thread(target=begin, daemon=True)
            thread.start()
            thread.join(20)
            run.finish()
            os._exit(thread.is_alive())
        assert os.waitpid(child, 0)[1] == 0
        for n in range(100): run.log({"a": n})  # Over what is not its child's.
        """
    )

    assert lab.ended("fork-without-rows").config["child"] == 1
    assert lab.ended("in-thread").state == "finished"


@pytest.mark.fault(55)
def test_child_that_ends_leaves_the_run_to_its_parent(lab: Lab) -> None:
    process = lab.start(
        """
        import flightlog, os, signal, sys
        run = flightlog.init(id="left")
        for end in (lambda: sys.exit(3), lambda: os._exit(3), lambda: None):
            child = os.fork()
            if not child:
                try: end()
                finally: os._exit(3)
            os.waitpid(child, 0)
        run.log({"a": 1})
        assert run.flush(20)
        print("ready", flush=True)
        signal.pause()
        """
    )
    assert process.stdout is not None
    process.stdout.readline()

    state = lab.find("left").state
    process.kill()
    process.communicate()

    assert state == "running"
    assert lab.ended("left").state == "crashed"


@pytest.mark.fault(55)
def test_signal_handler_may_fork_inside_log(lab: Lab) -> None:
    logged = lab.run_script(
        """
        import flightlog, os, signal
        run = flightlog.init(id="fork-in-handler")
        main = os.getpid()
        forks = 0

        def handle(number, frame):
            global forks
            forks += 1
            if not os.fork():
                run.log({"child": 1})
                if os.getpid() != main:
                    os._exit(0)
            if forks < 50:
                signal.setitimer(signal.ITIMER_REAL, 0.005)

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        n = 0
        while forks < 50:
            run.log({"n": n})
            n += 1
        print(n)
        """
    )

    read = lab.ended("fork-in-handler")

    assert [n for _, n in rows_of(read, "n")] == list(range(int(logged)))


@pytest.mark.fault(55)
def test_many_forks_under_load(lab: Lab) -> None:
    lab.run_script(
        """
        import flightlog, os, threading
        run = flightlog.init(id="forks")
        is_over = threading.Event()
        counts = [0, 0]

        def work(worker):
            while not is_over.is_set():
                run.log({f"n{worker}": counts[worker]})
                counts[worker] += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads: thread.start()
        for n in range(200):
            child = os.fork()
            if not child:
                if n % 20 == 0:
                    run.log({"child": n}, step=n)
                    run.finish()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        is_over.set()
        for thread in threads: thread.join()
        run.summary["counts"] = counts
        """
    )

    read = lab.ended("forks", timeout_s=40)

    counts = read.summary["counts"]
    for worker in range(2):
        found = [n for _, n in rows_of(read, f"n{worker}")]
        assert found == list(range(counts[worker]))
    assert [n for _, n in rows_of(read, "child")] == list(range(0, 200, 20))


@pytest.mark.fault(55)
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pickled_run_is_joined(lab: Lab, tmp_path: object, method: str) -> None:
    id = f"pickled-{method}"
    script = os.path.join(str(tmp_path), "program.py")
    with open(script, "w") as file:
        file.write(
            "import multiprocessing, flightlog\n"
            "def work(run, worker):\n"
            "    for n in range(50): run.log({f'worker/{worker}': n}, step=n)\n"
            "if __name__ == '__main__':\n"
            f"    context = multiprocessing.get_context({method!r})\n"
            f"    run = flightlog.init(id={id!r})\n"
            "    workers = [context.Process(target=work, args=(run, n))"
            " for n in range(2)]\n"
            "    for worker in workers: worker.start()\n"
            "    for worker in workers: worker.join()\n"
            "    assert [worker.exitcode for worker in workers] == [0, 0]\n"
            "    run.log({'parent': 1})\n"
        )

    lab.run_script(
        f"import runpy; runpy.run_path({script!r}, run_name='__main__')"
        if method == "fork"
        else f"import os, sys; os.execv(sys.executable, [sys.executable, {script!r}])"
    )

    read = lab.ended(id)
    assert read.state == "finished"
    for worker in range(2):
        assert rows_of(read, f"worker/{worker}") == [(n, n) for n in range(50)]
    assert len(rows_of(read, "parent")) == 1


def test_workers_that_never_log_leave_no_trace(lab: Lab) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    lab.run_script(
        """
        import flightlog, torch
        from torch.utils.data import DataLoader, TensorDataset
        run = flightlog.init(id="loader")
        data = TensorDataset(torch.arange(64.0))
        for (batch,) in DataLoader(data, batch_size=8, num_workers=2):
            run.log({"mean": batch.mean(), "grad": batch.requires_grad_().sum()})
        """
    )

    read = lab.ended("loader")

    assert (len(rows_of(read, "mean")), len(state_of(read).writers)) == (8, 1)


def test_pool_workers_that_never_log_leave_no_trace(lab: Lab) -> None:
    lab.run_script(
        """
        import flightlog, multiprocessing
        run = flightlog.init(id="pool")
        with multiprocessing.get_context("fork").Pool(4) as pool:
            for n in pool.imap(abs, range(100)): run.log({"n": n})
        """
    )

    read = lab.ended("pool")

    assert rows_of(read, "n") == [(n, n) for n in range(100)]
    assert len(state_of(read).writers) == 1


@pytest.mark.fault(58)
def test_event_loops_are_left_alone(lab: Lab) -> None:
    lab.run_script(
        """
        import asyncio, flightlog

        async def work(worker):
            for n in range(100):
                flightlog.log({f"worker/{worker}": n}, step=n)
                await asyncio.sleep(0)

        async def main():
            with flightlog.init(id="loop") as run:
                await asyncio.gather(*map(work, range(4)))
                assert len(asyncio.all_tasks()) == 1

        asyncio.run(main(), debug=True)
        """
    )

    read = lab.ended("loop")

    assert read.state == "finished"
    for worker in range(4):
        assert rows_of(read, f"worker/{worker}") == [(n, n) for n in range(100)]


# --- several processes in one run ---

RANK = """
import flightlog, os, sys
run = flightlog.init(shared=True, config={{"lr": 1}})
for n in range(100): run.log({{"n": n * (run.rank + 1)}}, step=n)
print(run.id, run.rank)
sys.exit({code})
"""
LAUNCHERS = {
    "slurm": ("SLURM_PROCID", {"SLURM_JOB_ID": "77"}),
    "torchrun": ("RANK", {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_meet_in_one_run(lab: Lab, launcher: str) -> None:
    variable, environ = LAUNCHERS[launcher]
    ranks = [
        lab.start(
            RANK.format(code=3 if rank == 2 else 0), **environ, **{variable: str(rank)}
        )
        for rank in range(4)
    ]
    told = [rank.communicate(timeout=60)[0].split() for rank in ranks]
    id = told[0][0]

    assert told == [[id, str(rank)] for rank in range(4)]
    wait_until(lambda: len(state_of(lab.find(id)).writers) == 4)
    read = lab.ended(id)
    assert (read.state, read.exit_code) == ("failed", 3)
    rows = list(read.scan_history())
    assert sorted((row["_rank"], row["_step"], row["n"]) for row in rows) == [
        (rank, n, n * (rank + 1)) for rank in range(4) for n in range(100)
    ]


@pytest.mark.usefixtures("home")
def test_shared_without_a_launcher_is_refused() -> None:
    with pytest.raises(flightlog.UsageError, match="SLURM_JOB_ID"):
        flightlog.init(shared=True)
