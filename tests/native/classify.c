/* classify.c: the classifier for Python. */
#include "dpdk_glue/classify.h"
#include "dpdk_glue/fragments.h"

#include <stdlib.h>

static struct fragments *native_fragments_new(void)
{
    return calloc(1, sizeof(struct fragments));
}

static void native_fragments_free(struct fragments *f)
{
    free(f);
}

/* Length of the whole frame, 0 when there is none yet, -1: it is no fragment. */
static int native_fragment(struct fragments *f, const uint8_t *frame, uint32_t len, uint32_t now_ms, uint8_t *whole)
{
    struct ether_frame ether;
    struct ip_packet ip;
    const uint8_t *done;
    uint32_t whole_len;

    if (ether_parse(frame, len, &ether) != ETHER_OK ||
        ip_parse(frame + ether.offset, len - ether.offset, &ip) != IP_FRAGMENT)
        return -1;
    done = fragments_add(f, frame, ether.offset, &ip, now_ms, &whole_len);
    if (done == NULL)
        return 0;
    memcpy(whole, done, whole_len);
    return (int)whole_len;
}

static const char *native_drop_name(int drop)
{
    return classify_drop_name((enum classify_drop)drop);
}

static const char *native_drop_sentence(int drop)
{
    return classify_drop_sentence((enum classify_drop)drop);
}
