/* Preloaded by kills.py: counts what a process does to files, and kills it (SIGKILL) before the n-th time.
 *
 *     kills_arm(0)   count only
 *     kills_arm(7)   die before the seventh
 *     kills_count()  how many there were
 *
 * Counted: files opened to be written, writes to regular files, truncations, syncs, new folders and links, renames,
 * removals. Not counted: what the C library does inside itself (fopen), whose renames and syncs are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long count = -1; /* below 0: not armed */
static long last = 0;

void kills_arm(long n) { last = n; atomic_store(&count, 0); }
long kills_count(void) { return atomic_load(&count); }

static void event(void) {
    if (atomic_load(&count) < 0) return;
    if (atomic_fetch_add(&count, 1) + 1 == last) kill(getpid(), SIGKILL);
}

static void content(int fd) {
    struct stat found;
    if (atomic_load(&count) >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode)) event();
}

#define WRITES (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

#define OPEN(name) int name(const char *path, int flags, ...) { MODE REAL(int, #name, const char *, int, ...); if (flags & WRITES) event(); return real(path, flags, mode); }
#define OPENAT(name) int name(int at, const char *path, int flags, ...) { MODE REAL(int, #name, int, const char *, int, ...); if (flags & WRITES) event(); return real(at, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

int rename(const char *a, const char *b) { REAL(int, "rename", const char *, const char *); event(); return real(a, b); }
int renameat(int x, const char *a, int y, const char *b) { REAL(int, "renameat", int, const char *, int, const char *); event(); return real(x, a, y, b); }
int link(const char *a, const char *b) { REAL(int, "link", const char *, const char *); event(); return real(a, b); }
int symlink(const char *a, const char *b) { REAL(int, "symlink", const char *, const char *); event(); return real(a, b); }
int unlink(const char *a) { REAL(int, "unlink", const char *); event(); return real(a); }
int unlinkat(int x, const char *a, int f) { REAL(int, "unlinkat", int, const char *, int); event(); return real(x, a, f); }
int rmdir(const char *a) { REAL(int, "rmdir", const char *); event(); return real(a); }
int mkdir(const char *a, mode_t m) { REAL(int, "mkdir", const char *, mode_t); event(); return real(a, m); }
int mkdirat(int x, const char *a, mode_t m) { REAL(int, "mkdirat", int, const char *, mode_t); event(); return real(x, a, m); }
int fsync(int fd) { REAL(int, "fsync", int); event(); return real(fd); }
int fdatasync(int fd) { REAL(int, "fdatasync", int); event(); return real(fd); }
int ftruncate(int fd, off_t n) { REAL(int, "ftruncate", int, off_t); event(); return real(fd, n); }
int ftruncate64(int fd, off64_t n) { REAL(int, "ftruncate64", int, off64_t); event(); return real(fd, n); }
ssize_t write(int fd, const void *b, size_t n) { REAL(ssize_t, "write", int, const void *, size_t); content(fd); return real(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(ssize_t, "pwrite", int, const void *, size_t, off_t); content(fd); return real(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t); content(fd); return real(fd, b, n, o); }
ssize_t sendfile(int o, int i, off_t *p, size_t n) { REAL(ssize_t, "sendfile", int, int, off_t *, size_t); event(); return real(o, i, p, n); }
ssize_t sendfile64(int o, int i, off64_t *p, size_t n) { REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t); event(); return real(o, i, p, n); }
