"""Loops in blocks on torch's threads."""

import threading

import numpy as np
import pytest
import torch

from openmm_nequiplr import threads


@pytest.fixture(params=["OpenMP", "pool"])
def team(request, monkeypatch):
    """Both ways to run blocks; the second is what platforms without the first have."""
    if request.param == "pool":
        monkeypatch.setattr(threads, "_openmp_team", lambda: None)
    elif threads._openmp_team() is None:
        pytest.skip("torch's OpenMP runtime cannot be reached here")
    return request.param


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_linux_has_the_runtime_of_torch():
    if "OpenMP" not in torch.__config__.parallel_info().split("ATen parallel backend:")[1]:
        pytest.skip("torch was built without OpenMP")
    assert threads._openmp_team() is not None


@pytest.mark.parametrize("blocks", [1, 2, 3, 7])
def test_results_come_in_order_whatever_the_number_of_blocks(team, two_threads, blocks):
    bounds = np.linspace(0, 100, blocks + 1).astype(int).tolist()
    result = threads.each_block(bounds, lambda begin, end: (begin, sum(range(begin, end))))
    assert [begin for begin, _ in result] == bounds[:-1]
    assert sum(total for _, total in result) == sum(range(100))


def test_two_blocks_run_at_the_same_time(team, two_threads):
    meeting = threading.Barrier(2, timeout=30)
    who = threads.each_block([0, 1, 2], lambda *_: (meeting.wait(), threading.get_ident())[1])
    assert len(set(who)) == 2


def test_an_error_in_a_block_is_raised_and_the_next_loop_runs(team, two_threads):
    def fails(begin, end):
        if begin == 1:
            raise RuntimeError("block one")
        return begin

    with pytest.raises(RuntimeError, match="block one"):
        threads.each_block([0, 1, 2], fails)
    assert threads.each_block([0, 1, 2], lambda begin, end: begin) == [0, 1]


def test_torch_computes_between_the_loops_as_ever(team, two_threads):
    matrix = torch.linspace(0, 1, 300 * 300).reshape(300, 300)
    expected = matrix @ matrix
    for _ in range(20):
        assert threads.each_block([0, 1, 2], lambda begin, end: end) == [1, 2]
        assert torch.equal(matrix @ matrix, expected)


def test_loops_of_several_callers_do_not_mix(team, two_threads):
    def caller(shift):
        return [threads.each_block([0, 1, 2], lambda begin, end: begin + shift) for _ in range(50)]

    results = {}
    callers = [
        threading.Thread(target=lambda n=n: results.update({n: caller(10 * n)})) for n in range(3)
    ]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert results == {n: [[10 * n, 10 * n + 1]] * 50 for n in range(3)}


def test_bounds_are_even_and_a_block_is_worth_a_thread(two_threads):
    assert threads.even_bounds(9, 4) == [0, 4, 9]
    assert threads.even_bounds(9, 5) == [0, 9]
    assert threads.even_bounds(9, 0) == [0, 4, 9]
    assert threads.even_bounds(0, 4) == [0, 0]
