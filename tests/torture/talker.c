/* A module that counts up on both streams and proves what it said: every line is noted in a mapped file before and after it is
 * written, which outlives any kill. It holds a lock while any of its processes lives; who finds it taken writes a mark.
 *
 *   talker NAME FOLDER BURST_MS LIFE_MS [deaf] [child]
 *
 * LIFE_MS: ends by itself after about that long, by a code or a signal; 0: never. `deaf` ignores TERM; `child` leaves the lock and
 * the streams to a second process too. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

struct proof { /* the test reads it: nine numbers of eight bytes */
  volatile uint64_t tried[2], done[2], ended, began, last, pid, spare;
};

static struct proof *proof;
static volatile sig_atomic_t asked;
static uint64_t life, seed;

static void on_term(int signal) { asked = signal; }

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (uint64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t dice(uint64_t below) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (seed >> 33) % below;
}

/* Pipes take what is below PIPE_BUF whole or not at all. */
static void put(int fd, const char *text, size_t length) {
  while (write(fd, text, length) < 0) {}
}

static void say(int side) {
  char line[4096];
  uint64_t n = proof->tried[side] + 1, pad = n % 97 ? n * 7 % 60 : 3000, at;
  at = snprintf(line, sizeof line, "L%llu %c %llu ", (unsigned long long)life, side ? 'e' : 'o', (unsigned long long)n);
  memset(line + at, 'x', pad);
  at += pad;
  line[at++] = '\n';
  proof->tried[side] = n;
  if (n % 11 == 0) {
    put(1 + side, line, 5);
    put(1 + side, line + 5, at - 5);
  } else {
    put(1 + side, line, at);
  }
  proof->done[side] = n;
}

static void end(void) {
  uint64_t how = dice(10);
  if (how < 2) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    proof->ended = 2000 + SIGSEGV;
    signal(SIGSEGV, SIG_DFL);
    kill(getpid(), SIGSEGV);
    pause();
  }
  uint64_t code = how < 4 ? 0 : 1 + dice(90);
  proof->ended = 1000 + code;
  _exit((int)code);
}

int main(int argc, char **argv) {
  char path[4096];
  if (argc < 5) return 98;
  int deaf = 0, child = 0;
  for (int i = 5; i < argc; i++) {
    deaf |= !strcmp(argv[i], "deaf");
    child |= !strcmp(argv[i], "child");
  }
  struct sigaction act = {.sa_handler = deaf ? SIG_IGN : on_term};
  sigaction(SIGTERM, &act, NULL);
  snprintf(path, sizeof path, "%s/%s.lock", argv[2], argv[1]);
  int lock = open(path, O_RDWR | O_CREAT, 0666);
  if (lock < 0) return 97;
  if (flock(lock, LOCK_EX | LOCK_NB)) {
    snprintf(path, sizeof path, "%s/twice", argv[2]);
    int mark = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    dprintf(mark, "%s\n", argv[1]);
    return 99;
  }
  char number[32] = "0";
  if (pread(lock, number, sizeof number - 1, 0) < 0) return 96;
  life = strtoull(number, NULL, 10) + 1;
  int length = snprintf(number, sizeof number, "%llu", (unsigned long long)life);
  if (pwrite(lock, number, length, 0) != length) return 95;
  snprintf(path, sizeof path, "%s/%s.%llu", argv[2], argv[1], (unsigned long long)life);
  int file = open(path, O_RDWR | O_CREAT | O_EXCL, 0666);
  if (file < 0 || ftruncate(file, sizeof *proof)) return 94;
  proof = mmap(NULL, sizeof *proof, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (proof == MAP_FAILED) return 93;
  close(file);
  proof->began = proof->last = now_ms();
  proof->pid = getpid();
  for (char *c = argv[1]; *c; c++) seed = seed * 131 + *c;
  seed = seed * 2654435761u + life * 40503;
  if (child && fork() == 0)
    for (;;) pause();
  uint64_t burst = atoi(argv[3]), span = atoi(argv[4]);
  uint64_t until = span ? proof->began + span / 2 + dice(span) : UINT64_MAX;
  while (!asked && proof->last < until) {
    for (uint64_t i = 1 + dice(3); i; i--) say(0);
    for (uint64_t i = dice(3); i; i--) say(1);
    proof->last = now_ms();
    usleep((useconds_t)(burst * 1000 / 2 + dice(burst * 1000 + 1)));
  }
  say(0);
  say(1);
  proof->last = now_ms();
  end();
}
