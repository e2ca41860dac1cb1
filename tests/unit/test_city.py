"""The demo of a city: what is played, and its judgement of itself."""

import math
import uuid
from dataclasses import replace

import pytest

from node.city import City, Lie, Verdict, judge
from node.city.streets import CLOCK, LIAR, LIES_S, Sound, to_globe, to_scene
from node.city.verdict import Arrived
from node.messages import Incident
from node.messages.incident import Ellipse, IncidentRound, SourcePosition, Witness
from node.types import NS_PER_S, Grade
from node.utc import utc_text

T0 = 1_800_000_000 * NS_PER_S
DOUBTS = {LIAR: "its clock is 1 s ahead"}


@pytest.fixture(scope="module")
def city() -> City:
    return City.load(lie=Lie(LIAR, LIES_S))


def shots(city: City) -> list[Sound]:
    return [sound for sound in city.sounds() if sound.label == "gunfire"]


def arrived(
    city: City,
    sound: Sound,
    *,
    off_m: float = 1.0,
    late_s: float = 1.5,
    rounds: int | None = None,
    grade: Grade = "gunfire",
) -> Arrived:
    """Make the incident of a sound, off to the east, come `late_s` after the third node's ears."""
    lat_deg, lon_deg = to_globe(sound.place_m[0] + off_m, sound.place_m[1])
    utc = utc_text(T0 + round(sound.times_s[0] * NS_PER_S))
    source = SourcePosition(
        lat_deg=lat_deg, lon_deg=lon_deg, alt_m=None,
        ellipse_95=Ellipse(major_m=3.0, minor_m=2.0, bearing_deg=0.0),
    )  # fmt: skip
    count = sound.rounds if rounds is None else rounds
    made = Incident(
        schema="gunfire.incident/1", incident_id=str(uuid.uuid4()), revision=0, type="new",
        site="demo-city", utc=utc, sigma_s=0.001, position=source, local=None, round_count=count,
        rounds=(IncidentRound(utc=utc, position=source, local=None),) * count, grade=grade,
        nodes=(Witness(node_id="roof-1", event_id=str(uuid.uuid4()), residual_s=0.0, used=True),),
        silent_nodes=(), review="pending",
    )  # fmt: skip
    return Arrived(made, T0 + round((city.heard_s(sound, 3) + late_s) * NS_PER_S))


def verdict(city: City, told: list[Arrived], doubts: dict[str, str] = DOUBTS) -> Verdict:
    return judge(city, T0, told, doubts)


def test_ten_nodes_hear_five_shootings_of_seven_rounds_and_look_alikes_of_every_kind(city: City):
    assert len(city.names) == 10
    assert [sound.rounds for sound in shots(city)] == [1, 3, 1, 1, 1]
    assert {sound.label for sound in city.sounds()} == {"gunfire", "fireworks", "backfire", "other"}
    two = [sound for sound in shots(city) if 15 < sound.times_s[0] < 17]
    assert len(two) == 2
    assert math.dist(two[0].place_m, two[1].place_m) > 300
    assert two[1].times_s[0] - two[0].times_s[0] <= 0.5


def test_every_node_has_four_microphones_at_the_full_rate(city: City):
    assert {node.channels for node in city.rendered.nodes} == {4}
    assert city.rendered.scene.sample_rate_hz == 48_000


def test_stated_places_and_clocks_are_off_by_what_they_say_and_one_clock_by_a_second(city: City):
    for node in city.rendered.scene.nodes:
        off_m = math.dist((node.x_m, node.y_m), city.places_m()[node.id])
        assert 0.0 < off_m < 5 * node.sigma_m
    errors_s = dict(zip(city.names, city.clock_errors_s, strict=True))
    assert errors_s.pop(LIAR) == pytest.approx(LIES_S, abs=5 * CLOCK.sigma_s)
    assert max(map(abs, errors_s.values())) < 5 * CLOCK.sigma_s


def test_the_lie_of_a_node_that_is_not_there_is_none():
    assert City.load(lie=Lie("tower-1", 1.0)).lie is None


def test_the_plane_is_right_at_the_origin_and_there_and_back():
    # 111,132.95 m - 559.85 cos 2φ + 1.18 cos 4φ to a degree of latitude (WGS 84).
    assert to_globe(0.0, 11_096.4)[0] - 39.0 == pytest.approx(
        11_096.4 / (111_132.95 - 559.85 * math.cos(math.radians(78)) + 1.18 * math.cos(2.722)),
        abs=1e-6,
    )
    assert to_scene(*to_globe(-330.0, 240.0)) == pytest.approx((-330.0, 240.0), abs=1e-6)


def test_the_third_node_that_hears_a_shot_is_an_honest_one(city: City):
    first = shots(city)[0]  # the liar is the nearest
    honest = replace(city, lie=None)
    assert honest.heard_s(first, 3) == pytest.approx(city.heard_s(first, 2))
    assert city.heard_s(first, 1) < city.heard_s(first, 2) < city.heard_s(first, 3)


def test_all_holds_where_each_shooting_is_found_and_the_liar_too(city: City):
    told = [arrived(city, sound) for sound in shots(city)]
    came = verdict(city, told)
    assert came.holds
    assert "5 of 5 shootings" in came.sentence
    assert "7 rounds" in came.sentence
    assert "at worst 1.0 m off and 1.5 s after" in came.sentence
    assert f"{LIAR}'s clock is +1 s off: it was found out" in came.sentence


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"off_m": 11.0}, "more than 10 m off"),
        ({"late_s": 2.6}, "later than 2.5 s"),
        ({"rounds": 4}, "rounds miscounted"),
        ({"grade": "not_gunfire"}, "not on the map"),
        ({"off_m": 150.0}, "not on the map"),
    ],
)
def test_a_shooting_that_is_told_wrongly_does_not_hold(
    city: City, changed: dict[str, object], wrong: str
):
    sounds = shots(city)
    told = [arrived(city, sound) for sound in sounds[:-1]]
    told.append(arrived(city, sounds[-1], **changed))  # type: ignore[arg-type]
    came = verdict(city, told)
    assert not came.holds
    assert [o.wrong for o in came.outcomes if o.sound == sounds[-1]] == [wrong]
    assert wrong in came.sentence


def test_a_look_alike_or_nothing_at_all_on_the_map_does_not_hold(city: City):
    told = [arrived(city, sound) for sound in shots(city)]
    cracker = next(sound for sound in city.sounds() if sound.kind == "firecracker")
    calm = verdict(city, [*told, arrived(city, cracker, grade="not_gunfire")])
    assert calm.holds
    false = verdict(city, [*told, arrived(city, cracker, grade="probable_gunfire")])
    assert not false.holds
    assert [o.wrong for o in false.outcomes if o.sound == cracker] == ["taken for a shot"]
    nowhere = Sound("nothing", "other", (400.0, 0.0), (26.0,))
    stray = verdict(city, [*told, arrived(city, nowhere)])
    assert not stray.holds
    assert stray.outcomes[-1].sound is None


def test_an_alarm_that_was_taken_back_was_one(city: City):
    told = [arrived(city, sound) for sound in shots(city)]
    cracker = next(sound for sound in city.sounds() if sound.kind == "firecracker")
    alarm = arrived(city, cracker)
    back = alarm.incident.model_copy(update={"revision": 1, "type": "cancel"})
    assert not verdict(city, [*told, alarm, Arrived(back, alarm.utc_ns)]).holds


def test_a_shot_that_was_taken_back_or_told_twice_does_not_hold(city: City):
    sounds = shots(city)
    told = [arrived(city, sound) for sound in sounds]
    cancel = {"revision": 1, "type": "cancel"}
    back = replace(told[0], incident=told[0].incident.model_copy(update=cancel))
    gone = verdict(city, [*told, back])
    assert [o.wrong for o in gone.outcomes if o.sound == sounds[0]] == ["taken back"]
    second = arrived(city, sounds[0], off_m=30.0)
    twice = verdict(city, [*told, second])
    assert [o.wrong for o in twice.outcomes if o.sound == sounds[0]] == ["", "told twice"]
    # One that has made way for another of the same shot is no harm.
    assert verdict(
        city,
        [second, *told, replace(second, incident=second.incident.model_copy(update=cancel))],
    ).holds


def test_what_counts_is_the_place_told_last_and_the_time_of_the_first_alarm(city: City):
    sounds = shots(city)
    told = [arrived(city, sound) for sound in sounds]
    rough = arrived(city, sounds[0], off_m=40.0, late_s=1.0)
    fine = told[0].incident.model_copy(
        update={"incident_id": rough.incident.incident_id, "revision": 1, "type": "update"}
    )
    later = Arrived(fine, rough.utc_ns + 5 * NS_PER_S)
    came = verdict(city, [rough, later, *told[1:]])
    assert came.holds
    assert came.outcomes[0].error_m == pytest.approx(1.0, abs=0.01)
    assert came.outcomes[0].after_third_s == pytest.approx(1.0, abs=0.01)


def test_a_liar_that_nobody_noticed_and_an_honest_node_that_was_doubted_do_not_hold(city: City):
    told = [arrived(city, sound) for sound in shots(city)]
    unnoticed = verdict(city, told, {})
    assert not unnoticed.holds
    assert "nobody noticed" in unnoticed.sentence
    both = verdict(city, told, {**DOUBTS, "roof-2": "its clock is 1 s ahead"})
    assert not both.holds
    assert "doubted wrongly: roof-2" in both.sentence


def test_a_city_in_which_nobody_is_shot_at_proves_nothing(city: City):
    assert not verdict(city, []).holds
