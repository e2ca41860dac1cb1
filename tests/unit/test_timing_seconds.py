"""Which second a pulse marks: no single wrong word moves it."""

import numpy as np
import pytest

from node.timing.seconds import INSIST, INSIST_TOGETHER, SecondVote, Voter

TAI_S = 1_790_000_037


def voted(vote: SecondVote, words: list[int], *, voter: Voter = "receiver", first: int = 0) -> int:
    """Let a voter name a second at each pulse; 0 is the truth."""
    for count, wrong in enumerate(words, first):
        vote.vote(voter, count, TAI_S + count + wrong)
    return first + len(words)


def test_nothing_is_known_before_five_words_agree() -> None:
    vote = SecondVote()
    for count in range(4):
        vote.vote("host", count, TAI_S + count)
        assert vote.difference is None
    vote.vote("host", 4, TAI_S + 4)
    assert vote.difference == TAI_S
    assert not vote.confirmed


def test_voters_of_two_minds_say_nothing() -> None:
    vote = SecondVote()
    voted(vote, [0, 1] * 10)
    assert vote.difference is None


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_word_in_twenty_is_never_believed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vote = SecondVote()
    for count in range(3000):
        wrong = int(rng.choice([-1, 1])) if rng.random() < 0.05 else 0
        vote.vote("receiver", count, TAI_S + count + wrong)
        assert vote.difference in (None, TAI_S)
    assert vote.difference == TAI_S


@pytest.mark.parametrize(("voter", "insist"), list(INSIST.items()))
def test_a_lone_voter_who_insists_is_believed_in_the_end(voter: Voter, insist: int) -> None:
    vote = SecondVote()
    count = voted(vote, [0] * 10, voter=voter)
    count = voted(vote, [-1] * (insist - 1), voter=voter, first=count)
    assert vote.difference == TAI_S
    voted(vote, [-1], voter=voter, first=count)
    assert vote.difference == TAI_S - 1


def test_who_insists_has_to_do_so_with_one_voice() -> None:
    vote = SecondVote()
    count = voted(vote, [0] * 10)
    voted(vote, [1, 1, 1, 2] * 50, first=count)
    assert vote.difference == TAI_S


@pytest.mark.parametrize("stepped_s", [1, -1, 3600])
def test_a_host_that_was_stepped_does_not_move_what_both_had_said(stepped_s: int) -> None:
    vote = SecondVote()
    for count in range(2000):
        vote.vote("receiver", count, TAI_S + count)
        vote.vote("host", count, TAI_S + count + (stepped_s if count > 100 else 0))
    assert vote.difference == TAI_S
    assert vote.apart_s == abs(stepped_s)
    assert not vote.confirmed


def test_host_and_receiver_that_contradict_each_other_at_the_start_are_not_believed() -> None:
    vote = SecondVote()
    for count in range(100):
        vote.vote("host", count, TAI_S + count)
        vote.vote("receiver", count, TAI_S + count + 2)
    assert vote.difference is None
    assert vote.apart_s == 2
    for count in range(100, 130):  # the receiver learns the leap seconds
        vote.vote("host", count, TAI_S + count)
        vote.vote("receiver", count, TAI_S + count)
    assert vote.difference == TAI_S
    assert vote.confirmed


def test_host_and_receiver_that_change_their_word_together_are_soon_believed() -> None:
    vote = SecondVote()
    for count in range(50):
        vote.vote("host", count, TAI_S + count)
        vote.vote("receiver", count, TAI_S + count)
    for count in range(50, 50 + INSIST_TOGETHER):
        vote.vote("host", count, TAI_S + count + 1)
        vote.vote("receiver", count, TAI_S + count + 1)
    assert vote.difference == TAI_S + 1
    assert vote.confirmed


def test_a_voter_who_follows_the_other_confirms_nothing_and_settles_nothing() -> None:
    vote = SecondVote()
    for count in range(50):
        vote.vote("receiver", count, TAI_S + count + 1)
        vote.vote("host", count, TAI_S + count + 1, vouches=False)
    assert vote.difference == TAI_S + 1
    assert not vote.confirmed
    # It follows a network now, and insists: who is right nobody knows.
    count = voted(vote, [0] * INSIST["host"], voter="host", first=50)
    assert vote.difference is None
    assert vote.apart_s == 1
    voted(vote, [0] * INSIST["receiver"], first=count)
    assert vote.confirmed


def test_a_word_that_was_vouched_for_stays_vouched_for() -> None:
    vote = SecondVote()
    for count in range(100):
        vote.vote("receiver", count, TAI_S + count)
        vote.vote("host", count, TAI_S + count, vouches=count < 10)
        assert vote.confirmed == (count >= 4)
