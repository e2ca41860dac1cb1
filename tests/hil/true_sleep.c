/* Sleeps by the kernel's clocks, before libfaketime sees them.
 *
 * libfaketime 0.9.10 (Debian 12) answers EINVAL to a sleep until a moment of CLOCK_MONOTONIC where it
 * leaves that clock alone, and so to each of Python's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
  return syscall(SYS_clock_nanosleep, clock, flags, until, left) == 0 ? 0 : errno;
}
