/*
 * options.h: socket options, the flag string, and what the sysctls of Linux say.
 */
#ifndef PACKETDRILL_OPTIONS_H
#define PACKETDRILL_OPTIONS_H

#include "tests/packetdrill/sockets.h"

/* 0 or a negative errno; an option that would change what goes on the wire and cannot is refused. */
int option_set(struct sock *k, int level, int name, const void *value, socklen_t len);
/* What the socket's options make of the stack's settings. */
void option_settings(const struct sock *k, struct tcp_settings *settings);
int option_get(struct sock *k, int level, int name, void *value, socklen_t *len);

/* linux: as Linux chooses, sysctls included.  local=ADDRESS: of connect() without bind().  NAME=NUMBER: a field of struct tcp_config.
 * Separated by commas.  Null: none.  False, and a message on stderr: one is not understood. */
bool flags_read(const char *flags, struct host_settings *settings);

/* Settings that the sysctls under /proc/sys/net/ipv4 ask for. */
void sysctls_read(struct host_settings *settings);

#endif
