"""The owner's side: keys, signatures, what is published, and what is not."""

import errno
import os
import tarfile
import threading
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets

from node.errors import ProvisioningError
from provisioning.update.archive import Entry, entries, facts_of
from provisioning.update.cli import release
from provisioning.update.release import Facts
from provisioning.update.repository import Repository
from tests.hil.release_server import member, pack, small_release


def nobody(role: str) -> str:
    raise AssertionError(f"asked for the passphrase of {role}")


def made(folder: Path, passphrase: str | None = None) -> Repository:
    repository = Repository(folder, lambda role: passphrase or nobody(role))
    repository.make(passphrase)
    return repository


def test_what_is_published_is_signed_and_tells_what_a_node_must_know(tmp_path: Path) -> None:
    repository = made(tmp_path / "fleet")
    facts = repository.add(small_release(tmp_path, "1.4.0"))
    served = tmp_path / "fleet" / "releases"
    root = Metadata[Root].from_bytes(repository.root)
    targets = Metadata[Targets].from_file(str(served / "metadata" / "2.targets.json"))
    root.verify_delegate("targets", targets)
    target = targets.signed.targets["gunfire-node-1.4.0-trixie-arm64.tar.zst"]
    assert Facts.of(target.path, target.custom) == facts
    assert (facts.outbox_format, facts.architecture, facts.debian) == (2, "arm64", "trixie")
    assert (served / "targets" / f"{target.hashes['sha256']}.{target.path}").exists()
    assert [f.version for f in repository.releases] == ["1.4.0"]


def test_keys_lie_beside_what_is_served_and_are_their_owners_alone(tmp_path: Path) -> None:
    made(tmp_path / "fleet")
    keys = tmp_path / "fleet" / "release-keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {f.name: f.stat().st_mode & 0o777 for f in keys.iterdir()} == {
        f"{role}.pem": 0o600 for role in ("root", "targets", "snapshot", "timestamp")
    }
    assert b"PRIVATE" not in b"".join(
        f.read_bytes() for f in (tmp_path / "fleet" / "releases").rglob("*") if f.is_file()
    )


def test_keys_that_nodes_trust_are_never_replaced(tmp_path: Path) -> None:
    repository = made(tmp_path / "fleet")
    with pytest.raises(ProvisioningError, match="never replaced"):
        repository.make()


@pytest.mark.parametrize("second", ["1.4.0", "1.3.9", "0.9.0"])
def test_nothing_is_published_that_is_not_above_the_last(tmp_path: Path, second: str) -> None:
    repository = made(tmp_path / "fleet")
    repository.add(small_release(tmp_path, "1.4.0"))
    with pytest.raises(ProvisioningError, match=r"1\.4\.0 is published already"):
        repository.add(small_release(tmp_path / "second", second))
    repository.add(small_release(tmp_path, second, architecture="amd64"))  # another node's


def test_a_closed_key_opens_by_its_passphrase_alone(tmp_path: Path) -> None:
    made(tmp_path / "fleet", "horse battery")
    archive = small_release(tmp_path, "1.4.0")
    with pytest.raises(ProvisioningError, match="does not open"):
        Repository(tmp_path / "fleet", lambda role: "staple").add(archive)
    assert Repository(tmp_path / "fleet", lambda role: "horse battery").add(archive)


def test_a_timer_renews_what_ends_soon_without_anybody_there(tmp_path: Path) -> None:
    made(tmp_path / "fleet", "horse battery")
    repository = Repository(tmp_path / "fleet", nobody)
    (tmp_path / "fleet" / "release-keys" / "root.pem").unlink()  # on its medium, in a safe
    assert repository.refresh() == []
    metadata = tmp_path / "fleet" / "releases" / "metadata"
    assert (metadata / "2.snapshot.json").exists()
    assert not (metadata / "2.targets.json").exists()


def test_a_withdrawn_release_is_offered_no_more(tmp_path: Path) -> None:
    repository = made(tmp_path / "fleet")
    repository.add(small_release(tmp_path, "1.4.0"))
    assert [f.version for f in repository.withdraw("1.4.0")] == ["1.4.0"]
    assert repository.releases == []
    assert not list((tmp_path / "fleet" / "releases" / "targets").iterdir())
    with pytest.raises(ProvisioningError, match="is not published"):
        repository.withdraw("1.4.0")


@pytest.mark.parametrize("before", ["2.snapshot.json", "timestamp.json"])
def test_what_a_cut_has_kept_from_nodes_reaches_them_by_the_next_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    repository = made(tmp_path / "fleet")

    class CutError(BaseException):
        pass

    def cut(path: Path, *what: object) -> None:
        if path.name == before:
            raise CutError
        write(path, *what)

    write = Repository._sign.__globals__["write"]
    monkeypatch.setattr("provisioning.update.repository.write", cut)
    with pytest.raises(CutError):
        repository.add(small_release(tmp_path, "1.4.0"))
    monkeypatch.undo()
    repository.refresh()
    snapshot = repository._load("snapshot", Snapshot)
    assert snapshot.signed.meta["targets.json"].version == 2
    assert [facts.version for facts in repository.releases] == ["1.4.0"]


def test_a_timer_that_signs_while_a_passphrase_is_typed_signs_no_version_twice(
    tmp_path: Path,
) -> None:
    folder, seen = tmp_path / "fleet", dict[str, bytes]()
    metadata = folder / "releases" / "metadata"
    made(folder, "horse")

    def typed(role: str) -> str:
        Repository(folder, nobody).refresh()
        seen.update({file.name: file.read_bytes() for file in metadata.glob("[0-9]*")})
        return "horse"

    repository = Repository(folder, typed)
    repository.add(small_release(tmp_path, "1.4.0"))
    repository.renew()
    repository.replace_key("timestamp")
    repository.withdraw("1.4.0")
    assert {name: (metadata / name).read_bytes() for name in seen} == seen


def test_two_at_once_sign_one_after_the_other(tmp_path: Path) -> None:
    repository = made(tmp_path / "fleet")
    threads = [threading.Thread(target=repository.refresh) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert repository._load("snapshot", Snapshot).signed.version == 9


def test_a_full_disk_is_told_and_nothing_half_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = made(tmp_path / "fleet")

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ProvisioningError, match="No space left on device: make room"):
        repository.add(small_release(tmp_path, "1.4.0"))
    assert not list((tmp_path / "fleet" / "releases" / "targets").iterdir())
    monkeypatch.undo()
    repository.add(small_release(tmp_path, "1.4.0"))


@pytest.mark.parametrize(
    "spoilt",
    [
        "release-keys/timestamp.pem",
        "release-keys/targets.pem",
        "releases/metadata/timestamp.json",
        "releases/metadata/1.root.json",
    ],
)
def test_a_folder_in_a_files_place_is_told(tmp_path: Path, spoilt: str) -> None:
    repository = made(tmp_path / "fleet")
    file = tmp_path / "fleet" / spoilt
    file.unlink()
    file.mkdir()
    with pytest.raises(ProvisioningError, match=f"{file.name}: cannot be read"):
        repository.renew()
    if "timestamp" in spoilt:
        with pytest.raises(ProvisioningError, match=f"{file.name}: cannot be read"):
            repository.refresh()
    if "root" in spoilt:
        with pytest.raises(ProvisioningError, match=f"{file.name}: cannot be read"):
            repository.root  # noqa: B018 - it is read


def test_an_archive_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    repository = made(tmp_path / "fleet")
    archive = tmp_path / "gunfire-node-1.4.0-trixie-arm64.tar.zst"
    archive.mkdir()
    with pytest.raises(ProvisioningError, match="cannot be read"):
        repository.add(archive)


def test_a_wrong_passphrase_leaves_no_copy(tmp_path: Path) -> None:
    made(tmp_path / "fleet", "horse")
    with pytest.raises(ProvisioningError, match="does not open"):
        Repository(tmp_path / "fleet", lambda role: "hose").add(small_release(tmp_path, "1.4.0"))
    assert not list((tmp_path / "fleet" / "releases" / "targets").iterdir())


def test_another_key_may_sign_for_a_role_by_the_roots_word(tmp_path: Path) -> None:
    repository = made(tmp_path / "fleet")
    before = (tmp_path / "fleet" / "release-keys" / "targets.pem").read_bytes()
    repository.replace_key("targets")
    assert (tmp_path / "fleet" / "release-keys" / "targets.pem").read_bytes() != before
    assert Metadata[Root].from_bytes(repository.root).signed.version == 2
    repository.add(small_release(tmp_path, "1.4.0"))


@pytest.mark.parametrize(
    ("inside", "word"),
    [
        ({"version": "1.3.0"}, "version is 1.3.0 inside"),
        ({"architecture": "amd64"}, "architecture is amd64 inside"),
        ({"debian": "bookworm"}, "debian is bookworm inside"),
        ({"outbox_format": "'two'"}, "outbox's format"),
    ],
)
def test_a_release_has_to_be_what_its_name_says(
    tmp_path: Path, inside: dict[str, str], word: str
) -> None:
    with pytest.raises(ProvisioningError, match=word):
        facts_of(small_release(tmp_path, "1.4.0", inside=inside))


@pytest.mark.parametrize(
    "name", ["gunfire-node-1.4-trixie-arm64.tar.zst", "gunfire-node-1.04.0-trixie-arm64.tar.zst"]
)
def test_a_release_has_a_version_of_three_numbers(tmp_path: Path, name: str) -> None:
    archive = small_release(tmp_path, "1.4.0").rename(tmp_path / name)
    with pytest.raises(ProvisioningError, match="is not called"):
        facts_of(archive)


LINK, HARD, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    ("evil", "word"),
    [
        (member("../../etc/passwd"), "outside"),
        (member("/etc/passwd"), "outside"),
        (member("a/../../b"), "outside"),
        (member("a", kind=LINK, target="/etc/passwd"), "outside"),
        (member("a", kind=LINK, target="../b"), "outside"),
        (member("lib/a", kind=LINK, target="../../b"), "outside"),
        (member("a", kind=LINK, target="lib/../../b"), "outside"),
        (member("a", kind=LINK, target="/usr/bin/python3/../sh"), "outside"),
        (member("a", kind=LINK, target=""), "outside"),
        (member("lib64/python", kind=LINK, target="x"), "below what is no folder"),
        (member("lib64/evil"), "below what is no folder"),
        (member("bin/python"), "twice"),
        (member("bin", kind=LINK, target="lib"), "twice"),
        (member("a", kind=HARD, target="bin/python"), "no file, folder or symbolic link"),
        (member("a", kind=DEVICE), "no file, folder or symbolic link"),
        (member("a", kind=tarfile.FIFOTYPE), "no file, folder or symbolic link"),
        (member("a" * 2000), "outside"),
        (member("ä" * 600), "outside"),
        (member(""), "has no name"),
        (member("."), "has no name"),
        (member("./", kind=LINK, target="lib"), "has no name"),
        (member("a" * 256), "longer than 255 bytes"),
        (member("lib/" + "ä" * 128 + "/a"), "longer than 255 bytes"),
        (member("a", kind=LINK, target="b/" * 600), "outside"),
    ],
    ids=lambda value: value.name[:24] if isinstance(value, tarfile.TarInfo) else "",
)
def test_nothing_in_an_archive_reaches_beyond_the_release(
    tmp_path: Path, evil: tarfile.TarInfo, word: str
) -> None:
    with pytest.raises(ProvisioningError, match=word):
        facts_of(small_release(tmp_path, "1.4.0", more=[(evil, b"")]))


@pytest.mark.parametrize("when", ["nan", "inf", "1e300", "-1", "4294967296"])
def test_no_file_is_of_a_time_that_no_node_can_give_it(tmp_path: Path, when: str) -> None:
    odd = member("a")
    odd.pax_headers = {"mtime": when}
    with pytest.raises(ProvisioningError, match="a was written at"):
        facts_of(small_release(tmp_path, "1.4.0", more=[(odd, b"")]))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_what_is_said_of_a_file_takes_no_more_memory_than_a_name_needs(
    tmp_path: Path, kind: bytes
) -> None:
    archive = pack(tmp_path / "a.tar.zst", [(member("pax", kind=kind), bytes(2**26))])
    assert archive.stat().st_size < 10**4
    tracemalloc.start()
    with pytest.raises(ProvisioningError, match="says more of its files than names need"):
        list(entries(archive))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


def test_little_is_said_of_each_file_or_it_adds_up(tmp_path: Path) -> None:
    def talkative(number: int) -> tarfile.TarInfo:
        info = member(f"{number}")
        info.pax_headers = {"comment": "x" * 10_000}
        return info

    few = pack(tmp_path / "few.tar.zst", [(talkative(n), b"x" * 5000) for n in range(5)])
    assert len(list(entries(few))) == 5
    many = pack(tmp_path / "many.tar.zst", [(talkative(n), b"x" * 5000) for n in range(20)])
    with pytest.raises(ProvisioningError, match="says more of its files than names need"):
        list(entries(many))


def test_many_files_with_long_names_are_no_harm(tmp_path: Path) -> None:
    long = "/".join(["a" * 100] * 9)
    files = [(member(f"{long}/{n}"), bytes(n % 1000)) for n in range(2000)]
    archive = pack(tmp_path / "a.tar.zst", files)
    assert sum(entry.kind == "file" for entry in entries(archive)) == 2000


def test_whose_a_file_is_and_what_it_may_is_not_the_archives_to_say(tmp_path: Path) -> None:
    evil = member("bin/root", mode=0o6777)
    evil.uid = 1000
    archive = pack(tmp_path / "a.tar.zst", [(evil, b"x")])
    file = next(entry for entry in entries(archive) if entry.kind == "file")
    assert file.mode == 0o755
    assert not hasattr(file, "uid")


def test_no_more_is_unpacked_than_was_signed(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.zst", [(member("zeros"), bytes(10**6))])
    assert archive.stat().st_size < 10**4
    with pytest.raises(ProvisioningError, match="more than 1000 bytes"):
        list(entries(archive, 1000))


@pytest.mark.parametrize("keep", [0, 1, 100, -20])
def test_a_damaged_archive_is_told(tmp_path: Path, keep: int) -> None:
    archive = small_release(tmp_path, "1.4.0")
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ProvisioningError, match=r"damaged|has no"):
        facts_of(archive)


def test_folders_that_are_not_told_come_before_what_is_in_them(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tar.zst", [(member("a/b/c"), b"x")])
    assert [(str(e.path), e.kind) for e in entries(archive)] == [
        ("a", "folder"),
        ("a/b", "folder"),
        ("a/b/c", "file"),
    ]
    assert isinstance(next(entries(archive)), Entry)


def test_the_command_line_goes_all_the_way(tmp_path: Path) -> None:
    folder, archive = tmp_path / "fleet", small_release(tmp_path, "1.4.0")

    def run(*words: str, typed: str = "") -> str:
        done = CliRunner().invoke(release, words, typed, obj=folder)
        assert done.exit_code == 0, done.output
        return done.output

    run("init", "--passphrase", typed="horse\nhorse\n")
    assert "published 1.4.0" in run("add", str(archive), typed="horse\n")
    assert "1.4.0  trixie arm64  outbox format 2" in run("list")
    run("refresh")
    run("renew", typed="horse\nhorse\n")
    assert Metadata[Root].from_bytes(run("root").encode()).signed.version == 2
    run("replace-key", "timestamp", typed="horse\n")
    assert "withdrawn 1.4.0" in run("withdraw", "1.4.0", typed="horse\n")
