/* SPDX-License-Identifier: Apache-2.0 */
/* The client's hands on one connection: sends C->request in pieces at random times, takes what comes to
 * C->received, and makes the trouble that the plan has. Knows bytes only, no protocol. */
#pragma once

#include "sim/sim_world.h"

/* Opens C->link and lets the client begin when the loop runs; C->request is complete. */
void sim_client_open(struct sim_conn *c);
