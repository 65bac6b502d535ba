/* What the bench needs in C: a module that writes, and programs that do one thing and nothing else (the limits).
 *   write FIFO ID bulk|line BYTES GO        a module that fills its stdout once GO exists
 *   spawn FIFO N CHILD                      limit: vfork + two pipes a child, restarts the dead, TERM ends all
 *   sink DIR ROTATE -- ARGV...              limit: a child's stdout over a 1 MiB pipe into rotating files
 *   echo SOCKET BYTES                       limit: answers a line with so many bytes
 *   ask SOCKET COUNT DEPTH REQUEST          times COUNT request lines, DEPTH of them under way
 *   exec COUNT -- ARGV...                   times COUNT runs of a program, from vfork to its end
 *   verify FILE...                          looks for every line that `write` wrote */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, LINES = 640 };
static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
static void need(int fine, const char *what) {
    if (!fine) { perror(what); exit(1); }
}
static void put(int fd, const char *bytes, size_t n) {
    for (ssize_t w; n; bytes += w, n -= (size_t)w) {
        w = write(fd, bytes, n);
        if (w < 0 && (errno == EAGAIN || errno == EINTR)) { w = 0; usleep(50); }
        need(w >= 0, "write");
    }
}
static int by_size(const void *a, const void *b) {
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}
static void show(long long *took, int n, long long all) {
    qsort(took, (size_t)n, sizeof *took, by_size);
    printf("{\"p50_us\": %.3f, \"p99_us\": %.3f, \"per_s\": %.0f}\n", took[n / 2] / 1e3, took[(int)(n * 0.99)] / 1e3, n * 1e9 / (double)all);
}

static void report(char **argv, const char *mark) {
    char line[300];
    int n = snprintf(line, sizeof line, "%s%s %d %lld\n", argv[1], mark, getpid(), now()), fd = open(argv[0], O_WRONLY);
    need(fd >= 0, argv[0]);
    put(fd, line, (size_t)n);
    close(fd);
}
static int writer(int argc, char **argv) {
    static char lines[LINES * LINE];
    need(argc == 5, "usage");
    int each = strcmp(argv[2], "line") ? LINES : 1;
    long long left = atoll(argv[3]) / LINE, number = 0;
    for (int i = 0; i < LINES; i++) {
        memset(lines + i * LINE, 'a' + i % 26, LINE);
        lines[i * LINE] = lines[i * LINE + 13] = '#';
        lines[i * LINE + LINE - 1] = '\n';
    }
    report(argv, "");
    while (access(argv[4], F_OK)) usleep(1000);
    report(argv, ".begin");
    for (; left > 0; left -= each) {
        int n = left < each ? (int)left : each;
        for (int i = 0; i < n; i++, number++) {
            long long v = number;
            for (char *d = lines + i * LINE + 12; d > lines + i * LINE; v /= 10) *d-- = (char)('0' + v % 10);
        }
        put(1, lines, (size_t)n * LINE);
    }
    report(argv, ".end");
    for (;;) pause();
    return 0;
}

static pid_t give_birth(char **argv, int out, int err) {
    pid_t pid = vfork();
    if (!pid) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        if (out >= 0) dup2(out, 1);
        if (err >= 0) dup2(err, 2);
        execv(argv[0], argv);
        _exit(127);
    }
    need(pid > 0, "vfork");
    return pid;
}

static int spawn(int argc, char **argv) {
    need(argc == 3, "usage");
    int n = atoi(argv[1]), ended = 0;
    struct { pid_t pid; int out[2], err[2]; char id[16]; } *all = calloc((size_t)n, sizeof *all);
    sigset_t mask;
    sigemptyset(&mask), sigaddset(&mask, SIGCHLD), sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    for (int i = 0; i < n; i++) {
        need(!pipe2(all[i].out, O_CLOEXEC) && !pipe2(all[i].err, O_CLOEXEC), "pipe2");
        snprintf(all[i].id, sizeof all[i].id, "m%04d", i);
        all[i].pid = give_birth((char *[]){ argv[2], argv[0], all[i].id, NULL }, all[i].out[1], all[i].err[1]);
    }
    for (int ending = 0; ended < n;) {
        int signal = 0, status;
        sigwait(&mask, &signal);
        if (signal == SIGTERM) {
            ending = 1;
            for (int i = 0; i < n; i++) kill(all[i].pid, SIGTERM);
        }
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            for (int i = 0; i < n; i++)
                if (all[i].pid == pid) {
                    if (ending) ended++;
                    else all[i].pid = give_birth((char *[]){ argv[2], argv[0], all[i].id, NULL }, all[i].out[1], all[i].err[1]);
                    break;
                }
    }
    return 0;
}

static int sink(int argc, char **argv) {
    static char buffer[1 << 20];
    need(argc > 3, "usage");
    int ends[2], file = -1, number = 0;
    long long rotate = atoll(argv[1]), size = 0;
    need(!pipe2(ends, O_CLOEXEC), "pipe2");
    fcntl(ends[0], F_SETPIPE_SZ, 1 << 20);
    give_birth(argv + 3, ends[1], -1);
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0; size += got) {
        if (file < 0 || size > rotate) {
            char path[4200];
            snprintf(path, sizeof path, "%s/%06d", argv[0], number++);
            if (file >= 0) close(file);
            need((file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644)) >= 0, path);
            size = 0;
        }
        put(file, buffer, (size_t)got);
        if (got < 1 << 16) usleep(200); /* little was waiting: let more of it come */
    }
    return 0;
}

static int at(const char *path, int listening) {
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    strncpy(name.sun_path, path, sizeof name.sun_path - 1);
    if (listening) need(!bind(fd, (void *)&name, sizeof name) && !listen(fd, 8), path);
    else need(!connect(fd, (void *)&name, sizeof name), path);
    return fd;
}
static int echo(int argc, char **argv) {
    static char got[1 << 16], answer[1 << 16];
    need(argc == 2, "usage");
    size_t size = (size_t)atoi(argv[1]);
    memset(answer, 'x', size);
    answer[size - 1] = '\n';
    for (int door = at(argv[0], 1);;) {
        int peer = accept(door, NULL, NULL);
        for (ssize_t n; (n = read(peer, got, sizeof got)) > 0;)
            for (ssize_t i = 0; i < n; i++)
                if (got[i] == '\n') put(peer, answer, size);
        close(peer);
    }
    return 0;
}
static int ask(int argc, char **argv) {
    static char got[1 << 18];
    need(argc == 4, "usage");
    int fd = at(argv[0], 0), count = atoi(argv[1]), depth = atoi(argv[2]), sent = 0, back = 0, shown = 0;
    size_t size = strlen(argv[3]);
    char *request = malloc(size + 2), *many = malloc((size + 1) * (size_t)depth);
    sprintf(request, "%s\n", argv[3]);
    for (int i = 0; i < depth; i++) memcpy(many + (size + 1) * (size_t)i, request, size + 1);
    long long *took = calloc((size_t)count, sizeof *took), *left = calloc((size_t)count + 1, sizeof *left), begun = now();
    while (back < count) {
        int more = depth - (sent - back);
        if (more > count - sent) more = count - sent;
        for (int i = 0; i < more; i++) left[sent + i] = now();
        if (more) put(fd, many, (size + 1) * (size_t)more), sent += more;
        ssize_t n = read(fd, got, sizeof got);
        need(n > 0, "read");
        long long t = now();
        for (ssize_t i = 0; i < n; i++)
            if (got[i] == '\n' && back < count) {
                took[back] = t - left[back];
                back++;
            }
        if (!shown++) fwrite(got, 1, n < 2000 ? (size_t)n : 2000, stderr);
    }
    show(took, count, now() - begun);
    return 0;
}

static int times(int argc, char **argv) {
    need(argc > 2, "usage");
    int count = atoi(argv[0]), nothing = open("/dev/null", O_RDWR), status;
    long long *took = calloc((size_t)count, sizeof *took), begun = now();
    for (int i = 0; i < count; i++) {
        long long t = now();
        waitpid(give_birth(argv + 2, nothing, nothing), &status, 0);
        need(WIFEXITED(status) && !WEXITSTATUS(status), argv[2]);
        took[i] = now() - t;
    }
    show(took, count, now() - begun);
    return 0;
}

static int verify(int argc, char **argv) {
    static char buffer[(1 << 20) + LINE];
    static uint8_t seen[1 << 24];
    long long found = 0, twice = 0, disorder = 0, before = -1;
    for (int i = 0; i < argc; i++) {
        size_t kept = 0;
        int fd = open(argv[i], O_RDONLY);
        need(fd >= 0, argv[i]);
        for (ssize_t n; (n = read(fd, buffer + kept, 1 << 20)) > 0;) {
            char *end = buffer + kept + n, *p = buffer;
            for (; (p = memchr(p, '#', (size_t)(end - p))) && end - p >= 14;) {
                char *stop;
                long long v = strtoll(p + 1, &stop, 10);
                if (stop != p + 13 || *stop != '#' || v >= (long long)sizeof seen * 8) { p++; continue; }
                if (seen[v >> 3] >> (v & 7) & 1) twice++;
                else seen[v >> 3] |= (uint8_t)(1 << (v & 7)), found++;
                disorder += v < before;
                before = v;
                p += 14;
            }
            kept = p ? (size_t)(end - p) : 0;
            if (kept) memmove(buffer, p, kept);
        }
        close(fd);
    }
    printf("{\"found\": %lld, \"twice\": %lld, \"disorder\": %lld}\n", found, twice, disorder);
    return 0;
}

int main(int argc, char **argv) {
    static const struct { const char *name; int (*run)(int, char **); } all[] = {
        { "write", writer }, { "spawn", spawn }, { "sink", sink }, { "echo", echo }, { "ask", ask }, { "exec", times }, { "verify", verify },
    };
    for (size_t i = 0; argc > 1 && i < sizeof all / sizeof *all; i++)
        if (!strcmp(argv[1], all[i].name)) return all[i].run(argc - 2, argv + 2);
    fputs("usage: see the head of tool.c\n", stderr);
    return 2;
}
