/* SPDX-License-Identifier: Apache-2.0 */
/* fork(2) for processes of the server that have an interpreter. */
#include "main/module.h"

#include <errno.h>
#include <unistd.h>

pid_t pn__fork_python(struct pn__forks *forks)
{
    PyOS_BeforeFork();
    forks->own = true;
    pid_t pid = fork();
    int saved = errno;
    forks->own = false;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    errno = saved;
    return pid;
}
