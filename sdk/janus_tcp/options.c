/*
 * options.c: what a connection can be told, and what it knows of itself.
 */
#include "janus_tcp/face.h"

#include <arpa/inet.h>
#include <errno.h>

PyObject *options_set_nodelay(PyObject *self, PyObject *on)
{
    struct connection *c = (struct connection *)self;
    int truth = PyObject_IsTrue(on);

    if (truth < 0 || connection_usable(c, true) < 0)
        return NULL;
    thread_set_nodelay(c->loop->thread, c->conn, truth);
    Py_RETURN_NONE;
}

PyObject *options_set_keepalive(PyObject *self, PyObject *seconds)
{
    struct connection *c = (struct connection *)self;
    double s = seconds == Py_None ? 0 : PyFloat_AsDouble(seconds);

    if ((s == -1.0 && PyErr_Occurred()) || connection_usable(c, true) < 0)
        return NULL;
    if (!(s >= 0 && s <= 4e6))
        return PyErr_Format(PyExc_ValueError, "set_keepalive() takes 0 to 4000000 seconds, or None");
    thread_set_keepalive(c->loop->thread, c->conn, (uint32_t)(s * 1000));
    Py_RETURN_NONE;
}

PyObject *options_set_user_timeout(PyObject *self, PyObject *seconds)
{
    struct connection *c = (struct connection *)self;
    double s = seconds == Py_None ? 0 : PyFloat_AsDouble(seconds);
    struct tcp_settings settings;

    if ((s == -1.0 && PyErr_Occurred()) || connection_usable(c, true) < 0)
        return NULL;
    if (!(s >= 0 && s <= 2e6))
        return PyErr_Format(PyExc_ValueError, "set_user_timeout() takes 0 to 2000000 seconds, or None");
    thread_get_settings(c->loop->thread, c->conn, &settings);
    settings.user_timeout_ms = (uint32_t)(s * 1000);
    if (thread_set_settings(c->loop->thread, c->conn, &settings) < 0)
        return face_raise_os(ENOSPC, "too many different settings of connections");
    Py_RETURN_NONE;
}

/* One of the settings that are a byte. */
static PyObject *set_byte(PyObject *self, PyObject *value, uint8_t *(*field)(struct tcp_settings *),
                          const char *refusal)
{
    struct connection *c = (struct connection *)self;
    long number = PyLong_AsLong(value);
    struct tcp_settings settings;
    int code;

    if ((number == -1 && PyErr_Occurred()) || connection_usable(c, true) < 0)
        return NULL;
    thread_get_settings(c->loop->thread, c->conn, &settings);
    *field(&settings) = (uint8_t)number;
    code = number < 0 || number > UINT8_MAX ? -EINVAL : thread_set_settings(c->loop->thread, c->conn, &settings);
    if (code == -EINVAL)
        return PyErr_Format(PyExc_ValueError, "%s", refusal);
    if (code < 0)
        return face_raise_os(ENOSPC, "too many different settings of connections");
    Py_RETURN_NONE;
}

static uint8_t *dscp_of(struct tcp_settings *settings)
{
    return &settings->dscp;
}

static uint8_t *ttl_of(struct tcp_settings *settings)
{
    return &settings->ttl;
}

PyObject *options_set_dscp(PyObject *self, PyObject *value)
{
    return set_byte(self, value, dscp_of, "set_dscp() takes 0 to 63");
}

PyObject *options_set_ttl(PyObject *self, PyObject *value)
{
    return set_byte(self, value, ttl_of, "set_ttl() takes 1 to 255");
}

PyObject *options_info(PyObject *self, PyObject *unused)
{
    struct connection *c = (struct connection *)self;
    struct tcp_settings settings;
    struct tcp_info i;

    (void)unused;
    if (c->task.flags & CONNECTION_CLOSED)
        return face_raise_os(ENOTCONN, "the connection was closed on this side");
    if (!loop_is_here(c->loop))
        return NULL;
    thread_info(c->loop->thread, c->conn, &i);
    thread_get_settings(c->loop->thread, c->conn, &settings);
    return Py_BuildValue("{sIsIsIsIsIsIsIsIsIsIsIsIsIsIsIsIsBsBsOsOsOsO}", "state", i.state, "srtt_us", i.srtt_us,
                         "rttvar_us", i.rttvar_us, "rto_us", i.rto_us, "cwnd_bytes", i.cwnd_bytes, "ssthresh_bytes",
                         i.ssthresh_bytes, "send_window_bytes", i.snd_wnd, "recv_window_bytes", i.rcv_wnd, "smss",
                         i.smss, "flight_bytes", i.flight_bytes, "unsent_bytes", i.unsent_bytes, "unread_bytes",
                         i.unread_bytes, "timeouts", i.timeouts, "retransmits", i.retransmits, "stalled_ms",
                         i.stalled_ms, "urgent_bytes", i.urgent_bytes, "dscp", settings.dscp, "ttl", settings.ttl,
                         "stalled", i.stalled ? Py_True : Py_False, "sack", i.sack ? Py_True : Py_False, "timestamps",
                         i.timestamps ? Py_True : Py_False, "ecn", i.ecn ? Py_True : Py_False);
}

/* (host, port), an IPv4-mapped address in its dotted form. */
static PyObject *endpoint(const struct ip_addr *addr, uint16_t port)
{
    char text[INET6_ADDRSTRLEN];

    if (ip_addr_is_ipv4(addr))
        inet_ntop(AF_INET, addr->b + 12, text, sizeof text);
    else
        inet_ntop(AF_INET6, addr->b, text, sizeof text);
    return Py_BuildValue("(si)", text, port);
}

PyObject *options_name(PyObject *self, void *which)
{
    struct connection *c = (struct connection *)self;
    struct flow flow;

    if (c->task.flags & CONNECTION_CLOSED)
        return face_raise_os(ENOTCONN, "the connection was closed on this side");
    thread_flow(c->loop->thread, c->conn, &flow);
    return which ? endpoint(&flow.laddr, flow.lport) : endpoint(&flow.raddr, flow.rport);
}
