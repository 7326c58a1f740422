/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as people write them, and the sentence for each mistake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "net/listener.h"

static struct pn_address a;
static char err[256];

static void good(const char *text, enum pn_address_kind kind, const char *canonical)
{
    err[0] = '\0';
    int rc = pn_address_parse(text, &a, err, sizeof(err));
    if (rc != 0)
        print_error("%s: %s\n", text, err);
    assert_int_equal(rc, 0);
    assert_int_equal(a.kind, kind);
    assert_string_equal(a.text, canonical);
}

static void bad(const char *text, const char *part)
{
    assert_true(pn_address_parse(text, &a, err, sizeof(err)) < 0);
    assert_non_null(strstr(err, text));
    if (!strstr(err, part))
        print_error("%s: %s\n", text, err);
    assert_non_null(strstr(err, part));
}

static void inet(void **state)
{
    (void)state;
    good("127.0.0.1:8000", PN_ADDRESS_INET, "127.0.0.1:8000");
    const struct sockaddr_in *in = (const void *)&a.storage;
    assert_int_equal(in->sin_family, AF_INET);
    assert_int_equal(ntohs(in->sin_port), 8000);
    assert_int_equal(a.len, sizeof(*in));
    good(":9090", PN_ADDRESS_INET, "0.0.0.0:9090");
    good("*:9090", PN_ADDRESS_INET, "0.0.0.0:9090");
    good("9090", PN_ADDRESS_INET, "0.0.0.0:9090");
    good("127.0.0.1:0", PN_ADDRESS_INET, "127.0.0.1:0");
    good("0.0.0.0:65535", PN_ADDRESS_INET, "0.0.0.0:65535");
    good("[::1]:80", PN_ADDRESS_INET, "[::1]:80");
    good("[::]:80", PN_ADDRESS_INET, "[::]:80");
    good("[2001:DB8::0:1]:80", PN_ADDRESS_INET, "[2001:db8::1]:80");
    assert_int_equal(pn_address_parse("localhost:80", &a, err, sizeof(err)), 0);
}

static void local(void **state)
{
    (void)state;
    good("unix:/run/x.sock", PN_ADDRESS_UNIX, "unix:/run/x.sock");
    const struct sockaddr_un *un = (const void *)&a.storage;
    assert_string_equal(un->sun_path, "/run/x.sock");
    good("unix:x.sock", PN_ADDRESS_UNIX, "unix:x.sock");
    good("/run/x.sock", PN_ADDRESS_UNIX, "unix:/run/x.sock");
    good("./x:80", PN_ADDRESS_UNIX, "unix:./x:80");
    good("@name", PN_ADDRESS_ABSTRACT, "@name");
    assert_int_equal(un->sun_path[0], 0);
    assert_memory_equal(un->sun_path + 1, "name", 4);
    assert_int_equal(a.len, offsetof(struct sockaddr_un, sun_path) + 5);
    good("unix:@name", PN_ADDRESS_ABSTRACT, "@name");
    good("fd://3", PN_ADDRESS_FD, "fd://3");
    assert_int_equal(a.fd, 3);
    char path[120] = "/";
    memset(path + 1, 'a', 106); /* 107 in all: the most */
    assert_int_equal(pn_address_parse(path, &a, err, sizeof(err)), 0);
    strcat(path, "a");
    bad(path, "107");
}

static void mistakes(void **state)
{
    (void)state;
    bad("", "empty");
    bad("localhost", "HOST:PORT");
    bad("127.0.0.1:", "number");
    bad("127.0.0.1:65536", "65535");
    bad("127.0.0.1:+80", "number");
    bad("127.0.0.1:80x", "number");
    bad(":99999999999999999999", "number");
    bad("::1:80", "brackets");
    bad("[::1]", "[ADDRESS]:PORT");
    bad("[::1]80", "[ADDRESS]:PORT");
    bad("[]:80", "between the brackets");
    bad("[nonsense]:80", "no IPv6 address");
    bad("[127.0.0.1]:80", "no IPv6 address");
    bad("no such host:80", "not known");
    bad("unix:", "path");
    bad("@", "name");
    bad("fd://", "number");
    bad("fd://-1", "number");
    bad("fd://3x", "number");
}

static void a_small_error_buffer_is_enough(void **state)
{
    (void)state;
    char small[8];
    assert_true(pn_address_parse("nonsense", &a, small, sizeof(small)) < 0);
    assert_int_equal(strlen(small), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inet),
        cmocka_unit_test(local),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(a_small_error_buffer_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
