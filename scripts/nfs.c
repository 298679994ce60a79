/*
 * Lets User Mode Linux start on processors the state of which is larger than it knows.
 *
 * Linux 6.1 for UML keeps 2696 octets of a process's extended state (XSAVE). With AMX there are some
 * 11,000, and the kernel below then refuses to set the state from fewer ("ptrace set fp regs failed,
 * errno = 14"). Here the rest is filled up with what the process has already. UML is linked
 * dynamically; scripts/nfs builds this and names it in LD_PRELOAD.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202

/* UML calls ptrace from one thread at a time. */
static char state[1 << 16];

/* PTRACE_GETREGSET and PTRACE_SETREGSET of the extended state, of any size. */
static long extended(int request, long pid, struct iovec *part)
{
    struct iovec whole = {state, sizeof state};
    long result = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &whole);
    if (result < 0)
        return result;
    size_t size = part->iov_len < whole.iov_len ? part->iov_len : whole.iov_len;
    if (request == PTRACE_GETREGSET) {
        memcpy(part->iov_base, state, size);
        part->iov_len = size;
        return 0;
    }
    memcpy(state, part->iov_base, size);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list list;
    va_start(list, request);
    long pid = va_arg(list, long);
    long address = va_arg(list, long);
    void *data = va_arg(list, void *);
    va_end(list);
    if ((request == PTRACE_GETREGSET || request == PTRACE_SETREGSET) && address == NT_X86_XSTATE)
        return extended(request, pid, data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        /* The C library returns the word; the system call stores it. */
        long word = 0;
        if (syscall(SYS_ptrace, request, pid, address, &word) < 0)
            return -1;
        errno = 0;
        return word;
    }
    return syscall(SYS_ptrace, request, pid, address, data);
}
