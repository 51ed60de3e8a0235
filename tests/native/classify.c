/* classify.c: the classifier for Python. */
#include "dpdk_glue/classify.h"

static const char *native_drop_name(int drop)
{
    return classify_drop_name((enum classify_drop)drop);
}

static const char *native_drop_sentence(int drop)
{
    return classify_drop_sentence((enum classify_drop)drop);
}
