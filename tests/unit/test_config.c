/* SPDX-License-Identifier: Apache-2.0 */
/* The option parser on a small table of its own: every type at its bounds, every way to write an
 * option, every message to the letter, and memory that runs out at each allocation. */
#include "config/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "config/help.h"
#include "config/suggest.h"
#include "test_base.h"

struct subject {
    bool flag;
    bool on;
    int count;
    int64_t seconds_ms;
    int64_t millis_ms;
    int64_t size;
    int mode;
    const char *text;
    const char *address;
    struct pn_string_list list;
    struct pn_string_list commas;
    int choice;
    int64_t set_number;
    const char *set_text;
    const char *positional[4];
    int positionals;
};

#define AT(field) offsetof(struct subject, field)

static int set_both(struct pn_config *config, const struct pn_option *option,
                    const struct pn_option_value *value, struct pn_config_error *err)
{
    struct subject *subject = pn_config_settings(config);
    if (value->number == 13)
        return pn_config_fail(err, "option '--%s': not that one", option->name);
    subject->set_number = value->number;
    subject->set_text = value->text;
    return 0;
}

static int add_positional(struct pn_config *config, const char *text, struct pn_config_error *err)
{
    struct subject *subject = pn_config_settings(config);
    if (subject->positionals == 4)
        return pn_config_fail(err, "too many");
    subject->positional[subject->positionals++] = text;
    return 0;
}

static const struct pn_option_choice colours[] = {{"red", 4}, {"green", 7}, {NULL, 0}};

static const struct pn_option rows[] = {
    {.name = "flag", .letter = 'f', .type = PN_OPTION_FLAG, .offset = AT(flag), .help = "A flag."},
    {.name = "on",
     .letter = 'o',
     .type = PN_OPTION_FLAG,
     .flags = PN_OPTION_NEGATABLE,
     .offset = AT(on),
     .preset = true,
     .help = "Starts as true."},
    {.name = "count",
     .aliases = "number num",
     .typos = "amount",
     .letter = 'c',
     .type = PN_OPTION_INT,
     .offset = AT(count),
     .min = -5,
     .max = 100,
     .preset = 3,
     .metavar = "N",
     .help = "A number."},
    {.name = "seconds",
     .type = PN_OPTION_DURATION,
     .unit = PN_UNIT_SECONDS,
     .offset = AT(seconds_ms),
     .max = 7200 * 1000,
     .preset = 1500,
     .metavar = "SECONDS",
     .help = "A time."},
    {.name = "millis",
     .type = PN_OPTION_DURATION,
     .unit = PN_UNIT_MILLISECONDS,
     .flags = PN_OPTION_ADVANCED,
     .offset = AT(millis_ms),
     .min = 1,
     .max = 5000,
     .preset = 10,
     .metavar = "MS",
     .help = "A short time."},
    {.name = "size",
     .letter = 's',
     .type = PN_OPTION_SIZE,
     .offset = AT(size),
     .min = 512,
     .max = INT64_C(8) << 30,
     .preset = 65536,
     .metavar = "SIZE",
     .help = "A size."},
    {.name = "mode",
     .letter = 'm',
     .type = PN_OPTION_MODE,
     .flags = PN_OPTION_VALUE_OPTIONAL,
     .offset = AT(mode),
     .max = 0777,
     .preset = -1,
     .implied = "666",
     .metavar = "MODE",
     .help = "A mode."},
    {.name = "text",
     .letter = 't',
     .type = PN_OPTION_STRING,
     .offset = AT(text),
     .preset_text = "as it was",
     .metavar = "TEXT",
     .help = "A text."},
    {.name = "address",
     .type = PN_OPTION_ADDRESS,
     .offset = AT(address),
     .metavar = "ADDRESS",
     .help = "An address."},
    {.name = "list",
     .type = PN_OPTION_STRING_LIST,
     .offset = AT(list),
     .metavar = "ITEM",
     .help = "A list, and words enough that its sentence is broken into several lines of text."},
    {.name = "commas",
     .type = PN_OPTION_STRING_LIST,
     .flags = PN_OPTION_COMMAS,
     .offset = AT(commas),
     .metavar = "ITEM[,ITEM]",
     .help = "A list by commas."},
    {.name = "choice",
     .type = PN_OPTION_CHOICE,
     .choices = colours,
     .offset = AT(choice),
     .preset = 7,
     .metavar = "COLOUR",
     .help = "A choice."},
    {.name = "set-number",
     .type = PN_OPTION_INT,
     .set = set_both,
     .max = 50,
     .metavar = "N",
     .help = "A number with a setter."},
    {.name = "custom",
     .type = PN_OPTION_CUSTOM,
     .set = set_both,
     .metavar = "TEXT",
     .help = "Any text."},
    {.name = "nothing",
     .type = PN_OPTION_FLAG,
     .flags = PN_OPTION_ACCEPTED,
     .group = 1,
     .help = "Nothing is needed."},
    {.name = "nothing-much",
     .type = PN_OPTION_STRING,
     .flags = PN_OPTION_ACCEPTED,
     .group = 1,
     .metavar = "TEXT",
     .help = "Nothing is needed either."},
    {.name = "secret",
     .type = PN_OPTION_FLAG,
     .flags = PN_OPTION_HIDDEN,
     .offset = AT(flag),
     .help = "Not shown."},
};

static const struct pn_option_refusal refusals[] = {
    {.names = "later later-*", .letters = "Ll", .typos = "afterwards", .reason = "wait for it"},
    {.names = "never", .never = true, .reason = "go without"},
    {.names = NULL},
};

static const struct pn_option_group groups[] = {{"Things", NULL}, {"Accepted", "They do nothing."}};

static const struct pn_option_table table = {
    .program = "prog",
    .usage = "[OPTION ...]",
    .options = rows,
    .option_count = PN_ARRAY_LEN(rows),
    .refusals = refusals,
    .groups = groups,
    .group_count = PN_ARRAY_LEN(groups),
    .positional = add_positional,
};

enum { ARGS_MAX = 8 };

struct fixture {
    struct subject subject;
    struct pn_config *config;
    struct pn_config_error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_int_equal(pn_config_create(&f->config, &table, &f->subject), 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    pn_config_destroy(f->config);
    free(f);
    return 0;
}

/* Arguments up to a NULL. */
static int parse(struct fixture *f, const char *const *args)
{
    char *argv[ARGS_MAX] = {0};
    int argc = 0;
    for (; args[argc]; argc++) {
        assert_true(argc < ARGS_MAX);
        /* In a block of its own length, so that a byte too far is seen. */
        argv[argc] = strdup(args[argc]);
    }
    int rc = pn_config_parse(f->config, argc, argv, &f->err);
    while (argc > 0)
        free(argv[--argc]);
    return rc;
}

#define PARSE(f, ...) parse(f, (const char *const[]){__VA_ARGS__, NULL})

#define ASSERT_GOOD(f, ...)                     \
    do {                                        \
        int rc_ = PARSE(f, __VA_ARGS__);        \
        assert_string_equal((f)->err.text, ""); \
        assert_int_equal(rc_, 0);               \
    } while (0)

#define ASSERT_BAD(f, code, message, ...)            \
    do {                                             \
        int rc_ = PARSE(f, __VA_ARGS__);             \
        assert_string_equal((f)->err.text, message); \
        assert_int_equal(rc_, code);                 \
    } while (0)

static void presets_are_there_from_the_start(void **state)
{
    struct fixture *f = *state;
    const struct subject *s = &f->subject;
    assert_false(s->flag);
    assert_true(s->on);
    assert_int_equal(s->count, 3);
    assert_int_equal(s->seconds_ms, 1500);
    assert_int_equal(s->size, 65536);
    assert_int_equal(s->mode, -1);
    assert_string_equal(s->text, "as it was");
    assert_null(s->address);
    assert_int_equal(s->list.count, 0);
    assert_int_equal(s->choice, 7);
    assert_int_equal(pn_config_given(f->config, "count"), 0);
}

static void a_table_without_mistakes_passes_its_check(void **state)
{
    struct fixture *f = *state;
    int rc = pn_option_table_check(&table, &f->err);
    assert_string_equal(f->err.text, "");
    assert_int_equal(rc, 0);
}

static void check_finds(struct fixture *f, struct pn_option row, const char *message)
{
    struct pn_option two[2] = {rows[2], row};
    struct pn_option_table broken = table;
    broken.options = two;
    broken.option_count = 2;
    assert_int_equal(pn_option_table_check(&broken, &f->err), -EINVAL);
    assert_string_equal(f->err.text, message);
}

static void a_table_with_mistakes_does_not(void **state)
{
    struct fixture *f = *state;
    struct pn_option row = rows[5];
    row.name = "num";
    check_finds(f, row, "'num' stands there more than once");
    row = rows[5];
    row.aliases = "later";
    check_finds(f, row, "'later' stands there more than once");
    row = rows[5];
    row.letter = 'c';
    check_finds(f, row, "'-c' stands there more than once");
    row = rows[5];
    row.name = "Size";
    check_finds(f, row, "'Size' has a byte that no name has");
    row = rows[5];
    row.max = 1;
    check_finds(f, row, "'size' has an empty range");
    row = rows[5];
    row.max = 1024;
    check_finds(f, row, "'size' has the preset '64k', which is none of its values");
    row = rows[5];
    row.help = "";
    check_finds(f, row, "'size' has no help");
    row = rows[5];
    row.metavar = NULL;
    check_finds(f, row, "'size': a metavar goes with a value");
    row = rows[5];
    row.group = 2;
    check_finds(f, row, "'size' is in no group");
    row = rows[6];
    row.implied = "888";
    check_finds(f, row, "'mode' implies a bad value");
    row = rows[13];
    row.set = NULL;
    check_finds(f, row, "'custom' has no setter");
}

static void flags_take_no_value_or_a_truth(void **state)
{
    struct fixture *f = *state;
    static const char *const yes[] = {"--flag",     "--flag=true", "--flag=1",
                                      "--flag=yes", "--flag=ON",   "-f"};
    static const char *const no[] = {"--flag=false", "--flag=0", "--flag=no", "--flag=Off"};
    for (size_t i = 0; i < PN_ARRAY_LEN(yes); i++) {
        f->subject.flag = false;
        ASSERT_GOOD(f, yes[i]);
        assert_true(f->subject.flag);
    }
    for (size_t i = 0; i < PN_ARRAY_LEN(no); i++) {
        f->subject.flag = true;
        ASSERT_GOOD(f, no[i]);
        assert_false(f->subject.flag);
    }
    ASSERT_BAD(f, -EINVAL, "option '--flag': bad value 'maybe': expected true or false",
               "--flag=maybe");
    ASSERT_BAD(f, -EINVAL, "option '--flag': bad value '': expected true or false", "--flag=");
    /* Its value never is the next argument. */
    ASSERT_GOOD(f, "--flag", "false");
    assert_true(f->subject.flag);
    assert_string_equal(f->subject.positional[0], "false");
}

static void some_flags_are_switched_off_by_no(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "--no-on");
    assert_false(f->subject.on);
    assert_int_equal(pn_config_given(f->config, "on"), 1);
    ASSERT_GOOD(f, "--on");
    assert_true(f->subject.on);
    ASSERT_BAD(f, -EINVAL, "option '--no-on' takes no value", "--no-on=true");
    ASSERT_BAD(f, -EINVAL, "unknown option '--no-flag': 'prog --help-all' lists all that there are",
               "--no-flag");
}

static void numbers_have_a_range(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "--count=",    "--count=101", "--count=-6",  "--count= 1",  "--count=1 ",
        "--count=0x1", "--count=+1",  "--count=1.0", "--count=--1", "--count=99999999999999999999"};
    ASSERT_GOOD(f, "--count=100");
    assert_int_equal(f->subject.count, 100);
    ASSERT_GOOD(f, "--count", "-5");
    assert_int_equal(f->subject.count, -5);
    ASSERT_GOOD(f, "--num", "007");
    assert_int_equal(f->subject.count, 7);
    assert_int_equal(pn_config_given(f->config, "count"), 3);
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++)
        assert_int_equal(PARSE(f, bad[i]), -EINVAL);
    ASSERT_BAD(f, -EINVAL, "option '--number': bad value '101': expected a number from -5 to 100",
               "--number", "101");
    assert_int_equal(f->subject.count, 7);
}

static void check_number(struct fixture *f, const char *arg, const int64_t *field, int64_t wanted)
{
    ASSERT_GOOD(f, arg);
    assert_int_equal(*field, wanted);
}

static void durations_are_kept_in_milliseconds(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"--seconds=1.",
                                      "--seconds=.5",
                                      "--seconds=-1",
                                      "--seconds=1e3",
                                      "--seconds=inf",
                                      "--seconds=1 s",
                                      "--seconds=2h1m",
                                      "--seconds=1.0000001",
                                      "--seconds=7201",
                                      "--seconds=7200.001",
                                      "--seconds=9223372036854775807h",
                                      "--seconds=9223372036854775"};
    const int64_t *s = &f->subject.seconds_ms;
    check_number(f, "--seconds=0", s, 0);
    check_number(f, "--seconds=30", s, 30000);
    check_number(f, "--seconds=0.5", s, 500);
    check_number(f, "--seconds=1.25s", s, 1250);
    check_number(f, "--seconds=250ms", s, 250);
    check_number(f, "--seconds=2m", s, 120000);
    check_number(f, "--seconds=2h", s, 7200000);
    /* What is not nothing never becomes nothing. */
    check_number(f, "--seconds=0.0001", s, 1);
    check_number(f, "--seconds=0.0", s, 0);
    check_number(f, "--millis=7", &f->subject.millis_ms, 7);
    check_number(f, "--millis=1s", &f->subject.millis_ms, 1000);
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++)
        assert_int_equal(PARSE(f, bad[i]), -EINVAL);
    ASSERT_BAD(f, -EINVAL,
               "option '--seconds': bad value '3h': expected a time from 0 to 7200 in seconds (or "
               "with ms, s, m or h after it)",
               "--seconds", "3h");
    ASSERT_BAD(f, -EINVAL,
               "option '--millis': bad value '0': expected a time from 1 to 5000 in milliseconds "
               "(or with ms, s, m or h after it)",
               "--millis", "0");
}

static void sizes_know_k_m_and_g(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "--size=k",   "--size=1kb", "--size=-1k", "--size=1.5m",
        "--size=511", "--size=9g",  "--size=1t",  "--size=99999999999999999g"};
    const int64_t *s = &f->subject.size;
    check_number(f, "--size=512", s, 512);
    check_number(f, "--size=4k", s, 4096);
    check_number(f, "--size=2M", s, 2 << 20);
    check_number(f, "--size=8g", s, INT64_C(8) << 30);
    for (size_t i = 0; i < PN_ARRAY_LEN(bad); i++)
        assert_int_equal(PARSE(f, bad[i]), -EINVAL);
    ASSERT_BAD(f, -EINVAL,
               "option '-s': bad value '1': expected a size from 512 to 8g in bytes (or with k, m "
               "or g after it)",
               "-s1");
}

static void an_optional_value_needs_an_equals_sign(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "--mode", "600");
    assert_int_equal(f->subject.mode, 0666);
    assert_string_equal(f->subject.positional[0], "600");
    ASSERT_GOOD(f, "--mode=640");
    assert_int_equal(f->subject.mode, 0640);
    ASSERT_GOOD(f, "-m");
    assert_int_equal(f->subject.mode, 0666);
    ASSERT_GOOD(f, "-m600");
    assert_int_equal(f->subject.mode, 0600);
    ASSERT_BAD(f, -EINVAL, "option '--mode': bad value '8': expected an octal mode from 0 to 777",
               "--mode=8");
    ASSERT_BAD(f, -EINVAL,
               "option '--mode': bad value '1000': expected an octal mode from 0 to 777",
               "--mode=1000");
}

static void texts_are_copied(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "--text", "first", "-tsecond", "--text=a=b", "--address", "[::1]:80");
    assert_string_equal(f->subject.text, "a=b");
    assert_string_equal(f->subject.address, "[::1]:80");
    ASSERT_BAD(f, -EINVAL, "option '--text': bad value '': expected a text that is not empty",
               "--text=");
    ASSERT_BAD(f, -EINVAL,
               "option '--address': bad value 'a b': expected an address without spaces",
               "--address", "a b");
    ASSERT_BAD(f, -EINVAL,
               "option '--address': bad value 'a\\x0ab': expected an address without spaces",
               "--address", "a\nb");
    char longest[PN_CONFIG_ADDRESS_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(PARSE(f, "--address", longest), -EINVAL);
    longest[sizeof longest - 2] = '\0';
    ASSERT_GOOD(f, "--address", longest);
}

static void lists_grow_in_order(void **state)
{
    struct fixture *f = *state;
    const struct pn_string_list *list = &f->subject.list;
    const struct pn_string_list *commas = &f->subject.commas;
    ASSERT_GOOD(f, "--list", "a,b", "--list=c");
    for (int i = 0; i < 5; i++)
        ASSERT_GOOD(f, "--list=d");
    assert_int_equal(list->count, 7);
    assert_string_equal(list->items[0], "a,b");
    assert_string_equal(list->items[1], "c");
    assert_string_equal(list->items[6], "d");
    ASSERT_GOOD(f, "--commas", ",x,,yy,", "--commas=z");
    assert_int_equal(commas->count, 3);
    assert_string_equal(commas->items[0], "x");
    assert_string_equal(commas->items[1], "yy");
    assert_string_equal(commas->items[2], "z");
}

static void a_list_has_a_bound(void **state)
{
    struct fixture *f = *state;
    char many[2 * PN_CONFIG_LIST_MAX + 3];
    for (size_t i = 0; i + 1 < sizeof many; i += 2)
        memcpy(many + i, "x,", 2);
    many[2 * PN_CONFIG_LIST_MAX] = '\0';
    ASSERT_GOOD(f, "--commas", many);
    assert_int_equal(f->subject.commas.count, PN_CONFIG_LIST_MAX);
    ASSERT_BAD(f, -E2BIG, "option '--commas' has more than 4096 values", "--commas", "y");
}

static void choices_are_named(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "--choice", "red");
    assert_int_equal(f->subject.choice, 4);
    ASSERT_BAD(f, -EINVAL, "option '--choice': bad value 'blue': expected one of red, green",
               "--choice=blue");
}

static void setters_get_what_was_checked(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "--set-number", "12");
    assert_int_equal(f->subject.set_number, 12);
    assert_string_equal(f->subject.set_text, "12");
    ASSERT_BAD(f, -EINVAL, "option '--set-number': not that one", "--set-number=13");
    ASSERT_BAD(f, -EINVAL, "option '--set-number': bad value '51': expected a number from 0 to 50",
               "--set-number=51");
    ASSERT_GOOD(f, "--custom", "as you like");
    assert_string_equal(f->subject.set_text, "as you like");
}

static void letters_stand_together(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "-foc9");
    assert_true(f->subject.flag);
    assert_int_equal(f->subject.count, 9);
    ASSERT_GOOD(f, "-fc", "-1");
    assert_int_equal(f->subject.count, -1);
    ASSERT_BAD(f, -EINVAL, "unknown option '-x': 'prog --help-all' lists all that there are",
               "-fx");
    ASSERT_BAD(f, -EINVAL, "unknown option '-\\xc3': 'prog --help-all' lists all that there are",
               "-\xc3\xa4");
    ASSERT_BAD(f, -EINVAL, "option '-c' needs a value: a number from -5 to 100", "-fc");
}

static void other_arguments_are_the_callers(void **state)
{
    struct fixture *f = *state;
    ASSERT_GOOD(f, "one", "--flag", "-", "--", "--flag=maybe", "--");
    assert_int_equal(f->subject.positionals, 4);
    assert_string_equal(f->subject.positional[0], "one");
    assert_string_equal(f->subject.positional[1], "-");
    assert_string_equal(f->subject.positional[2], "--flag=maybe");
    assert_string_equal(f->subject.positional[3], "--");
    ASSERT_BAD(f, -EINVAL, "too many", "five");
    ASSERT_BAD(f, -EINVAL, "the argument '' is not expected here", "");
}

static void a_missing_value_is_named(void **state)
{
    struct fixture *f = *state;
    ASSERT_BAD(f, -EINVAL, "option '--count' needs a value: a number from -5 to 100", "--count");
    ASSERT_BAD(f, -EINVAL, "option '--text' needs a value: TEXT", "--text");
    ASSERT_BAD(f, -EINVAL,
               "option '--text' needs a value: TEXT; what follows is the option '--flag'", "--text",
               "--flag");
    ASSERT_GOOD(f, "--text=--flag");
    assert_string_equal(f->subject.text, "--flag");
}

static void unknown_options_have_a_nearest_known_one(void **state)
{
    struct fixture *f = *state;
    ASSERT_BAD(f, -EINVAL, "unknown option '--cuont': did you mean '--count'?", "--cuont=1");
    ASSERT_BAD(f, -EINVAL, "unknown option '--adress': did you mean '--address'?", "--adress");
    ASSERT_BAD(f, -EINVAL, "unknown option '--amount': did you mean '--count'?", "--amount");
    ASSERT_BAD(f, -EINVAL, "unknown option '--sec': did you mean '--seconds'?", "--sec");
    ASSERT_BAD(f, -EINVAL, "unknown option '--nevr': did you mean '--never'?", "--nevr");
    ASSERT_BAD(f, -EINVAL, "unknown option '--afterwards': did you mean '--later'?",
               "--afterwards");
    /* Hidden ones are not given away. */
    ASSERT_BAD(f, -EINVAL, "unknown option '--secrt': 'prog --help-all' lists all that there are",
               "--secrt");
    ASSERT_BAD(f, -EINVAL, "unknown option '--': 'prog --help-all' lists all that there are",
               "--=");
    ASSERT_BAD(f, -EINVAL,
               "unknown option '--a\\x1b[1m': 'prog --help-all' lists all that there are",
               "--a\x1b[1m");
}

static void a_very_long_name_is_cut(void **state)
{
    struct fixture *f = *state;
    char *arg = malloc(100002);
    assert_non_null(arg);
    memset(arg, 'x', 100001);
    arg[0] = arg[1] = '-';
    arg[100001] = '\0';
    assert_int_equal(PARSE(f, arg), -EINVAL);
    assert_true(strlen(f->err.text) < 200);
    assert_non_null(strstr(f->err.text, "xxx...'"));
    free(arg);
}

static void refused_names_say_why(void **state)
{
    struct fixture *f = *state;
    ASSERT_BAD(f, -ENOTSUP, "option '--later' is not built yet: wait for it", "--later", "3");
    ASSERT_BAD(f, -ENOTSUP, "option '--later-on' is not built yet: wait for it", "--later-on=3");
    ASSERT_BAD(f, -ENOTSUP, "option '-l' is not built yet: wait for it", "-fl");
    ASSERT_BAD(f, -ENOTSUP, "option '--never' is not supported: go without", "--never");
}

static void accepted_names_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct subject before = f->subject;
    ASSERT_GOOD(f, "--nothing", "--nothing=yes", "--nothing-much", "x");
    assert_memory_equal(&before, &f->subject, sizeof before);
    assert_int_equal(pn_config_given(f->config, "nothing"), 2);
    ASSERT_BAD(f, -EINVAL, "option '--nothing' cannot be switched off: Nothing is needed.",
               "--nothing=false");
    ASSERT_BAD(f, -EINVAL, "option '--nothing-much' needs a value: TEXT", "--nothing-much");
}

static void single_options_are_set_by_name(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(pn_config_set(f->config, "count", "5", &f->err), 0);
    assert_int_equal(pn_config_set(f->config, "flag", NULL, &f->err), 0);
    assert_int_equal(pn_config_set(f->config, "no-on", NULL, &f->err), 0);
    assert_int_equal(f->subject.count, 5);
    assert_true(f->subject.flag);
    assert_false(f->subject.on);
    assert_int_equal(pn_config_set(f->config, "text", NULL, &f->err), -EINVAL);
    assert_string_equal(f->err.text, "option '--text' needs a value: TEXT");
    assert_int_equal(pn_config_set(f->config, "later", "x", &f->err), -ENOTSUP);
}

static void check_distance(const char *a, const char *b, unsigned wanted)
{
    assert_int_equal(pn__suggest_distance(pn_str_of(a), pn_str_of(b), 3), wanted);
    assert_int_equal(pn__suggest_distance(pn_str_of(b), pn_str_of(a), 3), wanted);
}

static void distances_count_edits_and_swaps(void **state)
{
    (void)state;
    check_distance("", "", 0);
    check_distance("", "abc", 3);
    check_distance("threads", "threads", 0);
    check_distance("thread", "threads", 1);
    check_distance("htreads", "threads", 1);
    check_distance("proceses", "processes", 1);
    check_distance("abcdef", "badcfe", 3);
    check_distance("abcd", "wxyz", 4);
    check_distance("abcdefgh", "abc", 4);
    check_distance("xxxxxxxxxxab", "xxxxxxxxxxba", 1);
}

/* Every allocation in turn fails: the error comes back, and nothing leaks (ASan watches). */
static void memory_may_run_out_anywhere(void **state)
{
    static const char *const args[] = {"--text",   "t", "--commas", "a,b,c,d,e",
                                       "--custom", "c", "p"};
    char big[1200];
    (void)state;
    memset(big, 'b', sizeof big);
    big[sizeof big - 1] = '\0';
    for (unsigned long nth = 1;; nth++) {
        struct subject subject = {0};
        struct pn_config *config = NULL;
        struct pn_config_error err = {""};
        pn_mem_fail_at(nth, false);
        int rc = pn_config_create(&config, &table, &subject);
        for (int round = 0; rc == 0 && round < 3; round++) {
            char *argv[8];
            for (size_t i = 0; i < PN_ARRAY_LEN(args); i++)
                argv[i] = strdup(args[i]);
            argv[7] = strdup(big);
            rc = pn_config_parse(config, round ? 8 : 7, argv, &err);
            for (size_t i = 0; i < 8; i++)
                free(argv[i]);
            subject.positionals = 0;
        }
        pn_config_destroy(config);
        unsigned long calls = pn_mem_fail_at(0, false);
        if (rc == 0) {
            assert_true(calls < nth);
            assert_true(nth > 3);
            return;
        }
        assert_int_equal(rc, -ENOMEM);
        assert_true(!config || strcmp(err.text, "no memory for the options") == 0);
    }
}

static char *printed(void (*print)(const struct pn_option_table *, bool, FILE *), bool all)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    print(&table, all, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

static void help_is_made_from_the_table(void **state)
{
    (void)state;
    char *brief = printed(pn_option_print_help, false);
    assert_non_null(strstr(brief, "usage: prog [OPTION ...]\n\nThings\n  -f, --flag  "));
    assert_non_null(strstr(brief, "  -c, --count N               A number. [3]\n"));
    assert_non_null(strstr(brief, "      --seconds SECONDS       A time. [1500ms]\n"));
    assert_non_null(strstr(brief, "  -m, --mode[=MODE]           A mode.\n"));
    assert_non_null(strstr(brief, "  -o, --on                    Starts as true. [true]\n"));
    assert_non_null(strstr(brief, "      --choice COLOUR         A choice. [green]\n"));
    assert_null(strstr(brief, "millis"));
    assert_null(strstr(brief, "nothing"));
    assert_null(strstr(brief, "later"));
    for (char *line = strtok(brief, "\n"); line; line = strtok(NULL, "\n"))
        assert_true(strlen(line) <= 80);
    free(brief);
    char *full = printed(pn_option_print_help, true);
    assert_non_null(strstr(full, "A number. [3] Also: --number, --num\n"));
    assert_non_null(strstr(full, "      --millis MS             A short time. [10]\n"));
    assert_non_null(strstr(full, "Accepted\nThey do nothing.\n"));
    assert_non_null(strstr(full, "  later later-*\n      not built yet: wait for it\n"));
    assert_non_null(strstr(full, "  never\n      not supported: go without\n"));
    assert_null(strstr(full, "secret"));
    free(full);
}

static void print_json(const struct pn_option_table *t, bool all, FILE *out)
{
    (void)all;
    pn_option_print_json(t, out);
}

static void the_table_is_printed_as_json(void **state)
{
    (void)state;
    char *text = printed(print_json, true);
    assert_non_null(strstr(text, "{\"program\": \"prog\", \"usage\": \"[OPTION ...]\", "));
    assert_non_null(strstr(text, "{\"name\": \"count\", \"letter\": \"c\", \"aliases\": "
                                 "[\"number\", \"num\"], \"type\": \"int\", \"metavar\": \"N\", "
                                 "\"expects\": \"a number from -5 to 100\", \"preset\": \"3\", "));
    assert_non_null(strstr(text, "{\"names\": [\"never\"], \"letters\": null, "
                                 "\"reason\": \"go without\", \"never\": true}"));
    assert_null(strstr(text, "secret"));
    free(text);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(presets_are_there_from_the_start),
        CASE(a_table_without_mistakes_passes_its_check),
        CASE(a_table_with_mistakes_does_not),
        CASE(flags_take_no_value_or_a_truth),
        CASE(some_flags_are_switched_off_by_no),
        CASE(numbers_have_a_range),
        CASE(durations_are_kept_in_milliseconds),
        CASE(sizes_know_k_m_and_g),
        CASE(an_optional_value_needs_an_equals_sign),
        CASE(texts_are_copied),
        CASE(lists_grow_in_order),
        CASE(a_list_has_a_bound),
        CASE(choices_are_named),
        CASE(setters_get_what_was_checked),
        CASE(letters_stand_together),
        CASE(other_arguments_are_the_callers),
        CASE(a_missing_value_is_named),
        CASE(unknown_options_have_a_nearest_known_one),
        CASE(a_very_long_name_is_cut),
        CASE(refused_names_say_why),
        CASE(accepted_names_change_nothing),
        CASE(single_options_are_set_by_name),
        CASE(distances_count_edits_and_swaps),
        CASE(memory_may_run_out_anywhere),
        CASE(help_is_made_from_the_table),
        CASE(the_table_is_printed_as_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
