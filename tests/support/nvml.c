/* A made-up driver: answers as NVML does, from a file that a test rewrites while it runs. STATE is its path.
 *   gpu UUID TOTAL USED    a GPU; the first has number 0
 *   proc GPU PID BYTES     a process on it
 *   lost GPU               every question about it fails
 *   fail CODE              every call fails
 *   hang                   no call answers until this line is gone
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX 16
#define LOST 15
#define FEW 7

struct gpu { char uuid[64]; unsigned long long total, used; int lost; };
struct proc { int gpu; unsigned pid; unsigned long long used; };
struct state { int fail, gpus, procs; struct gpu gpu[MAX]; struct proc proc[MAX]; };
struct memory { unsigned long long total, free, used; };
struct memory2 { unsigned version; unsigned long long total, reserved, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned gi, ci; };

static struct state read_it(int *hang) {
    struct state s;
    char word[16], line[256];
    memset(&s, 0, sizeof s);
    FILE *file = fopen(STATE, "r");
    if (!file) { s.fail = 999; return s; }
    while (fgets(line, sizeof line, file)) {
        struct gpu *g = &s.gpu[s.gpus];
        struct proc *p = &s.proc[s.procs];
        int n;
        if (sscanf(line, "%15s", word) != 1) continue;
        if (!strcmp(word, "gpu") && s.gpus < MAX && sscanf(line, "%*s %63s %llu %llu", g->uuid, &g->total, &g->used) == 3) s.gpus++;
        if (!strcmp(word, "proc") && s.procs < MAX && sscanf(line, "%*s %d %u %llu", &p->gpu, &p->pid, &p->used) == 3) s.procs++;
        if (!strcmp(word, "lost") && sscanf(line, "%*s %d", &n) == 1 && n >= 0 && n < MAX) s.gpu[n].lost = 1;
        if (!strcmp(word, "hang")) *hang = 1;
        if (!strcmp(word, "fail")) sscanf(line, "%*s %d", &s.fail);
    }
    fclose(file);
    return s;
}

static struct state look(void) {
    for (;;) {
        int hang = 0;
        struct state s = read_it(&hang);
        if (!hang) return s;
        usleep(10000);
    }
}

static int fault(const struct state *s, void *device) {
    long n = (long)device - 1;
    if (s->fail) return s->fail;
    if (n >= s->gpus) return LOST;
    return s->gpu[n].lost ? LOST : 0;
}

static const struct gpu *of(const struct state *s, void *device) { return &s->gpu[(long)device - 1]; }

int nvmlInit_v2(void) { return look().fail; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int e) { return e == LOST ? "GPU is lost" : "made-up failure"; }
int nvmlDeviceGetCount_v2(unsigned *n) { struct state s = look(); *n = s.gpus; return s.fail; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = (void *)(long)(i + 1); return look().fail; }
int nvmlDeviceGetName(void *device, char *out, unsigned n) { struct state s = look(); snprintf(out, n, "Imaginary 9000"); return fault(&s, device); }
int nvmlDeviceGetUUID(void *device, char *out, unsigned n) {
    struct state s = look();
    snprintf(out, n, "%s", of(&s, device)->uuid);
    return fault(&s, device);
}
int nvmlDeviceGetMemoryInfo(void *device, struct memory *m) {
    struct state s = look();
    m->total = of(&s, device)->total;
    m->used = of(&s, device)->used;
    m->free = m->total - m->used;
    return fault(&s, device);
}
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory2 *m) {
    struct memory v1;
    int e = nvmlDeviceGetMemoryInfo(device, &v1);
    m->total = v1.total, m->used = v1.used, m->free = v1.free, m->reserved = 0;
    return e;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *room, struct process *out) {
    struct state s = look();
    unsigned n = 0, i;
    if (fault(&s, device)) return fault(&s, device);
    for (i = 0; i < (unsigned)s.procs; i++) {
        if (s.proc[i].gpu != (long)device - 1) continue;
        if (n < *room) out[n].pid = s.proc[i].pid, out[n].used = s.proc[i].used, out[n].gi = out[n].ci = 0xffffffff;
        n++;
    }
    i = *room;
    *room = n;
    return n > i ? FEW : 0;
}
