/* SPDX-License-Identifier: Apache-2.0 */
/* Strings that requests share: interned keys of environ, keys of header names, recent values.
 *
 * Known header names have their key by id. Others, and values, stand in two small direct-mapped
 * caches: what comes later drives out what was there, so their memory is bounded whatever peers send.
 * The values of some headers only are kept: never those that carry a secret. All of it is used by the
 * loop's owner, attached. */
#include "gateway/internal.h"

static const char *const word_text[PN__W_COUNT] = {
    [PN__W_REQUEST_METHOD] = "REQUEST_METHOD",
    [PN__W_SCRIPT_NAME] = "SCRIPT_NAME",
    [PN__W_PATH_INFO] = "PATH_INFO",
    [PN__W_QUERY_STRING] = "QUERY_STRING",
    [PN__W_REQUEST_URI] = "REQUEST_URI",
    [PN__W_CONTENT_LENGTH] = "CONTENT_LENGTH",
    [PN__W_SERVER_NAME] = "SERVER_NAME",
    [PN__W_SERVER_PORT] = "SERVER_PORT",
    [PN__W_SERVER_PROTOCOL] = "SERVER_PROTOCOL",
    [PN__W_SERVER_SOFTWARE] = "SERVER_SOFTWARE",
    [PN__W_REMOTE_ADDR] = "REMOTE_ADDR",
    [PN__W_REMOTE_PORT] = "REMOTE_PORT",
    [PN__W_HTTP_HOST] = "HTTP_HOST",
    [PN__W_WSGI_VERSION] = "wsgi.version",
    [PN__W_URL_SCHEME] = "wsgi.url_scheme",
    [PN__W_INPUT] = "wsgi.input",
    [PN__W_INPUT_TERMINATED] = "wsgi.input_terminated",
    [PN__W_ERRORS] = "wsgi.errors",
    [PN__W_MULTITHREAD] = "wsgi.multithread",
    [PN__W_MULTIPROCESS] = "wsgi.multiprocess",
    [PN__W_RUN_ONCE] = "wsgi.run_once",
    [PN__W_FILE_WRAPPER] = "wsgi.file_wrapper",
    [PN__W_UWSGI_VERSION] = "uwsgi.version",
    [PN__W_UWSGI_NODE] = "uwsgi.node",
    [PN__W_EMPTY] = "",
    [PN__W_SLASH] = "/",
    [PN__W_GET] = "GET",
    [PN__W_HTTP] = "http",
    [PN__W_HTTPS] = "https",
    [PN__W_HTTP_1_0] = "HTTP/1.0",
    [PN__W_HTTP_1_1] = "HTTP/1.1",
    [PN__W_HTTP_2] = "HTTP/2",
    [PN__W_ZERO] = "0",
    [PN__W_CLOSE] = "close",
    [PN__W_READ] = "read",
    [PN__W_TELL] = "tell",
    [PN__W_FILENO] = "fileno",
    [PN__W_FLUSH] = "flush",
    [PN__W_RAW] = "raw",
    [PN__W_FILE] = "file",
    [PN__W_STATUS] = "status",
    [PN__W_RESPONSE_HEADERS] = "response_headers",
    [PN__W_HEADERS] = "headers",
    [PN__W_EXC_INFO] = "exc_info",
    [PN__W_CODE] = "code",
};

const uint8_t pn__keep_value[PN_HEADER_COUNT] = {
    [PN_HEADER_HOST] = 1,
    [PN_HEADER_CONNECTION] = 1,
    [PN_HEADER_CONTENT_LENGTH] = 1,
    [PN_HEADER_TRANSFER_ENCODING] = 1,
    [PN_HEADER_EXPECT] = 1,
    [PN_HEADER_UPGRADE] = 1,
    [PN_HEADER_CONTENT_TYPE] = 1,
    [PN_HEADER_ACCEPT] = 1,
    [PN_HEADER_ACCEPT_CHARSET] = 1,
    [PN_HEADER_ACCEPT_ENCODING] = 1,
    [PN_HEADER_ACCEPT_LANGUAGE] = 1,
    [PN_HEADER_CACHE_CONTROL] = 1,
    [PN_HEADER_CONTENT_ENCODING] = 1,
    [PN_HEADER_DNT] = 1,
    [PN_HEADER_KEEP_ALIVE] = 1,
    [PN_HEADER_ORIGIN] = 1,
    [PN_HEADER_PRAGMA] = 1,
    [PN_HEADER_PRIORITY] = 1,
    [PN_HEADER_PROXY_CONNECTION] = 1,
    [PN_HEADER_SAVE_DATA] = 1,
    [PN_HEADER_SEC_CH_UA] = 1,
    [PN_HEADER_SEC_CH_UA_MOBILE] = 1,
    [PN_HEADER_SEC_CH_UA_PLATFORM] = 1,
    [PN_HEADER_SEC_FETCH_DEST] = 1,
    [PN_HEADER_SEC_FETCH_MODE] = 1,
    [PN_HEADER_SEC_FETCH_SITE] = 1,
    [PN_HEADER_SEC_FETCH_USER] = 1,
    [PN_HEADER_SEC_GPC] = 1,
    [PN_HEADER_TE] = 1,
    [PN_HEADER_UPGRADE_INSECURE_REQUESTS] = 1,
    [PN_HEADER_USER_AGENT] = 1,
    [PN_HEADER_VIA] = 1,
    [PN_HEADER_X_FORWARDED_HOST] = 1,
    [PN_HEADER_X_FORWARDED_PORT] = 1,
    [PN_HEADER_X_FORWARDED_PROTO] = 1,
    [PN_HEADER_X_REQUESTED_WITH] = 1,
};

/* HTTP_ and the name in capitals with '_' for '-': the CGI way (RFC 3875 4.1.18). */
static PyObject *key_of(struct pn_str name, bool plain)
{
    char small[128] = "";
    size_t n = name.n + (plain ? 0 : 5);
    char *text = n <= sizeof small ? small : pn_try_malloc(n);
    if (!text)
        return PyErr_NoMemory();
    char *o = text;
    if (!plain) {
        memcpy(o, "HTTP_", 5);
        o += 5;
    }
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        *o++ = c == '-' ? '_' : c;
    }
    PyObject *key = PyUnicode_DecodeLatin1(text, (Py_ssize_t)n, NULL);
    if (text != small)
        free(text);
    return key;
}

static int init_keys(struct pn_gateway *gw)
{
    for (unsigned id = PN_HEADER_UNUSUAL + 1; id < PN_HEADER_COUNT; id++) {
        /* Proxy: would become HTTP_PROXY, which programs take for a setting (CVE-2016-5388). */
        if (id == PN_HEADER_PROXY)
            continue;
        bool plain = id == PN_HEADER_CONTENT_TYPE || id == PN_HEADER_CONTENT_LENGTH;
        PyObject *key = key_of(pn_header_known_name((enum pn_header_id)id), plain);
        if (!key)
            return -1;
        PyUnicode_InternInPlace(&key);
        gw->keys[id] = key;
    }
    return 0;
}

int pn__names_init(struct pn_gateway *gw)
{
    for (unsigned i = 0; i < PN__W_COUNT; i++) {
        gw->words[i] = PyUnicode_InternFromString(word_text[i]);
        if (!gw->words[i])
            return -1;
    }
    return init_keys(gw);
}

void pn__names_fini(struct pn_gateway *gw)
{
    for (unsigned i = 0; i < PN__W_COUNT; i++)
        Py_CLEAR(gw->words[i]);
    for (unsigned i = 0; i < PN_HEADER_COUNT; i++)
        Py_CLEAR(gw->keys[i]);
    for (unsigned i = 0; i < PN__OTHER_NAMES; i++)
        Py_CLEAR(gw->other_names[i].key);
    for (unsigned i = 0; i < PN__VALUES; i++) {
        Py_CLEAR(gw->values[i].str);
        gw->values[i].len = 0;
    }
}

PyObject *pn__other_key(struct pn_gateway *gw, struct pn_str name)
{
    struct pn__other_name *slot =
        &gw->other_names[pn__hash_bytes(name.p, name.n) & (PN__OTHER_NAMES - 1)];
    if (slot->key && slot->len == name.n && memcmp(slot->name, name.p, name.n) == 0)
        return Py_NewRef(slot->key);
    PyObject *key = key_of(name, false);
    if (!key || name.n > PN__OTHER_NAME_MAX)
        return key;
    memcpy(slot->name, name.p, name.n);
    slot->len = (uint8_t)name.n;
    Py_XSETREF(slot->key, Py_NewRef(key));
    return key;
}

PyObject *pn__value(struct pn_gateway *gw, unsigned id, struct pn_str value)
{
    if (!pn__keep_value[id] || value.n > PN__VALUE_MAX || value.n < 2)
        return pn__latin1(value);
    struct pn__value *slot = &gw->values[pn__hash_bytes(value.p, value.n) & (PN__VALUES - 1)];
    if (slot->len == value.n && memcmp(slot->data, value.p, value.n) == 0)
        return Py_NewRef(slot->str);
    PyObject *str = pn__latin1(value);
    if (!str)
        return NULL;
    Py_XSETREF(slot->str, Py_NewRef(str));
    slot->data = (const char *)PyUnicode_1BYTE_DATA(str);
    slot->len = value.n;
    return str;
}
