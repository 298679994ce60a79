/*
 * floor DIR <message
 *
 * The minimum that a process must do before it may report a message as accepted: read it from
 * standard input, write one file, fsync it, rename it, fsync the directory, exit 0. No envelope,
 * no reliable id, no lock. The accept path is measured against this program.
 *
 * Build: gcc -O2 -static -o floor floor.c (static, because loading shared libraries would cost
 * more than everything else here). Any failure is EX_TEMPFAIL (75).
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sysexits.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(EX_USAGE, "usage: floor DIR <message");

	int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		err(EX_TEMPFAIL, "open %s", argv[1]);

	unsigned long long id[2];
	if (getrandom(id, sizeof id, 0) != sizeof id)
		err(EX_TEMPFAIL, "getrandom");
	char name[40], temporary[44];
	snprintf(name, sizeof name, "%016llx%016llx", id[0], id[1]);
	snprintf(temporary, sizeof temporary, "%s.tmp", name);

	int file = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (file < 0)
		err(EX_TEMPFAIL, "create %s", temporary);

	static char buffer[64 * 1024];
	ssize_t got;
	while ((got = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
		for (ssize_t done = 0, wrote; done < got; done += wrote)
			if ((wrote = write(file, buffer + done, got - done)) < 0)
				err(EX_TEMPFAIL, "write %s", temporary);
	if (got < 0)
		err(EX_TEMPFAIL, "read standard input");

	if (fsync(file) < 0)
		err(EX_TEMPFAIL, "fsync %s", temporary);
	if (renameat(dir, temporary, dir, name) < 0)
		err(EX_TEMPFAIL, "rename %s", temporary);
	if (fsync(dir) < 0)
		err(EX_TEMPFAIL, "fsync %s", argv[1]);
	return EX_OK;
}
