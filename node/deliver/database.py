"""One SQLite file made to survive: cuts of power, full disks, corruption; errors say what to do.

Under the outbox; knows nothing of what it holds.

Why a write-ahead log with synchronous=FULL: a commit is one sequential write and one fsync (a
rollback journal takes four), it is durable when the transaction returns, and the database proper
is not written in place at that moment, so a cut of power spoils at most the log's tail, which its
checksums then leave out.
"""

import errno
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from node.errors import OutboxError
from node.files import sync_folder

log = logging.getLogger(__name__)

LOG_BYTES: Final = 2**19
"""The write-ahead log stays below this: it is folded into the database every 64 pages, so that a
long transaction or two fit on top."""

_LOG_PAGES: Final = 64
_KEPT_ASIDE: Final = 2
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Of a file just opened: the statements are right, so it is the tables that are not ours.
_FOREIGN: Final = (*_CORRUPT, sqlite3.SQLITE_ERROR)
# A sector that cannot be read: where the file can still be renamed, the disk lives.
_UNREADABLE: Final = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)
_NO_ACCESS: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
_NO_ACCESS_ERRNO: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
)


class Database:
    """A SQLite file held by one process, used by any of its threads, one at a time.

    Parameters
    ----------
    path
        The file; it and its folder are made if absent. A corrupt one is set aside as
        `<name>.corrupt-<n>` and a new one started; one of a later version as
        `<name>.format-<version>-<n>`, since a node that goes back to an earlier version, or whose
        disk has spoilt that number, is to hear all the same.
    schema
        Statements that make the tables of an empty file.
    version
        Number of that schema, ≥ 1.
    migrations
        For each earlier version the statements that make the next one of it.
    opened
        Called with the connection whenever a file has been opened: at first, and when a corrupt
        one had to be replaced.

    Raises
    ------
    OutboxError
        If the file cannot be opened, is another program's, or another process holds it. A full
        disk is told by the uses that fail on it.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        version: int,
        migrations: Mapping[int, str],
        opened: Callable[[sqlite3.Connection], None],
    ) -> None:
        self._path = path
        self._schema = schema
        self._version = version
        self._migrations = migrations
        self._opened = opened
        self._opened_files: tuple[tuple[int, int] | None, ...] = ()
        self.notices: list[str] = []
        self.lock = threading.RLock()
        # None while no file could be opened yet for want of room: each use tries again.
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = self._open()
        except OutboxError as error:
            if not is_full(error):
                raise
            log.warning("%s", error)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; durable when left without an exception."""
        with self.guard() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # some errors have SQLite roll back by itself
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def guard(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock, and turn what SQLite and the disk say into an `OutboxError`."""
        with self.lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                elif self._found() != self._opened_files and not self._connection.in_transaction:
                    self._connection = self._put_back(self._connection)
                yield self._connection
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if _is_corrupt(error):
                    self._start_anew(error)
                raise self.error(error) from error
            except OutboxError:
                raise
            except OSError as error:
                raise self.error(error) from error

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()

    def error(self, cause: Exception) -> OutboxError:
        """Make the error that says what to do about a cause."""
        return outbox_error(self._path, cause)

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                return self._connect()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                code = getattr(error, "sqlite_errorcode", 0)
                if _primary_code(error) not in _FOREIGN and code not in _UNREADABLE:
                    raise
                self._set_aside(error)
                return self._connect()
        except OutboxError:
            raise
        except (sqlite3.Error, OSError) as error:
            raise self.error(error) from error

    def _start_anew(self, cause: Exception) -> None:
        """Replace the file; where that fails (a full disk), the next use tries again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        try:
            self._set_aside(cause)
        except OSError as error:
            raise self.error(error) from error
        self._connection = self._open()

    def _connect(self) -> sqlite3.Connection:
        # What is in it, such as a node's place, is not for everybody; the log takes after it. One
        # that is there is not opened: closing it would let go of SQLite's locks.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        if not os.access(self._path, os.R_OK | os.W_OK):
            # SQLite would open it, and fail at the lock as if the disk had.
            raise PermissionError(errno.EACCES, "may not be read or written", str(self._path))
        db = sqlite3.connect(self._path, timeout=2, isolation_level=None, check_same_thread=False)
        db.text_factory = lambda text: text.decode(errors="replace")
        try:
            # Exclusive: two processes would send everything twice; and the log then needs no
            # memory-mapped index, one file fewer for a cut of power to leave behind.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise _Damaged(verdict)
            self._bring_up_to_date(db)
            self._see_that_it_takes_writing(db)
            self._opened(db)
            self._opened_files = self._found()
        except BaseException:
            db.close()
            raise
        return db

    def _found(self) -> tuple[tuple[int, int] | None, ...]:
        """Say which files, database and log, stand under our names."""
        return tuple(
            _which(self._path.with_name(self._path.name + suffix)) for suffix in ("", "-wal")
        )

    def _put_back(self, db: sqlite3.Connection) -> sqlite3.Connection:
        """Write the file again: what is written into one that somebody has removed is not kept."""
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(fresh)) as copy:
            db.backup(copy)
        self._connection = None
        db.close()
        self._path.with_name(self._path.name + "-wal").unlink(missing_ok=True)
        fresh.replace(self._path)
        sync_folder(fresh.parent)
        notice = (
            f"outbox {self._path}: somebody removed or replaced it; it is put back with all that "
            "waits: stop gunfire-node before touching its files"
        )
        log.error("%s", notice)
        if notice not in self.notices:
            self.notices.append(notice)
        return self._open()

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        """Make the tables, or what an earlier version made into ours, all or nothing."""
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        if found == self._version:
            return
        self._refuse_another_programs(db)
        if found > self._version:
            raise _LaterFormat(found, self._version)
        if found < 0:
            raise _Damaged(f"format {found}")
        if found == 0:
            steps = self._schema
        else:
            steps = "".join(self._migrations[step] for step in range(found, self._version))
        db.executescript(f"BEGIN IMMEDIATE; {steps}PRAGMA user_version = {self._version}; COMMIT;")
        sync_folder(self._path.parent)

    def _see_that_it_takes_writing(self, db: sqlite3.Connection) -> None:
        """Begin to write and roll it back: one spoilt byte has SQLite take a file as read-only.

        Nothing reaches the disk.
        """
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute(f"PRAGMA user_version = {self._version}")
        except sqlite3.OperationalError as error:
            if _primary_code(error) == sqlite3.SQLITE_READONLY:
                raise _Damaged(str(error)) from error
            raise
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _refuse_another_programs(self, db: sqlite3.Connection) -> None:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        ours = set(re.findall(r"CREATE TABLE (\w+)", self._schema))
        if names and not names & ours:
            raise OutboxError(
                f"outbox {self._path}: is another program's database (it holds "
                f"{min(names)!r}): set outbox.path to a file of its own"
            )

    def _set_aside(self, cause: Exception) -> None:
        kind = f"format-{cause.found}" if isinstance(cause, _LaterFormat) else "corrupt"
        name = f"{self._path.name}.{kind}-{max(aside_numbers(self._path), default=0) + 1}"
        # The log last: without it the file may be a sound one of a moment ago, whose numbers would
        # be given out again. A log without a file SQLite removes.
        for suffix in ("", "-wal"):
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                file.rename(self._path.with_name(name + suffix))
        for old in sorted(aside_numbers(self._path, "corrupt"))[:-_KEPT_ASIDE]:
            for suffix in ("-wal", ""):
                stale = self._path.with_name(f"{self._path.name}.corrupt-{old}{suffix}")
                stale.unlink(missing_ok=True)
        notice = (
            f"outbox {self._path}: {cause} and is set aside as {name}; what waited in it was not "
            "sent: keep it for the version that wrote it"
            if isinstance(cause, _LaterFormat)
            else f"outbox {self._path}: was corrupt ({cause}) and is set aside as {name}; what "
            f"waited in it was not sent: try `sqlite3 {name} .recover`, and check the disk"
        )
        log.error("%s", notice)
        self.notices.append(notice)
        sync_folder(self._path.parent)


def _which(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def aside_numbers(path: Path, kind: str = r"(?:corrupt|format-\d+)") -> list[int]:
    """Give the numbers of the files that were set aside beside a database."""
    pattern = re.compile(rf"{re.escape(path.name)}\.{kind}-(\d+)")
    matches = (pattern.fullmatch(file.name) for file in path.parent.iterdir())
    return [int(match[1]) for match in matches if match is not None]


def outbox_error(path: Path, cause: Exception) -> OutboxError:
    """Make the error that says what to do about a cause."""
    return OutboxError(f"outbox {path}: {_what_to_do(cause)}")


def is_full(error: OutboxError) -> bool:
    """Whether an error says that the disk is full."""
    return _says_full(error.__cause__)


class _Damaged(sqlite3.DatabaseError):
    """SQLite's own check found damage; it reports that as text, not as an error."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


class _LaterFormat(sqlite3.DatabaseError):
    """A later version has written the file, or a disk its number."""

    sqlite_errorcode = sqlite3.SQLITE_ERROR

    def __init__(self, found: int, known: int) -> None:
        super().__init__(f"is of format {found}, this version knows {known},")
        self.found = found


def _is_corrupt(error: Exception) -> bool:
    return _primary_code(error) in _CORRUPT


def _says_full(error: BaseException | None) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return _primary_code(error) == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT)


def _primary_code(error: BaseException | None) -> int:
    if isinstance(error, UnicodeDecodeError):  # SQLite quotes a spoilt name in its own error
        return sqlite3.SQLITE_CORRUPT
    # The low byte of SQLite's extended codes is the primary one.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _what_to_do(error: Exception) -> str:
    code = _primary_code(error)
    number = error.errno if isinstance(error, OSError) else None
    if _says_full(error):
        return "no space left on its disk: free some, or move it by outbox.path"
    if code == sqlite3.SQLITE_BUSY:
        return "another process holds it: stop the other gunfire-node, or set another outbox.path"
    if code in _NO_ACCESS or number in _NO_ACCESS_ERRNO:
        return f"cannot be written ({error}): let this user write the file and its folder"
    if code in _CORRUPT:
        return f"was corrupt ({error}) and is set aside; a new one is started: try again"
    return f"the disk failed ({error}): check it, and the kernel's log"
