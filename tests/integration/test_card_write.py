"""A card is written and read back: a real image of two partitions, onto files and loop devices."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner, Result

from node.errors import ProvisioningError
from provisioning.card import write as writing
from provisioning.card.cli import cli, main
from provisioning.card.disks import Target
from provisioning.card.image import Image
from provisioning.first_boot import apply
from tests.unit.provisioning.cards import BOARD, node, now_ns, right_text

MB = 2**20
FAT_AT, FAT_MB, SIZE_MB = 4 * MB, 40, 64

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("mcopy", "mkfs.vfat", "mkfs.ext4", "sfdisk")),
    reason="needs mtools, dosfstools, e2fsprogs and fdisk",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an image as `make image` does: MBR, FAT with a file, ext4."""
    folder = tmp_path_factory.mktemp("image")
    image, fat = folder / "node.img", folder / "fat"
    with image.open("wb") as file:
        file.truncate(SIZE_MB * MB)
    table = f"label: dos\nstart=4MiB,size={FAT_MB}MiB,type=c,bootable\nstart=44MiB,type=83\n"
    subprocess.run(["sfdisk", "--quiet", image], input=table, text=True, check=True)
    with fat.open("wb") as file:
        file.truncate(FAT_MB * MB)
    quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["mkfs.vfat", "-F", "32", "-s", "1", "-n", "GUNFIRE", fat], **quiet)
    kernel = folder / "kernel"
    kernel.write_bytes(os.urandom(3 * MB))
    subprocess.run(["mcopy", "-i", fat, kernel, "::kernel8.img"], **quiet)
    with image.open("rb+") as file:
        file.seek(FAT_AT)
        file.write(fat.read_bytes())
    ext4 = ["mkfs.ext4", "-q", "-F", "-E", f"offset={44 * MB}", image, "20M"]
    subprocess.run(ext4, check=True)
    fat.unlink()
    return image


@pytest.fixture
def image(made: Path, tmp_path: Path) -> Path:
    """Give a copy of it, for a test to spoil."""
    return Path(shutil.copy(made, tmp_path / "node.img"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(right_text())
    return file


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["write", *map(str, words)], standalone_mode=False)


def on_fat(card: Path, name: str = "gunfire-node.toml") -> bytes:
    return subprocess.run(
        ["mcopy", "-n", "-i", f"{card}@@{FAT_AT}", f"::{name}", "-"],
        capture_output=True,
        check=True,
    ).stdout


def beyond_fat(path: Path) -> bytes:
    data = path.read_bytes()
    return data[:FAT_AT] + data[FAT_AT + FAT_MB * MB :]


def packed(image: Path, how: str) -> Path:
    if how == "":
        return image
    tool = {".zst": ["zstd", "--quiet", "--keep"], ".xz": ["xz", "--keep", "-0"]}[how]
    subprocess.run([*tool, image], check=True)
    return image.with_name(image.name + how)


def with_map(image: Path) -> None:
    if shutil.which("bmaptool") is None:
        pytest.skip("needs bmaptool (apt-get install bmap-tools)")
    map_file = image.with_name(image.name + ".bmap")
    subprocess.run(["bmaptool", "--quiet", "create", image, "-o", map_file], check=True)


@pytest.mark.parametrize("how", ["", ".zst", ".xz"])
@pytest.mark.parametrize("mapped", [True, False])
def test_image_and_file_lie_on_the_card_as_they_are(
    how: str, mapped: bool, image: Path, file: Path, tmp_path: Path
) -> None:
    if mapped:
        with_map(image)
    card = tmp_path / "card.img"
    done = run(packed(image, how), file, "--to", card)
    assert done.exception is None, done.exception
    assert "read both back: the same" in done.output
    assert on_fat(card) == file.read_bytes()
    assert on_fat(card, "kernel8.img") == on_fat(image, "kernel8.img")
    assert beyond_fat(card) == beyond_fat(image)
    assert card.stat().st_size == SIZE_MB * MB
    assert card.stat().st_mode & 0o077 == 0  # there is a token on it


def test_a_file_written_again_replaces_the_one_before(
    image: Path, file: Path, tmp_path: Path
) -> None:
    card = tmp_path / "card.img"
    card.write_bytes(b"\xff" * (SIZE_MB + 1) * MB)
    for text in (right_text(), right_text().replace("riverside", "hillside")):
        file.write_text(text)
        assert run(image, file, "--to", card, "--yes").exception is None
        assert on_fat(card) == text.encode()
    assert beyond_fat(card) == beyond_fat(image)


def test_a_checksum_beside_the_image_is_held_to(image: Path, file: Path, tmp_path: Path) -> None:
    sums = image.with_name(image.name + ".sha256")
    card = tmp_path / "card.img"
    sums.write_text(f"{hashlib.sha256(image.read_bytes()).hexdigest()}  {image.name}\n")
    done = run(image, file, "--to", card)
    assert done.exception is None
    assert "was not checked" not in done.output
    with image.open("rb+") as data:
        data.seek(50 * MB)
        data.write(b"x")
    card.unlink()
    assert "broken or another" in str(run(image, file, "--to", card).exception)
    assert not card.exists()
    sums.write_text("?")
    assert "holds no SHA-256" in str(run(image, file, "--to", card).exception)


@pytest.mark.parametrize("how", [".zst", ".xz"])
def test_an_image_that_is_cut_short_is_told(
    how: str, image: Path, file: Path, tmp_path: Path
) -> None:
    path = packed(image, how)
    with path.open("rb+") as data:
        data.truncate(path.stat().st_size // 2)
    done = run(path, file, "--to", tmp_path / "card.img")
    assert "fetch it anew" in str(done.exception)


def test_an_image_that_does_not_tell_its_size_and_is_cut_short_is_told(
    image: Path, file: Path, tmp_path: Path
) -> None:
    whole = zstandard.ZstdCompressor(write_content_size=False).compress(image.read_bytes())
    path = image.with_name("node.img.zst")
    card = tmp_path / "card.img"
    for cut in (whole[: len(whole) // 2], whole[:-1], whole[:2], whole + b"x", b""):
        path.write_bytes(cut)
        done = run(path, file, "--to", card)
        assert f"{path}: is broken or cut short" in str(done.exception)
        assert not card.exists()
    path.write_bytes(whole)
    assert run(path, file, "--to", card).exception is None


def test_an_image_of_several_frames_is_as_large_as_all(
    image: Path, file: Path, tmp_path: Path
) -> None:
    data, path = image.read_bytes(), image.with_name("node.img.zst")
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    skipped = bytes.fromhex("502a4d18 03000000") + b"abc"
    path.write_bytes(pack(data[: 9 * MB]) + skipped + pack(data[9 * MB :]))
    assert Image.of(path).size_bytes == len(data)
    assert run(path, file, "--to", tmp_path / "card.img").exception is None


def test_an_image_that_is_not_the_one_of_its_map_is_told(
    image: Path, file: Path, tmp_path: Path
) -> None:
    with_map(image)
    with image.open("rb+") as data:
        data.seek(FAT_AT + MB)
        data.write(b"x")
    done = run(image, file, "--to", tmp_path / "card.img")
    assert "differs from its map" in str(done.exception)


@pytest.mark.parametrize(
    ("text", "words"),
    [("<bmap>", "is no map"), ("<!DOCTYPE x [<!ENTITY a 'b'>]><bmap/>", "is no map")],
)
def test_a_map_that_is_none_is_told(
    text: str, words: str, image: Path, file: Path, tmp_path: Path
) -> None:
    image.with_name(image.name + ".bmap").write_text(text)
    assert words in str(run(image, file, "--to", tmp_path / "card.img").exception)


def summed(text: str) -> str:
    """Give a map its checksum, as bmaptool does."""
    blank = re.sub("[0-9a-f]{64}(?= </BmapFileChecksum>)", "0" * 64, text)
    right = hashlib.sha256(blank.encode()).hexdigest()
    return re.sub("0{64}(?= </BmapFileChecksum>)", right, blank)


@pytest.mark.parametrize(
    ("pattern", "other", "words"),
    [
        (r"(?s)<Range[^\n]*\n(?=[^\n]*</BlockMap>)", "", "its checksum is another"),
        (r"<BmapFileChecksum>.*</BmapFileChecksum>", "", "it has no checksum"),
    ],
)
def test_a_map_that_was_changed_is_told(
    pattern: str, other: str, words: str, image: Path, file: Path, tmp_path: Path
) -> None:
    with_map(image)
    bmap = image.with_name(image.name + ".bmap")
    changed = re.sub(pattern, other, bmap.read_text())
    assert changed != bmap.read_text()
    bmap.write_text(changed)
    done = run(image, file, "--to", tmp_path / "card.img")
    assert words in str(done.exception)
    assert not (tmp_path / "card.img").exists()


RANGE = '<Range chksum="[0-9a-f]+"> [0-9-]+ </Range>'


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (RANGE, "<Range> 600-0 </Range>"),
        (RANGE, "<Range> 0-2 </Range><Range> 2 </Range>"),
        (RANGE, "<Range> 5 </Range><Range> 3 </Range>"),
        (RANGE, "<Range> 99999999 </Range>"),
        ("<BlockSize> [0-9]+", "<BlockSize> 0"),
    ],
)
def test_a_map_whose_stretches_are_none_is_told(
    pattern: str, other: str, image: Path, file: Path, tmp_path: Path
) -> None:
    with_map(image)
    bmap = image.with_name(image.name + ".bmap")
    bmap.write_text(summed(bmap.read_text()))
    assert run(image, file, "--to", tmp_path / "right.img").exception is None
    bmap.write_text(summed(re.sub(pattern, other, bmap.read_text(), count=1)))
    done = run(image, file, "--to", tmp_path / "card.img")
    assert "is no map of an image" in str(done.exception)
    assert not (tmp_path / "card.img").exists()


def test_an_image_of_something_else_is_told(file: Path, tmp_path: Path) -> None:
    image = tmp_path / "other.img"
    image.write_bytes(bytes(MB))
    done = run(image, file, "--to", tmp_path / "card.img")
    assert f"{image}: has no FAT partition" in str(done.exception)


@pytest.mark.parametrize(
    ("which", "words"), [("gzip", "has no FAT partition"), ("another", "is not labelled GUNFIRE")]
)
def test_what_is_no_image_of_a_node_erases_nothing(
    which: str, words: str, image: Path, file: Path, tmp_path: Path
) -> None:
    if which == "gzip":
        image.write_bytes(gzip.compress(bytes(MB)))
    else:
        with image.open("rb+") as data:
            data.seek(FAT_AT + 71)
            data.write(b"bootfs     ")
    card = tmp_path / "card.img"
    card.write_bytes(b"mine")
    done = run(image, file, "--to", card, "--yes")
    assert f"{image}: " in str(done.exception)
    assert words in str(done.exception)
    assert card.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["node.img", "link", "mine.toml", "node.img.sha256", "node.bmap"])
def test_what_is_written_from_is_not_written_over(
    name: str, image: Path, file: Path, tmp_path: Path
) -> None:
    sums = image.with_name(image.name + ".sha256")
    sums.write_text(f"{hashlib.sha256(image.read_bytes()).hexdigest()}  {image.name}\n")
    with_map(image)
    image.with_name(image.name + ".bmap").rename(image.with_suffix(".bmap"))
    (tmp_path / "link").symlink_to(image)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = run(image, file, "--to", tmp_path / name, "--yes")
    assert f"{tmp_path / name}: is what is written from" in str(done.exception)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_is_there_is_not_replaced_without_being_asked(
    image: Path, file: Path, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("mine")
    done = run(image, file, "--to", thesis)
    assert f"would be erased; say --to {thesis} --yes if that is meant" in str(done.exception)
    assert thesis.read_text() == "mine"


def test_a_file_that_fails_midway_is_as_it_was(
    image: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, fresh = tmp_path / "card.img", tmp_path / "fresh.img"
    card.write_text("mine")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(writing, "_write_all", stopped_after(2, OSError(errno.ENOSPC, "full")))
    for target in (card, fresh):
        done = run(image, file, "--to", target, "--yes")
        assert "cannot be written: full" in str(done.exception)
        assert "half written" not in str(done.exception)
    assert card.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_that_mtools_takes_for_an_offset_is_refused(
    image: Path, file: Path, tmp_path: Path
) -> None:
    done = run(image, file, "--to", tmp_path / "x@@1.img")
    assert "name another without @@" in str(done.exception)
    assert not (tmp_path / "x@@1.img").exists()


def stopped_after(times: int, why: BaseException) -> Callable[[int, bytes, int], None]:
    """Write as often, then fail."""
    write, left = writing._write_all, iter(range(times))

    def stopped(descriptor: int, part: bytes, at: int) -> None:
        if next(left, None) is None:
            raise why
        write(descriptor, part, at)

    return stopped


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "take another card"),
        (OSError(errno.ENOSPC, "No space left"), "take a larger card"),
        (ProvisioningError("x.img: is broken or cut short"), "is broken or cut short"),
        (KeyboardInterrupt(), ""),
    ],
)
def test_a_card_that_is_half_written_is_called_so(
    why: BaseException,
    words: str,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(SIZE_MB * MB))
    # Of a file the kernel ignores O_EXCL, so it stands for a device here.
    card = Target(disk, SIZE_MB * MB, "a card")
    monkeypatch.setattr(writing, "_write_all", stopped_after(2, why))
    with (
        pytest.raises(BaseException, match="half written and starts no node") as told,
        writing.placed(card) as placed,
    ):
        writing.write_image(Image.of(image), placed, lambda _: None)
    assert words in str(told.value)
    assert isinstance(told.value, ProvisioningError | KeyboardInterrupt)


def test_nothing_is_written_where_the_file_is_wrong(
    image: Path, file: Path, tmp_path: Path
) -> None:
    card = tmp_path / "card.img"
    file.write_text(right_text().replace("channels = 5", "channels = 50"))
    assert "line 8: capture.channels = 50" in str(run(image, file, "--to", card).exception)
    file.unlink()
    assert "is not there" in str(run(image, file, "--to", card).exception)
    assert not card.exists()


def test_a_card_that_does_not_read_back_is_told(image: Path, tmp_path: Path) -> None:
    card = Target(tmp_path / "card.img", None, "a file")
    spans = writing.write_image(Image.of(image), card, lambda _: None)
    with card.path.open("rb+") as bad:
        bad.seek(FAT_AT + 2 * MB)
        byte = bad.read(1)
        bad.seek(-1, os.SEEK_CUR)
        bad.write(bytes([byte[0] ^ 1]))
    with pytest.raises(Exception, match="does not read back as it was written"):
        writing.compare_image(card, spans, lambda _: None)


def test_a_fat_partition_that_is_full_is_told(image: Path, file: Path, tmp_path: Path) -> None:
    filler = tmp_path / "filler"
    filler.write_bytes(b"\1" * 60 * MB)
    where = f"{image}@@{FAT_AT}"
    subprocess.run(["mcopy", "-i", where, filler, "::filler"], capture_output=True, check=False)
    free = int(
        subprocess.run(["mdir", "-i", where], capture_output=True, text=True, check=True)
        .stdout.rsplit("bytes free")[0]
        .split("\n")[-1]
        .replace(" ", "")
    )
    if free:
        filler.write_bytes(b"\1" * free)
        subprocess.run(["mcopy", "-i", where, filler, "::more"], capture_output=True, check=False)
    done = run(image, file, "--to", tmp_path / "card.img")
    assert "its first partition is full" in str(done.exception)


# Real block devices: loop devices, where there are some.


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """Give a block device a bit larger than the image, full of what was on it before."""
    backing = tmp_path / "backing"
    backing.write_bytes(os.urandom(MB) * (SIZE_MB + 8))
    try:
        done = subprocess.run(
            ["losetup", "--find", "--show", backing], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root and loop devices")
    device = Path(done.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_a_device_is_written_and_read_back_past_its_cache(
    image: Path, file: Path, loop: Path
) -> None:
    with_map(image)
    done = run(packed(image, ".zst"), file, "--to", loop, "--yes")
    assert done.exception is None, done.exception
    assert on_fat(loop) == file.read_bytes()
    assert on_fat(loop, "kernel8.img") == on_fat(image, "kernel8.img")


def test_a_device_is_not_erased_without_being_asked(image: Path, file: Path, loop: Path) -> None:
    before = hashlib.sha256(loop.read_bytes()).digest()
    done = run(image, file, "--to", loop)
    assert f"would be erased; say --to {loop} --yes if that is meant" in str(done.exception)
    assert "0.1 GB" in done.output
    assert hashlib.sha256(loop.read_bytes()).digest() == before


def test_a_device_that_somebody_stops_writing_is_called_half_written(
    image: Path,
    file: Path,
    loop: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ["gunfire-card", "write", image, file, "--to", loop, "--yes"]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    monkeypatch.setattr(writing, "_write_all", stopped_after(2, KeyboardInterrupt()))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    said = capfd.readouterr().err
    assert "gunfire-card: stopped\n" in said
    assert f"gunfire-card: {loop}: the card is half written and starts no node" in said


def test_a_device_that_is_too_small_is_refused(
    image: Path, file: Path, loop: Path, tmp_path: Path
) -> None:
    with image.open("rb+") as data:
        data.truncate((SIZE_MB + 64) * MB)
    assert "take a larger card" in str(run(image, file, "--to", loop, "--yes").exception)


def test_a_device_that_is_mounted_is_refused(
    image: Path, file: Path, loop: Path, tmp_path: Path
) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", loop], check=True)
    point = tmp_path / "mounted"
    point.mkdir()
    if subprocess.run(["mount", loop, point], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        done = run(image, file, "--to", loop, "--yes")
        assert f"is mounted at {point}" in str(done.exception)
        # And where nobody looked: the kernel refuses too.
        with pytest.raises(Exception, match="it is in use; unmount it"):
            writing.write_image(Image.of(image), Target(loop, 1, "x"), lambda _: None)
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize("kind", ["vfat", "ext4"])
def test_the_node_writes_to_a_partition_that_is_read_only_and_leaves_it_so(
    kind: str, tmp_path: Path
) -> None:
    partition = tmp_path / "partition"
    with partition.open("wb") as data:
        data.truncate(FAT_MB * MB)
    make = {"vfat": ["-F", "32", "-s", "1"], "ext4": ["-q"]}[kind]
    subprocess.run([f"mkfs.{kind}", *make, partition], check=True, capture_output=True)
    places = node(tmp_path / "root")
    options = "loop" + (",fmask=0177,dmask=0077" if kind == "vfat" else "")
    mounted = subprocess.run(
        ["mount", "-t", kind, "-o", options, partition, places.boot],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"may not mount {kind} here: {mounted.stderr.splitlines()[0]}")
    try:
        subprocess.run(["mount", "-o", "remount,ro", places.boot], check=True)
        assert apply(places, now_ns, BOARD) is not None  # there is no file
        assert b"is not there" in places.error_file.read_bytes()
        assert os.statvfs(places.boot).f_flag & os.ST_RDONLY
        with pytest.raises(OSError, match="Read-only"):
            places.error_file.unlink()
    finally:
        subprocess.run(["umount", places.boot], check=True)
