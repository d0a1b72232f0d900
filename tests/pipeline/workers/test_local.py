"""Each item may crash, hang or eat its process: the others do not notice, and nothing is left."""

import multiprocessing
import os
import re
import time
from collections import deque

import pytest

from pipeline.common.errors import Rejected
from pipeline.workers import local
from pipeline.workers.local import Limits, LocalPool


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
        process.join()
    assert left == []


def test_what_goes_wrong_with_an_item_costs_that_item_only(task):
    bad = ["abort", "killed", "hang", "exit", "reject", "memory"]
    good = [f"good {n}" for n in range(6)]
    items = [item for pair in zip(bad, good, strict=True) for item in pair]
    results = dict(LocalPool(2, Limits(4)).run(task, items))
    assert set(results) == set(items)
    assert [results[item][0] for item in good] == good
    faults = {item: results[item] for item in bad}
    assert all(isinstance(fault, Rejected) for fault in faults.values())
    said = {item: (fault.reason, fault.detail) for item, fault in faults.items()}
    assert said["abort"] == ("crashed the decoder", "SIGABRT")
    assert said["killed"] == ("crashed the decoder", "SIGKILL")
    assert said["exit"] == ("crashed the decoder", "exit code 3")
    assert said["hang"] == ("timed out", "after 4 s")
    assert said["reject"] == ("too short", "5 frames")
    assert said["memory"][0] == "out of memory"


def test_what_needs_too_much_memory_is_ended_before_it_takes_it_from_others(task):
    limits = Limits(n_bytes=500 * 10**6)
    results = dict(LocalPool(2, limits).run(task, ["greedy", "good", "fine"]))
    assert (results["good"][0], results["fine"][0]) == ("good", "fine")
    assert results["greedy"].reason == "out of memory"
    assert re.fullmatch(r"it used (5|6|7)\d\d\.\d MB", results["greedy"].detail)


def test_a_process_that_somebody_killed_costs_nothing(task, tmp_path):
    accident = ("accident", str(tmp_path / "happened"))
    results = list(LocalPool(1).run(task, [accident, "good"]))
    assert [value[0] for _, value in results] == ["good", accident]


def test_items_may_have_limits_of_their_own(task):
    items = ["hang", "good"]
    results = LocalPool(2).run(task, items, lambda item: 3 if item == "hang" else 60)
    assert {item: isinstance(r, Rejected) for item, r in results} == {"hang": True, "good": False}


def test_processes_are_kept_from_one_run_to_the_next_while_asked_to(task):
    with LocalPool(1) as pool:
        pids = [value[1] for _ in range(2) for _, value in pool.run(task, ["a", "b"])]
        assert len(set(pids)) == 1
        dict(pool.run(task, ["abort"]))
    assert multiprocessing.active_children() == []


def test_more_may_be_asked_for_while_results_come(task):
    items = deque(["a"])
    found = []
    for item, _ in LocalPool(1).run(task, items):
        found.append(item)
        if len(found) < 4:
            items.append(item + "a")
    assert found == ["a", "aa", "aaa", "aaaa"]


def test_processes_are_used_again_and_there_are_no_more_than_asked_for(task):
    results = list(LocalPool(2).run(task, range(20)))
    assert sorted(item for item, _ in results) == list(range(20))
    assert all(item == value for item, (value, _) in results)
    pids = {pid for _, (_, pid) in results}
    assert len(pids) <= 2
    assert os.getpid() not in pids


def test_no_items_need_no_process(task):
    assert list(LocalPool(4).run(task, [])) == []


def test_a_fault_of_the_program_ends_the_run_and_is_raised_here_with_its_place(task):
    with pytest.raises(ZeroDivisionError, match="a fault of the program") as error:
        dict(LocalPool(2, Limits(8)).run(task, ["fault", "slow"]))
    assert "misbehaving_tasks.py" in str(error.value.__cause__)


@pytest.mark.parametrize(
    "item,message",
    [("picky", "fault in program"), ("unpicklable", "a fault that cannot be pickled")],
)
def test_a_fault_that_cannot_be_sent_is_said(task, item, message):
    with pytest.raises(Exception, match=message):
        dict(LocalPool(1).run(task, [item]))


def test_a_full_disk_says_which(task):
    with pytest.raises(OSError, match="No space left") as error:
        dict(LocalPool(1).run(task, ["full"]))
    assert (error.value.errno, error.value.filename) == (28, "/a/disk")


def test_whoever_stops_listening_stops_the_work(task):
    results = LocalPool(2, Limits(60)).run(task, ["good", "slow"])
    assert next(results)[0] == "good"
    begin = time.monotonic()
    results.close()
    assert time.monotonic() - begin < 5


def test_a_process_that_died_between_two_items_is_replaced(task):
    results = LocalPool(1).run(task, ["a", "b", "c"])
    _, (_, pid) = next(results)
    os.kill(pid, 9)
    time.sleep(0.2)
    rest = dict(results)
    assert {item: value[0] for item, value in rest.items()} == {"b": "b", "c": "c"}


def test_available_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert local.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
