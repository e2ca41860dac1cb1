"""Lost frames, found from time stamps that may be late and are never early."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stamps import make_stamps

from node.capture.gaps import Arrival, GapFinder, Placement
from node.types import NS_PER_S

RATE_HZ = 48_000

STREAMS = 500


@dataclass
class Card:
    """A card that loses what it is told to, and stamps its blocks with some lateness."""

    block: int = 4096
    ppm: float = 0.0
    true_frame: int = 0

    def arrival(self, *, late_s: float = 0.0, lose: int = 0, overrun: bool = False) -> Arrival:
        self.true_frame += lose
        at_s = 1000.0 + self.true_frame / (RATE_HZ * (1 + self.ppm * 1e-6)) + late_s
        made = Arrival(
            data=self.true_frame.to_bytes(8, "big"),  # so that a test knows which block it is
            frames=self.block,
            host_time_ns=round(at_s * NS_PER_S),
            by_converter=True,
            overrun=overrun,
        )
        self.true_frame += self.block
        return made


class Placed:
    """Places arrivals as a source does, and knows where they truly belong."""

    def __init__(self, block: int = 4096) -> None:
        self.finder = GapFinder(RATE_HZ, block)
        self.next = 0
        self.rows: list[tuple[int, int, int]] = []  # index, truth, lost before
        self.reaches: list[tuple[int, int, int]] = []  # frames, from, until

    def push(self, arrival: Arrival) -> None:
        self.take(self.finder.push(arrival))

    def take(self, placements: list[Placement]) -> None:
        for arrival, lost, reach in placements:
            if reach is not None:
                first = self.next + lost
                self.reaches.append((reach.frames, first - reach.back, first + reach.on))
            self.next += lost
            self.rows.append((self.next, int.from_bytes(arrival.data, "big"), lost))
            self.next += arrival.frames

    def told(self, i: int) -> int:
        """Give how many frames may be missing before an arrival, as is told."""
        index = self.rows[i][0]
        return max(
            (frames for frames, begin, end in self.reaches if begin <= index < end), default=0
        )

    @property
    def errors(self) -> list[int]:
        return [index - truth for index, truth, _ in self.rows]

    @property
    def lost(self) -> int:
        return sum(lost for *_, lost in self.rows)


def run(card: Card, placed: Placed, blocks: int, late_s: Iterator[float] | None = None) -> None:
    for _ in range(blocks):
        placed.push(card.arrival(late_s=next(late_s) if late_s else 0.0))


def test_while_all_is_well_nothing_is_held_back() -> None:
    card, placed = Card(ppm=80), Placed()
    run(card, placed, 6)  # the start is held back for a moment
    for i in range(200):
        placed.push(card.arrival())
        assert len(placed.rows) == 7 + i
    assert placed.lost == 0


@pytest.mark.parametrize("frames", [48, 500, 4096, 50_000])
@pytest.mark.parametrize("ppm", [-100, 0, 100])
def test_a_loss_without_a_flag_is_sized_to_the_frame(frames: int, ppm: float) -> None:
    card, placed = Card(ppm=ppm), Placed()
    run(card, placed, 200)
    placed.push(card.arrival(lose=frames))
    run(card, placed, 200)
    assert abs(placed.lost - frames) <= 1
    assert max(map(abs, placed.errors)) <= 1
    assert placed.finder.lost_frames == placed.lost
    # In the arrival before the two that were late, or in the first of these.
    late = next(index for index, _, lost in placed.rows if lost)
    assert placed.reaches == [(placed.lost, late - placed.lost - 4096, late + 2 * 4096)]


def test_a_loss_in_the_first_seconds_is_sized_within_a_few_frames() -> None:
    card, placed = Card(ppm=60), Placed()
    run(card, placed, 8)
    placed.push(card.arrival(lose=500))
    run(card, placed, 20)
    assert abs(placed.lost - 500) <= 6  # 2 s at 60 ppm


def test_an_overrun_discards_the_splice_and_keeps_every_later_index() -> None:
    card, placed = Card(), Placed()
    run(card, placed, 100)
    placed.push(card.arrival(lose=20_001, overrun=True))
    run(card, placed, 100)
    assert max(map(abs, placed.errors)) <= 1
    assert abs(placed.lost - 20_001 - 4096) <= 1
    assert placed.finder.lost_frames == placed.lost
    assert len(placed.rows) == 200
    assert not placed.reaches  # where these were lost is known: in what was discarded


def test_an_overrun_flag_with_nothing_behind_it_costs_nothing() -> None:
    card, placed = Card(), Placed()
    run(card, placed, 100)
    placed.push(card.arrival(overrun=True))
    run(card, placed, 100)
    assert placed.lost == 0
    assert len(placed.rows) == 201


def test_blocks_that_the_load_made_late_before_an_overrun_keep_their_place() -> None:
    card, placed = Card(), Placed()
    run(card, placed, 100)
    placed.push(card.arrival(late_s=0.05))
    placed.push(card.arrival(lose=9_000, overrun=True))
    run(card, placed, 50)
    assert max(map(abs, placed.errors)) <= 1


@pytest.mark.parametrize("loads", [1, 2, 3])
def test_a_loss_among_blocks_that_are_late_by_the_load_may_be_in_any_of_them(loads: int) -> None:
    card, placed = Card(), Placed()
    run(card, placed, 100)
    for _ in range(loads):
        placed.push(card.arrival(late_s=0.05))
    placed.push(card.arrival(lose=480))
    run(card, placed, 50)
    wrong = [
        index for index, error in zip(placed.rows, placed.errors, strict=True) if abs(error) > 1
    ]
    ((frames, begin, end),) = placed.reaches
    assert abs(frames - 480) <= 1
    assert len(wrong) == loads
    assert all(begin <= index and index + 4096 <= end for index, _, _ in wrong)
    assert end - begin <= (loads + 3) * 4096 + 480


@pytest.mark.parametrize("block", [4096, 16384])
def test_where_a_loss_may_lie_is_told_though_blocks_are_late_by_all_kinds_of_load(
    block: int,
) -> None:
    rng = np.random.default_rng(3)
    untold = 0
    for _ in range(STREAMS):
        card, placed = Card(block), Placed(block)
        for i in range(45):
            late_s = abs(rng.normal(0, 0.2e-3)) + rng.exponential(15e-3) * (rng.random() < 0.4)
            placed.push(card.arrival(late_s=late_s, lose=480 * (i == 30)))
        usual = placed.errors[20]
        untold += any(
            abs(placed.errors[i] - usual) > 48 + 3 * placed.told(i) / 2 for i in range(21, 40)
        )
    assert untold <= STREAMS // 50


def test_two_losses_at_once_are_both_found() -> None:
    card, placed = Card(), Placed()
    run(card, placed, 100)
    placed.push(card.arrival(lose=500))
    placed.push(card.arrival(lose=300))
    run(card, placed, 100)
    assert placed.errors[-1] in (-1, 0, 1)
    assert abs(placed.lost - 800) <= 1


def test_what_we_dropped_ourselves_is_counted_exactly() -> None:
    card, placed = Card(), Placed()
    run(card, placed, 50)
    card.true_frame += 3 * 4096
    late = card.arrival()
    placed.push(Arrival(late.data, late.frames, late.host_time_ns, True, False, 3 * 4096))
    run(card, placed, 50)
    assert placed.lost == 3 * 4096
    assert not any(placed.errors)


def test_a_stalled_process_that_catches_up_has_lost_nothing() -> None:
    card, placed = Card(block=256), Placed(256)
    run(card, placed, 2000)
    late_s = 0.2
    while late_s > 0:  # what piled up comes in quick succession
        placed.push(card.arrival(late_s=late_s))
        late_s -= 256 / RATE_HZ
    run(card, placed, 200)
    assert placed.lost == 0


def test_wrong_stamps_at_the_start_do_not_count_as_a_loss() -> None:
    card, placed = Card(), Placed()
    placed.push(card.arrival(late_s=-0.05))
    run(card, placed, 100)
    assert placed.lost == 0


def test_the_end_of_a_stream_gives_what_was_held() -> None:
    card, placed = Card(), Placed()
    run(card, placed, 50)
    placed.push(card.arrival(lose=500))
    placed.take(placed.finder.flush())
    assert len(placed.rows) == 51


@pytest.mark.parametrize("kind", ["callback", "alsa", "usb"])
@pytest.mark.parametrize("block", [480, 997, 4096])
def test_ten_minutes_of_jitter_and_load_are_no_loss(kind: str, block: int) -> None:
    stamps = make_stamps(
        kind,  # type: ignore[arg-type]
        seconds=600,
        block=block,
        rng=np.random.default_rng(5),
        load_step=True,
    )
    finder = GapFinder(RATE_HZ, block)
    for host_s in stamps.host_s:
        finder.push(Arrival(b"", block, round(host_s * NS_PER_S), kind != "callback"))
    assert finder.lost_frames == 0


@pytest.mark.parametrize("kind", ["callback", "alsa", "usb"])
def test_500_frames_lost_move_no_later_time_by_a_millisecond(kind: str) -> None:
    stamps = make_stamps(
        kind,  # type: ignore[arg-type]
        seconds=120,
        block=4096,
        rng=np.random.default_rng(6),
    )
    finder, lost = GapFinder(RATE_HZ, 4096), 0
    for i, host_s in enumerate(stamps.host_s):
        lost = 500 if i >= 700 else 0
        at_ns = round((host_s + lost / RATE_HZ) * NS_PER_S)
        finder.push(Arrival(b"", 4096, at_ns, kind != "callback"))
    assert abs(finder.lost_frames - 500) < RATE_HZ * 1e-3


@given(data=st.data())
@settings(max_examples=60)
def test_no_index_runs_backwards_and_every_loss_is_counted(data: st.DataObject) -> None:
    block = data.draw(st.sampled_from([256, 1024, 4096]))
    card, placed = Card(block, ppm=data.draw(st.floats(-100, 100))), Placed(block)
    settle = int(3 * RATE_HZ / block)
    run(card, placed, settle)
    losses = data.draw(st.lists(st.integers(100, 100_000), min_size=1, max_size=4))
    for lose in losses:
        placed.push(card.arrival(lose=lose))
        run(card, placed, settle)
    indices = [index for index, *_ in placed.rows]
    assert indices == sorted(set(indices))
    # Before the rate is known, 2 s at 100 ppm are ten frames.
    assert abs(placed.lost - sum(losses)) <= 10 * len(losses)
    assert placed.finder.lost_frames == placed.lost


@pytest.mark.parametrize("block", [256, 4096, 8192, 16384])
def test_every_block_length_that_may_be_set_finds_a_loss_of_any_size(block: int) -> None:
    """The longest had a line that began with the same frame twice: a rate of 0 / 0."""
    card, placed = Card(block), Placed(block)
    rng = np.random.default_rng(block)
    seconds = 0
    while card.true_frame < 20 * RATE_HZ:
        seconds, before = card.true_frame // RATE_HZ, seconds
        lose = 4800 if seconds != before and seconds in (9, 14) else 0
        placed.push(card.arrival(late_s=float(rng.exponential(2e-4)), lose=lose))
    assert placed.errors[-1] == pytest.approx(0, abs=48)
    assert sum(lost for _, _, lost in placed.rows) == pytest.approx(9600, abs=48)
