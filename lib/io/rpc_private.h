/* Between rpc.c and rpc_link.c. */
#pragma once

#include "io/rpc.h"

/* Makes the rpc tell this link (or none) of its ups and its end. */
void rpc_set_link(struct rpc *rpc, struct rpc_link *link);

/* Ends the rpc as if the connection had ended: pending requests and on_closed are told, within. */
void rpc_end_with(struct rpc *rpc, int error, const char *why);

/* From the rpc: the hello was accepted. */
void rpc_link_on_up(struct rpc_link *link);
/* From the rpc, which is dead: before its owner hears of it, who may free the link. */
void rpc_link_on_closed(struct rpc_link *link);
