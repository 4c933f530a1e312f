"""A trial has one owner, whatever processes, machines, clocks and file systems do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mlmodeldev.errors import UsageError
from mlmodeldev.lease import LostLease
from tests.reliability.one_owner import check
from tests.reliability.play import Play
from tests.reliability.world import LOCKS, Process

LONG = 600.0
"""Seconds in which a silent owner is taken over, and a lock of the dead is broken."""


@pytest.fixture
def plays() -> Iterator[list[Play]]:
    made: list[Play] = []
    yield made
    for play in reversed(made):  # the last has replaced what the first had replaced
        play.close()


def stands(process: Process) -> bool:
    """Whether it may still write."""
    try:
        process.folder.check_owner()
    except LostLease:
        return False
    return bool(process.folder.token)


def test_whatever_happens_a_trial_has_one_owner() -> None:
    """A short run of what ``python -m tests.reliability.one_owner`` does at length."""
    check(examples=25, steps=30)


@pytest.mark.parametrize(
    ("locks", "doing"),
    [*((locks, "write") for locks in LOCKS[:3]), ("flock", "finish"), ("ENOLCK", "beat")],
)
def test_who_sleeps_in_a_write_and_is_taken_over_meanwhile_writes_no_more(locks, doing, plays):
    """At each place of it: before and after it looks, locks, writes, renames."""
    taken_over = 0
    for stop in itertools.count():
        plays.append(play := Play(locks))
        owner, other = play.start(0), play.start(1)
        play.claim(owner)
        play.write(owner, doing, stop)
        if owner.state == "idle":
            break
        play.pass_time(200)  # else its lease is believed
        play.claim(other)
        play.pass_time(LONG)
        assert other.state == "idle"
        play.go_on(owner)
        play.pass_time(1)
        if other.error is None:
            taken_over += 1
            assert stands(other)
            assert doing == "finish" or not stands(owner)
            play.write(other, "write")
            assert other.error is None
        else:
            assert isinstance(other.error, UsageError)
            assert owner.error is None
    assert stop > 8
    assert taken_over >= (3 if locks == "flock" else 10)


@pytest.mark.parametrize("locks", LOCKS[1:3])
def test_of_two_who_begin_at_once_one_owns_the_trial(locks, plays):
    """Wherever the first stands still; also where the lock is worth nothing."""
    for stop in itertools.count():
        plays.append(play := Play(locks))
        first, second = play.start(0), play.start(1)
        play.claim(first, stop)
        if first.state == "idle":
            break
        play.claim(second)
        play.pass_time(70)
        play.go_on(first)
        play.pass_time(LONG)
        assert sum(stands(each) for each in (first, second)) == 1
        for each in (first, second):
            if stands(each):
                play.write(each, "write")
                assert each.error is None
    assert stop > 12


@pytest.mark.parametrize("locks", ["flock", "EOPNOTSUPP"])
def test_a_folder_that_is_removed_in_the_middle_of_a_write_belongs_to_who_makes_it_anew(
    locks, plays
):
    for stop in itertools.count():
        plays.append(play := Play(locks))
        owner, other = play.start(0), play.start(1)
        play.claim(owner)
        play.write(owner, "write", stop)
        if owner.state == "idle":
            break
        play.remove_folder()
        play.claim(other)
        play.pass_time(120)  # what the dead left of a lock, too
        assert other.error is None
        assert stands(other)
        play.go_on(owner)
        play.pass_time(60)
        assert stands(other)
        assert not stands(owner)


@pytest.mark.parametrize("late", [False, True])
def test_a_file_server_that_was_away_makes_nobody_dead(late, plays):
    """The owner could not write, and who watched it is the first to look again."""
    plays.append(play := Play("flock"))
    owner, other = play.start(0), play.start(1)
    play.world.machines[1].clock = 3600.0  # else the lease is believed, and nobody watches
    play.claim(owner)
    play.claim(other)
    play.pass_time(20)
    assert other.state == "asleep"
    for _ in range(3):
        play.outage(300, late)
    play.pass_time(LONG)
    assert "running already" in str(other.error)
    assert stands(owner)


@pytest.mark.parametrize(("here", "there"), [((1, 1), (2, 1)), ((0, 1), (0, 2))])
def test_machines_and_containers_of_one_name_are_two(here, there, plays):
    """A process id of the one is nobody in the other, or somebody else."""
    plays.append(play := Play("flock"))
    owner, other = play.start(*here), play.start(*there)
    assert owner.machine.name == other.machine.name
    play.claim(owner)
    play.claim(other)
    play.pass_time(LONG)
    assert "running already" in str(other.error)
    assert stands(owner)


def test_after_a_reboot_the_same_process_id_and_start_are_another_process(plays):
    plays.append(play := Play("flock"))
    owner = play.start(0)
    play.claim(owner)
    play.world.reboot(0)
    other = play.start(0)
    assert (owner.pid, owner.started) == (other.pid, other.started)
    third = play.start(0)
    play.pass_time(200)
    play.claim(third)
    play.pass_time(LONG)
    assert third.error is None
    assert stands(third)


def test_an_owner_beats_on_while_another_stands_still_with_the_lock(plays):
    """Such as one that was stopped by Ctrl-Z in the moment of a change."""
    beaten = 0
    for stop in itertools.count():
        plays.append(play := Play("flock"))
        owner, other = play.start(0), play.start(0)
        play.claim(owner)
        play.claim(other, stop)
        if other.state == "idle":
            break
        play.pass_time(LONG)
        assert play.world.now - play.judge.beats[owner.token] < 60
        beaten += 1
        play.write(owner, "write")
        play.pass_time(60)
        assert owner.error is None
        play.go_on(other)
        assert stands(owner)
    assert beaten > 3


@pytest.mark.parametrize("seconds", [-3600.0, 3600.0])
def test_a_clock_that_jumps_while_its_owner_is_watched_makes_it_not_dead(seconds, plays):
    """Wherever who watches it stands, by whose clock its lease ended hours ago."""
    for stop in itertools.count():
        plays.append(play := Play("flock"))
        owner, other = play.start(0), play.start(1)
        play.world.machines[1].clock = 7200.0
        play.claim(owner)
        play.claim(other, stop)
        for _ in range(10):
            play.pass_time(15)
        if other.state == "idle":
            break
        play.world.machines[0].clock += seconds
        play.write(owner, "beat")
        play.go_on(other)
        play.pass_time(LONG)
        assert isinstance(other.error, UsageError)
        assert stands(owner)
    assert stop > 8


def test_a_trial_that_another_claims_just_now_is_not_moved_aside(plays):
    """``artefacts.fresh=true``, which stands still at each place of its way."""
    for stop in itertools.count():
        plays.append(play := Play("flock"))
        former, first, second = play.start(0), play.start(0), play.start(1)
        play.claim(former)
        play.write(former, "finish")
        play.claim(first, stop, fresh=True)
        if first.state == "idle":
            break
        play.claim(second)
        play.pass_time(70)
        play.go_on(first)
        play.pass_time(70)
        assert sum(stands(each) for each in (first, second)) == 1
    assert stop > 15


def test_locks_worth_nothing_and_two_that_stand_still_anywhere_make_one_owner(plays):
    """Each stops at each place of its claim; now the one goes on first, now the other."""
    for stop, other_stop in itertools.product(range(6, 20), repeat=2):
        plays.append(play := Play("flock of each machine"))
        first, second = play.start(0), play.start(1)
        play.claim(first, stop)
        play.claim(second, other_stop)
        waiting = [each for each in (first, second) if each.state == "stopped"]
        for each in waiting if (stop + other_stop) % 2 else waiting[::-1]:
            play.go_on(each)
        assert sum(stands(each) for each in (first, second)) == 1
        plays.pop().close()
