/*
 * pmtu.c: see pmtu.h.
 */
#include "tcp/pmtu.h"

#include "tcp/rtxq.h"
#include "tcp/sack.h"
#include "tcp/seq.h"

enum { TIMESTAMPS_BYTES = 12, BLACK_HOLE_TIMEOUTS = 3, FLOOR_TIMEOUTS = 5, PROBE_TRIES = 2, BEHIND_PROBE = 3 };

/* Bytes of a full segment's packet beside its payload. */
static uint32_t overhead(const struct tcb *t)
{
    return stack_header_len(&t->raddr) + (t->flags & TCB_TIMESTAMPS ? TIMESTAMPS_BYTES : 0);
}

static uint32_t floor_of(const struct tcb *t)
{
    return ip_addr_is_ipv4(&t->raddr) ? PMTU_FLOOR_IPV4 : PMTU_FLOOR_IPV6;
}

/* RFC 1191 7: the next likely MTU below that of a packet that was too big, from a router that does not tell. */
static uint32_t plateau_below(uint32_t len)
{
    static const uint16_t plateaus[] = {1492, 1006, PMTU_FLOOR_IPV4};

    for (uint32_t i = 0; i < sizeof plateaus / sizeof *plateaus; i++)
        if (plateaus[i] < len)
            return plateaus[i];
    return PMTU_FLOOR_IPV4;
}

/* The sent slot that seq lies in. */
static const struct tx_slot *find(const struct tcp_stack *s, const struct tcb_ext *e, uint32_t seq)
{
    for (uint32_t slot = e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next)
        if (seq - s->tx[slot].seq < s->tx[slot].len)
            return &s->tx[slot];
    return NULL;
}

static void shrink(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e, uint32_t smss)
{
    if (e->pmtu_former == 0)
        e->pmtu_former = t->smss;
    t->smss = (uint16_t)smss;
    t->flags &= ~(uint32_t)TCB_FULL_ACKED;
    e->pmtu_claim = e->pmtu_probe = 0;
    s->counters.pmtu_reductions++;
    for (uint32_t slot = e->tx_first; slot != e->tx_unsent; slot = s->tx[slot].next)
        if (s->tx[slot].len > smss && !(s->tx[slot].flags & (TX_SACKED | TX_LOST)))
            sack_repeat(s, e, slot);
    tcb_owe(s, t, OWE_DATA);
}

/* A router has told: nothing to search for now. */
static void wait(const struct tcp_stack *s, struct tcb_ext *e, uint32_t high)
{
    uint32_t until_ms = stack_now_ms(s->now_us) + PMTU_WAIT_MS;

    e->pmtu_high = (uint16_t)high;
    e->pmtu_halve = false;
    e->pmtu_tries = 0;
    e->pmtu_wait_ms = until_ms != 0 ? until_ms : 1;
}

enum tcp_drop pmtu_too_big(struct tcp_stack *s, struct tcb *t, uint32_t seq, uint32_t mtu)
{
    struct tcb_ext *e = stack_ext(s, t);
    const struct tx_slot *m = e != NULL ? find(s, e, seq) : NULL;
    uint32_t smss;

    if (m == NULL || e->pmtu_claim != 0)
        return TCP_DROP_ICMP;
    if (mtu == 0)
        mtu = plateau_below(m->len + overhead(t));
    mtu = mtu > floor_of(t) ? mtu : floor_of(t);
    smss = mtu - overhead(t);
    if (m->len <= smss || (m->flags & TX_SACKED))
        return TCP_DROP_ICMP;
    if (e->pmtu_probe != 0 && m->seq == e->pmtu_probe_seq && smss >= t->smss) { /* the answer to the search */
        if (smss >= (uint32_t)t->smss + PMTU_GRAIN_BYTES)
            e->pmtu_high = (uint16_t)smss;
        else
            wait(s, e, e->pmtu_high);
        return TCP_DROP_NONE;
    }
    if (smss >= t->smss)
        return TCP_DROP_ICMP;
    if (t->flags & TCB_FULL_ACKED) {
        e->pmtu_claim = (uint16_t)smss;
        e->pmtu_claim_seq = m->seq;
    } else {
        wait(s, e, t->smss);
        shrink(s, t, e, smss);
    }
    return TCP_DROP_NONE;
}

static void probe_failed(struct tcb_ext *e)
{
    if (++e->pmtu_tries >= PROBE_TRIES) {
        e->pmtu_tries = 0;
        e->pmtu_high = (uint16_t)(e->pmtu_probe - 1);
        e->pmtu_halve = true;
    }
    e->pmtu_probe = 0;
}

bool pmtu_on_rto(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    uint32_t base = PMTU_BASE_BYTES, floor = floor_of(t) - overhead(t);
    const struct tx_slot *first = e->tx_first != e->tx_unsent ? &s->tx[e->tx_first] : NULL;

    if (e->pmtu_probe != 0)
        probe_failed(e);
    if (first == NULL)
        return false;
    if (e->pmtu_claim != 0) {
        uint32_t claim = e->pmtu_claim;

        e->pmtu_claim = 0;
        if (seq_leq(first->seq, e->pmtu_claim_seq)) { /* it has not come through since */
            wait(s, e, t->smss);
            shrink(s, t, e, claim);
            return true;
        }
    }
    base = base > floor ? base : floor;
    if (t->backoff == FLOOR_TIMEOUTS)
        base = floor;
    else if (t->backoff != BLACK_HOLE_TIMEOUTS)
        return false;
    if (t->smss <= base || first->len <= base)
        return false;
    e->pmtu_high = e->pmtu_high > t->smss ? e->pmtu_high : t->smss;
    e->pmtu_halve = false;
    e->pmtu_tries = 0;
    e->pmtu_wait_ms = 0;
    shrink(s, t, e, base);
    return true;
}

void pmtu_on_ack(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    if (seq_lt(t->snd_una, e->pmtu_probe_seq + e->pmtu_probe))
        return;
    s->counters.pmtu_raises++;
    t->smss = e->pmtu_probe;
    if (t->smss >= e->pmtu_former)
        e->pmtu_former = 0;
    t->flags &= ~(uint32_t)TCB_FULL_ACKED;
    t->cc.cwnd = t->cc.cwnd > t->smss ? t->cc.cwnd : t->smss;
    e->pmtu_probe = e->pmtu_tries = 0;
}

bool pmtu_is_probe_loss(const struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    const struct tx_slot *m = e->pmtu_probe != 0 ? find(s, e, e->pmtu_probe_seq) : NULL;

    if (m == NULL || !(m->flags & TX_LOST))
        return false;
    probe_failed(e);
    return e->lost_bytes == m->len && !(t->flags & (TCB_RECOVERY | TCB_LOSS));
}

bool pmtu_fits(struct tcp_stack *s, const struct tcb *t, struct tcb_ext *e, uint32_t slot)
{
    const struct tx_slot *m = &s->tx[slot];

    if (e->pmtu_probe != 0 && m->seq == e->pmtu_probe_seq) {
        if (!(m->flags & TX_SENT))
            return true;
        probe_failed(e); /* an ACK of its pieces must not count for it */
    }
    return rtxq_split(s, e, slot, t->smss);
}

/* The first is the size that worked once: a blackout looks like a black hole. */
static uint32_t next_size(const struct tcb *t, const struct tcb_ext *e)
{
    return e->pmtu_halve ? t->smss + (e->pmtu_high - t->smss + 1u) / 2 : e->pmtu_high;
}

void pmtu_probe(struct tcp_stack *s, struct tcb *t, struct tcb_ext *e)
{
    const struct tx_slot *m = &s->tx[e->tx_unsent];
    uint32_t size = next_size(t, e);
    /* What follows shows soon that a probe was lost.  The first, which most likely comes through, need not wait for a window
     * that has room for more. */
    uint32_t end = size + (e->pmtu_halve ? BEHIND_PROBE * (uint32_t)t->smss : 0);

    if (e->pmtu_wait_ms != 0 && !stack_is_due(e->pmtu_wait_ms, s->now_us))
        return;
    e->pmtu_wait_ms = 0;
    if (e->pmtu_high < t->smss + PMTU_GRAIN_BYTES) {
        if (e->pmtu_probe == 0 && e->pmtu_former >= t->smss + PMTU_GRAIN_BYTES)
            wait(s, e, e->pmtu_former);
        else if (e->pmtu_probe == 0)
            e->pmtu_high = e->pmtu_former = 0;
        return;
    }
    if (e->pmtu_probe != 0 || (t->flags & (TCB_RECOVERY | TCB_LOSS)) || e->sacked_bytes != 0 || e->lost_bytes != 0 ||
        e->tx_end - m->seq < end || m->offset + size > TCP_SLOT_BYTES || rtxq_pipe(t, e) + end > t->cc.cwnd ||
        !seq_leq(m->seq + end, t->snd_una + t->snd_wnd))
        return;
    if (m->len > size && !rtxq_split(s, e, e->tx_unsent, size))
        return;
    rtxq_join(s, e, size);
    e->pmtu_probe = (uint16_t)size;
    e->pmtu_probe_seq = m->seq;
    s->counters.pmtu_probes++;
}

static struct pmtu_note *note_of(struct tcp_stack *s, const struct tcb *t)
{
    return &s->pmtu_notes[stack_index(s, t) % PMTU_NOTES];
}

void pmtu_note(struct tcp_stack *s, const struct tcb *t, const struct tcb_ext *e)
{
    struct pmtu_note *n = note_of(s, t);

    s->pmtu_noted += n->former == 0;
    *n = (struct pmtu_note){.raddr = t->raddr,
                            .rport = t->rport,
                            .lport = t->lport,
                            .former = e->pmtu_former,
                            .high = e->pmtu_high,
                            .wait_ms = e->pmtu_wait_ms,
                            .halve = e->pmtu_halve};
}

void pmtu_recall(struct tcp_stack *s, const struct tcb *t, struct tcb_ext *e)
{
    struct pmtu_note *n = note_of(s, t);

    if (n->former == 0 || n->rport != t->rport || n->lport != t->lport || !ip_addr_equal(&n->raddr, &t->raddr))
        return;
    e->pmtu_former = n->former;
    e->pmtu_high = n->high;
    e->pmtu_halve = n->halve;
    e->pmtu_wait_ms = n->wait_ms;
    n->former = 0;
    s->pmtu_noted--;
}
