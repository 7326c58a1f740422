/* SPDX-License-Identifier: Apache-2.0 */
/* Names of uWSGI's that Pelton knows and doesn't serve. A configuration that comes from there must not
 * be half obeyed: each of them is refused by name, with what to do instead. A row goes when its
 * option is built. */
#include "main/option_rows.h"

const struct pn_option_refusal pn__option_refusals[] = {
    /* --- Application --- */
    {.names = "mount worker-mount manage-script-name ignore-script-name",
     .reason = "one application is served, at '/'; mount others inside it"},
    {.names = "vhost vhost-host",
     .reason = "one application is served for every host; run one server for each"},
    {.names = "chdir2", .reason = "call os.chdir() at the end of the application's module"},
    {.names = "env unenv envdir early-envdir",
     .reason = "set the environment before Pelton starts (env NAME=VALUE pelton ...)"},
    {.names = "pyargv", .reason = "the application sees sys.argv as Python made it"},
    {.names = "import pyimport py-import python-import shared-import shared-pyimport "
              "shared-py-import shared-python-import pymodule-alias post-pymodule-alias eval",
     .reason = "import what is needed in the application's module"},
    {.names = "paste paste-logger ini-paste ini-paste-logged",
     .reason = "load it in a module: application = paste.deploy.loadapp('config:...')"},
    {.names = "web3 pump wsgi-lite pyshell pyshell-oneshot python py pyrun python-version test "
              "reload-os-env start_response-nodelay",
     .letters = "J",
     .never = true,
     .reason = "Pelton serves WSGI applications"},
    {.names = "optimize",
     .letters = "O",
     .reason = "set PYTHONOPTIMIZE in the environment, or run python -O -m pelton"},
    {.names = "no-site", .reason = "run python -S -m pelton"},
    {.names = "py-tracebacker",
     .reason = "py-spy dump --pid shows every thread and parked request"},
    {.names = "py-autoreload py-auto-reload python-autoreload python-auto-reload "
              "py-auto-reload-ignore",
     .reason = "restart the server, or let watchfiles or entr do it"},
    {.names = "disable-gc numa-fork",
     .reason = "call gc.disable() or gc.freeze() in the application's module"},
    {.names = "catch-exceptions",
     .reason = "tracebacks go to the log; use the framework's debug page to see them in a browser"},
    {.names = "reload-on-exception reload-on-exception-type reload-on-exception-value "
              "reload-on-exception-repr exception-handler",
     .reason = "an exception is a 500 with its traceback in the log, and the worker goes on"},
    {.names = "py-programname py-program-name binary-path mode max-apps max-vars cgi-mode",
     .letters = "vc",
     .never = true,
     .reason = "it names something that Pelton has not"},

    /* --- Sockets --- */
    {.names = "socket uwsgi-socket",
     .letters = "s",
     .reason = "the uwsgi protocol; use --http-socket ADDRESS (in nginx, proxy_pass in place of "
               "uwsgi_pass)"},
    {.names = "http httprouter",
     .never = true,
     .reason = "the workers speak HTTP themselves, with keep-alive: use --http-socket ADDRESS"},
    {.names = "https https2 https-socket https-export-cert https-session-context http-to-https",
     .reason = "TLS; put a proxy that speaks it in front of --http-socket"},
    {.names = "ssl-* sni sni-dir sni-dir-ciphers sni-regexp",
     .reason = "TLS; put a proxy that speaks it in front of --http-socket"},
    {.names = "protocol socket-protocol fastcgi-* scgi-* raw-* zeromq* zmq* puwsgi-* suwsgi-* udp",
     .reason = "HTTP is the only protocol: use --http-socket ADDRESS"},
    {.names = "http-to http-processes http-workers http-modifier1 http-modifier2 "
              "http-connect-timeout http-var http-events http-use-* http-fallback http-gracetime "
              "http-cheap http-stats http-stats-server http-ss http-harakiri http-uid http-gid "
              "http-resubscribe http-buffer-size http-subscription-* http-zerg http-quiet "
              "http-stud-prefix http-server-name-as-http-host http-manage-* http-backend-* "
              "http-socket-modifier1 http-socket-modifier2",
     .never = true,
     .reason = "there is no router process between the client and the workers"},
    {.names = "http-auto-gzip", .reason = "let a proxy in front compress answers"},
    {.names = "websocket-* websockets-*",
     .never = true,
     .reason = "--ws-max-size, --ws-ping-interval and --ws-ping-timeout say it"},
    {.names = "http-raw-body", .never = true, .reason = "there is no router process"},
    {.names = "http-enable-proxy-protocol enable-proxy-protocol",
     .reason = "let the proxy send X-Forwarded-For and name it by --forwarded-allow-ips"},
    {.names = "chunked-input-limit chunked-input-timeout",
     .never = true,
     .reason = "use --limit-post and --body-timeout"},
    {.names = "post-buffering-bufsize body-read-warning upload-progress",
     .never = true,
     .reason = "bodies are read as they come; --post-buffering says how much before the "
               "application is called"},
    {.names = "umask", .reason = "use --chmod-socket, or set it before Pelton starts"},
    {.names = "add-header rem-header del-header collect-header response-header-collect",
     .reason = "set headers in the application or in the proxy in front"},
    {.names = "so-keepalive socket-sndbuf socket-rcvbuf tcp-fast-open tcp-fastopen "
              "tcp-fast-open-client tcp-fastopen-client freebind abstract-socket",
     .letters = "a",
     .reason = "sockets have the system's defaults (abstract unix sockets: --http-socket @NAME)"},
    {.names = "shared-socket undeferred-shared-socket map-socket",
     .reason = "all workers share all sockets; an inherited one is --http-socket fd://N"},

    /* --- Life cycle --- */
    {.names = "harakiri harakiri-* no-harakiri-* user-harakiri mule-harakiri cron-harakiri "
              "mule-harakiri-* backtrace-depth",
     .letters = "t",
     .reason = "requests have no deadline of their own; --queue-timeout bounds how long they wait "
               "for their turn and --shutdown-timeout how long they may go on at the end"},
    {.names = "max-requests max-requests-delta max-worker-lifetime max-worker-lifetime-delta "
              "min-worker-lifetime",
     .letters = "R",
     .reason = "workers are not recycled"},
    {.names = "reload-on-rss evil-reload-on-rss reload-on-as evil-reload-on-as reload-on-fd "
              "brutal-reload-on-fd never-swap",
     .reason = "workers are not recycled; bound memory from outside (systemd MemoryMax=)"},
    {.names = "limit-as limit-nproc rlimit",
     .reason = "set limits from outside (ulimit, systemd LimitAS= and LimitNPROC=)"},
    {.names = "exit-on-reload reload auto-snapshot mule-reload-mercy spooler-reload-mercy",
     .reason = "there is no reload: stop the server and start it again"},
    {.names = "touch-* fs-* propagate-touch",
     .reason = "there is no reload: stop the server and start it again"},
    {.names = "master-fifo stop pause suspend resume signal connect-and-read",
     .reason = "SIGTERM or SIGINT stops the server, a second one at once"},
    {.names = "cheap cheaper cheaper-* idle die-on-idle vassal-sos-backlog",
     .reason = "the number of workers is --processes, always"},
    {.names = "no-orphans reaper check-interval forkbomb-delay no-threads-wait skip-atexit "
              "skip-zero honour-stdin",
     .letters = "r",
     .reason = "the manager has no such setting; --respawn-delay tells when workers come back"},
    {.names = "hook-* exec-* call-* mount-* umount-* wait-for-* wait-interface* wait-iface*",
     .reason = "run commands before and after Pelton (systemd ExecStartPre=, ExecStopPost=)"},

    /* --- Identity and naming --- */
    {.names = "gid add-gid no-initgroups immediate-gid",
     .typos = "guid gui group",
     .reason = "start Pelton as that group (systemd Group=, sg)"},
    {.names = "uid immediate-uid drop-after-init drop-after-apps master-as-root",
     .typos = "user",
     .reason = "start Pelton as that user (systemd User=, runuser -u NAME -- pelton ...)"},
    {.names = "chroot pivot-root pivot_root cap namespace namespace-* ns ns-net unshare cgroup "
              "cgroup-* refork* re-fork* jail* jid*",
     .reason = "jail Pelton from outside (systemd, a container, unshare)"},
    {.names = "auto-procname procname procname-*", .reason = "processes keep the program's name"},
    {.names = "pidfile pidfile2 safe-pidfile safe-pidfile2 pid",
     .reason = "systemd and containers need none; a shell has it in $!"},
    {.names = "daemonize daemonize2",
     .letters = "d",
     .typos = "daemon",
     .reason = "run Pelton under systemd or in a container, or put '&' behind it; --logto FILE "
               "keeps what it says"},
    {.names = "flock flock-wait flock2 flock-wait2 file-write",
     .reason = "use flock(1) around Pelton"},

    /* --- Logging and figures --- */
    {.names = "log-maxsize log-backupname log-truncate log-reopen logfile-chmod logfile-chown",
     .reason = "the log is one growing file; logrotate with copytruncate can cut it"},
    {.names = "logger req-logger logger-req log-route log-req-route log-encoder log-req-encoder "
              "log-drain log-filter log-syslog log-socket log-zeromq threaded-logger "
              "log-master-bufsize log-master-stream log-master-req-stream logger-list loggers-list",
     .reason = "the log goes to --logto FILE, or to stderr where others can take it (systemd-cat)"},
    {.names = "log-format logformat log-format-strftime logformat-strftime log-date logdate "
              "log-prefix log-micros log-x-forwarded-for",
     .reason = "lines have one format; --forwarded-allow-ips makes the client's address known"},
    {.names = "log-4xx log-5xx log-slow log-big log-zero log-sendfile log-ioerror",
     .reason = "every request is logged, or with --disable-logging none"},
    {.names = "memory-report", .letters = "m", .reason = "ps and /proc/PID/smaps_rollup tell"},
    {.names = "stats stats-* enable-metrics metric metric-* metrics-* carbon carbon-* statsd "
              "snmp snmp-*",
     .reason = "there is no server of figures"},
    {.names = "alarm alarm-* alarms-list log-alarm not-log-alarm not-alarm-log segfault-alarm",
     .reason = "watch the log from outside"},

    /* --- Static files, routing, caches --- */
    {.names = "static-* check-static check-static-docroot mimefile mime-file file-serve-mode "
              "fileserve-mode honour-range disable-sendfile",
     .reason =
         "serve files by the proxy in front, or in the application (wsgi.file_wrapper is sent "
         "by sendfile; WhiteNoise)"},
    {.names = "offload-threads offload-thread",
     .reason = "with --async or --threads a slow reader holds no other request up"},
    {.names = "route route-* final-route final-route-* error-route error-route-* response-route "
              "response-route-* router-list routers-list",
     .reason = "route in the application or in the proxy in front"},
    {.names = "cache cache2 cache-* add-cache-item load-file-in-cache* check-cache queue "
              "queue-blocksize queue-store queue-store-sync sharedarea",
     .letters = "A",
     .reason = "keep shared data in Redis, memcached or a database"},
    {.names = "locks lock-engine ftok persistent-ipcsem",
     .reason = "use multiprocessing.Lock, made before the workers are forked"},

    /* --- Background work --- */
    {.names = "attach-* smart-attach-* daemons-honour-stdin worker-exec worker-exec2",
     .reason = "run other programs beside Pelton (systemd, a container each)"},
    {.names = "cron cron2 unique-cron cron-* unique-cron-*",
     .reason = "use cron or a systemd timer"},
    {.names = "mule mules farm mule-msg-size spooler spooler-* rpc rpc-max signal-bufsize "
              "signals-bufsize",
     .letters = "Q",
     .reason = "use a task queue beside the server (Celery, RQ, Dramatiq)"},

    /* --- Other ways to be asynchronous --- */
    {.names = "gevent gevent-*",
     .never = true,
     .reason = "nothing has to be patched: --async N lets ordinary blocking code wait in fibers"},
    {.names = "loop loop-list loops-list",
     .never = true,
     .reason = "use --asyncio N for asyncio, --async N for plain waiting"},

    /* --- Configuration files and fleets --- */
    {.names = "ini xml xmlconfig json js yaml yml config inherit include fallback-config",
     .letters = "xyj",
     .reason = "give the options on the command line"},
    {.names = "set set-placeholder set-ph get declare-option show-config dump-options print for "
              "for-* endfor end-for if-* ifenv ifexists ifplugin ifdir endif end-if blacklist "
              "end-blacklist whitelist end-whitelist print-sym print-symbol extract",
     .letters = "S",
     .reason = "there are no configuration files yet; give the options on the command line"},
    {.names = "autoload plugins-list plugin-list dlopen allowed-modifiers remap-modifier cflags "
              "dot-h no-server command-mode force-gateway",
     .never = true,
     .reason = "there are no plugins to load"},
    {.names = "emperor emperor-* early-emperor imperial-* vassal-* vassals-* heartbeat",
     .reason = "run one Pelton for each application (systemd template units)"},
    {.names = "zerg zerg-* fork-server fork-server-* legion legion-* unique-legion-*",
     .reason = "run several servers behind one proxy"},
    {.names = "subscribe subscribe-* subscribe2 subscription-* subscriptions-* st "
              "unsubscribe-on-graceful-reload fastrouter fastrouter-* weight auto-weight multicast "
              "multicast-*",
     .reason = "name the servers in the proxy's configuration"},

    /* --- System --- */
    {.names = "ksm profiler use-abort clock clock-list clocks-list pcre-jit refresh no-fd-passing "
              "safe-fd fd-safe force-cwd binsh",
     .reason = "Pelton has no such setting"},
    {.names = "prio", .reason = "use nice, or systemd Nice="},
    {.names = "max-fd",
     .never = true,
     .reason = "the limit is raised to the hard one by itself (ulimit -Hn shows it)"},
    {.names = "thread-stacksize threads-stacksize thread-stack-size threads-stack-size",
     .reason = "threads have the system's stack size (ulimit -s)"},
    {.names = NULL},
};
