/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that a user can set, as main hands it to the rooms. The rows of src/main/option_table.c
 * fill the fields marked with their option; fields marked "derived" are made by pn_settings_check.
 *
 * Lifecycle: init -> parse -> check -> read only -> fini. All strings and lists belong to the
 * settings and are gone after fini. Times are milliseconds, sizes bytes. */
#pragma once

#include "base/log.h"
#include "config/config.h"
#include "config/help.h"
#include "cores/core.h"

/* --log-blocking with fibers: a person notices a page that answers later by so much. */
enum { PN_SETTINGS_LOG_BLOCKING_MS = 100 };

enum pn_app_kind {
    PN_APP_NONE = 0,
    PN_APP_MODULE = 1, /* .target is "package.module" */
    PN_APP_FILE = 2,   /* .target is a path */
};

struct pn_settings_app {
    const char *module;                /* --module */
    const char *wsgi_file;             /* --wsgi-file */
    const char *positional;            /* MODULE[:CALLABLE] or FILE */
    const char *callable;              /* --callable */
    bool factory;                      /* --factory */
    const char *chdir;                 /* --chdir */
    struct pn_string_list python_path; /* --pythonpath */
    const char *home;                  /* --home: a virtual environment */
    /* Derived. */
    enum pn_app_kind kind;
    const char *target;
    const char *callable_name; /* may have dots; NULL: look for "application", then "app" */
    bool call_factory;         /* what the name stands for is called to get the application */
};

/* What the application speaks. */
enum pn_interface {
    PN_INTERFACE_AUTO = 0, /* what it looks like */
    PN_INTERFACE_WSGI = 1,
    PN_INTERFACE_ASGI = 2, /* version 3 */
    PN_INTERFACE_ASGI2 = 3,
};

enum pn_lifespan {
    PN_LIFESPAN_AUTO = 0, /* an application that raises at its scope has none */
    PN_LIFESPAN_ON = 1,   /* ... has failed */
    PN_LIFESPAN_OFF = 2,
};

struct pn_settings_asgi {
    int interface;         /* --interface: enum pn_interface */
    int lifespan;          /* --lifespan: enum pn_lifespan */
    const char *root_path; /* --root-path; NULL: none */
    bool trailers;         /* --asgi-trailers; extensions, like all that follow */
    bool pathsend;
    bool zerocopysend;
    bool early_hint;
    bool websocket_response; /* --asgi-websocket-response */
    bool debug;
    /* Derived. */
    enum pn_interface kind; /* AUTO: not known yet, carriers are chosen as for WSGI */
};

struct pn_socket_setting {
    const char *option; /* the name it was given by, for messages */
    const char *address;
    bool is_unix; /* derived: a path or an abstract name, by its form */
};

struct pn_settings_sockets {
    struct pn_socket_setting *items; /* in the order given; after check never empty */
    size_t count;
    size_t capacity;
    int backlog;            /* --listen; 0: 1024, or somaxconn when that is less */
    int chmod_mode;         /* --chmod-socket; -1: leave */
    const char *chown_user; /* --chown-socket: USER[:GROUP]; NULL: leave */
    bool reuse_port;        /* --reuse-port */
    bool defer_accept;      /* --defer-accept */
};

struct pn_settings_carrier {
    int threads;              /* --threads; 0: not given */
    int async;                /* --async; 0: not given */
    int asyncio;              /* --asyncio; 0: not given */
    bool greenlet;            /* --greenlet */
    bool ugreen;              /* --ugreen */
    int64_t asyncio_drain_ms; /* --asyncio-drain */
    int queue_size;           /* --queue-size: ready requests that wait for a core */
    int64_t queue_timeout_ms; /* --queue-timeout; 0: none */
    int64_t lease_ms;         /* --lease */
    int64_t log_blocking_ms;  /* --log-blocking; 0: never; 0 without fibers unless given */
    int64_t fiber_stack_size; /* --fiber-stack-size; a multiple of 64k after check */
    /* Derived. */
    enum pn_carrier kind;
    int cores;        /* N: requests under way at once */
    bool has_asyncio; /* WSGI requests get pelton.Loop as their event loop */
};

struct pn_settings_processes {
    int processes;                /* --processes */
    bool master;                  /* --master; true after check when processes > 1 */
    bool lazy_apps;               /* --lazy-apps */
    int cpu_affinity;             /* --cpu-affinity: processors for each worker; 0: not bound */
    int64_t shutdown_timeout_ms;  /* --shutdown-timeout */
    int64_t respawn_delay_ms;     /* --respawn-delay: after the first early death */
    int64_t respawn_delay_max_ms; /* --respawn-delay-max: where doubling stops */
};

struct pn_settings_log {
    const char *file;      /* --logto; NULL: stderr (and stdout) as they are */
    bool disable_requests; /* --disable-logging */
    int level;             /* --log-level: enum pn_log_level */
};

struct pn_settings_http {
    int64_t header_timeout_ms;     /* --http-headers-timeout */
    int64_t body_timeout_ms;       /* --body-timeout, --socket-timeout */
    int64_t write_timeout_ms;      /* --write-timeout, --socket-timeout */
    int64_t keepalive_timeout_ms;  /* --http-keepalive; 0: no keep-alive */
    int keepalive_requests;        /* --http-keepalive-requests; 0: no limit */
    int64_t head_size_max;         /* --buffer-size: request line and headers */
    int64_t target_size_max;       /* --max-target; at most head_size_max after check */
    int64_t line_size_max;         /* --max-header-line; at most head_size_max after check */
    int headers_max;               /* --max-headers */
    int64_t body_size_max;         /* --limit-post; 0: no limit */
    int64_t body_buffer_size;      /* --post-buffering: read before the application is called */
    struct pn_string_list proxies; /* --forwarded-allow-ips: addresses and networks; "*": all */
};

struct pn_settings_websocket {
    int64_t message_size_max; /* --ws-max-size */
    int64_t ping_interval_ms; /* --ws-ping-interval; 0: no pings */
    int64_t ping_timeout_ms;  /* --ws-ping-timeout; 0: none */
    bool deflate;             /* --ws-per-message-deflate */
    bool context_takeover;    /* --ws-context-takeover */
    int window_bits;          /* --ws-window-bits: a power of two, in bytes */
};

struct pn_settings_redirect {
    bool disabled;               /* --no-redirect */
    struct pn_string_list leave; /* --no-redirect-lib: names of libraries */
};

/* What is done instead of serving. */
enum pn_settings_action {
    PN_ACTION_SERVE = 0,
    PN_ACTION_HELP = 1,
    PN_ACTION_HELP_ALL = 2,
    PN_ACTION_VERSION = 3,
};

struct pn_settings {
    struct pn_config *config; /* owned */
    enum pn_settings_action action;
    struct pn_settings_app app;
    struct pn_settings_asgi asgi;
    struct pn_settings_sockets sockets;
    struct pn_settings_carrier carrier;
    struct pn_settings_processes processes;
    struct pn_settings_log log;
    struct pn_settings_http http;
    struct pn_settings_websocket websocket;
    struct pn_settings_redirect redirect;
    /* Derived: sentences for the start of the log about settings that change nothing. */
    struct pn_string_list notes;
};

/* The one table of options. Constant; usable without any settings (help, JSON). */
const struct pn_option_table *pn_settings_table(void);

/* Everything as when no option is given. 0 or -ENOMEM. */
int pn_settings_init(struct pn_settings *settings) PN_MUST_CHECK;
/* ARGV without the program's name. Stops at the first error: 0, or negative with ERR filled (see
 * pn_config_parse). When .action is not PN_ACTION_SERVE afterwards, that was asked for and even an
 * error may be passed over. */
int pn_settings_parse(struct pn_settings *settings, int argc, char *const *argv,
                      struct pn_config_error *err) PN_MUST_CHECK;
/* Refuses what does not go together and fills in what is derived. Looks at nothing outside the
 * settings: files, users and addresses are for those who use them. 0, -EINVAL or -ENOMEM with ERR
 * filled. May be called again after more was set. */
int pn_settings_check(struct pn_settings *settings, struct pn_config_error *err) PN_MUST_CHECK;
/* With --interface auto, when the application was looked at: what it speaks. Checks again, since other carriers
 * are chosen then. As pn_settings_check. */
int pn_settings_set_interface(struct pn_settings *settings, enum pn_interface kind,
                              struct pn_config_error *err) PN_MUST_CHECK;
/* Also fine after a failed init. */
void pn_settings_fini(struct pn_settings *settings);

/* "inline", "threads", "fibers". */
const char *pn_settings_carrier_name(enum pn_carrier kind);
