/* Makes the disk and the clock of a process fail. Loaded before the C library (LD_PRELOAD).
 *
 * The file named by FAULT_CONTROL_FILE holds the settings below. It is mapped into the process, so a change takes effect
 * at once. Only regular files are concerned: sockets, pipes and terminals work as always. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* `FaultInjector` in fault_injector.rs writes the fields at these offsets. */
struct settings {
  volatile uint32_t disk_is_full;
  volatile uint32_t sync_fails;
  volatile uint32_t read_fails;
  volatile uint32_t unused;
  volatile int64_t clock_offset_seconds;
};

static const struct settings no_faults;
static const struct settings *settings = &no_faults;

__attribute__((constructor)) static void map_settings(void) {
  const char *path = getenv("FAULT_CONTROL_FILE");
  if (path == NULL) return;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof(struct settings), PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) settings = mapped;
  close(file);
}

/* The function of the C library with this name. */
#define ORIGINAL(name)                                            \
  static __typeof__(&name) original;                              \
  if (original == NULL) original = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int is_regular_file(int file) {
  int saved = errno;
  struct stat status;
  int is_regular = fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  errno = saved;
  return is_regular;
}

static int fails_with(int error) {
  errno = error;
  return -1;
}

#define DISK_IS_FULL(file) (settings->disk_is_full && is_regular_file(file))
#define READ_FAILS(file) (settings->read_fails && is_regular_file(file))
#define SYNC_FAILS(file) (settings->sync_fails && is_regular_file(file))

/* A full disk still takes the first half of a `write` or `pwrite`, as a real one does. The thread's next one then
 * fails. */
static size_t first_half(size_t count) {
  static __thread int was_short;
  was_short = !was_short && count > 1;
  return was_short ? count / 2 : 0;
}

#define WRITE_TO_A_FULL_DISK(file, count, call)                   \
  if (DISK_IS_FULL(file)) {                                       \
    count = first_half(count);                                    \
    return count == 0 ? fails_with(ENOSPC) : (call);              \
  }

ssize_t write(int file, const void *data, size_t count) {
  ORIGINAL(write);
  WRITE_TO_A_FULL_DISK(file, count, original(file, data, count))
  return original(file, data, count);
}

ssize_t pwrite(int file, const void *data, size_t count, off_t offset) {
  ORIGINAL(pwrite);
  WRITE_TO_A_FULL_DISK(file, count, original(file, data, count, offset))
  return original(file, data, count, offset);
}

ssize_t pwrite64(int file, const void *data, size_t count, off64_t offset) {
  ORIGINAL(pwrite64);
  WRITE_TO_A_FULL_DISK(file, count, original(file, data, count, offset))
  return original(file, data, count, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  ORIGINAL(writev);
  return DISK_IS_FULL(file) ? fails_with(ENOSPC) : original(file, parts, count);
}

int ftruncate64(int file, off64_t length) {
  ORIGINAL(ftruncate64);
  return DISK_IS_FULL(file) ? fails_with(ENOSPC) : original(file, length);
}

int fallocate64(int file, int mode, off64_t offset, off64_t length) {
  ORIGINAL(fallocate64);
  return DISK_IS_FULL(file) ? fails_with(ENOSPC) : original(file, mode, offset, length);
}

/* Returns the error instead of setting errno. */
int posix_fallocate64(int file, off64_t offset, off64_t length) {
  ORIGINAL(posix_fallocate64);
  return DISK_IS_FULL(file) ? ENOSPC : original(file, offset, length);
}

int fsync(int file) {
  ORIGINAL(fsync);
  return SYNC_FAILS(file) ? fails_with(EIO) : original(file);
}

int fdatasync(int file) {
  ORIGINAL(fdatasync);
  return SYNC_FAILS(file) ? fails_with(EIO) : original(file);
}

ssize_t read(int file, void *data, size_t count) {
  ORIGINAL(read);
  return READ_FAILS(file) ? fails_with(EIO) : original(file, data, count);
}

ssize_t pread(int file, void *data, size_t count, off_t offset) {
  ORIGINAL(pread);
  return READ_FAILS(file) ? fails_with(EIO) : original(file, data, count, offset);
}

ssize_t pread64(int file, void *data, size_t count, off64_t offset) {
  ORIGINAL(pread64);
  return READ_FAILS(file) ? fails_with(EIO) : original(file, data, count, offset);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  ORIGINAL(clock_gettime);
  int result = original(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    now->tv_sec += settings->clock_offset_seconds;
  }
  return result;
}

int gettimeofday(struct timeval *now, void *zone) {
  ORIGINAL(gettimeofday);
  int result = original(now, zone);
  if (result == 0) now->tv_sec += settings->clock_offset_seconds;
  return result;
}
