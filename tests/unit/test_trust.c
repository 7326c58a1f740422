/* SPDX-License-Identifier: Apache-2.0 */
/* --forwarded-allow-ips: which peers are believed. */
#include "main/trust.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "base/defs.h"
#include "test_base.h"

static int init(struct pn__trust *trust, const char **items, size_t count, char *message)
{
    struct pn_string_list list = {items, count, count};
    struct pn_config_error err = {""};
    int rc = pn__trust_init(trust, &list, &err);
    if (message)
        strcpy(message, err.text);
    return rc;
}

static bool has(const struct pn__trust *trust, const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return pn__trust_has(trust, (struct sockaddr *)&v4, sizeof v4);
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return pn__trust_has(trust, (struct sockaddr *)&v6, sizeof v6);
}

static bool has_unix(const struct pn__trust *trust)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    bool named = pn__trust_has(trust, (struct sockaddr *)&address, sizeof address);
    assert_true(named == pn__trust_has(trust, NULL, 0));
    return named;
}

static void nobody_by_default(void **state)
{
    (void)state;
    struct pn__trust trust;
    assert_int_equal(init(&trust, NULL, 0, NULL), 0);
    assert_false(has(&trust, "127.0.0.1"));
    assert_false(has(&trust, "::1"));
    assert_false(has_unix(&trust));
    pn__trust_fini(&trust);
}

static void networks_end_where_they_say(void **state)
{
    (void)state;
    const char *items[] = {"10.0.0.0/8", "192.0.2.128/25", "198.51.100.7", "2001:db8::/33"};
    struct pn__trust trust;
    assert_int_equal(init(&trust, items, PN_ARRAY_LEN(items), NULL), 0);
    assert_true(has(&trust, "10.255.255.255"));
    assert_false(has(&trust, "11.0.0.0"));
    assert_false(has(&trust, "9.255.255.255"));
    assert_true(has(&trust, "192.0.2.128"));
    assert_false(has(&trust, "192.0.2.127"));
    assert_true(has(&trust, "198.51.100.7"));
    assert_false(has(&trust, "198.51.100.6"));
    assert_true(has(&trust, "2001:db8:7fff:ffff::"));
    assert_false(has(&trust, "2001:db8:8000::"));
    assert_false(has_unix(&trust));
    pn__trust_fini(&trust);
}

/* A dual-stack listener sees IPv4 peers as ::ffff:a.b.c.d. */
static void mapped_addresses_are_ipv4(void **state)
{
    (void)state;
    const char *items[] = {"10.0.0.0/8", "::ffff:192.0.2.1"};
    struct pn__trust trust;
    assert_int_equal(init(&trust, items, PN_ARRAY_LEN(items), NULL), 0);
    assert_true(has(&trust, "::ffff:10.1.2.3"));
    assert_false(has(&trust, "::ffff:11.1.2.3"));
    assert_true(has(&trust, "192.0.2.1"));
    assert_false(has(&trust, "::10.1.2.3"));
    pn__trust_fini(&trust);
}

static void zero_bits_are_a_whole_family(void **state)
{
    (void)state;
    const char *items[] = {"0.0.0.0/0"};
    struct pn__trust trust;
    assert_int_equal(init(&trust, items, 1, NULL), 0);
    assert_true(has(&trust, "203.0.113.9"));
    assert_false(has(&trust, "2001:db8::1"));
    pn__trust_fini(&trust);
}

static void words(void **state)
{
    (void)state;
    const char *everybody[] = {"*"};
    const char *local[] = {"unix", "127.0.0.1"};
    struct pn__trust trust;
    assert_int_equal(init(&trust, everybody, 1, NULL), 0);
    assert_true(has(&trust, "203.0.113.9"));
    assert_true(has_unix(&trust));
    pn__trust_fini(&trust);
    assert_int_equal(init(&trust, local, 2, NULL), 0);
    assert_true(has_unix(&trust));
    assert_true(has(&trust, "127.0.0.1"));
    assert_false(has(&trust, "127.0.0.2"));
    pn__trust_fini(&trust);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "10.0.0.0/33",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "10.0.0.0/8x",
        "10.0.0",
        "localhost",
        "",
        "2001:db8::/129",
        "/8",
        "10.0.0.0/8/8",
        "Unix",
        "10.0.0.0 /8",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee/128",
    };
    for (size_t i = 0; i < PN_ARRAY_LEN(wrong); i++) {
        const char *items[] = {"127.0.0.1", wrong[i]};
        char message[sizeof((struct pn_config_error *)NULL)->text];
        struct pn__trust trust;
        assert_true(init(&trust, items, 2, message) < 0);
        assert_non_null(strstr(message, "--forwarded-allow-ips"));
        assert_null(trust.nets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_by_default),
        cmocka_unit_test(networks_end_where_they_say),
        cmocka_unit_test(mapped_addresses_are_ipv4),
        cmocka_unit_test(zero_bits_are_a_whole_family),
        cmocka_unit_test(words),
        cmocka_unit_test(mistakes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
