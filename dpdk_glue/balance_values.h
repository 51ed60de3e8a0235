/*
 * balance_values.h: plans, drafts and views as sealed shared memory.
 */
#ifndef DPDK_GLUE_BALANCE_VALUES_H
#define DPDK_GLUE_BALANCE_VALUES_H

#include "dpdk_glue/balance.h"

void balance_value_free(struct balance_value *v);
/* Plan, draft, next view and lists, if there are any. */
void balance_forget_attempt(struct balance *b);

#endif
