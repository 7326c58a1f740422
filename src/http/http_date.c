/* SPDX-License-Identifier: Apache-2.0 */
/* Body of http_date.h: days to a calendar date by arithmetic on years that begin in March. */
#include "http/http_date.h"

#include <string.h>

/* 9999-12-31 23:59:59 */
#define LAST_SEC INT64_C(253402300799)

static void put2(char *out, unsigned value)
{
    out[0] = (char)('0' + value / 10);
    out[1] = (char)('0' + value % 10);
}

void pn_http_date_format(int64_t unix_sec, char out[PN_HTTP_DATE_LEN])
{
    static const char weekdays[] = "ThuFriSatSunMonTueWed"; /* 1970-01-01 was a Thursday */
    static const char months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";

    int64_t clamped = unix_sec < 0 ? 0 : unix_sec > LAST_SEC ? LAST_SEC : unix_sec;
    unsigned days = (unsigned)(clamped / 86400);
    unsigned sec = (unsigned)(clamped % 86400);

    /* Days since 0000-03-01, so that the leap day is the last of its year; 146097 days are 400 years. */
    unsigned z = days + 719468;
    unsigned era = z / 146097;
    unsigned doe = z % 146097;
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned month = (5 * doy + 2) / 153; /* 0 is March */
    unsigned day = doy - (153 * month + 2) / 5 + 1;
    unsigned year = yoe + era * 400 + (month >= 10);

    memcpy(out, "Xxx, dd Mmm yyyy hh:mm:ss GMT", PN_HTTP_DATE_LEN);
    memcpy(out, weekdays + days % 7 * 3, 3);
    put2(out + 5, day);
    memcpy(out + 8, months + (size_t)month * 3, 3);
    put2(out + 12, year / 100);
    put2(out + 14, year % 100);
    put2(out + 17, sec / 3600);
    put2(out + 20, sec / 60 % 60);
    put2(out + 23, sec % 60);
}
