/*
 * icmp.c: see icmp.h.
 *
 * Anybody can send such an error: it counts only when it quotes a sequence number in flight (RFC 5927 4.1), and ends a connection
 * only before that is synchronized (5.2): later it is a soft error, which names the reason when the timers give up.
 */
#include "tcp/icmp.h"

#include "tcp/input.h"
#include "tcp/listen.h"
#include "tcp/pmtu.h"
#include "wire/icmp.h"
#include "wire/ip.h"

#include <errno.h>

enum { ICMPV6_ADMIN_PROHIBITED = 1, ICMPV6_PORT = 4 };

/* RFC 1122 4.2.3.9, RFC 5461 2: the ones that will not go away by trying again. */
static bool is_hard(uint8_t version, const struct icmp_message *message)
{
    if (message->kind != ICMP_UNREACHABLE)
        return false;
    if (version == 4)
        return message->code == ICMPV4_PROTOCOL || message->code == ICMPV4_PORT;
    return message->code == ICMPV6_ADMIN_PROHIBITED || message->code == ICMPV6_PORT;
}

static bool is_error(const struct icmp_message *message)
{
    switch (message->kind) {
    case ICMP_UNREACHABLE:
    case ICMP_TOO_BIG:
    case ICMP_TIME_EXCEEDED:
    case ICMP_PARAMETER_PROBLEM:
        return true;
    default:
        return false;
    }
}

static enum tcp_drop apply(struct tcp_stack *s, struct tcb *t, uint8_t version, const struct icmp_message *message,
                           uint32_t seq)
{
    if (seq - t->snd_una >= t->snd_nxt - t->snd_una)
        return TCP_DROP_ICMP;
    if (message->kind == ICMP_TOO_BIG)
        return pmtu_too_big(s, t, seq, message->mtu);
    if (t->state == TCP_STATE_SYN_SENT && is_hard(version, message)) {
        s->counters.connections_failed++;
        tcb_end(s, t, ECONNREFUSED);
        return TCP_DROP_NONE;
    }
    t->flags |= TCB_UNREACHABLE;
    return TCP_DROP_NONE;
}

enum tcp_drop icmp_input(struct tcp_stack *s, const struct tcp_packet *packet, uint64_t now_us)
{
    const uint8_t *data = packet->ip;
    struct input in = {.now_us = now_us};
    struct icmp_message message;
    struct icmp_quote quote;
    struct ip_packet ip;
    uint32_t handle;

    if (ip_parse(data, packet->len, &ip) != IP_OK ||
        ip.protocol != (ip.version == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMPV6))
        return TCP_DROP_MALFORMED;
    switch (icmp_parse(&ip, data + ip.l4_offset, &message)) {
    case ICMP_OK:
        break;
    case ICMP_TRUNCATED:
        return TCP_DROP_MALFORMED;
    case ICMP_BAD_CHECKSUM:
        return TCP_DROP_CHECKSUM;
    }
    if (!is_error(&message) ||
        !icmp_quote_parse(ip.version, data + ip.l4_offset + ICMP_HEADER_LEN, message.body_len, &quote) ||
        quote.protocol != IP_PROTOCOL_TCP || !ip_addr_equal(&quote.flow.laddr, &ip.dst))
        return TCP_DROP_ICMP;
    while (in.laddr_index < s->address_count && !ip_addr_equal(&s->addresses[in.laddr_index], &ip.dst))
        in.laddr_index++;
    if (in.laddr_index == s->address_count)
        return TCP_DROP_NOT_LOCAL;
    in.flow = quote.flow;
    in.hash = packet->has_hash ? packet->hash : csb_table_hash(csb_hash(&s->config.flow_secret, &in.flow));
    handle = input_find(s, &in);
    if (handle == TABLE_NONE || handle_kind(handle) == HANDLE_TIME_WAIT)
        return TCP_DROP_NO_CONNECTION;
    s->counters.icmp_errors++;
    if (handle_kind(handle) == HANDLE_HALF_OPEN) /* a soft one: SYN-ACK goes again as long as it would */
        return is_hard(ip.version, &message) ? half_open_refused(s, handle_index(handle), quote.seq) : TCP_DROP_NONE;
    return apply(s, stack_tcb(s, handle_index(handle)), ip.version, &message, quote.seq);
}
