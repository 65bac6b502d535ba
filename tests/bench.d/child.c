/* The module of the bench: says when its first instruction ran, then sleeps. `child FIFO ID`
 * Without libc, so that what is measured is the supervisor and the kernel, not the child's own start. */
typedef unsigned long word;

#if defined(__x86_64__)
enum { WRITE = 1, PAUSE = 34, GETPID = 39, EXIT = 60, CLOCK = 228, OPENAT = 257 };
static long call(long n, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return n;
}
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#elif defined(__aarch64__)
enum { OPENAT = 56, WRITE = 64, PAUSE = 73 /* ppoll */, EXIT = 93, CLOCK = 113, GETPID = 172 };
static long call(long n, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x0,sp\n bl begin\n");
#else
#error "this machine needs its four lines of system call"
#endif

static char *text(char *to, const char *s) { while (*s) *to++ = *s++; return to; }
static char *number(char *to, word v) {
    char digits[24];
    int n = 0;
    do digits[n++] = (char)('0' + v % 10); while (v /= 10);
    while (n) *to++ = digits[--n];
    return to;
}

__attribute__((noreturn, used)) void begin(word *stack) {
    word now[2];
    call(CLOCK, 1, (long)now, 0, 0);
    char **argv = (char **)(stack + 1), line[256], *end = line;
    long fifo = stack[0] == 3 ? call(OPENAT, -100, (long)argv[1], 1, 0) : -1;
    if (fifo < 0) call(EXIT, 3, 0, 0, 0);
    end = text(end, argv[2]);
    *end++ = ' ';
    end = number(end, (word)call(GETPID, 0, 0, 0, 0));
    *end++ = ' ';
    end = number(end, now[0] * 1000000000UL + now[1]);
    *end++ = '\n';
    call(WRITE, fifo, (long)line, end - line, 0);
    for (;;) call(PAUSE, 0, 0, 0, 0);
}
