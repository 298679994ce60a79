/*
 * ways WAY SPOOL <message      accept one message, made durable in the given way
 * ways cost SPOOL              what the questions that `adaptive` asks cost, in microseconds
 *
 * How shall one short-lived process make a new message durable? Every way here accepts a message
 * exactly alike but for the barrier in the middle:
 *
 *      create  new/ID  info/sender/ID  info/recipients/ID  info/transport/ID, and write them
 *      BARRIER: the four files and the four directories are durable
 *      rename  new/ID -> active/ID, not synced
 *
 *   none              no barrier; what the rest of the process costs
 *   syncfs            one syncfs(2), on a descriptor opened before the first write
 *   syncfs-fsync      syncfs, then fsync of new/, which adds a flush where syncfs forgot the last one
 *   settled-syncfs    writeback of all files started and waited for, then as syncfs-fsync
 *   fsync-each        fsync(2) of each file, then of each directory, one after the other
 *   range-fsync-each  writeback of all files started first (sync_file_range), then as fsync-each
 *   parallel          writeback started first, then the eight fsyncs at once, a thread each
 *   settled           writeback of all files started and waited for, then as parallel
 *   uring             writeback started and waited for, then the eight fsyncs through io_uring
 *   adaptive[:MB]     on a file system known to honour syncfs, settled-syncfs while less than MB (16)
 *                     of dirty memory waits for a disk; else settled
 *
 * What each way may rely on: fsync of a file promises its data and size, fsync of a directory its
 * entries; nothing promises that one fsync covers another file. syncfs promises everything written
 * before it, and reports write errors only from Linux 5.8 on, only to descriptors that were open
 * when they happened; most FUSE file systems are never told of it.
 *
 * Build: gcc -O2 -static -pthread -o ways ways.c. Any failure is EX_TEMPFAIL (75); a benchmark
 * leaves its rubbish behind.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4, DIRECTORIES = 4, ALL = FILES + DIRECTORIES };

static const char *const directory_names[DIRECTORIES] = {
	"new", "info/sender", "info/recipients", "info/transport",
};

/* A message on its way in: files first, then the directories they were created in. */
struct message {
	int root;
	int descriptors[ALL];
	char id[37];
};

/* ---- the ways ------------------------------------------------------------------------------ */

static void barrier_none(struct message *m)
{
	(void)m;
}

static void barrier_syncfs(struct message *m)
{
	if (syncfs(m->root) < 0)
		err(EX_TEMPFAIL, "syncfs");
}

/*
 * ext4 without a journal sends its only flush before it writes the block device's own page cache
 * (ext4_sync_fs, then sync_blockdev), so that inodes may be written behind it; ext2 and FAT send
 * none. An fsync on the same file system sends one more there, and finds nothing to do elsewhere.
 */
static void barrier_syncfs_fsync(struct message *m)
{
	barrier_syncfs(m);
	if (fsync(m->descriptors[FILES]) < 0)
		err(EX_TEMPFAIL, "fsync");
}

static void barrier_fsync_each(struct message *m)
{
	for (int i = 0; i < ALL; i++)
		if (fsync(m->descriptors[i]) < 0)
			err(EX_TEMPFAIL, "fsync");
}

/*
 * Blocks are allocated and written from here on, without waiting. Only a hint: it promises
 * nothing, and a file system that cannot do it may say so; the fsync that follows decides.
 */
static void start_writeback(struct message *m)
{
	for (int i = 0; i < FILES; i++)
		(void)sync_file_range(m->descriptors[i], 0, 0, SYNC_FILE_RANGE_WRITE);
}

static void barrier_range_fsync_each(struct message *m)
{
	start_writeback(m);
	barrier_fsync_each(m);
}

static pthread_barrier_t start_line;

/* Returns errno as a pointer; 0 is success. */
static void *fsync_in_thread(void *descriptor)
{
	pthread_barrier_wait(&start_line);
	return (void *)(intptr_t)(fsync((int)(intptr_t)descriptor) < 0 ? errno : 0);
}

/*
 * Starts writeback of all files, then waits for it. What the end of a write changes (the size, an
 * extent that now is written) is then in the journal's running transaction before the first fsync
 * closes that, and need not wait for a second one.
 */
static void settle(struct message *m)
{
	start_writeback(m);
	for (int i = 0; i < FILES; i++)
		(void)sync_file_range(m->descriptors[i], 0, 0,
				      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
					      SYNC_FILE_RANGE_WAIT_AFTER);
}

/*
 * Without the wait a journal commits twice here: syncfs starts a commit before the writes of our
 * files have ended, and their ends need another.
 */
static void barrier_settled_syncfs(struct message *m)
{
	settle(m);
	barrier_syncfs_fsync(m);
}

/*
 * All eight wait at a start line, so that none has its flush of the device under way long before
 * the last one asks for its own: the block layer serves all flushes that wait by one, and a
 * journal commits all that wait in one transaction.
 */
static void fsync_all_at_once(struct message *m)
{
	pthread_t threads[ALL];
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 * 1024);
	pthread_barrier_init(&start_line, NULL, ALL);
	for (int i = 1; i < ALL; i++)
		if ((errno = pthread_create(&threads[i], &attributes, fsync_in_thread,
					    (void *)(intptr_t)m->descriptors[i])) != 0)
			err(EX_TEMPFAIL, "thread");
	intptr_t failed = (intptr_t)fsync_in_thread((void *)(intptr_t)m->descriptors[0]);
	for (int i = 1; i < ALL; i++) {
		void *result;
		pthread_join(threads[i], &result);
		if (result)
			failed = (intptr_t)result;
	}
	if (failed) {
		errno = (int)failed;
		err(EX_TEMPFAIL, "fsync");
	}
}

static void barrier_parallel(struct message *m)
{
	start_writeback(m);
	fsync_all_at_once(m);
}

static void barrier_settled(struct message *m)
{
	settle(m);
	fsync_all_at_once(m);
}

/*
 * io_uring hands every fsync to a kernel thread of its own at once, so the eight run side by side
 * without threads of ours. Bare system calls: eight entries need no ring arithmetic.
 */
static void barrier_uring(struct message *m)
{
	struct io_uring_params p = { 0 };

	settle(m);
	int ring = (int)syscall(SYS_io_uring_setup, ALL, &p);
	if (ring < 0)
		err(EX_UNAVAILABLE, "io_uring_setup");
	if (!(p.features & IORING_FEAT_SINGLE_MMAP))
		errx(EX_UNAVAILABLE, "io_uring is too old here");
	size_t queue_size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	size_t done_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (done_size > queue_size)
		queue_size = done_size;
	char *queue = mmap(NULL, queue_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
			   IORING_OFF_SQ_RING);
	struct io_uring_sqe *entries = mmap(NULL, p.sq_entries * sizeof *entries,
					    PROT_READ | PROT_WRITE, MAP_SHARED, ring,
					    IORING_OFF_SQES);
	if (queue == MAP_FAILED || entries == MAP_FAILED)
		err(EX_TEMPFAIL, "mmap of the ring");

	unsigned *array = (unsigned *)(queue + p.sq_off.array);
	for (unsigned i = 0; i < ALL; i++) {
		entries[i] = (struct io_uring_sqe){ .opcode = IORING_OP_FSYNC,
						    .fd = m->descriptors[i] };
		array[i] = i;
	}
	__atomic_store_n((unsigned *)(queue + p.sq_off.tail), ALL, __ATOMIC_RELEASE);
	for (unsigned submit = ALL, done = 0; done < ALL;) {
		if (syscall(SYS_io_uring_enter, ring, submit, ALL, IORING_ENTER_GETEVENTS, NULL,
			    0) < 0 && errno != EINTR)
			err(EX_TEMPFAIL, "io_uring_enter");
		submit = 0;
		done = __atomic_load_n((unsigned *)(queue + p.cq_off.tail), __ATOMIC_ACQUIRE);
	}
	struct io_uring_cqe *results = (struct io_uring_cqe *)(queue + p.cq_off.cqes);
	for (int i = 0; i < ALL; i++)
		if (results[i].res < 0) {
			errno = -results[i].res;
			err(EX_TEMPFAIL, "fsync");
		}
}

/* ---- the adaptive way ---------------------------------------------------------------------- */

/*
 * The value after `label` in a table of the kernel's, times `unit`; UINT64_MAX if it is not there,
 * so that whoever cannot know takes the way that needs no knowledge.
 */
static uint64_t value_of(const char *table, const char *label, uint64_t unit)
{
	const char *found = strstr(table, label);
	return found ? strtoull(found + strlen(label), NULL, 10) * unit : UINT64_MAX;
}

static int read_table(const char *path, char *table, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	ssize_t got = read(file, table, size - 1);
	close(file);
	table[got > 0 ? got : 0] = 0;
	return got > 0 ? 0 : -1;
}

static uint64_t sum(uint64_t a, uint64_t b)
{
	return a == UINT64_MAX || b == UINT64_MAX ? UINT64_MAX : a + b;
}

/* Bytes of page cache, of all file systems together, that are dirty or being written. */
static uint64_t dirty_bytes_meminfo(void)
{
	char table[4096];
	if (read_table("/proc/meminfo", table, sizeof table) < 0)
		return UINT64_MAX;
	return sum(value_of(table, "\nDirty:", 1024), value_of(table, "\nWriteback:", 1024));
}

static uint64_t dirty_bytes_vmstat(void)
{
	char table[16 * 1024];
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	if (read_table("/proc/vmstat", table, sizeof table) < 0)
		return UINT64_MAX;
	return sum(value_of(table, "\nnr_dirty ", page), value_of(table, "\nnr_writeback ", page));
}

static uint64_t threshold = 16 << 20;

/*
 * Where syncfs is known to reach the disk. All of ext2, ext3 and ext4 have one number; the fsync
 * that follows syncfs here is for those of them that have no journal.
 */
static int honours_syncfs(int descriptor)
{
	struct statfs s;
	if (fstatfs(descriptor, &s) < 0)
		return 0;
	return s.f_type == EXT4_SUPER_MAGIC || s.f_type == XFS_SUPER_MAGIC ||
	       s.f_type == BTRFS_SUPER_MAGIC;
}

/*
 * syncfs waits for everybody's data on the file system, so its price is what others have left
 * lying there. Asked last thing before the barrier, the answer still is a guess (another program
 * may write a gigabyte in between); a wrong guess costs time, never durability.
 */
static void barrier_adaptive(struct message *m)
{
	if (honours_syncfs(m->root) && dirty_bytes_meminfo() < threshold)
		barrier_settled_syncfs(m);
	else
		barrier_settled(m);
}

static const struct {
	const char *name;
	void (*barrier)(struct message *);
} ways[] = {
	{ "none", barrier_none },
	{ "syncfs", barrier_syncfs },
	{ "syncfs-fsync", barrier_syncfs_fsync },
	{ "settled-syncfs", barrier_settled_syncfs },
	{ "fsync-each", barrier_fsync_each },
	{ "range-fsync-each", barrier_range_fsync_each },
	{ "parallel", barrier_parallel },
	{ "settled", barrier_settled },
	{ "uring", barrier_uring },
	{ "adaptive", barrier_adaptive },
};
enum { WAYS = sizeof ways / sizeof *ways };

/* ---- accepting ----------------------------------------------------------------------------- */

/* A UUID of version 7: the time in milliseconds, then chance. */
static void make_id(char id[37])
{
	struct timespec now;
	uint8_t b[16];

	clock_gettime(CLOCK_REALTIME, &now);
	uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (getrandom(b, sizeof b, 0) != sizeof b)
		err(EX_TEMPFAIL, "getrandom");
	for (int i = 0; i < 6; i++)
		b[i] = (uint8_t)(ms >> (40 - 8 * i));
	b[6] = 0x70 | (b[6] & 0x0f);
	b[8] = 0x80 | (b[8] & 0x3f);
	snprintf(id, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
		 b[13], b[14], b[15]);
}

static void write_all(int file, const char *bytes, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t wrote = write(file, bytes + done, size - done);
		if (wrote < 0)
			err(EX_TEMPFAIL, "write");
		done += (size_t)wrote;
	}
}

static void create_files(struct message *m)
{
	make_id(m->id);
	for (int i = 0; i < DIRECTORIES; i++) {
		int directory = openat(m->root, directory_names[i],
				       O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (directory < 0)
			err(EX_TEMPFAIL, "open %s", directory_names[i]);
		m->descriptors[FILES + i] = directory;
		m->descriptors[i] = openat(directory, m->id,
					   O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (m->descriptors[i] < 0)
			err(EX_TEMPFAIL, "create %s/%s", directory_names[i], m->id);
	}
}

static void write_files(struct message *m)
{
	static const char *const info[FILES] = {
		NULL, "alice@example.org\n", "bob@example.org\n",
		"door: active\nseal: 4096 0011223344556677 17 16\n",
	};
	static char buffer[64 * 1024];
	ssize_t got;

	while ((got = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
		write_all(m->descriptors[0], buffer, (size_t)got);
	if (got < 0)
		err(EX_TEMPFAIL, "read standard input");
	for (int i = 1; i < FILES; i++)
		write_all(m->descriptors[i], info[i], strlen(info[i]));
}

static void rename_to_active(struct message *m)
{
	char target[64];
	snprintf(target, sizeof target, "active/%s", m->id);
	if (renameat(m->descriptors[FILES], m->id, m->root, target) < 0)
		err(EX_TEMPFAIL, "rename to %s", target);
}

/* ---- what a question costs ----------------------------------------------------------------- */

static const char *spool_path;

static uint64_t ask_statfs(void)
{
	struct statfs s;
	return statfs(spool_path, &s) < 0 ? UINT64_MAX : (uint64_t)s.f_type;
}

static void time_question(const char *name, uint64_t (*question)(void))
{
	enum { ROUNDS = 2000 };
	struct timespec start, end;
	uint64_t answer = 0;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < ROUNDS; i++)
		answer = question();
	clock_gettime(CLOCK_MONOTONIC, &end);
	double us = ((double)(end.tv_sec - start.tv_sec) * 1e9 +
		     (double)(end.tv_nsec - start.tv_nsec)) / 1e3 / ROUNDS;
	if (answer == UINT64_MAX)
		printf("%-16s %8.1f us   not available\n", name, us);
	else
		printf("%-16s %8.1f us   %llu\n", name, us, (unsigned long long)answer);
}

static int print_costs(void)
{
	time_question("statfs f_type", ask_statfs);
	time_question("/proc/meminfo", dirty_bytes_meminfo);
	time_question("/proc/vmstat", dirty_bytes_vmstat);
	return EX_OK;
}

/* ---- main ---------------------------------------------------------------------------------- */

int main(int argc, char **argv)
{
	if (argc != 3)
		errx(EX_USAGE, "usage: ways WAY SPOOL <message");
	spool_path = argv[2];
	if (strcmp(argv[1], "cost") == 0)
		return print_costs();

	char *colon = strchr(argv[1], ':');
	if (colon) {
		threshold = strtoull(colon + 1, NULL, 10) << 20;
		*colon = 0;
	}
	for (int i = 0; i < WAYS; i++)
		if (strcmp(argv[1], ways[i].name) == 0) {
			struct message m;
			/* Before the first write: an error of writeback is told only to
			 * descriptors that were open by then. */
			m.root = open(spool_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			if (m.root < 0)
				err(EX_TEMPFAIL, "open %s", spool_path);
			create_files(&m);
			write_files(&m);
			ways[i].barrier(&m);
			rename_to_active(&m);
			return EX_OK;
		}
	errx(EX_USAGE, "%s: no such way", argv[1]);
}
