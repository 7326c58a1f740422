/* SPDX-License-Identifier: Apache-2.0 */
/* Masking of WebSocket payloads (RFC 6455 5.3): octet i of a frame's payload is combined with octet
 * i mod 4 of its key. Masking and unmasking are the same. */
#pragma once

#include "base/defs.h"

/* Copies N bytes from FROM to TO, masked with KEY; FROM's first byte is octet OFFSET of the payload. The
 * two may be the same, but must not overlap otherwise. */
void pn_ws_mask_copy(char *to, const char *from, size_t n, const uint8_t key[4], uint64_t offset);
