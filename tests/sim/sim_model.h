/* SPDX-License-Identifier: Apache-2.0 */
/* The model of HTTP/1.1: what a client must have got for its plans, written from the RFCs and from what
 * exchange.h promises, not from the wire. */
#pragma once

#include "sim/sim_world.h"

/* Judges C, whose connection is over: every byte that came, what is missing, what the request log said, and
 * when and how the connection ended. Fails with the first that is wrong. */
void sim_h1_judge(struct sim_conn *c);
