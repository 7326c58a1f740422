/* SPDX-License-Identifier: Apache-2.0 */
/* Request heads that are refused, each a test with the name of who fell to it (CVE or tracker number)
 * or of the rule that it breaks. */
#include "http/h1_parse.h"

#include "h1_check.h"

struct refused {
    const char *name;
    int err;
    int status;
    const char *text;
    size_t len; /* 0: strlen */
};

#define GET11  "GET / HTTP/1.1\r\nHost: a\r\n"
#define POST11 "POST / HTTP/1.1\r\nHost: a\r\n"
#define R(name, err, status, text)                          \
    {                                                       \
        name, PN_H1_E_##err, status, text, sizeof(text) - 1 \
    }

static struct refused refused[] = {
    /* Body framing, security.md. */
    R("gunicorn CVE-2024-1135: conflicting Transfer-Encoding lines", CODING_REPEATED, 400,
      POST11 "Transfer-Encoding: identity, chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R("gunicorn CVE-2024-1135: Transfer-Encoding twice", CODING_REPEATED, 400,
      POST11 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R("gunicorn CVE-2024-6827: unknown coding and Content-Length", LENGTH_AND_CODING, 400,
      POST11 "Transfer-Encoding: foo, chunked\r\nContent-Length: 4\r\n\r\n"),
    R("gunicorn CVE-2024-6827: unknown coding alone", CODING, 400,
      POST11 "Transfer-Encoding: foo\r\n\r\n"),
    R("gunicorn SNYK-541164: Content-Length and chunked", LENGTH_AND_CODING, 400,
      POST11 "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R("gunicorn SNYK-541164: chunked and Content-Length", LENGTH_AND_CODING, 400,
      POST11 "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"),
    R("gunicorn 3091: name with a0 behind it", NAME, 400,
      POST11 "Transfer-Encoding\xa0: chunked\r\n\r\n"),
    R("gunicorn 3091: name with 85 behind it", NAME, 400,
      POST11 "Transfer-Encoding\x85: chunked\r\n\r\n"),
    R("gunicorn 3364: 0b before chunked", VALUE_CONTROL, 400,
      POST11 "Transfer-Encoding: \x0b"
             "chunked\r\n\r\n"),
    R("gunicorn 3364: 0c behind chunked", VALUE_CONTROL, 400,
      POST11 "Transfer-Encoding: chunked\x0c\r\n\r\n"),
    R("gunicorn 3364: 1c behind chunked", VALUE_CONTROL, 400,
      POST11 "Transfer-Encoding: chunked\x1c\r\n\r\n"),
    R("gunicorn 3364: 85 behind chunked", CODING, 400,
      POST11 "Transfer-Encoding: chunked\x85\r\n\r\n"),
    R("gunicorn 3364: a0 before chunked", CODING, 400,
      POST11 "Transfer-Encoding: \xa0"
             "chunked\r\n\r\n"),
    R("gunicorn 26.0: Content-Length list", LENGTH, 400, POST11 "Content-Length: 5, 5\r\n\r\n"),
    R("gunicorn 26.0: control character in a value", VALUE_CONTROL, 400,
      GET11 "A: b\x01"
            "c\r\n\r\n"),
    R("gunicorn 26.0: NUL in a value", VALUE_CONTROL, 400, GET11 "A: b\0c\r\n\r\n"),
    R("gunicorn 26.0: DEL in a value", VALUE_CONTROL, 400, GET11 "A: b\x7f\r\n\r\n"),
    R("gunicorn 26.0: authority-form outside CONNECT", TARGET_FORM, 400,
      "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("gunicorn 26.0: asterisk-form outside OPTIONS", TARGET_ASTERISK, 400,
      "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("gunicorn 26.0: relative target", TARGET_FORM, 400, "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("gunicorn 26.1: Host twice", HOST_REPEATED, 400, GET11 "Host: a\r\n\r\n"),
    R("gunicorn 26.1: Host twice, unlike", HOST_REPEATED, 400, GET11 "hOST: b\r\n\r\n"),
    R("gunicorn 26.1: Content-Type twice", TYPE_REPEATED, 400,
      POST11 "Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n"),
    R("waitress CVE-2019-16785: bare LF behind the request line", BARE_LF, 400,
      "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    R("waitress CVE-2019-16785: bare LF behind a header", BARE_LF, 400,
      "GET / HTTP/1.1\r\nHost: a\nContent-Length: 3\r\n\r\n"),
    R("waitress CVE-2019-16785: bare LF as the empty line", BARE_LF, 400, GET11 "\n"),
    R("waitress CVE-2019-16785: only bare LF", BARE_LF, 400, "GET / HTTP/1.1\nHost: a\n\n"),
    R("waitress CVE-2019-16786: coding not exactly chunked", CODING, 400,
      POST11 "Transfer-Encoding: xchunked\r\n\r\n"),
    R("waitress CVE-2019-16786: identity", CODING, 400,
      POST11 "Transfer-Encoding: identity\r\n\r\n"),
    R("waitress CVE-2019-16786: empty", CODING, 400, POST11 "Transfer-Encoding:\r\n\r\n"),
    R("waitress CVE-2019-16786: quoted", CODING, 400,
      POST11 "Transfer-Encoding: \"chunked\"\r\n\r\n"),
    R("waitress CVE-2019-16786: with a parameter", CODING, 400,
      POST11 "Transfer-Encoding: chunked;a=b\r\n\r\n"),
    R("waitress CVE-2019-16786: empty element", CODING, 400,
      POST11 "Transfer-Encoding: , chunked\r\n\r\n"),
    R("waitress CVE-2019-16786: empty element behind", CODING, 400,
      POST11 "Transfer-Encoding: chunked,\r\n\r\n"),
    R("waitress CVE-2019-16786: chunked not last", CODING, 400,
      POST11 "Transfer-Encoding: chunked, gzip\r\n\r\n"),
    R("waitress CVE-2019-16786: chunked in chunked", CODING, 400,
      POST11 "Transfer-Encoding: chunked, chunked\r\n\r\n"),
    R("RFC 9112 6.1: unknown coding under chunked", CODING_UNKNOWN, 501,
      POST11 "Transfer-Encoding: gzip, chunked\r\n\r\n"),
    R("RFC 9112 6.1: coding in HTTP/1.0", CODING_IN_1_0, 400,
      "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R("waitress CVE-2019-16789: tab before chunked", CODING, 400,
      POST11 "Transfer-Encoding:\tchunked\r\n\r\n"),
    R("waitress CVE-2019-16789: tab behind chunked", CODING, 400,
      POST11 "Transfer-Encoding: chunked \t\r\n\r\n"),
    R("waitress CVE-2019-16792: Content-Length twice", LENGTH_REPEATED, 400,
      POST11 "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    R("waitress CVE-2019-16792: Content-Length twice, unlike", LENGTH_REPEATED, 400,
      POST11 "Content-Length: 0\r\ncontent-length: 5\r\n\r\n"),
    R("waitress CVE-2022-24761: Content-Length +10", LENGTH, 400,
      POST11 "Content-Length: +10\r\n\r\n"),
    R("waitress CVE-2022-24761: Content-Length 0x10", LENGTH, 400,
      POST11 "Content-Length: 0x10\r\n\r\n"),
    R("Content-Length -1", LENGTH, 400, POST11 "Content-Length: -1\r\n\r\n"),
    R("Content-Length 1_0", LENGTH, 400, POST11 "Content-Length: 1_0\r\n\r\n"),
    R("Content-Length 1 0", LENGTH, 400, POST11 "Content-Length: 1 0\r\n\r\n"),
    R("Content-Length with a tab", LENGTH, 400, POST11 "Content-Length:\t1\r\n\r\n"),
    R("Content-Length empty", LENGTH, 400, POST11 "Content-Length: \r\n\r\n"),
    R("Content-Length 2^63", LENGTH, 400, POST11 "Content-Length: 9223372036854775808\r\n\r\n"),
    R("Content-Length 2^64 + 1", LENGTH, 400,
      POST11 "Content-Length: 18446744073709551617\r\n\r\n"),
    R("Content-Length with many zeros", LENGTH, 400,
      POST11 "Content-Length: 00000000000000000001\r\n\r\n"),
    R("Content-Length in arabic digits", LENGTH, 400, POST11 "Content-Length: \xd9\xa1\r\n\r\n"),
    R("hyper RUSTSEC-2021-0020: three codings", CODING, 400,
      POST11 "Transfer-Encoding: a\r\n, chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    R("hyper CVE-2021-32715: plus sign", LENGTH, 400, POST11 "Content-Length: +3\r\n\r\n"),
    R("llhttp CVE-2022-32213: coding folded", CODING, 400,
      POST11 "Transfer-Encoding:\r\n chunked\r\n\r\n"),
    R("llhttp CVE-2022-32214: CR before the next header", BARE_CR, 400,
      GET11 "A: b\rTransfer-Encoding: chunked\r\n\r\n"),
    R("llhttp CVE-2022-32215: coding folded with a comma", CODING, 400,
      POST11 "Transfer-Encoding: chunked,\r\n identity\r\n\r\n"),
    R("llhttp CVE-2022-35256: LF before the next header", BARE_LF, 400,
      GET11 "A: b\nTransfer-Encoding: chunked\r\n\r\n"),
    R("llhttp CVE-2023-30589: bare CR in a value", BARE_CR, 400, GET11 "A: b\rc: d\r\n\r\n"),
    R("llhttp CVE-2023-30589: bare CR as line end", BARE_CR, 400, GET11 "A: b\r\rc: d\r\n\r\n"),
    R("llhttp CVE-2024-27982: space before Content-Length", FOLD, 400,
      POST11 " Content-Length: 3\r\n\r\n"),
    R("llhttp CVE-2024-27982: space before the first header", FOLD, 400,
      "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    R("llhttp CVE-2025-23167: CR LF CR X", BARE_CR, 400, GET11 "\rX"),
    R("hypercorn 277: CONNECT", CONNECT, 501, "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("CONNECT with a path", CONNECT, 501, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    /* Lines. */
    R("obs-fold", FOLD, 400, GET11 "A: b\r\n c\r\n\r\n"),
    R("obs-fold with a tab", FOLD, 400, GET11 "A: b\r\n\tc\r\n\r\n"),
    R("space before the colon", NAME_SPACE, 400, GET11 "A : b\r\n\r\n"),
    R("tab before the colon", NAME_SPACE, 400, GET11 "A\t: b\r\n\r\n"),
    R("space in a name", NAME_SPACE, 400, GET11 "A B: c\r\n\r\n"),
    R("no colon", NAME, 400, GET11 "Abc\r\n\r\n"),
    R("no name", NAME_EMPTY, 400, GET11 ": b\r\n\r\n"),
    R("NUL in a name", NAME, 400, GET11 "A\0B: c\r\n\r\n"),
    R("control character in a name", NAME, 400, GET11 "A\x01: c\r\n\r\n"),
    R("separator in a name", NAME, 400, GET11 "A(b): c\r\n\r\n"),
    R("slash in a name", NAME, 400, GET11 "A/b: c\r\n\r\n"),
    R("bytes above 7f in a name", NAME, 400, GET11 "\xc3\xbc: c\r\n\r\n"),
    R("LF in a name", BARE_LF, 400, GET11 "A\nB: c\r\n\r\n"),
    R("CR before the colon", NAME, 400, GET11 "A\r: c\r\n\r\n"),
    R("CR CR LF as line end", BARE_CR, 400, GET11 "A: b\r\r\n\r\n"),
    R("CR CR LF as the end", BARE_CR, 400, GET11 "\r\r\n"),
    /* The request line. */
    R("no Host in 1.1", HOST_MISSING, 400, "GET / HTTP/1.1\r\nAccept: a\r\n\r\n"),
    R("no Host in 1.1 with an absolute target", HOST_MISSING, 400,
      "GET http://a/ HTTP/1.1\r\n\r\n"),
    R("Host invalid under an absolute target", HOST, 400,
      "GET http://a/ HTTP/1.1\r\nHost: b c\r\n\r\n"),
    R("absolute target without a host", TARGET_AUTHORITY, 400,
      "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("absolute target with a user", TARGET_AUTHORITY, 400,
      "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("absolute target with a bad port", TARGET_AUTHORITY, 400,
      "GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("absolute target of another scheme", TARGET_FORM, 400,
      "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("scheme without slashes", TARGET_FORM, 400, "GET http:a HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("asterisk and more", TARGET_FORM, 400, "OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("fragment", TARGET_FRAGMENT, 400, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("fragment behind the query", TARGET_FRAGMENT, 400, "GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("fragment in an absolute target", TARGET_FRAGMENT, 400,
      "GET http://a#c HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("control character in the target", TARGET_CONTROL, 400,
      "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("NUL in the target", TARGET_CONTROL, 400, "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("DEL in the target", TARGET_CONTROL, 400, "GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("tab behind the target", TARGET_CONTROL, 400, "GET /a\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    R("tab in the query", TARGET_CONTROL, 400, "GET /a?b\tc HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("escaped NUL in the path", TARGET_ESCAPE, 400, "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("escape that is none", TARGET_ESCAPE, 400, "GET /%4g HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("escape cut by the query", TARGET_ESCAPE, 400, "GET /%4?a HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("escape cut by the end", TARGET_ESCAPE, 400, "GET /% HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("HTTP/0.9", REQUEST_LINE, 400, "GET /\r\n\r\n"),
    R("two spaces before the target", REQUEST_LINE, 400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("two spaces behind the target", VERSION, 400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("space behind the version", VERSION, 400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    R("space in the target", VERSION, 400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("no target", REQUEST_LINE, 400, "GET \r\nHost: a\r\n\r\n"),
    R("no spaces", METHOD, 400, "GET/HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("space before the method", METHOD, 400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("method that is not a token", METHOD, 400, "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("long method", METHOD_SIZE, 501,
      "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("TLS on a plain port", METHOD, 400, "\x16\x03\x01\x02\x00\x01\x00\x01"),
    R("HTTP/2.0", VERSION_MAJOR, 505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    R("HTTP/2 preface", TARGET_ASTERISK, 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    R("HTTP/0.9 by name", VERSION_MAJOR, 505, "GET / HTTP/0.9\r\n\r\n"),
    R("http/1.1", VERSION, 400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    R("HTTP/1.10", VERSION, 400, "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    R("HTTP/11.1", VERSION, 400, "GET / HTTP/11.1\r\nHost: a\r\n\r\n"),
    R("HTTP/1", VERSION, 400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    R("HTTP/1,1", VERSION, 400, "GET / HTTP/1,1\r\nHost: a\r\n\r\n"),
    R("another protocol", VERSION, 400, "GET / ICAP/1.0\r\nHost: a\r\n\r\n"),
    R("CR in the version", BARE_CR, 400, "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    R("LF before the request line", BARE_LF, 400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("CR before the request line", BARE_CR, 400, "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    R("unknown expectation", EXPECT, 417, POST11 "Content-Length: 1\r\nExpect: tea\r\n\r\n"),
    R("unknown expectation in a list", EXPECT, 417,
      POST11 "Content-Length: 1\r\nExpect: 100-continue, tea\r\n\r\n"),
};

static void is_refused(void **state)
{
    const struct refused *r = *state;
    assert_int_equal(check_bytes(r->text, r->len), r->err);
    assert_int_equal(pn_h1_error_status(r->err), r->status);
    assert_true(pn_h1_error_reason(r->err).n > 0);
}

static int set_up(void **state)
{
    (void)state;
    pn_h1_limits_init(&limits);
    return 0;
}

int main(void)
{
    struct CMUnitTest tests[PN_ARRAY_LEN(refused)];
    for (size_t i = 0; i < PN_ARRAY_LEN(refused); i++)
        tests[i] = (struct CMUnitTest){
            .name = refused[i].name, .test_func = is_refused, .initial_state = &refused[i]};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
