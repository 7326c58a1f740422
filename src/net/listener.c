/* SPDX-License-Identifier: Apache-2.0 */
/* Listening sockets: opened once by the process that starts, before it forks; each worker
 * watches them through an acceptor. The process that made a unix socket's file removes it, if it
 * is still the same file. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bounds.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "net/listener.h"

enum {
    LISTENER_MAGIC = 0x4c495354,
    DEFER_ACCEPT_S = 5, /* then the kernel hands a silent connection over all the same */
};

struct pn_listener {
    unsigned magic;
    int fd;
    struct pn_address address;
    uint16_t port;
    char host[INET6_ADDRSTRLEN + 1];
    pid_t maker; /* of the unix socket's file; 0: there is none */
    dev_t file_device;
    ino_t file_inode;
};

struct error_text {
    char *text;
    size_t size;
};

/* Writes "cannot listen on ADDRESS: WHAT". */
static int fail(const struct error_text *err, int error, const struct pn_listener *l,
                const char *what)
{
    snprintf(err->text, err->size, "cannot listen on %s: %s", l->address.text, what);
    return error;
}

static int fail_errno(const struct error_text *err, int error, const struct pn_listener *l,
                      const char *what)
{
    char text[256];
    snprintf(text, sizeof(text), "%s (%s)", what, strerror(-error));
    return fail(err, error, l, text);
}

static int somaxconn(void)
{
    int value = SOMAXCONN;
    FILE *f = fopen("/proc/sys/net/core/somaxconn", "re");
    if (!f)
        return value;
    if (fscanf(f, "%d", &value) != 1 || value < 1)
        value = SOMAXCONN;
    fclose(f);
    return value;
}

static int backlog_of(const struct pn_listener_config *config, const struct pn_listener *l)
{
    int most = somaxconn();
    if (config->backlog <= 0)
        return most < PN_LISTEN_BACKLOG_DEFAULT ? most : PN_LISTEN_BACKLOG_DEFAULT;
    if (config->backlog > most)
        pn_log_warning(NULL,
                       "%s: a backlog of %d was asked for, but the kernel cuts it to %d "
                       "(raise it with: sysctl net.core.somaxconn=%d)",
                       l->address.text, config->backlog, most, config->backlog);
    return config->backlog;
}

static int open_socket(struct pn_listener *l, const struct error_text *err)
{
    int family = l->address.storage.ss_family;
    l->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd >= 0)
        return 0;
    if (errno == EAFNOSUPPORT)
        return fail(err, -errno, l, "this kernel has no IPv6; use an IPv4 address");
    return fail_errno(err, -errno, l, "no socket can be had");
}

/* --- TCP ------------------------------------------------------------------------------------- */

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int bind_failed(struct pn_listener *l, const struct error_text *err)
{
    int error = -errno;
    switch (errno) {
    case EADDRINUSE:
        return fail_errno(err, error, l,
                          "the port is in use; choose another or stop the other server");
    case EACCES:
        return fail_errno(err, error, l,
                          "ports below 1024 are for root; choose a higher one, or give the "
                          "program CAP_NET_BIND_SERVICE");
    case EADDRNOTAVAIL:
        return fail_errno(err, error, l, "the address is none of this machine's");
    default:
        return fail_errno(err, error, l, "bind failed");
    }
}

static int open_inet(struct pn_listener *l, const struct pn_listener_config *config,
                     const struct error_text *err)
{
    int rc = open_socket(l, err);
    if (rc < 0)
        return rc;
    /* A restart must not wait for the last run's connections in TIME_WAIT. */
    rc = set_option(l->fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (rc == 0 && config->reuse_port)
        rc = set_option(l->fd, SOL_SOCKET, SO_REUSEPORT, 1);
    /* Accepted sockets inherit this on Linux: one system call less a connection. */
    if (rc == 0)
        rc = set_option(l->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (rc == 0 && config->defer_accept)
        rc = set_option(l->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, DEFER_ACCEPT_S);
    /* [::] takes IPv4 clients too, whatever the system's default is. */
    if (rc == 0 && l->address.storage.ss_family == AF_INET6)
        rc = set_option(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (rc < 0)
        return fail_errno(err, rc, l, "a socket option was refused");
    if (bind(l->fd, (const struct sockaddr *)&l->address.storage, l->address.len) < 0)
        return bind_failed(l, err);
    return 0;
}

/* --- Unix ------------------------------------------------------------------------------------ */

static const char *path_of(const struct pn_listener *l)
{
    return ((const struct sockaddr_un *)&l->address.storage)->sun_path;
}

/* Makes way where a server left its file behind. */
static int remove_stale(struct pn_listener *l, const struct error_text *err)
{
    struct stat st;
    if (lstat(path_of(l), &st) < 0) {
        if (errno == ENOENT)
            return 0;
        return fail_errno(err, -errno, l, "the path cannot be looked at");
    }
    if (!S_ISSOCK(st.st_mode))
        return fail(err, -ENOTSOCK, l,
                    "something that is no socket has this path; remove it or choose another path");
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return fail_errno(err, -errno, l, "no socket can be had");
    int rc = connect(probe, (const struct sockaddr *)&l->address.storage, l->address.len);
    int error = rc < 0 ? errno : 0;
    close(probe);
    if (error == ENOENT)
        return 0;
    if (error != ECONNREFUSED) {
        if (error == EACCES)
            return fail_errno(err, -EACCES, l, "another user's socket has this path");
        return fail(err, -EADDRINUSE, l,
                    "another server accepts there; stop it or choose another path");
    }
    if (unlink(path_of(l)) < 0 && errno != ENOENT)
        return fail_errno(err, -errno, l, "a stale socket file cannot be removed");
    return 0;
}

static bool find_user(const char *name, uid_t *uid)
{
    uint64_t number;
    const struct passwd *pw = getpwnam(name);
    if (pw) {
        *uid = pw->pw_uid;
        return true;
    }
    if (pn_str_to_u64(pn_str_of(name), UINT32_MAX - 1, &number) < 0)
        return false;
    *uid = (uid_t)number;
    return true;
}

static bool find_group(const char *name, gid_t *gid)
{
    uint64_t number;
    const struct group *gr = getgrnam(name);
    if (gr) {
        *gid = gr->gr_gid;
        return true;
    }
    if (pn_str_to_u64(pn_str_of(name), UINT32_MAX - 1, &number) < 0)
        return false;
    *gid = (gid_t)number;
    return true;
}

/* OWNER: "user", "user:group" or ":group"; numbers too. */
static int set_owner(struct pn_listener *l, const char *owner, const struct error_text *err)
{
    char user[128], what[256];
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    const char *colon = strchr(owner, ':');
    size_t n = colon ? (size_t)(colon - owner) : strlen(owner);
    snprintf(user, sizeof(user), "%.*s", (int)pn_min_size(n, sizeof(user) - 1), owner);
    if (n > 0 && !find_user(user, &uid)) {
        snprintf(what, sizeof(what), "there is no user '%s' to own the socket", user);
        return fail(err, -EINVAL, l, what);
    }
    if (colon && !find_group(colon + 1, &gid)) {
        snprintf(what, sizeof(what), "there is no group '%.128s' to own the socket", colon + 1);
        return fail(err, -EINVAL, l, what);
    }
    if (chown(path_of(l), uid, gid) < 0)
        return fail_errno(err, -errno, l, "the socket cannot be given to its owner");
    return 0;
}

static int bind_unix(struct pn_listener *l, const struct pn_listener_config *config,
                     const struct error_text *err)
{
    /* Never wider than asked for, not even between bind and chmod. The process has one thread
     * yet. */
    mode_t before = 0;
    if (config->set_mode)
        before = umask(~config->mode & 0777);
    int rc = bind(l->fd, (const struct sockaddr *)&l->address.storage, l->address.len);
    int error = rc < 0 ? -errno : 0;
    if (config->set_mode)
        umask(before);
    if (error == -ENOENT)
        return fail_errno(err, error, l, "the directory of the socket does not exist");
    if (error < 0)
        return fail_errno(err, error, l, "the socket file cannot be made");
    struct stat st;
    if (lstat(path_of(l), &st) < 0)
        return fail_errno(err, -errno, l, "the socket file is gone already");
    l->maker = getpid();
    l->file_device = st.st_dev;
    l->file_inode = st.st_ino;
    if (config->owner && (rc = set_owner(l, config->owner, err)) < 0)
        return rc;
    /* After chown, which may take bits away. */
    if (config->set_mode && chmod(path_of(l), config->mode & 0777) < 0)
        return fail_errno(err, -errno, l, "the socket's mode cannot be set");
    return 0;
}

static int open_unix(struct pn_listener *l, const struct pn_listener_config *config,
                     const struct error_text *err)
{
    int rc = remove_stale(l, err);
    if (rc == 0)
        rc = open_socket(l, err);
    return rc == 0 ? bind_unix(l, config, err) : rc;
}

static int open_abstract(struct pn_listener *l, const struct error_text *err)
{
    int rc = open_socket(l, err);
    if (rc < 0)
        return rc;
    if (bind(l->fd, (const struct sockaddr *)&l->address.storage, l->address.len) == 0)
        return 0;
    if (errno == EADDRINUSE)
        return fail_errno(err, -errno, l, "another server has this name; choose another");
    return fail_errno(err, -errno, l, "bind failed");
}

/* --- Inherited ------------------------------------------------------------------------------- */

static int adopt_fd(struct pn_listener *l, const struct error_text *err)
{
    int fd = l->address.fd;
    int type = 0, listening = 0;
    socklen_t n = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0)
        return fail_errno(err, -errno, l,
                          errno == EBADF ? "no such descriptor is open" : "it is no socket");
    n = sizeof(int);
    if (type != SOCK_STREAM)
        return fail(err, -EINVAL, l, "it is a socket, but not a stream socket");
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0 || !listening)
        return fail(err, -EINVAL, l, "it is a socket, but nobody has called listen on it");
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return fail_errno(err, -errno, l, "its flags cannot be set");
    l->fd = fd;
    return 0;
}

/* --- All ------------------------------------------------------------------------------------- */

/* What the kernel says that we are bound to, for logs and SERVER_NAME. */
static void describe(struct pn_listener *l)
{
    struct sockaddr_storage bound = {0};
    socklen_t n = sizeof(bound);
    struct pn_address *a = &l->address;
    strcpy(l->host, "localhost"); /* a unix socket has no better name */
    if (getsockname(l->fd, (struct sockaddr *)&bound, &n) < 0)
        return;
    a->storage = bound;
    a->len = n;
    if (bound.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)&bound;
        inet_ntop(AF_INET, &in->sin_addr, l->host, sizeof(l->host));
        l->port = ntohs(in->sin_port);
        snprintf(a->text, sizeof(a->text), "%s:%u", l->host, l->port);
    } else if (bound.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)&bound;
        inet_ntop(AF_INET6, &in6->sin6_addr, l->host, sizeof(l->host));
        l->port = ntohs(in6->sin6_port);
        snprintf(a->text, sizeof(a->text), "[%s]:%u", l->host, l->port);
    } else if (a->kind == PN_ADDRESS_FD && bound.ss_family == AF_UNIX &&
               n > offsetof(struct sockaddr_un, sun_path)) {
        const char *path = ((const struct sockaddr_un *)&bound)->sun_path;
        int len = (int)(n - offsetof(struct sockaddr_un, sun_path));
        if (path[0])
            snprintf(a->text, sizeof(a->text), "unix:%.*s", len, path);
        else
            snprintf(a->text, sizeof(a->text), "@%.*s", len - 1, path + 1);
    }
}

static int open_kind(struct pn_listener *l, const struct pn_listener_config *config,
                     const struct error_text *err)
{
    switch (l->address.kind) {
    case PN_ADDRESS_INET:
        return open_inet(l, config, err);
    case PN_ADDRESS_UNIX:
        return open_unix(l, config, err);
    case PN_ADDRESS_ABSTRACT:
        return open_abstract(l, err);
    case PN_ADDRESS_FD:
        return adopt_fd(l, err);
    }
    PN_WRONG("an address has no other kind");
}

int pn_listener_open(const struct pn_address *address, const struct pn_listener_config *config,
                     struct pn_listener **out, char *err, size_t err_size)
{
    const struct error_text error = {err, err_size};
    struct pn_listener *l = pn_xcalloc(1, sizeof(*l));
    l->magic = LISTENER_MAGIC;
    l->fd = -1;
    l->address = *address;
    int rc = open_kind(l, config, &error);
    if (rc < 0)
        goto fail;
    /* An inherited one listens already; its backlog is whoever's who made it. */
    if (address->kind != PN_ADDRESS_FD && listen(l->fd, backlog_of(config, l)) < 0) {
        /* With SO_REUSEADDR two may bind to a port, but not listen. */
        rc = bind_failed(l, &error);
        goto fail;
    }
    describe(l);
    *out = l;
    return 0;
fail:
    pn_listener_close(l, true);
    return rc;
}

int pn_listener_fd(const struct pn_listener *l)
{
    PN_CHECK_MAGIC(l, LISTENER_MAGIC);
    return l->fd;
}

const char *pn_listener_text(const struct pn_listener *l)
{
    PN_CHECK_MAGIC(l, LISTENER_MAGIC);
    return l->address.text;
}

bool pn_listener_is_unix(const struct pn_listener *l)
{
    return l->address.storage.ss_family == AF_UNIX;
}

uint16_t pn_listener_port(const struct pn_listener *l)
{
    return l->port;
}

const char *pn_listener_host(const struct pn_listener *l)
{
    return l->host;
}

static void unlink_own(const struct pn_listener *l)
{
    struct stat st;
    if (l->maker != getpid())
        return;
    if (lstat(path_of(l), &st) == 0 && st.st_dev == l->file_device && st.st_ino == l->file_inode)
        unlink(path_of(l));
}

void pn_listener_close(struct pn_listener *l, bool unlink_file)
{
    if (!l)
        return;
    PN_CHECK_MAGIC(l, LISTENER_MAGIC);
    if (unlink_file)
        unlink_own(l);
    if (l->fd >= 0)
        close(l->fd);
    l->magic = 0;
    free(l);
}
