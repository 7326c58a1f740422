/* SPDX-License-Identifier: Apache-2.0 */
/* What ASGI's and uWSGI's WebSockets share. */
#include "gateway/internal.h"
#include "http/ws_handshake.h"

/* As pn_ws_sha1: hashlib's, which is there in every build of Python. Inside. */
static int sha1(void *ctx PN_UNUSED, const void *data, size_t n, uint8_t digest[PN_WS_SHA1_SIZE])
{
    PyObject *module = PyImport_ImportModule("hashlib");
    PyObject *hash = module ? PyObject_CallMethod(module, "sha1", "y#", data, (Py_ssize_t)n) : NULL;
    PyObject *bytes = hash ? PyObject_CallMethod(hash, "digest", NULL) : NULL;
    bool good = bytes && PyBytes_Check(bytes) && PyBytes_GET_SIZE(bytes) == PN_WS_SHA1_SIZE;
    if (good)
        memcpy(digest, PyBytes_AS_STRING(bytes), PN_WS_SHA1_SIZE);
    else if (!PyErr_Occurred())
        PyErr_SetString(PyExc_RuntimeError, "hashlib.sha1 is not SHA-1");
    Py_XDECREF(module);
    Py_XDECREF(hash);
    Py_XDECREF(bytes);
    return good ? 0 : -1;
}

int pn__ws_accept(const char *key, char *accept)
{
    return pn_ws_accept(key, sha1, NULL, accept);
}
